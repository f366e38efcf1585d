"""The event chain: in order, without gaps, and any tampering is found."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from podium.memory import events
from podium.memory.database import Database
from podium.memory.errors import NotFound, StaleEpoch
from podium.memory.events import NewEvent
from podium.memory.tables import Event, Run
from run_rows import claimed
from sqlalchemy import delete, update

ODD: dict[str, Any] = {
    "text": "nul \0, half \ud800, ü, \U0001f600",
    "n": 0.1 + 0.2,
    "big": 2**60,
    "deep": {"b": [1, None], "a": True},
}


def verify(database: Database) -> int | None:
    with database.read() as connection:
        return events.verify(connection, "r1")


def add(database: Database, count: int, **data: Any) -> None:
    new = [NewEvent("test.thing", "a", {"n": n, **data}) for n in range(count)]
    database.transact(lambda c: events.append(c, "r1", new, epoch=1))


def test_the_chain_holds_over_pages(database: Database) -> None:
    claimed(database)
    add(database, 1100, **ODD)
    assert verify(database) is None
    with database.read() as connection:
        first = events.read(connection, "r1")
        rest = events.read(connection, "r1", after=1000)
    assert [e.seq for e in first] == list(range(1, 1001))
    assert [e.seq for e in rest] == list(range(1001, 1103))
    assert first[5].data["deep"] == ODD["deep"]
    assert first[5].data["n"] == ODD["n"]


def test_odd_data_comes_back_as_it_was(database: Database) -> None:
    claimed(database)
    database.transact(lambda c: events.append(c, "r1", [NewEvent("test.odd", None, ODD)]))
    with database.read() as connection:
        assert events.read(connection, "r1", after=2)[0].data == ODD
    assert verify(database) is None


@pytest.mark.parametrize(
    ("values", "found"),
    [({"data": {"n": 7}}, 4), ({"kind": "test.other"}, 4), ({"task": "b"}, 4), ({"task": None}, 4),
     ({"at": 1.0}, 4), ({"hash": "0" * 64}, 4), ({"seq": 99}, 99)],
)  # fmt: skip
def test_tampering_is_found(database: Database, values: dict[str, Any], found: int) -> None:
    claimed(database)
    add(database, 5)
    assert verify(database) is None
    database.transact(lambda c: c.execute(update(Event).where(Event.seq == 4).values(**values)))
    where = verify(database)
    assert where is not None
    assert where in (found, 5)  # a gap is found at the event after it


def test_removed_events_are_found(database: Database) -> None:
    claimed(database)
    add(database, 3)
    database.transact(lambda c: c.execute(delete(Event).where(Event.seq == 5)))
    assert verify(database) == 5
    database.transact(lambda c: c.execute(delete(Event).where(Event.seq == 2)))
    assert verify(database) == 3
    database.transact(lambda c: c.execute(update(Run).values(event_head="0" * 64)))
    assert verify(database) is not None


def test_writers_of_many_threads_leave_no_gap(database: Database) -> None:
    claimed(database)
    threads = [threading.Thread(target=add, args=(database, 5)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert verify(database) is None
    with database.read() as connection:
        assert len(events.read(connection, "r1")) == 82


def test_the_fence(database: Database) -> None:
    claimed(database)
    with pytest.raises(StaleEpoch, match="epoch 1"):
        database.transact(lambda c: events.append(c, "r1", [NewEvent("x")], epoch=0))
    with pytest.raises(NotFound):
        database.transact(lambda c: events.append(c, "none", [NewEvent("x")]))
