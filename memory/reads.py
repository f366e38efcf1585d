"""What people and engines read of a run: frozen records, made from one snapshot each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select

from .content import get, get_many
from .errors import NotFound, UsageError
from .tables import Attempt, Call, Edge, Effect, Event, Run, Task


@dataclass(frozen=True, slots=True)
class RunRecord:
    id: str
    tenant: str
    workflow: str
    status: str
    project_root: str
    priority: int
    #: seconds since the epoch, UTC
    deadline_at: float | None
    preapproved: list[str]
    policy: dict[str, Any] | None
    budget_nano: int
    reserved_nano: int
    settled_nano: int
    engine: str | None
    epoch: int
    beat: int
    detached: bool
    cancel_requested: bool
    control_version: int
    graph_version: int
    event_seq: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: dict[str, Any] | None
    spec_blob: str
    inputs_blob: str
    outputs_blob: str | None
    #: tokens of all calls together, and seconds of driving; None: not limited
    budget_tokens: int | None = None
    reserved_tokens: int = 0
    settled_tokens: int = 0
    budget_seconds: float | None = None
    used_seconds: float = 0.0
    pause_requested: bool = False
    #: the run that this one was forked from, and how far that one's events had come then
    forked_from: str | None = None
    forked_seq: int | None = None
    schedule_id: str | None = None


@dataclass(frozen=True, slots=True)
class ControlState:
    """What people ask of a run; `version` rises with each change."""

    version: int
    cancel: bool
    pause: bool
    priority: int
    budget_nano: int
    budget_tokens: int | None
    budget_seconds: float | None
    #: seconds since the epoch, UTC
    deadline_at: float | None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    name: str
    kind: str
    position: int
    parent: str | None
    element: int | None
    status: str
    attempts: int
    failures: int
    not_before: float | None
    approval: str | None
    approval_text: str | None
    approval_comment: str | None
    inputs_blob: str | None
    output_blob: str | None
    error: dict[str, Any] | None
    started_at: float | None
    finished_at: float | None
    #: attempts in which the process that ran it died
    deaths: int = 0
    #: the workflow that a `plan` task added to the graph
    plan_blob: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeRecord:
    src: str
    dst: str
    kind: str


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    task: str
    number: int
    epoch: int
    status: str
    started_at: float
    finished_at: float | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class CallRecord:
    id: str
    task: str
    attempt: int
    step: int
    model: str
    worker: str | None
    status: str
    route: dict[str, Any]
    input_tokens: int | None
    output_tokens: int | None
    reserved_nano: int
    cost_nano: int | None
    first_token_s: float | None
    total_s: float | None
    finish_reason: str | None
    error: str | None
    created_at: float
    request_blob: str
    response_blob: str | None
    #: accepted | escalated | sampled | drafted; None: nobody looked at the answer
    verdict: str | None = None
    #: what was found of it: {checks, wrong, gain, reason, escalate}
    review: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class EffectRecord:
    key: str
    task: str
    attempt: int
    step: int
    tool: str
    effect: str
    status: str
    error: str | None
    arguments_blob: str
    result_blob: str | None


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One settled call, for the router's statistics."""

    model: str
    task: str
    input_tokens: int
    output_tokens: int
    total_s: float


def _columns(table: Any, record: type) -> list[Any]:
    return [getattr(table, name) for name in record.__slots__]


