"""Runs to come: when, how often, and what an engine does when their time is there."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..memory import faults, schedules
from ..memory.database import Connection, Database
from ..memory.errors import PodiumError, UsageError
from ..memory.runs import NewRun
from ..memory.schedules import NewSchedule, ScheduleRecord
from .settings import Settings
from .submission import Terms, new_run
from .workflow import Workflow

log = logging.getLogger(__name__)

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
#: the shortest time between two runs of a schedule, seconds
SHORTEST = 1.0


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10m", "2h", "1d", "2w"; parts may follow each other: "1h30m".

    Raises:
        UsageError: it is no such text.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(
            f"{text!r} is no duration", mend="write a number and s, m, h, d or w: 90s, 10m, 2h, 1d"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds < 1e11:
        raise UsageError(f"{text!r} is too long", mend="give at most some centuries")
    return seconds


def parse_time(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; one without a zone is UTC.

    Raises:
        UsageError: it is no such time.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no time", mend="write it as 2030-01-31T09:00 (UTC) or 2030-01-31T09:00+02:00"
        ) from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def first_time(at: float | None, every_s: float | None, now: float) -> float:
    """When the first run of a schedule starts: `at`, else `every_s` seconds from now. Seconds, UTC.

    Raises:
        UsageError: neither is given, or `at` has passed.
    """
    if at is None and every_s is None:
        raise UsageError("a schedule needs a time or a rhythm", mend="give --at TIME or --every 10m")
    if at is None:
        assert every_s is not None
        return now + every_s
    if not now <= at < float("inf"):
        passed = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at < now else str(at)
        raise UsageError(f"{passed} is not a time to come", mend="times without a zone are UTC: check it")
    return at


def new_schedule(
    settings: Settings,
    workflow: Workflow,
    inputs: Mapping[str, Any],
    root: Path,
    terms: Terms,
    *,
    next_at: float,
    every_s: float | None,
) -> NewSchedule:
    """A schedule of a checked workflow, not stored yet. Its runs are made as `new_run` makes them now.

    Raises:
        WorkflowError: the inputs do not fit.
        UsageError: the terms are none, or its runs would come too often.
    """
    if every_s is not None and every_s < SHORTEST:
        raise UsageError(
            f"every {every_s:g} seconds is too often",
            mend=f"leave {SHORTEST:g} second between two runs at least",
        )
    budget = terms.budget if terms.budget is not None else settings.budget
    made = new_run(settings, workflow, inputs, root, replace(terms, budget=budget))
    kept = asdict(replace(terms, budget=str(budget), approve=list(terms.approve), idempotency_key=None))
    del kept["idempotency_key"], kept["detached"]
    return NewSchedule(
        id=f"s{secrets.token_hex(4)}",
        tenant=made.tenant,
        workflow=made.workflow,
        spec=made.spec,
        inputs=made.inputs,
        project_root=made.project_root,
        terms=kept,
        next_at=next_at,
        every_s=every_s,
    )


def fire_due(database: Database, settings: Settings, now: float) -> list[str]:
    """Start the runs of all schedules whose time is there; returns their ids. `now`: seconds, UTC.

    Each run is created in the transaction that moves its schedule on: however many engines do this, and
    wherever one of them dies, no firing is lost and none starts two runs. Missed firings become one. A
    schedule whose workflow cannot be stored any more is stopped, and the log says why.

    Raises:
        ConfigError, PodiumError: the database cannot be reached, or refuses.
    """
    with database.read() as connection:
        due = schedules.due(connection, now)
    started = []
    for schedule in due:
        try:
            new = _next_run(database, settings, schedule)
        except UsageError as error:
            log.error(
                "A schedule was stopped, for its run cannot be made: %s",
                error,
                extra={"action": "schedule.stop", "schedule": schedule.id},
            )
            database.transact(lambda c, s=schedule: schedules.stop(c, s))
            continue
        except PodiumError as error:  # damaged content, or no database just now: the others may still do
            log.error("A schedule could not be read: %s", error, extra={"action": "schedule.read"})
            continue
        if (run_id := _fire(database, schedule, now, new)) is not None:
            started.append(run_id)
    return started


def _next_run(database: Database, settings: Settings, schedule: ScheduleRecord) -> NewRun:
    with database.read() as connection:
        spec, inputs = schedules.job(connection, schedule)
    terms = Terms(**schedule.terms, idempotency_key=schedules.run_key(schedule), detached=True)
    made = new_run(settings, Workflow.from_data(spec), inputs, Path(schedule.project_root), terms)
    return replace(made, tenant=schedule.tenant, schedule_id=schedule.id)


def _fire(database: Database, schedule: ScheduleRecord, now: float, new: NewRun) -> str | None:
    def fire(connection: Connection) -> str | None:
        made = schedules.fire(connection, schedule, now, new)
        faults.hit("run.create", "before")
        return made

    run_id = database.transact(fire)
    faults.hit("run.create", "after")
    return run_id
