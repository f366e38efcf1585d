"""An agent that is killed in mid-loop goes on from its last tool result: no call and no tool twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_runs import crash
from engine_project import check_books, lines


@pytest.mark.parametrize(
    ("fault", "paid", "attempts"),
    [
        # the second model call is about to be reserved: one answer and one tool result are there
        ("call.reserve:before:2", 1, 3),
        # the third is: two answers and two tool results
        ("call.reserve:before:3", 2, 3),
        # the last answer is recorded, but not yet the task's result
        ("task.finish:before:1", 3, 3),
    ],
)
def test_a_killed_agent_goes_on(tmp_path: Path, fault: str, paid: int, attempts: int) -> None:
    folder = tmp_path / "project"
    found = crash(folder, f"sqlite:///{folder}/home/podium.db", "only_agent", fault)
    with found.podium:
        assert found.killed == -9
        assert found.ended == 0, found.errors
        assert found.run.output == "seven is written"
        assert len(found.paid) == paid
        calls = [(c.task, c.step, c.status) for c in found.run.calls]
        assert calls == [("worker", step, "settled") for step in range(3)]
        assert lines(folder / "number.log") == ["look"]
        assert lines(folder / "log") == ["seven"]
        # asked, approved and killed, gone on
        assert [a.status for a in found.run.attempts][-1] == "succeeded"
        assert found.run.tasks[0].record.attempts == attempts
        check_books(found.podium, found.run)
