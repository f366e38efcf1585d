"""Budgets of a run and inside it: of money and of tokens, for a task with all that is below it.

A call counts against its run and against every budget inside the run that holds its task: of the task itself
and of what it is inside of (`a[3]/b` → `a`, `a[3]`, `a[3]/b`). reserved + settled ≤ limit holds on every
level in every committed state: the addition and its test are one UPDATE, and a CHECK constraint stands behind
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, update

from .errors import BudgetStopped, UsageError
from .events import fence
from .hot import run_sql
from .money import format_usd
from .tables import Budget, Run


@dataclass(frozen=True, slots=True)
class NewBudget:
    """A budget inside a run."""

    #: the task that it is for, with all that is below it
    scope: str
    limit_nano: int | None = None
    limit_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What new calls may still reserve under one budget."""

    #: the task; None: the run
    scope: str | None
    #: nano-dollars; None: not limited
    nano: int | None
    #: None: not limited
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Amount:
    """What a call may take, or took."""

    #: nano-dollars
    nano: int
    #: of prompt and answer together
    tokens: int


class BudgetRefused(BudgetStopped):
    """A budget does not cover a call's worst case. Recorded as a `BudgetStopped`."""

    def __init__(self, message: str, *, left: Left, need_nano: int, **where: Any) -> None:
        super().__init__(message, **where)
        #: what that budget has left
        self.left = left
        #: the call's worst case, nano-dollars
        self.need_nano = need_nano

    @property
    def scope(self) -> str | None:
        """The task whose budget refused; None: the run's."""
        return self.left.scope

    def data(self) -> dict[str, object]:
        place: dict[str, object] = {} if self.scope is None else {"scope": self.scope}
        return super().data() | {"kind": BudgetStopped.__name__} | place


def scopes_of(task: str) -> list[str]:
    """The tasks whose budgets a call of `task` counts against, outermost first."""
    return [task[: mark.start()] for mark in re.finditer(r"[\[/]", task)] + [task]


def open_budgets(connection: Connection, run_id: str, tenant: str, rows: Sequence[NewBudget]) -> None:
    """Write the budgets of new tasks, with the tasks themselves: calls count only against what is there
    when they are reserved. A row without any limit writes nothing.
    """
    values = [
        {
            "run_id": run_id,
            "scope": row.scope,
            "tenant": tenant,
            "limit_nano": row.limit_nano,
            "limit_tokens": row.limit_tokens,
        }
        for row in rows
        if row.limit_nano is not None or row.limit_tokens is not None
    ]
    if values:
        connection.execute(insert(Budget), values)


def raise_budget(
    connection: Connection, run_id: str, *, budget_nano: int | None = None, budget_tokens: int | None = None
) -> None:
    """Set a run's budget anew; what is None stays. It may be lower than before, but not than what is spent
    and reserved.

    Raises:
        NotFound: no such run.
        UsageError: more is spent and reserved already.
    """
    fence(connection, run_id)
    now = _look(connection, _RUN, (run_id,))
    spent, tokens = now.reserved_nano + now.settled_nano, now.reserved_tokens + now.settled_tokens
    if budget_nano is not None and budget_nano < spent:
        raise UsageError(
            f"{format_usd(budget_nano)} USD are too low a budget: {format_usd(spent)} are spent or reserved",
            mend=f"give at least {format_usd(spent)}",
            run=run_id,
        )
    if budget_tokens is not None and budget_tokens < tokens:
        raise UsageError(
            f"{budget_tokens:,} tokens are too low a budget: {tokens:,} are used or reserved",
            mend=f"give at least {tokens}",
            run=run_id,
        )
    given = {"budget_nano": budget_nano, "budget_tokens": budget_tokens}
    if changes := {name: value for name, value in given.items() if value is not None}:
        connection.execute(update(Run).where(Run.id == run_id).values(**changes))


def left(connection: Connection, run_id: str) -> list[Left]:
    """What the run's budget and those inside it have left, the run's first, then by scope."""
    nested = [_Account(*row) for row in run_sql(connection, _ALL_NESTED, (run_id,))]
    own = [_Account(*row) for row in run_sql(connection, _RUN.look, (run_id,))]
    return [account.left for account in (*own, *sorted(nested, key=lambda account: account.scope or ""))]


