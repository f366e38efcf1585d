"""What people do to a run from outside its engine: approve, pause, change, cancel, retry, reopen, prune.

Each raises the run's `control_version`, so that the engine that drives it looks again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, text, union_all, update

from . import effects, runs
from .content import plain_text
from .errors import NotFound, UsageError
from .events import NewEvent, append, fence
from .forks import UNDO
from .money import format_usd
from .remember import drop_memory
from .runs import ENDED
from .tables import Blob, Cache, Call, Effect, Outcome, Revision, Run, Schedule, Task

#: every column that refers to content
_BLOBS = (
    Run.spec_blob,
    Run.inputs_blob,
    Run.outputs_blob,
    Task.inputs_blob,
    Task.output_blob,
    Task.plan_blob,
    Call.request_blob,
    Call.response_blob,
    Effect.arguments_blob,
    Effect.result_blob,
    Revision.content_blob,
    Cache.output_blob,
    Schedule.spec_blob,
    Schedule.inputs_blob,
    Outcome.prompt_blob,
    Outcome.answer_blob,
)
#: what a person can say of a run that is not over
_OPEN = ("queued", "running", "waiting", "paused")


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be different about a run; None: as it is."""

    budget_nano: int | None = None
    budget_tokens: int | None = None
    #: seconds of driving
    budget_seconds: float | None = None
    priority: int | None = None
    #: seconds since the epoch, UTC
    deadline_at: float | None = None

    def given(self) -> dict[str, Any]:
        names = ("budget_nano", "budget_tokens", "budget_seconds", "priority", "deadline_at")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


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
        # `not_before` was when the question expires: it is not to hold the answered task back
        .values(status="pending", approval=answer, approval_comment=comment or None, not_before=None)
    )
    effects.answer(connection, run_id, task, approved=approved)
    data = {"comment": comment} if comment else {}
    _change(connection, run_id, NewEvent(f"task.{answer}", task, data), requeue=True)


def expire_approvals(connection: Connection, now: float) -> list[str]:
    """Reject what has waited for a person past its time (`not_before`); returns the runs that go on.

    A person's answer that came first counts: each task is answered in one conditional UPDATE.
    """
    late = (Task.status == "waiting", Task.approval == "requested", Task.not_before <= now)
    query = select(Task.run_id).join(Run, Run.id == Task.run_id).where(Run.status.in_(_OPEN), *late)
    changed = []
    for run_id in sorted(set(connection.execute(query).scalars())):
        fence(connection, run_id)
        values = {
            "status": "pending",
            "approval": "rejected",
            "approval_comment": "expired",
            "not_before": None,
        }
        done = update(Task).where(Task.run_id == run_id, *late).values(**values).returning(Task.name)
        names = sorted(connection.execute(done).scalars())
        for name in names:
            effects.answer(connection, run_id, name, approved=False)
        if names:
            events = [NewEvent("task.rejected", name, {"comment": "expired"}) for name in names]
            _change(connection, run_id, *events, requeue=True)
            changed.append(run_id)
    return changed


def pause(connection: Connection, run_id: str, *, driven: bool) -> str:
    """Ask the living engine (`driven`) to start nothing more; without one the run is paused at once.

    Returns its status. A run that is paused already stays as it is.

    Raises:
        UsageError: the run is over.
    """
    fence(connection, run_id)
    query = select(Run.status, Run.engine, Run.epoch, Run.pause_requested).where(Run.id == run_id)
    row = connection.execute(query).one()
    _refuse_ended(run_id, row.status)
    if row.status == "paused":
        return "paused"
    asked = [] if row.pause_requested else [NewEvent("run.pause_requested")]
    if driven and row.engine is not None:  # it may have let go since the caller looked
        if asked:
            _change(connection, run_id, *asked, pause_requested=True)
        return row.status
    # whoever still believes to own the run is refused from now on
    connection.execute(update(Run).where(Run.id == run_id).values(epoch=row.epoch + 1))
    changes: dict[str, Any] = {"status": "paused", "pause_requested": True, "engine": None}
    _change(connection, run_id, *asked, NewEvent("run.paused"), **changes)
    return "paused"


def unpause(connection: Connection, run_id: str) -> bool:
    """Take a pause back: a paused run is queued again. False: nobody had asked for one."""
    fence(connection, run_id)
    row = connection.execute(select(Run.status, Run.pause_requested).where(Run.id == run_id)).one()
    if row.status != "paused" and not row.pause_requested:
        return False
    status = "queued" if row.status == "paused" else row.status
    _change(connection, run_id, NewEvent("run.resumed"), pause_requested=False, status=status)
    return True