def run(connection: Connection, run_id: str) -> RunRecord:
    """A run by its id.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(select(*_columns(Run, RunRecord)).where(Run.id == run_id)).first()
    if row is None:
        raise NotFound(f"there is no run {run_id}", mend="`podium runs` lists them")
    return RunRecord(*row)


def resolve(connection: Connection, tenant: str, prefix: str) -> str:
    """The id of the one run of a tenant that starts with `prefix`; `last` is the newest.

    Raises:
        NotFound: none does.
        UsageError: several do.
    """
    if prefix == "last":
        newest = select(Run.id).where(Run.tenant == tenant).order_by(Run.created_at.desc()).limit(1)
        found = list(connection.execute(newest).scalars())
    else:
        query = (
            select(Run.id).where(Run.tenant == tenant, Run.id.startswith(prefix, autoescape=True)).limit(5)
        )
        found = list(connection.execute(query).scalars())
    if prefix in found:
        return prefix
    if not found:
        raise NotFound(f"there is no run {prefix}", mend="`podium runs` lists them")
    if len(found) > 1:
        raise UsageError(
            f"{prefix} is the start of several runs: {', '.join(found)}", mend="give more letters"
        )
    return found[0]


def list_runs(
    connection: Connection, tenant: str, *, statuses: Sequence[str] = (), limit: int = 50
) -> list[RunRecord]:
    """Runs, the newest first."""
    query = select(*_columns(Run, RunRecord)).where(Run.tenant == tenant)
    if statuses:
        query = query.where(Run.status.in_(list(statuses)))
    query = query.order_by(Run.created_at.desc(), Run.id).limit(limit)
    return [RunRecord(*row) for row in connection.execute(query)]


def control_versions(connection: Connection, run_ids: Sequence[str]) -> dict[str, ControlState]:
    """run id → what people ask of the run. Runs that are not there are left out."""
    columns: list[Any] = [
        Run.id,
        Run.control_version,
        Run.cancel_requested,
        Run.pause_requested,
        Run.priority,
        Run.budget_nano,
        Run.budget_tokens,
        Run.budget_seconds,
        Run.deadline_at,
    ]
    query = select(*columns).where(Run.id.in_(list(run_ids)))
    return {run_id: ControlState(*asked) for run_id, *asked in connection.execute(query)}


def tasks(
    connection: Connection,
    run_id: str,
    *,
    own: bool = False,
    statuses: Sequence[str] = (),
    limit: int | None = None,
) -> list[TaskRecord]:
    """Tasks by position: all, or the run's `own` (no children), or those of some statuses."""
    query = select(*_columns(Task, TaskRecord)).where(Task.run_id == run_id).order_by(Task.position)
    if own:
        query = query.where(Task.parent.is_(None))
    if statuses:
        query = query.where(Task.status.in_(list(statuses)))
    return [TaskRecord(*row) for row in connection.execute(query.limit(limit))]


def edges(connection: Connection, run_id: str) -> list[EdgeRecord]:
    query = select(Edge.src, Edge.dst, Edge.kind).where(Edge.run_id == run_id)
    return [EdgeRecord(*row) for row in connection.execute(query)]


def attempts(connection: Connection, run_id: str, *, own: bool = False) -> list[AttemptRecord]:
    """Attempts by their start; the open one of a task that runs is made from the task's row.

    With `own` only those of the run's own tasks, not of children.
    """
    ended = select(*_columns(Attempt, AttemptRecord)).where(Attempt.run_id == run_id)
    running = (
        select(Task.name, Task.attempts, Run.epoch, Task.started_at)
        .join(Run, Run.id == Task.run_id)
        .where(Task.run_id == run_id, Task.status.in_(("running", "expanded")), Task.attempts > 0)
    )
    if own:
        ended, running = ended.where(Attempt.task.in_(_own(run_id))), running.where(Task.parent.is_(None))
    found = [AttemptRecord(*row) for row in connection.execute(ended)]
    known = {(a.task, a.number) for a in found}
    found += [
        AttemptRecord(task, number, epoch, "running", at or 0.0, None, None)
        for task, number, epoch, at in connection.execute(running)
        if (task, number) not in known
    ]
    return sorted(found, key=lambda a: (a.started_at, a.task, a.number))


