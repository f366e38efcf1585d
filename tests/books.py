"""The books of a run, checked against its calls on every level; and runs with budgets inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from podium.memory import ledger
from podium.memory.chat import Completion, Usage
from podium.memory.database import Database
from podium.memory.ledger import NewBudget, NewCall
from podium.memory.tables import Budget, Call, Ledger, Run
from run_rows import claimed
from sqlalchemy import Connection, func, select

Write = Callable[[Connection], None]

#: tasks whose names are inside of each other, and the budgets they count against beside the run's
TREE: Mapping[str, tuple[str, ...]] = {
    "a": ("a",),
    "a[3]": ("a", "a[3]"),
    "a[3]/b": ("a", "a[3]", "a[3]/b"),
    "a[30]/b": ("a",),
    "ab": (),
}
SCOPES = ("a", "a[3]", "a[3]/b")


@dataclass(frozen=True)
class Page:
    """One budget: nano-dollars and tokens."""

    reserved: tuple[int, int]
    settled: tuple[int, int]


def read_books(connection: Connection, run_id: str = "r1") -> dict[str | None, Page]:
    """Every budget of a run by its scope (None: the run), each checked against the calls within it."""
    query = select(Call).where(Call.run_id == run_id)
    calls = [dict(row) for row in connection.execute(query.with_only_columns(*Call.__table__.c)).mappings()]
    run = connection.execute(
        select(*Run.__table__.c, Run.budget_nano.label("limit_nano"), Run.budget_tokens.label("limit_tokens"))
        .where(Run.id == run_id)
    ).mappings().one()  # fmt: skip
    nested = connection.execute(select(*Budget.__table__.c).where(Budget.run_id == run_id)).mappings()
    pages: dict[str | None, Page] = {None: _checked(run, calls)}
    for row in nested:
        scope = row["scope"]
        within = [c for c in calls if c["task"] == scope or c["task"].startswith((f"{scope}/", f"{scope}["))]
        pages[scope] = _checked(row, within)
    _check_entries(connection, run_id, pages[None])
    return pages


def check_books(database: Database, run_id: str = "r1") -> dict[str | None, Page]:
    with database.read() as connection:
        return read_books(connection, run_id)


def _checked(row: Mapping[Any, Any], calls: list[dict[str, Any]]) -> Page:
    open_calls = [c for c in calls if c["status"] in ("reserved", "sent")]
    reserved = (
        sum(c["reserved_nano"] for c in open_calls),
        sum(c["reserved_tokens"] for c in open_calls),
    )
    settled = (
        sum(min(c["cost_nano"] or 0, c["reserved_nano"]) for c in calls),
        sum(_tokens(c) for c in calls),
    )
    assert (row["reserved_nano"], row["reserved_tokens"]) == reserved
    assert (row["settled_nano"], row["settled_tokens"]) == settled
    for limit, held, spent in zip((row["limit_nano"], row["limit_tokens"]), reserved, settled, strict=True):
        assert limit is None or held + spent <= limit
    return Page(reserved, settled)


def _tokens(call: Mapping[str, Any]) -> int:
    if call["status"] == "unknown":
        return call["reserved_tokens"]
    return min((call["input_tokens"] or 0) + (call["output_tokens"] or 0), call["reserved_tokens"])


def _check_entries(connection: Connection, run_id: str, page: Page) -> None:
    sums = dict(
        connection.execute(
            select(Ledger.kind, func.sum(Ledger.amount_nano))
            .where(Ledger.run_id == run_id)
            .group_by(Ledger.kind)
        ).all()
    )
    reserved, settled, refunded = (int(sums.get(kind) or 0) for kind in ("reserve", "settle", "refund"))
    assert (reserved - settled - refunded, settled) == (page.reserved[0], page.settled[0])


def nested_run(database: Database, *budgets: NewBudget, run_id: str = "r1", **changes: Any) -> None:
    """A claimed run with budgets inside."""
    tokens = changes.pop("budget_tokens", None)
    claimed(database, run_id, **changes)
    database.transact(lambda c: ledger.open_budgets(c, run_id, "t", budgets))
    if tokens is not None:
        database.transact(lambda c: ledger.raise_budget(c, run_id, budget_tokens=tokens))


def call_of(task: str, call_id: str, nano: int, tokens: int = 0, model: str = "m") -> NewCall:
    route = {"model": model}
    return NewCall(call_id, task, 1, 0, model, route, {"ask": 0}, "h", nano, tokens)


def book(database: Database, task: str, call_id: str, nano: int, tokens: int = 0, **where: Any) -> str:
    run_id, epoch = where.get("run_id", "r1"), where.get("epoch", 1)
    call = call_of(task, call_id, nano, tokens)
    database.transact(lambda c: ledger.reserve(c, run_id, epoch, call))
    return call_id


def usage(tokens: int) -> Completion:
    """An answer that took so many tokens."""
    spent = Usage(tokens - tokens // 2, tokens // 2)
    return Completion(text="hi", model="m", usage=spent, finish_reason="stop")


def closing(verb: str, call_id: str, nano: int, tokens: int, *, run_id: str = "r1", epoch: int = 1) -> Write:
    """What the verb does to a call, as a write."""
    writes: dict[str, Write] = {
        "sent": lambda c: ledger.mark_sent(c, run_id, epoch, call_id, "m:0"),
        "settle": lambda c: ledger.settle(c, run_id, epoch, call_id, usage(tokens), nano),
        "refund": lambda c: ledger.refund(c, run_id, epoch, call_id, "not sent"),
        "unknown": lambda c: ledger.settle_unknown(c, run_id, epoch, call_id, "lost"),
    }
    return writes[verb]


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    database.ensure_schema()
    try:
        yield database
    finally:
        database.close()
