"""An engine that is stopped past its lease loses its runs; what it does when it goes on changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_project import check_books, lines, until, write_steps
from podium import Podium, Workflow
from podium.memory import engines
from serving_engines import serving

MakePodium = Callable[..., Podium]
#: seconds; short, so that the test is
LEASE = 1.5


def workflow(folder: Path) -> Workflow:
    """A task that is done before the engine is stopped, one that runs then, and one after it."""
    wf = Workflow("gated")
    wf.python("first", "steps:count", with_={"path": str(folder / "first")})
    wf.llm("asked", prompt=f"!stall {folder / 'gate'}", needs=["first"])
    wf.python("last", "steps:note", with_={"path": str(folder / "last"), "text": "{asked}"})
    wf.output("answer", "last")
    return wf


def rows(podium: Podium, run_id: str) -> list[Any]:
    """All that the database holds of the run."""
    run = podium.get(run_id)
    records = [task.record for task in run.tasks]
    return [run.record, records, run.attempts, run.calls, podium.events(run_id)]


def test_a_zombie_changes_nothing(home: Path, make_podium: MakePodium, database_url: str) -> None:
    folder = home.parent
    write_steps(folder)
    podium = make_podium(database_url)
    with serving(home, database_url, lease=LEASE) as zombie:
        run = podium.submit(workflow(folder))
        until(lambda: [c.status for c in podium.get(run.id).calls] == ["sent"])
        assert podium.get(run.id).record.engine == zombie.name
        zombie.stop()
        with serving(home, database_url, lease=LEASE) as heir:
            # its lock is held still, so only the beats tell
            until(lambda: podium.get(run.id).record.engine == heir.name)
            (folder / "gate").touch()
            until(lambda: podium.get(run.id).status == "succeeded")
            before = rows(podium, run.id)
            zombie.go_on()
            # both its driver, whose answer has come, and its beats find that the run is lost
            until(lambda: "Another engine took a run" in zombie.log.read_text())
            assert rows(podium, run.id) == before
            until(lambda: is_registered(podium, zombie.name))  # and it serves again
            heir.end()
        again = podium.submit(workflow(folder))
        until(lambda: podium.get(again.id).status == "succeeded")
        zombie.end()
    run = podium.get(run.id)
    assert run.output == f"echo: !stall {folder / 'gate'}"
    claims = [e.data for e in podium.events(run.id) if e.kind == "run.claimed"]
    assert [(c["engine"], c["epoch"]) for c in claims] == [(zombie.name, 1), (heir.name, 2)]
    attempts = [(a.task, a.number, a.epoch, a.status) for a in run.attempts]
    assert sorted(attempts) == [
        ("asked", 1, 1, "lost"),
        ("asked", 2, 2, "succeeded"),
        ("first", 1, 1, "succeeded"),
        ("last", 1, 2, "succeeded"),
    ]
    # the call that the zombie had sent is paid for: nobody can know that it did not come through
    assert [(c.attempt, c.status) for c in run.calls] == [(1, "unknown"), (2, "settled")]
    assert lines(folder / "last") == [run.output] * 2  # once for each of the two runs
    check_books(podium, run)
    check_books(podium, podium.get(again.id))


def is_registered(podium: Podium, engine: str) -> bool:
    with podium.database.read() as connection:
        return engine in {row.id for row in engines.alive(connection)}
