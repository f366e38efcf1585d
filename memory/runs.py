"""What an engine commits for a run: create, claim, start, finish, retry, wait, expand, end.

Each function is one write for the Journal. All but `create` and `claim` take the engine's epoch and are
refused with StaleEpoch when another engine has claimed the run since.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update

from . import effects, items, ledger
from .content import insert_missing, plain_text, put
from .errors import PodiumError, StaleEpoch
from .events import NewEvent, append, fence
from .tables import Attempt, Edge, Run, Task

#: states in which a run is over
ENDED = ("succeeded", "failed", "cancelled", "stopped")


@dataclass(frozen=True, slots=True)
class NewTask:
    name: str
    kind: str
    parent: str | None = None
    element: int | None = None


@dataclass(frozen=True, slots=True)
class NewEdge:
    src: str
    dst: str
    kind: str


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


@dataclass(frozen=True, slots=True)
class Finish:
    """How an attempt ended."""

    task: str
    attempt: int
    #: succeeded | failed | skipped
    status: str
    output: Any = None
    error: dict[str, Any] | None = None
    #: tasks that can never run now
    skipped: Sequence[str] = ()
    #: the output is kept as an artifact, made from these tasks' artifacts
    remember: bool = False
    derived_from: Sequence[str] = ()
    event: dict[str, Any] = field(default_factory=dict)


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
        "detached": new.detached,
        "created_at": time.time(),
    }
    # no look before the insert: of two at the same time one must find the other's
    if not insert_missing(connection, Run, [row]):
        query = select(Run.id).where(Run.tenant == new.tenant, Run.idempotency_key == new.idempotency_key)
        return connection.execute(query).scalar_one()
    _add_graph(connection, new.id, new.tenant, new.tasks, new.edges, first=0)
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
    _close_open_attempts(connection, run_id, "lost")
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


def start_task(connection: Connection, run_id: str, epoch: int, task: str) -> int:
    """Begin an attempt; returns its number."""
    now = time.time()
    fence(connection, run_id, epoch)
    row = connection.execute(
        update(Task)
        .where(Task.run_id == run_id, Task.name == task, Task.status == "pending")
        .values(status="running", attempts=Task.attempts + 1, started_at=now, not_before=None)
        .returning(Task.attempts, Task.tenant)
    ).first()
    if row is None:
        raise PodiumError(
            "the task is not pending", mend="this is a bug, please report it", run=run_id, task=task
        )
    connection.execute(
        insert(Attempt).values(
            run_id=run_id,
            task=task,
            number=row.attempts,
            tenant=row.tenant,
            epoch=epoch,
            status="running",
            started_at=now,
        )
    )
    append(connection, run_id, [NewEvent("task.started", task, {"attempt": row.attempts})], epoch=epoch)
    return row.attempts


def finish_task(connection: Connection, run_id: str, epoch: int, finish: Finish) -> None:
    """Accept a result, exactly once: the task must still be in the attempt that made it.

    Raises:
        StaleEpoch: the attempt is no longer the task's current one.
    """
    now = time.time()
    tenant = fence(connection, run_id, epoch)
    blob = put(connection, tenant, finish.output) if finish.status == "succeeded" else None
    done = connection.execute(
        update(Task)
        .where(
            Task.run_id == run_id,
            Task.name == finish.task,
            Task.attempts == finish.attempt,
            Task.status.in_(("running", "expanded", "pending")),
        )
        .values(status=finish.status, output_blob=blob, error=finish.error, finished_at=now)
    )
    if done.rowcount == 0:
        raise StaleEpoch("the result came too late: the attempt is not current", run=run_id, task=finish.task)
    _end_attempt(connection, run_id, finish.task, finish.attempt, finish.status, finish.error)
    _mark(connection, run_id, finish.skipped, "skipped")
    if finish.remember and blob is not None:
        sources = items.latest_ids(connection, run_id, finish.derived_from) if finish.derived_from else []
        items.put_revision(
            connection,
            items.Place(tenant, "run", run_id, finish.task),
            "artifact",
            finish.output,
            producer=items.Producer(run_id, finish.task, finish.attempt),
            derived_from=sources,
        )
    data = {"attempt": finish.attempt, **finish.event}
    if finish.error is not None:
        data["error"] = finish.error
    events = [NewEvent(f"task.{finish.status}", finish.task, data)]
    events += [NewEvent("task.skipped", name) for name in finish.skipped]
    append(connection, run_id, events, epoch=epoch)


def retry_task(
    connection: Connection,
    run_id: str,
    epoch: int,
    task: str,
    attempt: int,
    error: dict[str, Any],
    not_before: float,
) -> None:
    """End a failed attempt and let the task try again at `not_before` (seconds, UTC).

    Raises:
        StaleEpoch: the attempt is no longer the task's current one.
    """
    fence(connection, run_id, epoch)
    values = {"status": "pending", "failures": Task.failures + 1, "not_before": not_before, "error": error}
    _leave(connection, run_id, task, attempt, values)
    effects.recover(connection, run_id, task)
    _end_attempt(connection, run_id, task, attempt, "failed", error)
    data = {"attempt": attempt, "error": error, "not_before": not_before}
    append(connection, run_id, [NewEvent("task.retrying", task, data)], epoch=epoch)


def wait_task(
    connection: Connection, run_id: str, epoch: int, task: str, attempt: int, question: str
) -> None:
    """The task waits for a person's answer to `question`.

    Raises:
        StaleEpoch: the attempt is no longer the task's current one.
    """
    fence(connection, run_id, epoch)
    values = {"status": "waiting", "approval": "requested", "approval_text": plain_text(question)}
    _leave(connection, run_id, task, attempt, values)
    _end_attempt(connection, run_id, task, attempt, "waiting", None)
    append(connection, run_id, [NewEvent("task.waiting", task, {"question": question})], epoch=epoch)


def expand_task(
    connection: Connection,
    run_id: str,
    epoch: int,
    task: str,
    graph_version: int,
    children: Sequence[NewTask],
    edges: Sequence[NewEdge],
    *,
    inputs: Any = None,
) -> None:
    """A graph patch: the task becomes `expanded` and gets children, if the graph is still at `graph_version`.

    Raises:
        StaleEpoch: the graph was changed since.
    """
    tenant = fence(connection, run_id, epoch)
    done = connection.execute(
        update(Run)
        .where(Run.id == run_id, Run.graph_version == graph_version)
        .values(graph_version=graph_version + 1)
    )
    if done.rowcount == 0:
        raise StaleEpoch("the graph was changed by someone else", run=run_id, task=task)
    values: dict[str, Any] = {"status": "expanded"}
    if inputs is not None:
        values["inputs_blob"] = put(connection, tenant, inputs)
    parent = (Task.run_id == run_id, Task.name == task, Task.status == "running")
    if connection.execute(update(Task).where(*parent).values(**values)).rowcount == 0:
        raise StaleEpoch("the attempt is not current", run=run_id, task=task)
    first = connection.execute(
        select(Task.position).where(Task.run_id == run_id).order_by(Task.position.desc()).limit(1)
    ).scalar_one()
    _add_graph(connection, run_id, tenant, children, edges, first=first + 1)
    append(connection, run_id, [NewEvent("task.expanded", task, {"children": len(children)})], epoch=epoch)


def finish_run(
    connection: Connection,
    run_id: str,
    epoch: int,
    status: str,
    *,
    outputs: Mapping[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> str | None:
    """End the run, or let go of it when it waits for a person. Open tasks of an ended run are cancelled,
    except that a stopped run (budget) keeps them pending, so that it can be resumed.

    Returns the run's status: a run that is to wait, but that someone cancelled meanwhile, is cancelled.
    None, and nothing is changed, for a run that is to wait but whose question was answered meanwhile.
    """
    tenant = fence(connection, run_id, epoch)
    if status == "waiting":
        query = select(Run.cancel_requested).where(Run.id == run_id)
        if connection.execute(query).scalar():
            status, error = "cancelled", PodiumError("cancelled by a person").data()
        elif _was_answered(connection, run_id):
            return None
    ended = status in ENDED
    if ended:
        _close_open_attempts(connection, run_id, "cancelled")
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
    )
    return status


def release(connection: Connection, run_id: str, epoch: int) -> None:
    """Let go of a run that this engine drives: it stops in good order. Nothing happens to any other run."""
    fence(connection, run_id, epoch)
    if connection.execute(select(Run.status).where(Run.id == run_id)).scalar() != "running":
        return
    append(connection, run_id, [NewEvent("run.released")], epoch=epoch, engine=None, status="queued")


def _add_graph(
    connection: Connection,
    run_id: str,
    tenant: str,
    tasks: Sequence[NewTask],
    edges: Sequence[NewEdge],
    *,
    first: int,
) -> None:
    if tasks:
        rows = [
            {
                "run_id": run_id,
                "name": task.name,
                "tenant": tenant,
                "kind": task.kind,
                "position": first + number,
                "parent": task.parent,
                "element": task.element,
                "status": "pending",
            }
            for number, task in enumerate(tasks)
        ]
        connection.execute(insert(Task), rows)
    if edges:
        connection.execute(
            insert(Edge),
            [{"run_id": run_id, "src": e.src, "dst": e.dst, "kind": e.kind, "tenant": tenant} for e in edges],
        )


def _was_answered(connection: Connection, run_id: str) -> bool:
    # the run is locked: an answer that comes now waits for that, and finds the run waiting
    query = select(Task.name).where(
        Task.run_id == run_id, Task.status == "pending", Task.approval.in_(("approved", "rejected"))
    )
    return connection.execute(query.limit(1)).first() is not None


def _mark(connection: Connection, run_id: str, tasks: Sequence[str], status: str) -> None:
    for start in range(0, len(tasks), 500):
        connection.execute(
            update(Task)
            .where(Task.run_id == run_id, Task.name.in_(tasks[start : start + 500]), Task.status == "pending")
            .values(status=status, finished_at=time.time())
        )


def _leave(connection: Connection, run_id: str, task: str, attempt: int, values: dict[str, Any]) -> None:
    done = connection.execute(
        update(Task)
        .where(Task.run_id == run_id, Task.name == task, Task.attempts == attempt, Task.status == "running")
        .values(**values)
    )
    if done.rowcount == 0:
        raise StaleEpoch("the attempt is not current", run=run_id, task=task)


def _end_attempt(
    connection: Connection, run_id: str, task: str, number: int, status: str, error: dict[str, Any] | None
) -> None:
    connection.execute(
        update(Attempt)
        .where(Attempt.run_id == run_id, Attempt.task == task, Attempt.number == number)
        .values(status=status, error=error, finished_at=time.time())
    )


def _close_open_attempts(connection: Connection, run_id: str, status: str) -> None:
    connection.execute(
        update(Attempt)
        .where(Attempt.run_id == run_id, Attempt.status == "running")
        .values(status=status, finished_at=time.time())
    )