def change(connection: Connection, run_id: str, changes: Changes) -> None:
    """Change budget, priority or deadline of a run, while it runs or stands.

    A call that was refused for want of money is tried again. A stopped run stays so: see `reopen`.

    Raises:
        UsageError: nothing is to be changed, a budget is below what was spent and reserved already, or the
            run has succeeded.
    """
    fence(connection, run_id)
    given = changes.given()
    if not given:
        raise UsageError("nothing is to be changed", mend="give a budget, a priority or a deadline")
    status = connection.execute(select(Run.status).where(Run.id == run_id)).scalar_one()
    if status == "succeeded":
        _refuse_ended(run_id, status)
    _check_budgets(connection, run_id, changes)
    _change(connection, run_id, NewEvent("run.changed", data=_told(changes)), **given)


def cancel(connection: Connection, run_id: str, *, driven: bool) -> str:
    """Ask the living engine (`driven`) to stop the run; without one it ends at once. Returns its status."""
    fence(connection, run_id)
    row = connection.execute(select(Run.status, Run.engine, Run.epoch).where(Run.id == run_id)).one()
    _refuse_ended(run_id, row.status)
    if driven and row.engine is not None:  # it may have let go since the caller looked
        _change(connection, run_id, NewEvent("run.cancel_requested"), cancel_requested=True)
        return row.status
    # whoever still believes to own the run is refused from now on
    connection.execute(update(Run).where(Run.id == run_id).values(epoch=row.epoch + 1))
    runs.finish_run(connection, run_id, row.epoch + 1, "cancelled")
    return "cancelled"


def retry(connection: Connection, run_id: str, tasks: Sequence[str] = ()) -> list[str]:
    """Make failed, cancelled and skipped tasks pending again: all, or of the failed ones the named.

    Finished tasks keep their results; a deadline that has passed is dropped. Of a run that undid what it did,
    the compensations that failed are tried again, and nothing else. Returns the tasks that will run.

    Raises:
        UsageError: the run is not over, nothing in it failed, or all it did was undone.
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
    _keep_undone(run_id, states)
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
                deaths=0,
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
        pause_requested=False,
    )
    return sorted(again)


def _keep_undone(run_id: str, states: dict[str, Any]) -> None:
    """Leave only the compensations in `states`, if there are any: what they undid cannot be built upon."""
    undoing = {name for name in states if name.startswith(UNDO)}
    if not undoing:
        return
    if all(states[name][0] == "succeeded" for name in undoing):
        raise UsageError(
            "what the run did was undone when it failed, so that it cannot go on",
            mend=f"run it anew from a task: `podium fork {run_id} --from TASK`",
            run=run_id,
        )
    for name in states.keys() - undoing:
        del states[name]


def reopen(connection: Connection, run_id: str, changes: Changes | None = None) -> None:
    """Let a stopped run go on, with new budgets if some are given.

    Raises:
        UsageError: a new budget is below what was spent already.
    """
    fence(connection, run_id)
    changes = changes or Changes()
    status = connection.execute(select(Run.status).where(Run.id == run_id)).scalar_one()
    _check_budgets(connection, run_id, changes)
    values = changes.given()
    if status == "stopped":
        values |= {"status": "queued", "finished_at": None, "error": None, "pause_requested": False}
    if values:
        _change(connection, run_id, NewEvent("run.reopened", data=_told(changes)), **values)


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
        connection.execute(delete(Run).where(Run.id == run_id))
        drop_memory(connection, tenant, run_id)
    if ids:
        used = union_all(*(select(column).where(column.is_not(None)) for column in _BLOBS))
        connection.execute(delete(Blob).where(Blob.tenant == tenant, Blob.hash.not_in(used)))
    return ids


def _refuse_ended(run_id: str, status: str) -> None:
    if status in ENDED:
        raise UsageError(f"the run is {status} already", mend=f"look with `podium show {run_id}`", run=run_id)


def _check_budgets(connection: Connection, run_id: str, changes: Changes) -> None:
    """The run is locked: no reservation comes in between."""
    row = connection.execute(
        select(
            Run.reserved_nano + Run.settled_nano,
            Run.reserved_tokens + Run.settled_tokens,
            Run.used_seconds,
        ).where(Run.id == run_id)
    ).one()
    wanted = (changes.budget_nano, changes.budget_tokens, changes.budget_seconds)
    for name, new, used in zip(("budget", "tokens", "seconds"), wanted, row, strict=True):
        if new is not None and new < used:
            shown = f"{format_usd(int(used))} USD" if name == "budget" else f"{used:,g}"
            raise UsageError(
                f"the new budget is below what the run has spent and reserved: {shown}",
                mend=f"give a higher --{name}",
                run=run_id,
            )


def _told(changes: Changes) -> dict[str, Any]:
    """The changes as an event tells them; money as decimal strings of USD."""
    given = changes.given()
    if changes.budget_nano is not None:
        given["budget_usd"] = format_usd(given.pop("budget_nano"))
    return given


def _change(
    connection: Connection, run_id: str, *events: NewEvent, requeue: bool = False, **changes: Any
) -> None:
    if requeue:
        waiting = connection.execute(select(Run.status).where(Run.id == run_id)).scalar() == "waiting"
        if waiting:
            changes["status"] = "queued"
    append(connection, run_id, events, control_version=Run.control_version + 1, **changes)
