"""Runs to come: rows that an engine turns into runs when their time is there.

A firing is one transaction: the run is created and the schedule moves on, or neither. Of two engines that
fire the same schedule one finds it moved; the run's idempotency key `schedule:<id>:<n>` stands behind that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from . import runs
from .content import get, put
from .errors import NotFound, UsageError
from .runs import NewRun
from .tables import Schedule


@dataclass(frozen=True, slots=True)
class NewSchedule:
    id: str
    tenant: str
    workflow: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Any]
    project_root: str
    #: budget, priority, … of its runs, as plain data
    terms: Mapping[str, Any]
    #: seconds, UTC
    next_at: float
    #: seconds between two runs; None: one run only
    every_s: float | None = None


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    id: str
    tenant: str
    workflow: str
    project_root: str
    terms: dict[str, Any]
    every_s: float | None
    #: seconds, UTC; None: over
    next_at: float | None
    #: how many runs it has started
    fired: int
    created_at: float
    spec_blob: str
    inputs_blob: str


def add(connection: Connection, new: NewSchedule) -> None:
    """Store a schedule.

    Raises:
        UsageError: the time between two runs is not above zero.
    """
    if new.every_s is not None and not (new.every_s > 0 and math.isfinite(new.every_s)):
        raise UsageError("the time between two runs must be above zero", mend="write --every 10m")
    connection.execute(
        insert(Schedule).values(
            id=new.id,
            tenant=new.tenant,
            workflow=new.workflow,
            spec_blob=put(connection, new.tenant, new.spec),
            inputs_blob=put(connection, new.tenant, new.inputs),
            project_root=new.project_root,
            terms=dict(new.terms),
            every_s=new.every_s,
            next_at=new.next_at,
            created_at=time.time(),
        )
    )


def due(connection: Connection, now: float, *, limit: int = 100) -> list[ScheduleRecord]:
    """Schedules of all tenants whose time is there, the longest overdue first."""
    query = _query().where(Schedule.next_at <= now).order_by(Schedule.next_at, Schedule.id).limit(limit)
    return [ScheduleRecord(*row) for row in connection.execute(query)]


def job(connection: Connection, schedule: ScheduleRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """The workflow's data and the inputs of a schedule's runs."""
    return (
        get(connection, schedule.tenant, schedule.spec_blob),
        get(connection, schedule.tenant, schedule.inputs_blob),
    )


def run_key(schedule: ScheduleRecord) -> str:
    """Idempotency key of the schedule's next run."""
    return f"schedule:{schedule.id}:{schedule.fired + 1}"


def fire(connection: Connection, schedule: ScheduleRecord, now: float, new: NewRun) -> str | None:
    """Create the schedule's next run and move the schedule on; returns the run's id.

    Firings that were missed become one. None: someone else has fired or removed it since it was read.
    """
    done = connection.execute(
        update(Schedule)
        .where(
            Schedule.id == schedule.id,
            Schedule.fired == schedule.fired,
            Schedule.next_at == schedule.next_at,
            Schedule.next_at <= now,
        )
        .values(fired=schedule.fired + 1, next_at=_following(schedule, now))
    )
    return runs.create(connection, new) if done.rowcount else None


def stop(connection: Connection, schedule: ScheduleRecord) -> None:
    """Start no further runs of a schedule; it stays in the list."""
    connection.execute(update(Schedule).where(Schedule.id == schedule.id).values(next_at=None))


def list_schedules(connection: Connection, tenant: str) -> list[ScheduleRecord]:
    """The schedules of a tenant: those to come first by their time, then those that are over."""
    query = _query().where(Schedule.tenant == tenant).order_by(Schedule.created_at, Schedule.id)
    found = [ScheduleRecord(*row) for row in connection.execute(query)]
    return sorted(found, key=lambda s: math.inf if s.next_at is None else s.next_at)


def remove(connection: Connection, tenant: str, prefix: str) -> str:
    """Delete the one schedule of a tenant whose id starts so; returns its id. Its runs stay.

    Raises:
        NotFound: there is none.
        UsageError: there are several.
    """
    query = select(Schedule.id).where(
        Schedule.tenant == tenant, Schedule.id.startswith(prefix, autoescape=True)
    )
    found = list(connection.execute(query.limit(5)).scalars())
    if prefix in found:
        found = [prefix]
    if not found:
        raise NotFound(f"there is no schedule {prefix}", mend="`podium schedules` lists them")
    if len(found) > 1:
        raise UsageError(
            f"{prefix} is the start of several schedules: {', '.join(found)}", mend="give more letters"
        )
    connection.execute(delete(Schedule).where(Schedule.id == found[0]))
    return found[0]


def _following(schedule: ScheduleRecord, now: float) -> float | None:
    """The first time of the schedule's rhythm after `now`."""
    if schedule.every_s is None or schedule.next_at is None:
        return None
    missed = math.floor((now - schedule.next_at) / schedule.every_s)
    following = schedule.next_at + (missed + 1) * schedule.every_s
    return following if following > now else following + schedule.every_s


def _query() -> Any:
    return select(*(getattr(Schedule, name) for name in ScheduleRecord.__slots__))
