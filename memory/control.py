"""What people do to a run from outside its engine: approve, cancel, retry, resume, prune."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select, update

from . import effects
from .errors import NotFound, UsageError
from .events import NewEvent, append
from .runs import ENDED
from .tables import Blob, Call, Effect, Item, Revision, Run, Task


def approve(connection: Connection, run_id: str, task: str, *, approved: bool, comment: str = "") -> None:
    """Answer a waiting task. The run is queued again; its engine goes on with the answer.

    Raises:
        NotFound: the run has no such task.
        UsageError: the task waits for nobody.
    """
    row = connection.execute(
        select(Task.status, Task.approval).where(Task.run_id == run_id, Task.name == task)
    ).first()
    if row is None:
        names = connection.execute(
            select(Task.name).where(Task.run_id == run_id, Task.status == "waiting")
        ).scalars()
        waiting = ", ".join(names) or "none"
        raise NotFound(f"the run has no task {task!r}", mend=f"tasks that wait: {waiting}", run=run_id)
    if row.status != "waiting":
        raise UsageError(
            f"the task is {row.status}, it waits for no approval",
            mend=f"look with `podium show {run_id}`",
            run=run_id,
            task=task,
        )
    answer = "approved" if approved else "rejected"
    connection.execute(
        update(Task)
        .where(Task.run_id == run_id, Task.name == task)
        .values(status="pending", approval=answer, approval_comment=comment or None)
    )
    effects.answer(connection, run_id, task, approved=approved)
    data = {"comment": comment} if comment else {}
    _change(connection, run_id, NewEvent(f"task.{answer}", task, data), requeue=True)


def cancel(connection: Connection, run_id: str, *, driven: bool) -> str:
    """Ask the living engine (`driven`) to stop the run; without one it ends at once. Returns its status."""
    row = connection.execute(select(Run.status).where(Run.id == run_id)).first()
    if row is None:
        raise NotFound(f"there is no run {run_id}", mend="`podium runs` lists them")
    if row.status in ENDED:
        raise UsageError(
            f"the run is {row.status} already", mend=f"look with `podium show {run_id}`", run=run_id
        )
    if driven:
        _change(connection, run_id, NewEvent("run.cancel_requested"), cancel_requested=True)
        return row.status
    connection.execute(
        update(Task)
        .where(Task.run_id == run_id, Task.status.not_in(("succeeded", "failed", "skipped")))
        .values(status="cancelled", finished_at=time.time())
    )
    _change(
        connection,
        run_id,
        NewEvent("run.cancelled"),
        status="cancelled",
        engine=None,
        # whoever still believes to own the run is refused
        epoch=Run.epoch + 1,
        finished_at=time.time(),
    )
    return "cancelled"


def retry(connection: Connection, run_id: str, tasks: Sequence[str] = ()) -> list[str]:
    """Make failed, cancelled and skipped tasks pending again: all, or the named failed ones.

    Finished tasks keep their results. Returns the tasks that will run again.

    Raises:
        UsageError: the run is not over, or nothing in it failed.
    """
    run = connection.execute(select(Run.status).where(Run.id == run_id)).first()
    if run is None:
        raise NotFound(f"there is no run {run_id}", mend="`podium runs` lists them")
    if run.status not in ("failed", "cancelled", "stopped"):
        raise UsageError(
            f"the run is {run.status}; only a failed, cancelled or stopped run can be retried",
            mend=f"`podium resume {run_id}` goes on with an interrupted run",
            run=run_id,
        )
    rows = connection.execute(
        select(Task.name, Task.status, Task.kind, Task.parent).where(Task.run_id == run_id)
    )
    states = {name: (status, kind, parent) for name, status, kind, parent in rows}
    if unknown := [t for t in tasks if t not in states]:
        raise NotFound(
            f"the run has no task {unknown[0]!r}", mend=f"look with `podium show {run_id}`", run=run_id
        )
    failed = [n for n, (status, _, _) in states.items() if status == "failed" and (not tasks or n in tasks)]
    again = [n for n, (status, _, _) in states.items() if status in ("cancelled", "skipped")] + failed
    if tasks and not failed:
        raise UsageError("none of these tasks failed", mend=f"look with `podium show {run_id}`", run=run_id)
    parents = {parent for _, _, parent in states.values() if parent is not None}
    for name in again:
        connection.execute(
            update(Task)
            .where(Task.run_id == run_id, Task.name == name)
            .values(
                # a parent that has its children already goes on collecting them
                status="expanded" if name in parents else "pending",
                failures=0,
                error=None,
                finished_at=None,
                not_before=None,
                approval=None,
            )
        )
    connection.execute(
        update(Effect)
        .where(Effect.run_id == run_id, Effect.task.in_(again), Effect.status == "failed")
        .values(status="approved")
    )
    connection.execute(
        update(Effect)
        .where(Effect.run_id == run_id, Effect.task.in_(again), Effect.status == "rejected")
        .values(status="requested")
    )
    _change(
        connection,
        run_id,
        NewEvent("run.retried", data={"tasks": sorted(again)[:100]}),
        status="queued",
        finished_at=None,
        error=None,
        cancel_requested=False,
    )
    return sorted(again)


def reopen(connection: Connection, run_id: str, *, budget_nano: int | None = None) -> None:
    """Let a stopped run go on, with a new budget if one is given.

    Raises:
        UsageError: the new budget is below what was spent already, or the run is over.
    """
    run = connection.execute(
        select(Run.status, Run.budget_nano, Run.reserved_nano, Run.settled_nano).where(Run.id == run_id)
    ).first()
    if run is None:
        raise NotFound(f"there is no run {run_id}", mend="`podium runs` lists them")
    changes: dict[str, Any] = {}
    if budget_nano is not None and budget_nano != run.budget_nano:
        if budget_nano < run.reserved_nano + run.settled_nano:
            raise UsageError(
                "the new budget is below what the run has spent and reserved",
                mend="give a higher --budget",
                run=run_id,
            )
        changes["budget_nano"] = budget_nano
    if run.status == "stopped":
        changes |= {"status": "queued", "finished_at": None, "error": None}
    if changes:
        data = {"budget_nano": budget_nano} if budget_nano is not None else {}
        _change(connection, run_id, NewEvent("run.reopened", data=data), **changes)


def prune(connection: Connection, tenant: str, *, before: float, dry_run: bool = False) -> list[str]:
    """Delete runs that ended before a time (seconds, UTC), with what only they hold; returns their ids."""
    query = select(Run.id).where(Run.tenant == tenant, Run.status.in_(ENDED), Run.finished_at < before)
    ids = list(connection.execute(query).scalars())
    if dry_run:
        return ids
    for run_id in ids:
        connection.execute(delete(Item).where(Item.scope == "run", Item.scope_id == run_id))
        connection.execute(delete(Run).where(Run.id == run_id))
    if ids:
        used: set[str] = set()
        for column in (
            Run.spec_blob,
            Run.inputs_blob,
            Run.outputs_blob,
            Task.inputs_blob,
            Task.output_blob,
            Call.request_blob,
            Call.response_blob,
            Effect.arguments_blob,
            Effect.result_blob,
            Revision.content_blob,
        ):
            used.update(
                h
                for h in connection.execute(select(column).where(column.is_not(None)).distinct()).scalars()
                if h
            )
        stored = connection.execute(select(Blob.hash).where(Blob.tenant == tenant)).scalars().all()
        for digest in stored:
            if digest not in used:
                connection.execute(delete(Blob).where(Blob.tenant == tenant, Blob.hash == digest))
    return ids


def _change(
    connection: Connection, run_id: str, event: NewEvent, *, requeue: bool = False, **changes: Any
) -> None:
    if requeue:
        waiting = connection.execute(select(Run.status).where(Run.id == run_id)).scalar() == "waiting"
        if waiting:
            changes["status"] = "queued"
    append(connection, run_id, [event], control_version=Run.control_version + 1, **changes)
