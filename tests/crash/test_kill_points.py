"""SIGKILL at every commit point, before and after it is durable; then a fresh process goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from crash_runs import Crash, crash
from engine_project import check_books
from podium.memory.faults import COMMITS

#: the first pass of every point, and later passes of those that matter most
POINTS = [f"{name}:{when}:1" for name in COMMITS for when in ("before", "after")]
POINTS += ["task.finish:before:4", "task.finish:after:6", "call.settle:before:3", "run.finish:before:2"]
ON_POSTGRES = ["task.finish:before:2", "effect.finish:after:1", "call.sent:after:1"]


@pytest.fixture(scope="module")
def crashes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Crash]]:
    """The crash at each point; they are made two at a time, while the tests look at those that are ready."""
    folder = tmp_path_factory.mktemp("crashes")

    def make(point: str) -> Crash:
        mine = folder / point.replace(":", "-")
        return crash(mine, f"sqlite:///{mine}/home/podium.db", "everything", point)

    wanted = [p for p in POINTS if any(f"[{p}]" in item.name for item in request.session.items)]
    with ThreadPoolExecutor(2) as threads:
        made: dict[str, Future[Crash]] = {point: threads.submit(make, point) for point in wanted}
        yield lambda point: made[point].result()
        for future in made.values():
            future.cancel()
    for future in made.values():
        if not future.cancelled() and future.exception() is None:
            future.result().podium.close()


@pytest.mark.parametrize("point", POINTS)
def test_killed_on_sqlite(crashes: Callable[[str], Crash], point: str) -> None:
    check(crashes(point))


@pytest.mark.parametrize("point", ON_POSTGRES)
def test_killed_on_postgres(tmp_path: Path, postgres_url: str, point: str) -> None:
    found = crash(tmp_path / "project", postgres_url, "everything", point)
    with found.podium:
        check(found)


def check(found: Crash) -> None:
    assert found.killed == -9, f"the run never came to this point:\n{found.errors}"
    assert found.ended == 0, found.errors
    run = found.run
    assert run.status == "succeeded", run.error
    assert run.output == "seven is written"
    # nothing is lost
    assert {t.record.status for t in run.tasks} == {"succeeded"}
    assert len(run.tasks) == 9
    # nothing is accepted twice: one successful attempt a task
    done = [a.task for a in run.attempts if a.status == "succeeded"]
    assert sorted(done) == sorted(t.record.name for t in run.tasks)
    # what was finished stayed as it was
    attempts = {t.record.name: t.record.attempts for t in run.tasks}
    assert {name: attempts[name] for name in found.finished} == found.finished
    for name in ("first", "end"):
        if name in found.finished:
            assert found.log_after[name] == found.log_before[name] == 1
    for name in ("first", "a", "b", "c", "seven", "end"):
        assert 1 <= found.log_after[name] <= 2, f"{name} was done {found.log_after[name]} times"
    # no answer is paid for twice
    settled = [(c.task, c.step) for c in run.calls if c.status == "settled"]
    assert sorted(settled) == [("worker", 0), ("worker", 1), ("worker", 2)]
    assert found.paid <= {c.id for c in run.calls if c.status == "settled"}
    # an engine's death uses up no retry: only what the task itself did wrong counts
    failures = {t.record.name: t.record.failures for t in run.tasks if t.record.failures}
    assert failures in ({"flaky": 1}, {})
    assert len([a for a in run.attempts if a.status == "failed"]) == len(failures)
    check_books(found.podium, run)
