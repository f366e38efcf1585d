"""Sums over a run, made by the database: a map of 10,000 elements is shown without loading its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from .reads import TaskRecord
from .tables import Call, Effect, Task


@dataclass(frozen=True, slots=True)
class ChildCount:
    """Tasks of one status below a task of the run's own workflow."""

    #: the run's own task: `sums` for sums[3] and for sums[3]/draft
    top: str
    #: its children; False: tasks that are further down
    direct: bool
    status: str
    tasks: int
    attempts: int


@dataclass(frozen=True, slots=True)
class CallTotal:
    """Calls of one task that one model answered."""

    task: str
    model: str
    calls: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class RouteTotal:
    """Calls below one task of the run's own workflow that went to one model and came to the same status."""

    top: str
    model: str
    status: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nano: int
    #: seconds of all of them together
    total_s: float
    #: one of the reasons, and how many different ones there are
    reason: str
    reasons: int
    error: str | None
    #: what was thought of the answers: accepted | escalated; None: nobody looked at them
    verdict: str | None
    #: the way that was taken: direct | cascade | …
    mode: str


@dataclass(frozen=True, slots=True)
class EffectTotal:
    top: str
    tool: str
    effect: str
    status: str
    calls: int
    error: str | None


def child_counts(connection: Connection, run_id: str) -> list[ChildCount]:
    """How many tasks of each status are below each of the run's own tasks."""
    top = _top(connection, Task.name)
    direct = (Task.parent == top).label("direct")
    counts = (
        select(top.label("top"), direct, Task.status, Task.attempts)
        .where(Task.run_id == run_id, Task.parent.is_not(None))
        .subquery()
    )
    keys = (counts.c.top, counts.c.direct, counts.c.status)
    query = select(*keys, func.count(), func.sum(counts.c.attempts)).group_by(*keys).order_by(*keys)
    return [
        ChildCount(name, bool(near), status, tasks, int(attempts or 0))
        for name, near, status, tasks, attempts in connection.execute(query)
    ]


def failed_below(connection: Connection, run_id: str, *, limit: int) -> list[TaskRecord]:
    """The first failed tasks that are below others, at most `limit` of each of the run's own tasks."""
    top = _top(connection, Task.name)
    ranked = (
        select(Task.name, func.row_number().over(partition_by=top, order_by=Task.position).label("place"))
        .where(Task.run_id == run_id, Task.parent.is_not(None), Task.status == "failed")
        .subquery()
    )
    names = connection.execute(select(ranked.c.name).where(ranked.c.place <= limit)).scalars().all()
    columns = [getattr(Task, name) for name in TaskRecord.__slots__]
    query = select(*columns).where(Task.run_id == run_id, Task.name.in_(names)).order_by(Task.position)
    return [TaskRecord(*row) for row in connection.execute(query)]


def call_totals(connection: Connection, run_id: str, *, top: bool = False) -> list[CallTotal]:
    """Calls and nano-dollars by task and model; with `top` by the run's own task that they are below."""
    name = _top(connection, Call.task) if top else Call.task
    rows = select(name.label("task"), Call.model, Call.cost_nano, Call.created_at).where(
        Call.run_id == run_id
    )
    calls = rows.subquery()
    query = (
        select(calls.c.task, calls.c.model, func.count(), func.coalesce(func.sum(calls.c.cost_nano), 0))
        .group_by(calls.c.task, calls.c.model)
        .order_by(func.min(calls.c.created_at), calls.c.task, calls.c.model)
    )
    return [CallTotal(task, model, n, int(cost)) for task, model, n, cost in connection.execute(query)]


def route_totals(connection: Connection, run_id: str) -> list[RouteTotal]:
    """Calls by the run's own task, model and status, the earliest first."""
    calls = (
        select(
            _top(connection, Call.task).label("top"),
            Call.model,
            Call.status,
            Call.input_tokens,
            Call.output_tokens,
            Call.cost_nano,
            Call.total_s,
            Call.route["reason"].as_string().label("reason"),
            Call.route["mode"].as_string().label("mode"),
            Call.verdict,
            Call.error,
            Call.created_at,
        )
        .where(Call.run_id == run_id)
        .subquery()
    )
    c = calls.c
    query = (
        select(
            c.top,
            c.model,
            c.status,
            func.count(),
            _sum(c.input_tokens),
            _sum(c.output_tokens),
            _sum(c.cost_nano),
            _sum(c.total_s),
            func.coalesce(func.min(c.reason), ""),
            func.count(c.reason.distinct()),
            func.min(c.error),
            c.verdict,
            c.mode,
        )
        .group_by(c.top, c.model, c.status, c.verdict, c.mode)
        .order_by(func.min(c.created_at), c.top, c.model, c.status, c.verdict, c.mode)
    )
    return [
        RouteTotal(
            top, model, status, n, int(read), int(written), int(cost), float(seconds),
            why, ways, error, verdict, mode or "direct",
        )
        for top, model, status, n, read, written, cost, seconds, why, ways, error, verdict, mode
        in connection.execute(query)
    ]  # fmt: skip


def effect_totals(connection: Connection, run_id: str) -> list[EffectTotal]:
    """Tool calls by the run's own task, tool and status, the earliest first."""
    rows = (
        select(
            _top(connection, Effect.task).label("top"),
            Effect.tool,
            Effect.effect,
            Effect.status,
            Effect.error,
            Effect.created_at,
        )
        .where(Effect.run_id == run_id)
        .subquery()
    )
    keys = (rows.c.top, rows.c.tool, rows.c.effect, rows.c.status)
    query = (
        select(*keys, func.count(), func.min(rows.c.error))
        .group_by(*keys)
        .order_by(func.min(rows.c.created_at), *keys)
    )
    return [EffectTotal(*row) for row in connection.execute(query)]


def _sum(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), 0)


def _top(connection: Connection, name: Any) -> ColumnElement[str]:
    """The run's own task that a task is below, or is: its name up to the first `[` or `/`."""
    # no bound parameters: Postgres would not see the same expression twice
    bracket, slash = literal_column("'['"), literal_column("'/'")
    flat = func.replace(name, slash, bracket)
    if connection.dialect.name == "sqlite":
        return func.substr(flat, 1, func.instr(flat.concat(bracket), bracket) - 1)
    return func.split_part(flat, bracket, 1)
