"""Group commit: many writers, one transaction, no write that disturbs another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from podium.memory import faults
from podium.memory.content import put
from podium.memory.database import Connection, Database
from podium.memory.errors import PodiumError
from podium.memory.journal import Journal
from podium.memory.tables import Blob
from sqlalchemy import event, select, text


@pytest.fixture
def journal(database: Database) -> Iterator[Journal]:
    opened = Journal(database)
    yield opened
    opened.close()


def stored(database: Database) -> set[str]:
    with database.read() as connection:
        return {data.decode() for data in connection.execute(select(Blob.data)).scalars()}


def test_what_is_done_is_durable(journal: Journal, database: Database) -> None:
    digest = journal.submit("task.finish", lambda c: put(c, "t", 1)).result(10)
    assert len(digest) == 64
    assert stored(database) == {"1"}


def test_waiting_writes_share_a_transaction(journal: Journal, database: Database) -> None:
    commits = []
    event.listen(database.engine, "commit", lambda _: commits.append(1))
    gate = threading.Event()
    held = journal.submit("run.beat", lambda c: gate.wait(10))
    waiting = [journal.submit("task.finish", lambda c, n=n: put(c, "t", n)) for n in range(50)]
    assert not any(future.done() for future in waiting)
    gate.set()
    for future in (held, *waiting):
        future.result(10)
    assert len(commits) <= 2  # the first write may have left before the others came
    assert len(stored(database)) == 50


def test_a_failing_write_does_not_disturb_its_neighbours(journal: Journal, database: Database) -> None:
    gate = threading.Event()
    journal.submit("run.beat", lambda c: gate.wait(10))

    def half(connection: Connection) -> None:
        put(connection, "t", "half")
        raise KeyError("mine")

    before = journal.submit("task.finish", lambda c: put(c, "t", "before"))
    mine = journal.submit("task.finish", half)
    wrong = journal.submit("task.finish", lambda c: c.execute(text("INSERT INTO nowhere VALUES (1)")))
    after = journal.submit("task.finish", lambda c: put(c, "t", "after"))
    gate.set()
    assert before.result(10)
    assert after.result(10)
    assert isinstance(mine.exception(10), KeyError)
    assert isinstance(wrong.exception(10), PodiumError)
    assert stored(database) == {'"before"', '"after"'}


def test_writes_keep_their_order(journal: Journal) -> None:
    seen: list[int] = []
    futures = [journal.submit("task.finish", lambda c, n=n: seen.append(n)) for n in range(1200)]
    futures[-1].result(30)
    assert seen == list(range(1200))


def test_writers_of_many_threads(journal: Journal, database: Database) -> None:
    def work(number: int) -> None:
        for step in range(20):
            journal.submit("task.finish", partial(put, tenant="t", value=[number, step])).result(30)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(stored(database)) == 160


async def test_commit_waits_on_the_loop(journal: Journal, database: Database) -> None:
    found = await asyncio.gather(
        *(journal.commit("task.finish", lambda c, n=n: put(c, "t", n)) for n in range(5))
    )
    assert len(set(found)) == 5
    with pytest.raises(KeyError):
        await journal.commit("task.finish", lambda c: {}["none"])


async def test_a_wait_that_is_cancelled_does_not_take_the_write_back(
    journal: Journal, database: Database
) -> None:
    gate = threading.Event()
    journal.submit("run.beat", lambda c: gate.wait(10))
    waiting = asyncio.create_task(journal.commit("task.finish", lambda c: put(c, "t", "kept")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await journal.commit("run.beat", lambda c: None)
    assert stored(database) == {'"kept"'}


def test_a_cancelled_future_does_not_stop_the_writer(journal: Journal, database: Database) -> None:
    gate = threading.Event()
    held = journal.submit("run.beat", lambda c: gate.wait(10))
    cancelled = journal.submit("task.finish", lambda c: put(c, "t", "cancelled"))
    assert cancelled.cancel()
    gate.set()
    held.result(10)
    journal.submit("task.finish", lambda c: put(c, "t", "next")).result(10)
    assert stored(database) == {'"next"'}


def test_the_writer_outlives_any_error(journal: Journal, database: Database) -> None:
    def leave(connection: Connection) -> None:
        raise SystemExit(3)

    assert isinstance(journal.submit("task.finish", leave).exception(10), PodiumError)
    assert journal.submit("task.finish", lambda c: put(c, "t", 1)).result(10)


def test_a_write_outlives_a_lost_connection(postgres_url: str) -> None:
    database, other = Database(postgres_url), Database(postgres_url)
    database.ensure_schema()
    journal = Journal(database)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
    tries = []

    def cut(connection: Connection) -> None:
        tries.append(1)
        if len(tries) == 1:
            other.transact(lambda c: c.execute(text(f"{kill} AND datname = current_database()")))
        put(connection, "t", "kept")

    assert journal.submit("task.finish", cut).exception(10) is None
    assert len(tries) == 2
    assert stored(database) == {'"kept"'}
    journal.close()
    database.close()
    other.close()


def test_close_writes_what_is_queued(database: Database) -> None:
    journal, gate = Journal(database), threading.Event()
    journal.submit("run.beat", lambda c: gate.wait(10))
    queued = [journal.submit("task.finish", lambda c, n=n: put(c, "t", n)) for n in range(10)]
    closing = threading.Thread(target=journal.close)
    closing.start()
    gate.set()
    closing.join(10)
    assert all(future.done() for future in queued)
    assert len(stored(database)) == 10
    with pytest.raises(PodiumError, match="closed"):
        journal.submit("run.beat", lambda c: None)
    journal.close()


def test_fault_points_count_only_what_is_committed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[tuple[str, str]] = []
    monkeypatch.setattr(faults, "hit", lambda name, when: passed.append((name, when)))
    journal.submit("call.reserve", lambda c: 1 / 0).exception(10)
    journal.submit("task.finish", lambda c: None).result(10)
    assert passed == [("task.finish", "before"), ("task.finish", "after")]


@pytest.mark.parametrize(
    ("text", "point"),
    [("task.finish:before", ("task.finish", "before", 1)), ("run.beat:after:3", ("run.beat", "after", 3)),
     ("", None)],
)  # fmt: skip
def test_fault_points_are_read(text: str, point: object) -> None:
    assert faults._parse(text) == point