def histories(connection: Connection, run_id: str) -> tuple[float, dict[str, tuple[int, float | None]]]:
    """When a person last had the run tried again (seconds, UTC; else 0), and task → attempts that were lost
    with their engine, and the start of its first attempt since then. Of attempts that have ended.
    """
    again = select(func.max(Event.at)).where(Event.run_id == run_id, Event.kind == "run.retried")
    since = connection.execute(again).scalar() or 0.0
    lost = func.sum(case((Attempt.status == "lost", 1), else_=0))
    first = func.min(case((Attempt.started_at >= since, Attempt.started_at)))
    query = select(Attempt.task, lost, first).where(Attempt.run_id == run_id).group_by(Attempt.task)
    return since, {task: (int(count), begun) for task, count, begun in connection.execute(query)}


def undoing(connection: Connection, run_id: str) -> tuple[str, dict[str, Any]] | None:
    """Status and error with which a run ends that undoes what it did; None: it does not."""
    query = select(Event.data).where(Event.run_id == run_id, Event.kind == "run.patched")
    data = connection.execute(query.order_by(Event.seq.desc()).limit(1)).scalar()
    return None if data is None else (data["then"], data["error"])


def calls(connection: Connection, run_id: str, *, own: bool = False) -> list[CallRecord]:
    """Calls, the earliest first; with `own` only those of the run's own tasks, not of children."""
    query = (
        select(*_columns(Call, CallRecord))
        .where(Call.run_id == run_id)
        .order_by(Call.created_at, Call.task, Call.step)
    )
    if own:
        query = query.where(Call.task.in_(_own(run_id)))
    return [CallRecord(*row) for row in connection.execute(query)]


def first_request(connection: Connection, run_id: str, task: str) -> dict[str, Any] | None:
    """What the newest first call of a task asked: {messages, schema, max_tokens, …}."""
    query = select(Call.tenant, Call.request_blob).where(
        Call.run_id == run_id, Call.task == task, Call.step == 0
    )
    row = connection.execute(query.order_by(Call.attempt.desc(), Call.created_at.desc()).limit(1)).first()
    return None if row is None else value(connection, row.tenant, row.request_blob)


def effects(connection: Connection, run_id: str, *, own: bool = False) -> list[EffectRecord]:
    """Tool calls, the earliest first; with `own` only those of the run's own tasks."""
    query = (
        select(*_columns(Effect, EffectRecord))
        .where(Effect.run_id == run_id)
        .order_by(Effect.created_at, Effect.key)
    )
    if own:
        query = query.where(Effect.task.in_(_own(run_id)))
    return [EffectRecord(*row) for row in connection.execute(query)]


def _own(run_id: str) -> Any:
    """The names of the tasks of the run's own workflow."""
    return select(Task.name).where(Task.run_id == run_id, Task.parent.is_(None))


def value(connection: Connection, tenant: str, digest: str | None) -> Any:
    """A stored value by its hash; None for no hash."""
    return None if digest is None else get(connection, tenant, digest)


def values(connection: Connection, tenant: str, digests: Sequence[str]) -> dict[str, Any]:
    return get_many(connection, tenant, digests)


def latencies(connection: Connection, tenant: str, *, limit: int = 2000) -> list[LatencyRow]:
    """The newest settled calls of a tenant, whose statistics the router uses."""
    query = (
        select(Call.model, Call.task, Call.input_tokens, Call.output_tokens, Call.total_s)
        .where(Call.tenant == tenant, Call.status == "settled")
        .order_by(Call.created_at.desc())
        .limit(limit)
    )
    return [LatencyRow(*row) for row in connection.execute(query)]


def cost_by_task(connection: Connection, run_id: str) -> dict[str, tuple[int, int]]:
    """task → (nano-dollars settled or unknown, calls)."""
    query = (
        select(Call.task, func.coalesce(func.sum(Call.cost_nano), 0), func.count())
        .where(Call.run_id == run_id)
        .group_by(Call.task)
    )
    return {task: (int(cost or 0), count) for task, cost, count in connection.execute(query)}
