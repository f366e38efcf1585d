"""`run --at`, `run --every`, `schedules`: runs to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, client, emit, iso, note, table

if TYPE_CHECKING:
    from ..client import Podium
    from .drive import Job


def add(podium: Podium, job: Job, at: str | None, every: str | None, as_json: bool) -> None:
    """Store a schedule of a job, and say when it will run first."""
    from ..schedules import parse_duration, parse_time
    from .convert import schedule_out

    made = podium.schedule(
        job.path or job.workflow,
        at=parse_time(at) if at is not None else None,
        every=parse_duration(every) if every is not None else None,
        budget=job.budget,
        tokens=job.tokens,
        seconds=job.seconds,
        deadline=job.deadline,
        priority=job.priority,
        approve=job.approve,
        policy=job.policy,
        inputs=job.inputs,
    )
    note(f"schedule {made.id}: first at {iso(made.next_at)} (UTC)")
    if not podium.engine_alive():
        note("no engine is up; runs start when one is\n  → podium up")
    if as_json:
        emit(schedule_out(made))
    else:
        print(made.id)


def schedules(
    remove: Annotated[str | None, typer.Option(metavar="ID", help="Delete this one; its runs stay.")] = None,
    as_json: Json = False,
) -> None:
    """List the runs to come, as `podium run --at` and `--every` stored them."""
    from .convert import schedule_out
    from .records import RemovedOut, SchedulesOut

    with client() as podium:
        if remove is not None:
            removed = podium.remove_schedule(remove)
            emit(RemovedOut(schedule_id=removed)) if as_json else print(f"{removed} removed")
            return
        found = podium.schedules()
    if as_json:
        emit(SchedulesOut(schedules=[schedule_out(s) for s in found]))
        return
    if not found:
        note("there are no schedules\n  → podium run WORKFLOW.yaml --every 1d")
        return
    rows = [
        [
            s.id,
            s.workflow,
            iso(s.next_at) or "over",
            "" if s.every_s is None else f"{s.every_s:g}",
            str(s.fired),
        ]
        for s in found
    ]
    table(["schedule", "workflow", "next (UTC)", "every s", "runs"], rows, right="runs")
