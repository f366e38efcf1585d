"""Engines that serve, as rows, and what they look at: who else serves, which runs are open, what is due."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, select, update

from .content import insert_missing
from .tables import EngineRow, Run, Schedule, Task


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """An engine that serves, dead or alive: whoever looks judges its beats by a clock of its own."""

    #: `host.home.number`
    id: str
    beat: int
    #: runs that it takes at most
    capacity: int


@dataclass(frozen=True, slots=True)
class OpenRun:
    """What an engine must know of a run to tell whether to take it."""

    id: str
    priority: int
    #: seconds since the epoch, UTC
    created_at: float
    engine: str | None
    epoch: int
    beat: int
    detached: bool


def register(connection: Connection, engine: str, capacity: int) -> None:
    """Say that an engine serves, and takes at most `capacity` runs at a time. Harmless when it is known."""
    row = {"id": engine, "beat": 0, "capacity": capacity, "started_at": time.time()}
    insert_missing(connection, EngineRow, [row])


def beat(connection: Connection, engine: str, capacity: int) -> None:
    """Show that a serving engine lives; one that others took for dead and removed is there again."""
    shown = update(EngineRow).where(EngineRow.id == engine).values(beat=EngineRow.beat + 1)
    if connection.execute(shown).rowcount == 0:
        register(connection, engine, capacity)


def remove(connection: Connection, engines: Collection[str]) -> None:
    """Forget engines that stopped or died: the others share what they would have taken.

    A row that its engine is just writing stays: an engine that stands still in the middle of a write must
    not hold up the others. They forget it later.
    """
    if engines:
        free = select(EngineRow.id).where(EngineRow.id.in_(list(engines))).with_for_update(skip_locked=True)
        connection.execute(delete(EngineRow).where(EngineRow.id.in_(free)))


def alive(connection: Connection) -> list[EngineRecord]:
    """The engines that serve, by id: those that registered and were not removed."""
    query = select(EngineRow.id, EngineRow.beat, EngineRow.capacity).order_by(EngineRow.id)
    return [EngineRecord(*row) for row in connection.execute(query)]


def open_runs(connection: Connection, *, limit: int) -> list[OpenRun]:
    """Runs that may need an engine, by priority and age: all that some engine says it drives, and of the
    detached ones that are queued the first `limit`.
    """
    columns = (Run.id, Run.priority, Run.created_at, Run.engine, Run.epoch, Run.beat, Run.detached)
    order = (Run.priority.desc(), Run.created_at, Run.id)
    driven = select(*columns).where(Run.status == "running")
    queued = select(*columns).where(Run.status == "queued", Run.detached.is_(True)).order_by(*order)
    found = [OpenRun(*row) for row in connection.execute(driven)]
    found += [OpenRun(*row) for row in connection.execute(queued.limit(limit))]
    return sorted(found, key=lambda run: (-run.priority, run.created_at, run.id))


def epochs(connection: Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """run id → its epoch now."""
    query = select(Run.id, Run.epoch).where(Run.id.in_(list(run_ids)))
    return {row.id: row.epoch for row in connection.execute(query)}


def is_schedule_due(connection: Connection, now: float) -> bool:
    """Whether a schedule has a run to start. `now`: seconds, UTC."""
    return bool(connection.execute(select(exists().where(Schedule.next_at <= now))).scalar())


def is_approval_late(connection: Connection, now: float) -> bool:
    """Whether a question waits for an answer past its time. `now`: seconds, UTC."""
    open_run = Run.status.in_(("running", "waiting", "paused"))
    late = exists().where(Task.run_id == Run.id, open_run, Task.status == "waiting", Task.not_before <= now)
    return bool(connection.execute(select(late)).scalar())
