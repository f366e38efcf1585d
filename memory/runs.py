"""A run's life as an engine commits it: created, claimed, alive, over, let go. `steps` has its tasks'.

Each function is one write for the Journal. All but `create` and `claim` take the engine's epoch and are
refused with StaleEpoch when another engine has claimed the run since.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from . import effects, graphs, ledger
from .content import insert_missing, put
from .errors import PodiumError, StaleEpoch
from .events import NewEvent, append, fence
from .graphs import NewEdge, NewTask
from .hot import run_sql
from .tables import Run, Task

#: states in which a run is over
ENDED = ("succeeded", "failed", "cancelled", "stopped")


@dataclass(frozen=True, slots=True)
class NewRun:
    id: str
    tenant: str
    workflow: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Any]
    tasks: Sequence[NewTask]
    edges: Sequence[NewEdge]
    budget_nano: int
    project_root: str
    detached: bool = False
    priority: int = 0
    deadline_at: float | None = None
    idempotency_key: str | None = None
    preapproved: Sequence[str] = ()
    policy: Mapping[str, Any] | None = None
    #: tokens of all calls together, and seconds of driving; None: not limited
    budget_tokens: int | None = None
    budget_seconds: float | None = None
    schedule_id: str | None = None
    #: the run that this one is a fork of, and how many events that had then
    forked_from: str | None = None
    forked_seq: int | None = None


def create(connection: Connection, new: NewRun) -> str:
    """Store a run with its tasks, edges and first event; returns its id.

    The same idempotency key within a tenant gives the run that is there already.
    """
    row = {
        "id": new.id,
        "tenant": new.tenant,
        "workflow": new.workflow,
        "spec_blob": put(connection, new.tenant, new.spec),
        "inputs_blob": put(connection, new.tenant, new.inputs),
        "status": "queued",
        "project_root": new.project_root,
        "priority": new.priority,
        "deadline_at": new.deadline_at,
        "idempotency_key": new.idempotency_key,
        "preapproved": list(new.preapproved),
        "policy": dict(new.policy) if new.policy else None,
        "budget_nano": new.budget_nano,
        "budget_tokens": new.budget_tokens,
        "budget_seconds": new.budget_seconds,
        "schedule_id": new.schedule_id,
        "forked_from": new.forked_from,
        "forked_seq": new.forked_seq,
        "detached": new.detached,
        "created_at": time.time(),
    }
    # no look before the insert: of two at the same time one must find the other's
    if not insert_missing(connection, Run, [row]):
        query = select(Run.id).where(Run.tenant == new.tenant, Run.idempotency_key == new.idempotency_key)
        return connection.execute(query).scalar_one()
    graphs.extend(connection, new.id, new.tenant, 0, new.tasks, new.edges)
    event = NewEvent("run.created", data={"workflow": new.workflow, "tasks": len(new.tasks)})
    append(connection, new.id, [event])
    return new.id


def claim(connection: Connection, run_id: str, engine: str, seen_epoch: int) -> int:
    """Take a run over; returns the new epoch. What a dead engine left open is closed in the same write.

    Raises:
        StaleEpoch: someone else claimed it since `seen_epoch` was read, or it is over.
    """
    done = connection.execute(
        update(Run)
        .where(Run.id == run_id, Run.epoch == seen_epoch, Run.status.not_in(ENDED))
        .values(
            engine=engine,
            epoch=seen_epoch + 1,
            beat=0,
            status="running",
            error=None,
        )
    )
    if done.rowcount == 0:
        raise StaleEpoch(
            "another engine has claimed the run, or it is over",
            mend=f"look with `podium show {run_id}`",
            run=run_id,
        )
    epoch = seen_epoch + 1
    connection.execute(
        update(Run).where(Run.id == run_id, Run.started_at.is_(None)).values(started_at=time.time())
    )
    lost = (
        connection.execute(
            select(Task.name).where(Task.run_id == run_id, Task.status == "running").order_by(Task.position)
        )
        .scalars()
        .all()
    )
    _close_open_attempts(connection, run_id, seen_epoch, "lost")
    connection.execute(
        update(Task).where(Task.run_id == run_id, Task.status == "running").values(status="pending")
    )
    events = [NewEvent("run.claimed", data={"engine": engine, "epoch": epoch})]
    events += [NewEvent("task.lost", name) for name in lost]
    append(connection, run_id, events, epoch=epoch)
    ledger.recover(connection, run_id, epoch)
    effects.recover(connection, run_id)
    return epoch


def beat(connection: Connection, run_ids: Sequence[str], engine: str) -> list[str]:
    """Show that the engine lives; returns the runs that it still owns."""
    mine = (Run.id.in_(list(run_ids)), Run.engine == engine)
    connection.execute(update(Run).where(*mine).values(beat=Run.beat + 1))
    return list(connection.execute(select(Run.id).where(*mine)).scalars())


def finish_run(
    connection: Connection,
    run_id: str,
    epoch: int,
    status: str,
    *,
    outputs: Mapping[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    seconds: float = 0.0,
) -> str | None:
    """End the run, or let go of it when it waits for a person or is paused. Open tasks of an ended run are
    cancelled, except that a stopped run (budget) keeps them pending, so that it can be resumed.

    `seconds`: how long this engine drove it.

    Returns the run's status: a run that is to wait, but that someone cancelled meanwhile, is cancelled.
    None, and nothing is changed, for a run that is to wait but whose question was answered meanwhile, and
    for one that is to pause but was resumed.
    """
    tenant = fence(connection, run_id, epoch)
    if status in ("waiting", "paused"):
        asked = connection.execute(
            select(Run.cancel_requested, Run.pause_requested).where(Run.id == run_id)
        ).one()
        if asked.cancel_requested:
            status, error = "cancelled", PodiumError("cancelled by a person").data()
        elif (status == "paused" and not asked.pause_requested) or (
            status == "waiting" and _was_answered(connection, run_id)
        ):
            return None
    ended = status in ENDED
    if ended:
        _close_open_attempts(connection, run_id, epoch, "cancelled")
        reopen = "pending" if status == "stopped" else "cancelled"
        open_states = ("running",) if status == "stopped" else ("pending", "running", "waiting", "expanded")
        connection.execute(
            update(Task).where(Task.run_id == run_id, Task.status.in_(open_states)).values(status=reopen)
        )
        ledger.recover(connection, run_id, epoch)
        effects.recover(connection, run_id)
    data: dict[str, Any] = {} if error is None else {"error": error}
    append(
        connection,
        run_id,
        [NewEvent(f"run.{status}", data=data)],
        epoch=epoch,
        status=status,
        engine=None,
        error=error,
        outputs_blob=put(connection, tenant, dict(outputs)) if outputs is not None else None,
        finished_at=time.time() if ended else None,
        used_seconds=Run.used_seconds + seconds,
    )
    return status


def release(connection: Connection, run_id: str, epoch: int, *, seconds: float = 0.0) -> None:
    """Let go of a run that this engine drives: it stops in good order. Nothing happens to any other run."""
    fence(connection, run_id, epoch)
    if connection.execute(select(Run.status).where(Run.id == run_id)).scalar() != "running":
        return
    append(
        connection,
        run_id,
        [NewEvent("run.released")],
        epoch=epoch,
        engine=None,
        status="queued",
        used_seconds=Run.used_seconds + seconds,
    )


def answers(connection: Connection, run_id: str) -> list[tuple[str, str, str | None]]:
    """What people answered: task, approved | rejected, comment; of tasks that have not gone on yet."""
    query = select(Task.name, Task.approval, Task.approval_comment).where(
        Task.run_id == run_id, Task.status == "pending", Task.approval.in_(("approved", "rejected"))
    )
    return [(name, str(approval), comment) for name, approval, comment in connection.execute(query)]


def _was_answered(connection: Connection, run_id: str) -> bool:
    # the run is locked: an answer that comes now waits for that, and finds the run waiting
    return bool(answers(connection, run_id))


def _close_open_attempts(connection: Connection, run_id: str, epoch: int, status: str) -> None:
    """Attempts that run get their row: nobody will end them any more."""
    row = (epoch, status, time.time(), run_id)
    run_sql(connection, _OPEN_ATTEMPTS, row)


_OPEN_ATTEMPTS = """INSERT INTO attempt (run_id, task, number, tenant, epoch, status, started_at, finished_at)
SELECT run_id, name, attempts, tenant, CAST(? AS BIGINT), CAST(? AS TEXT), started_at, CAST(? AS FLOAT)
FROM task WHERE run_id = ? AND status = 'running' ON CONFLICT DO NOTHING"""
