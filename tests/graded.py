"""Graded calls, imported examples and states of the router as rows, for tests of what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podium.memory import learning, ledger
from podium.memory.database import Database
from podium.memory.learning import Example, NewExample
from podium.memory.ledger import NewCall
from run_rows import answer

ROWS = (
    NewExample("How far is it?", "small", 0.25, "geo", "far", 0.001, 4, 2, 0.5),
    NewExample("How far is it?", "large", 1, "geo", "12 km", 0.01, 4, 3, 1.5),
    NewExample("Name a bird", "small", 1.0),
)


def call(
    database: Database,
    said: str = "What is 2 + 2?",
    *,
    call_id: str = "call-1",
    task: str = "a",
    got: str | None = "4",
    run: str = "r1",
) -> str:
    """A call of a claimed run: answered, or still open."""
    messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": said}]
    route = {"model": "m", "propensity": 0.9}
    new = NewCall(call_id, task, 1, 2, "m", route, {"messages": messages}, "hash", 50)
    database.transact(lambda c: ledger.reserve(c, run, 1, new))
    if got is not None:
        database.transact(lambda c: ledger.settle(c, run, 1, call_id, answer(got), 5))
    return call_id


def grade(database: Database, call_id: str, source: str, score: float, note: str | None = None) -> int:
    return database.transact(lambda c: learning.grade(c, "t", call_id, source, score, note))


def examples(database: Database, tenant: str = "t", **options: int) -> list[Example]:
    with database.read() as connection:
        return learning.examples(connection, tenant, **options)


def take(database: Database, rows: Sequence[NewExample] = ROWS, origin: str = "f.csv", **where: str) -> int:
    tenant = where.pop("tenant", "t")
    return database.transact(lambda c: learning.put_examples(c, tenant, origin, rows, **where))


def save(database: Database, state: bytes = b"learned", upto: int | None = None, note: str = "") -> int:
    def work(connection: Any) -> int:
        last = learning.last_outcome(connection, "t") if upto is None else upto
        return learning.save_state(connection, "t", state, upto=last, rows=3, note=note)

    return database.transact(work)


def active(database: Database) -> learning.StateRecord | None:
    with database.read() as connection:
        return learning.active_state(connection, "t")
