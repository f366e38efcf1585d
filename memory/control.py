"""What people do to a run from outside its engine: approve, cancel, retry, resume, prune."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select, text, union_all, update

from . import effects, runs
from .content import plain_text
from .errors import NotFound, UsageError
from .events import NewEvent, append, fence
from .runs import ENDED
from .tables import Blob, Call, Effect, Item, Revision, Run, Task

#: every column that refers to content
_BLOBS = (
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
)


def approve(connection: Connection, run_id: str, task: str, *, approved: bool, comment: str = "") -> None:
    """Answer a waiting task. The run is queued again; its engine goes on with the answer.

    Raises:
        NotFound: the run has no such task.
        UsageError: the task waits for nobody.
    """
    fence(connection, run_id)
    row = connection.execute(select(Task.status).where(Task.run_id == run_id, Task.name == task)).first()
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
    answer, comment = "approved" if approved else "rejected", plain_text(comment)
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
    fence(connection, run_id)
    row = connection.execute(select(Run.status, Run.engine, Run.epoch).where(Run.id == run_id)).one()
    if row.status in ENDED:
        raise UsageError(
            f"the run is {row.status} already", mend=f"look with `podium show {run_id}`", run=run_id
        )
    if driven and row.engine is not None:  # it may have let go since the caller looked
        _change(connection, run_id, NewEvent("run.cancel_requested"), cancel_requested=True)
        return row.status
    # whoever still believes to own the run is refused from now on
    connection.execute(update(Run).where(Run.id == run_id).values(epoch=row.epoch + 1))
    runs.finish_run(connection, run_id, row.epoch + 1, "cancelled")
    return "cancelled"


def retry(connection: Connection, run_id: str, tasks: Sequence[str] = ()) -> list[str]:
    """Make failed, cancelled and skipped tasks pending again: all, or of the failed ones the named.

    Finished tasks keep their results; a deadline that has passed is dropped. Returns the tasks that will run.

    Raises:
        UsageError: the run is not over, or nothing in it failed.
    """
    fence(connection, run_id)
    run = connection.execute(select(Run.status, Run.deadline_at).where(Run.id == run_id)).one()
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
    for start in range(0, len(again), 500):
        theirs = (Effect.run_id == run_id, Effect.task.in_(again[start : start + 500]))
        for was, now in (("failed", "approved"), ("rejected", "requested")):
            connection.execute(update(Effect).where(*theirs, Effect.status == was).values(status=now))
    late = run.deadline_at is not None and run.deadline_at <= time.time()
    _change(
        connection,
        run_id,
        NewEvent("run.retried", data={"tasks": sorted(again)[:100]}),
        status="queued",
        deadline_at=None if late else run.deadline_at,
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
    fence(connection, run_id)
    query = select(Run.status, Run.budget_nano, Run.reserved_nano, Run.settled_nano)
    run = connection.execute(query.where(Run.id == run_id)).one()
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
    if dry_run:
        return list(connection.execute(query).scalars())
    if connection.dialect.name == "postgresql":
        # whoever puts content waits: else it could come to rely on a blob that is being deleted
        connection.execute(text("LOCK TABLE blob IN SHARE ROW EXCLUSIVE MODE"))
    ids = list(connection.execute(query).scalars())
    for run_id in ids:
        connection.execute(delete(Item).where(Item.scope == "run", Item.scope_id == run_id))
        connection.execute(delete(Run).where(Run.id == run_id))
    if ids:
        used = union_all(*(select(column).where(column.is_not(None)) for column in _BLOBS))
        connection.execute(delete(Blob).where(Blob.tenant == tenant, Blob.hash.not_in(used)))
    return ids


def _change(
    connection: Connection, run_id: str, event: NewEvent, *, requeue: bool = False, **changes: Any
) -> None:
    if requeue:
        waiting = connection.execute(select(Run.status).where(Run.id == run_id)).scalar() == "waiting"
        if waiting:
            changes["status"] = "queued"
    append(connection, run_id, [event], control_version=Run.control_version + 1, **changes)
