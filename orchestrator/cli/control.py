"""`approve`, `pause`, `change`, `cancel`, `fork`: what people do to runs that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, Pool, RunId, client, emit, iso, note, told
from .runs import (
    Aim,
    Approvals,
    Budget,
    Deadline,
    Inputs,
    Local,
    OutFile,
    PolicyKind,
    Quality,
    Seconds,
    Tokens,
)

if TYPE_CHECKING:
    from ..controls import Fork

#: tasks that a note names
NAMED = 10


def approve(
    run_id: RunId,
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="The task, if several wait.")] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Answer no.")] = False,
    comment: Annotated[str, typer.Option(metavar="TEXT", help="A word to go with it.")] = "",
    go_on: Annotated[bool, typer.Option("--resume", help="Go on with the run at once.")] = False,
    output: OutFile = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Answer a task that waits for a person."""
    from . import drive

    with client(pool) as podium:
        found = podium.get(run_id)
        name = task or _only_waiting([t.name for t in found.waiting], found.id)
        podium.approve(found.id, name, approved=not reject, comment=comment)
        note(f"{'rejected' if reject else 'approved'}: {name}")
        found = podium.get(found.id)
        if go_on:
            drive.go_on(podium, found, drive.Ways(as_json, output, local=False))
            return
        if not found.waiting and not (found.record.detached and podium.engine_alive()):
            note(f"  → podium resume {found.id}")
        told(podium, found.id, [name], as_json)


def _only_waiting(waiting: list[str], run_id: str) -> str:
    from ...memory.errors import UsageError

    if len(waiting) == 1:
        return waiting[0]
    if not waiting:
        raise UsageError("nothing in this run waits for a person", mend=f"look with `podium show {run_id}`")
    raise UsageError(f"several tasks wait: {', '.join(waiting)}", mend="name the one to answer")


def cancel(run_id: RunId, as_json: Json = False) -> None:
    """Cancel a run. What it has finished stays."""
    with client() as podium:
        found = podium.get(run_id)
        status = podium.cancel(found.id)
        if status not in ("cancelled", "stopped"):
            note("its engine stops it within a second")
        told(podium, found.id, [], as_json)


def pause(run_id: RunId, as_json: Json = False) -> None:
    """Start no further tasks of a run; `podium resume` goes on with it."""
    with client() as podium:
        found = podium.get(run_id)
        if podium.pause(found.id) != "paused":
            note("its engine lets the running tasks end, then it is paused")
        note(f"  → podium resume {found.id}")
        told(podium, found.id, [], as_json)


def change(
    run_id: RunId,
    budget: Budget = None,
    tokens: Tokens = None,
    seconds: Seconds = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="Higher goes first.")] = None,
    deadline: Deadline = None,
    as_json: Json = False,
) -> None:
    """Change a run's budgets, priority or deadline, while it runs or stands."""
    from ...memory.money import format_usd
    from .convert import changed_out

    with client() as podium:
        found = podium.change(
            run_id, budget=budget, tokens=tokens, seconds=seconds, priority=priority, deadline=deadline
        )
    if found.status in ("stopped", "failed", "cancelled"):
        verb = "resume" if found.status == "stopped" else "retry"
        note(f"the run is {found.status}\n  → podium {verb} {found.id}")
    if as_json:
        emit(changed_out(found))
        return
    record = found.record
    parts = [f"{found.id} {found.status}: budget {format_usd(record.budget_nano)} USD"]
    if record.budget_tokens is not None:
        parts.append(f"{record.budget_tokens:,} tokens")
    if record.budget_seconds is not None:
        parts.append(f"{record.budget_seconds:g} s of driving")
    parts.append(f"priority {record.priority}")
    if record.deadline_at is not None:
        parts.append(f"deadline {iso(record.deadline_at)}")
    print(", ".join(parts))


def fork(
    run_id: RunId,
    at: Annotated[str, typer.Option("--from", metavar="TASK", help="Run this task and all after it anew.")],
    inputs: Inputs = None,
    budget: Budget = None,
    tokens: Tokens = None,
    seconds: Seconds = None,
    approve: Approvals = None,
    deadline: Deadline = None,
    priority: Annotated[int, typer.Option(metavar="N", help="Higher goes first.")] = 0,
    policy: PolicyKind = None,
    aim: Aim = None,
    quality: Quality = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Use this model for every call.")] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Only store it.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to the engine of `podium up`.")] = False,
    output: OutFile = None,
    local: Local = False,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Run a workflow again from one of its tasks; results before that are taken over by reference."""
    from ...memory.errors import ClusterError
    from . import drive
    from .convert import fork_out
    from .inputs import parse_inputs

    routing = drive.routing(policy, model, aim, quality)
    with client(pool) as podium:
        source = podium.get(run_id)
        if detach and not podium.engine_alive():
            raise ClusterError("no engine is up to take the run", mend="podium up, or fork without --detach")
        made = podium.fork(
            source.id,
            at,
            detached=not (local or no_run) and podium.engine_alive(),
            budget=budget,
            tokens=tokens,
            seconds=seconds,
            deadline=deadline,
            priority=priority,
            approve=approve or (),
            policy=routing,
            inputs=parse_inputs(inputs or [], source.spec),
        )
        _tell(made, source.id)
        if not (no_run or detach):
            drive.go_on(podium, made.run, drive.Ways(as_json, output, local))
        elif as_json:
            emit(fork_out(made))
        else:
            print(made.run.id)


def _tell(made: Fork, source: str) -> None:
    note(f"run {made.run.id} accepted, forked from {source} at event {made.run.record.forked_seq}")
    note(f"taken over: {_named(list(made.reused)) or 'nothing'}")
    if made.again:
        names = [f"{task} ({', '.join(inputs)})" for task, inputs in made.again.items()]
        note(f"run again, for what they rest on has changed: {_named(names)}")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
