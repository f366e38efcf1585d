"""Schedules: each firing makes one run and moves the schedule on, both or neither, whoever fires."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from podium.memory import control, reads, runs, schedules
from podium.memory.database import Database
from podium.memory.errors import NotFound, UsageError
from podium.memory.runs import NewRun
from podium.memory.schedules import NewSchedule, ScheduleRecord
from podium.memory.tables import Run
from run_rows import new_run, record
from sqlalchemy import update


def schedule(database: Database, schedule_id: str = "s1", **changes: Any) -> None:
    fields: dict[str, Any] = {
        "tenant": "t",
        "workflow": "w",
        "spec": {"name": "w", "tasks": {}},
        "inputs": {"x": 1},
        "project_root": "/p",
        "terms": {"budget": "0.5"},
        "next_at": 100.0,
        "every_s": 10.0,
    }
    new = NewSchedule(schedule_id, **(fields | changes))
    database.transact(lambda c: schedules.add(c, new))


def stored(database: Database) -> dict[str, ScheduleRecord]:
    with database.read() as connection:
        return {s.id: s for s in schedules.list_schedules(connection, "t")}


def due(database: Database, now: float) -> list[ScheduleRecord]:
    with database.read() as connection:
        return schedules.due(connection, now)


def run_of(found: ScheduleRecord, run_id: str) -> NewRun:
    return new_run(run_id, idempotency_key=schedules.run_key(found), schedule_id=found.id, detached=True)


def fire(database: Database, found: ScheduleRecord, now: float, run_id: str) -> str | None:
    return database.transact(lambda c: schedules.fire(c, found, now, run_of(found, run_id)))


def count(database: Database) -> int:
    with database.read() as connection:
        return len(reads.list_runs(connection, "t"))


def test_a_schedule_is_due_when_its_time_is_there(database: Database) -> None:
    schedule(database, "late", next_at=90.0)
    schedule(database)
    schedule(database, "other", tenant="u", next_at=95.0)
    assert due(database, 89.9) == []
    assert [s.id for s in due(database, 100.0)] == ["late", "other", "s1"]  # of every tenant
    found = stored(database)
    assert list(found) == ["late", "s1"]
    assert (found["s1"].terms, found["s1"].every_s, found["s1"].fired) == ({"budget": "0.5"}, 10.0, 0)
    with database.read() as connection:
        assert schedules.job(connection, found["s1"]) == ({"name": "w", "tasks": {}}, {"x": 1})


def test_a_firing_makes_a_run_and_moves_on(database: Database) -> None:
    schedule(database)
    (first,) = due(database, 100.0)
    assert fire(database, first, 100.0, "r1") == "r1"
    found = record(database)
    assert (found.schedule_id, found.detached, found.status) == ("s1", True, "queued")
    assert (stored(database)["s1"].next_at, stored(database)["s1"].fired) == (110.0, 1)
    assert due(database, 109.0) == []
    assert fire(database, first, 100.0, "r2") is None  # read before the first firing
    (second,) = due(database, 110.0)
    assert fire(database, second, 110.0, "r2") == "r2"
    assert count(database) == 2


def test_missed_firings_become_one_and_the_rhythm_stays(database: Database) -> None:
    schedule(database)
    (found,) = due(database, 157.0)
    assert fire(database, found, 157.0, "r1") == "r1"
    assert stored(database)["s1"].next_at == 160.0
    assert due(database, 159.0) == []
    (found,) = due(database, 160.0)
    assert fire(database, found, 160.0, "r2") == "r2"
    assert stored(database)["s1"].next_at == 170.0


def test_one_that_comes_once_is_over_then(database: Database) -> None:
    schedule(database, every_s=None)
    (found,) = due(database, 1e9)
    assert fire(database, found, 1e9, "r1") == "r1"
    assert stored(database)["s1"].next_at is None
    assert due(database, 1e12) == []


def test_of_engines_that_fire_together_one_does(database: Database) -> None:
    schedule(database)
    gate, started = threading.Barrier(6), []

    def engine(number: int) -> None:
        (found,) = due(database, 100.0)
        gate.wait()
        started.append(fire(database, found, 100.0, f"r{number}"))

    threads = [threading.Thread(target=engine, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(started) == 6
    assert [s for s in started if s is not None] == [only_run(database)]
    assert stored(database)["s1"].fired == 1


def only_run(database: Database) -> str:
    """The only run."""
    with database.read() as connection:
        (only,) = reads.list_runs(connection, "t")
    return only.id


def test_a_firing_that_does_not_commit_leaves_the_schedule_due(database: Database) -> None:
    schedule(database)
    (found,) = due(database, 100.0)

    def killed(connection: Any) -> None:
        schedules.fire(connection, found, 100.0, run_of(found, "r1"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.transact(killed)
    assert count(database) == 0
    assert due(database, 100.0) == [found]


def test_remove_by_the_start_of_an_id(database: Database) -> None:
    for name in ("s1", "s1b", "s2"):
        schedule(database, name)
    schedule(database, "u1", tenant="u")

    def remove(prefix: str) -> str:
        return database.transact(lambda c: schedules.remove(c, "t", prefix))

    with pytest.raises(UsageError, match="several"):
        remove("s")
    with pytest.raises(NotFound):
        remove("u1")  # another tenant's
    assert remove("s1") == "s1"
    assert remove("s2") == "s2"
    assert list(stored(database)) == ["s1b"]
    (found,) = [s for s in due(database, 100.0) if s.tenant == "t"]
    remove("s1b")
    assert fire(database, found, 100.0, "r1") is None
    assert count(database) == 0


@pytest.mark.parametrize("every", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rhythm_that_is_none_is_refused(database: Database, every: float) -> None:
    with pytest.raises(UsageError):
        schedule(database, every_s=every)
    assert stored(database) == {}


def test_prune_leaves_what_schedules_need(database: Database) -> None:
    schedule(database, spec={"name": "only the schedule has it"})
    database.transact(lambda c: runs.create(c, new_run("r1", inputs={"gone": 1})))
    database.transact(lambda c: c.execute(update(Run).values(status="failed", finished_at=1.0)))
    assert database.transact(lambda c: control.prune(c, "t", before=2.0)) == ["r1"]
    with database.read() as connection:
        assert schedules.job(connection, stored(database)["s1"])[0]["name"] == "only the schedule has it"


def test_a_stopped_schedule_stays_in_the_list(database: Database) -> None:
    schedule(database)
    database.transact(lambda c: schedules.stop(c, stored(database)["s1"]))
    assert due(database, 1e9) == []
    assert stored(database)["s1"].next_at is None