def take(connection: Connection, run_id: str, task: str, model: str, worst: Amount) -> None:
    """Reserve a call's worst case on every level; the run is locked (`events.fence`). What was written before
    it raises is for the caller's transaction or savepoint to undo.

    Raises:
        BudgetRefused: a budget does not cover it; the outermost one.
    """
    for level, key in _levels(connection, run_id, task):
        row = (worst.nano, worst.tokens, *key, worst.nano, worst.tokens)
        if run_sql(connection, level.take, row).rowcount == 0:
            raise _refusal(run_id, task, model, worst, _look(connection, level, key))


def give_back(connection: Connection, run_id: str, task: str, worst: Amount, used: Amount) -> None:
    """Undo a reservation on every level where it was made; `used` of it is spent."""
    for level, key in _levels(connection, run_id, task):
        run_sql(connection, level.give_back, (worst.nano, used.nano, worst.tokens, used.tokens, *key))


@dataclass(frozen=True, slots=True)
class _Account:
    """A budget as its row has it."""

    scope: str | None
    limit_nano: int | None
    reserved_nano: int
    settled_nano: int
    limit_tokens: int | None
    reserved_tokens: int
    settled_tokens: int

    @property
    def left(self) -> Left:
        nano, tokens = self.limit_nano, self.limit_tokens
        return Left(
            self.scope,
            None if nano is None else nano - self.reserved_nano - self.settled_nano,
            None if tokens is None else tokens - self.reserved_tokens - self.settled_tokens,
        )


@dataclass(frozen=True, slots=True)
class _Level:
    """The statements of one kind of budget. A loop of calls runs them again and again, so they are plain."""

    look: str
    take: str
    give_back: str


def _level(table: str, key: str, scope: str, nano: str, tokens: str) -> _Level:
    columns = f"{scope}, {nano}, reserved_nano, settled_nano, {tokens}, reserved_tokens, settled_tokens"
    return _Level(
        look=f"SELECT {columns} FROM {table} WHERE {key}",
        take=f"UPDATE {table} SET reserved_nano = reserved_nano + ?, reserved_tokens = reserved_tokens + ?"
        f" WHERE {key} AND ({nano} IS NULL OR reserved_nano + settled_nano + ? <= {nano})"
        f" AND ({tokens} IS NULL OR reserved_tokens + settled_tokens + ? <= {tokens})",
        give_back=f"UPDATE {table} SET reserved_nano = reserved_nano - ?, settled_nano = settled_nano + ?,"
        f" reserved_tokens = reserved_tokens - ?, settled_tokens = settled_tokens + ? WHERE {key}",
    )


_RUN = _level("run", "id = ?", "NULL", "budget_nano", "budget_tokens")
_NESTED = _level("budget", "run_id = ? AND scope = ?", "scope", "limit_nano", "limit_tokens")
_ALL_NESTED = _NESTED.look.replace("run_id = ? AND scope = ?", "run_id = ?")


def _levels(connection: Connection, run_id: str, task: str) -> Iterator[tuple[_Level, tuple[str, ...]]]:
    """The budgets that a call of `task` counts against, outermost first. The run's comes before it is asked
    whether there are others.
    """
    yield _RUN, (run_id,)
    scopes = scopes_of(task)
    marks = ", ".join("?" * len(scopes))
    query = f"SELECT scope FROM budget WHERE run_id = ? AND scope IN ({marks})"
    found = {row[0] for row in run_sql(connection, query, (run_id, *scopes))}
    for scope in scopes:
        if scope in found:
            yield _NESTED, (run_id, scope)


def _look(connection: Connection, level: _Level, key: tuple[str, ...]) -> _Account:
    return _Account(*run_sql(connection, level.look, key).one())


def _refusal(run_id: str, task: str, model: str, worst: Amount, found: _Account) -> BudgetRefused:
    rest = found.left
    of_task = "" if rest.scope is None else f" of task {rest.scope}"
    if rest.nano is not None and worst.nano > rest.nano:
        message = (
            f"a call of {model} may cost {format_usd(worst.nano)} USD, "
            f"{format_usd(rest.nano)} of the budget of {format_usd(found.limit_nano or 0)}{of_task} are left"
        )
        mend = f"go on with more money: `podium resume {run_id} --budget USD`"
    else:
        message = (
            f"a call of {model} may take {worst.tokens:,} tokens, "
            f"{rest.tokens:,} of the budget of {found.limit_tokens:,} tokens{of_task} are left"
        )
        mend = f"resume {run_id} with a larger budget of tokens, or lower the task's `max_tokens`"
    if rest.scope is not None:
        mend = f"raise the `budget` of task {rest.scope} in the workflow, or lower `max_tokens` of its calls"
    return BudgetRefused(message, left=rest, need_nano=worst.nano, mend=mend, run=run_id, task=task)
