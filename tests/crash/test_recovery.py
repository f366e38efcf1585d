"""SIGKILL in the middle of the work, then twice during the recovery from it; the third one ends the run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from crash_runs import make_project, start
from engine_project import check_books, lines
from podium import Podium, Settings

#: where the work is cut, and where the two recoveries are: the claim, or the first thing after it
CUTS = [
    ("task.finish:before:4", "run.claim:before:1", "run.claim:before:1"),
    ("task.finish:after:6", "run.claim:after:1", "run.claim:before:1"),
    ("call.sent:after:1", "run.claim:after:1", "run.claim:after:1"),
    ("effect.start:after:1", "run.claim:after:1", "task.start:before:1"),
    ("effect.finish:before:1", "task.start:after:1", "task.start:after:1"),
]


def kill_thrice(folder: Path, url: str, cuts: tuple[str, str, str]) -> None:
    make_project(folder)
    for number, cut in enumerate(cuts):
        killed = start(folder, url, "everything", cut)
        assert killed.returncode == -9, f"the run never came to {cut} (start {number + 1}):\n{killed.stderr}"
    ended = start(folder, url, "everything")
    assert ended.returncode == 0, ended.stderr
    with Podium(Settings(home=folder / "home", database_url=url)) as podium:
        check(podium, folder, cuts)


@pytest.mark.parametrize("cuts", CUTS, ids=lambda cuts: "-".join(cuts).replace(":", "."))
def test_killed_in_the_work_and_twice_in_the_recovery(tmp_path: Path, cuts: tuple[str, str, str]) -> None:
    folder = tmp_path / "project"
    kill_thrice(folder, f"sqlite:///{folder}/home/podium.db", cuts)


def test_killed_in_the_work_and_twice_in_the_recovery_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    kill_thrice(tmp_path / "project", postgres_url, CUTS[2])


def check(podium: Podium, folder: Path, cuts: tuple[str, str, str]) -> None:
    run = podium.get("last")
    assert run.status == "succeeded", run.error
    assert run.output == "seven is written"
    names = sorted(t.record.name for t in run.tasks)
    # 0 lost, 0 twice: each task has one attempt that was accepted
    assert sorted(a.task for a in run.attempts if a.status == "succeeded") == names
    assert len(names) == 9
    # a recovery that was killed before its claim was durable is as if it had never been
    claims = [e.data["epoch"] for e in podium.events(run.id) if e.kind == "run.claimed"]
    assert claims == list(range(1, len(claims) + 1))
    durable = 1 + sum(not cut.startswith("run.claim:before") for cut in cuts[1:])
    assert len(claims) >= durable + 1
    # each kill costs a task at most one more attempt
    log = Counter(lines(folder / "log"))
    for name in ("first", "a", "b", "c", "seven", "end"):
        assert 1 <= log[name] <= 1 + len(cuts), f"{name} was done {log[name]} times"
    settled = [(c.task, c.step) for c in run.calls if c.status == "settled"]
    assert sorted(settled) == [("worker", 0), ("worker", 1), ("worker", 2)]
    assert sum(t.record.failures for t in run.tasks) <= 1  # that of `flaky`: a kill uses up no retry
    check_books(podium, run)
