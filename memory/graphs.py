"""A run's graph as rows: tasks, edges, and the budgets of tasks that have one of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from . import ledger
from .hot import run_many


@dataclass(frozen=True, slots=True)
class NewTask:
    name: str
    kind: str
    parent: str | None = None
    #: number of a map's element or of a loop's iteration
    element: int | None = None
    #: for the task and all that is below it: nano-dollars, tokens
    limit_nano: int | None = None
    limit_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class NewEdge:
    src: str
    dst: str
    kind: str


_TASK = """INSERT INTO task
(run_id, name, tenant, kind, position, parent, element, status, attempts, failures, deaths)
VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', 0, 0, 0)"""
_EDGE = "INSERT INTO edge (run_id, src, dst, tenant, kind) VALUES (?, ?, ?, ?, ?)"


def extend(
    connection: Connection,
    run_id: str,
    tenant: str,
    first: int,
    tasks: Sequence[NewTask],
    edges: Sequence[NewEdge],
) -> None:
    """Add pending tasks, which get positions from `first` on, and edges."""
    rows = [(run_id, t.name, tenant, t.kind, first + n, t.parent, t.element) for n, t in enumerate(tasks)]
    run_many(connection, _TASK, rows)
    run_many(connection, _EDGE, [(run_id, e.src, e.dst, tenant, e.kind) for e in edges])
    limited = [t for t in tasks if t.limit_nano is not None or t.limit_tokens is not None]
    if limited:
        budgets = [ledger.NewBudget(t.name, t.limit_nano, t.limit_tokens) for t in limited]
        ledger.open_budgets(connection, run_id, tenant, budgets)
