"""Money under races and kills: what is reserved and spent never passes a budget, in no state anybody sees."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from books import Page, call_of, check_books, closing, nested_run, opened, read_books
from podium.memory import ledger, runs
from podium.memory.database import Database
from podium.memory.errors import BudgetStopped
from podium.memory.ledger import NewBudget
from podium.memory.tables import Call, Run
from run_rows import new_run
from sqlalchemy import Connection, func, select

TESTS = Path(__file__).parent.parent
TASKS, ROUNDS = 64, 1000


def test_64_tasks_race_one_budget_1000_times(tmp_path: Path) -> None:
    """Each run's budget covers 4 calls of its 64 tasks, which ask over four connections at the same time, as
    those of other runs do.
    """
    names = [f"r{number}" for number in range(ROUNDS)]
    with opened(f"sqlite:///{tmp_path / 'podium.db'}") as database:
        database.transact(
            lambda c: [runs.create(c, new_run(n, budget_nano=400 + i % 100)) for i, n in enumerate(names)]
        )
        done, watched = threading.Event(), list[bool]()
        watcher = threading.Thread(target=_watch, args=(database, done, watched))
        watcher.start()
        chance, spent = random.Random(1), Counter[str]()
        try:
            with ThreadPoolExecutor(4) as connections:
                for start in range(0, ROUNDS, 100):
                    spent += _race(database, connections, names[start : start + 100], chance)
        finally:
            done.set()
            watcher.join()
        with database.read() as connection:
            rows = connection.execute(select(Run.id, Run.reserved_nano, Run.settled_nano)).all()
            assert {row.id: (row.reserved_nano, row.settled_nano) for row in rows} == {
                name: (0, spent[name]) for name in names
            }
            for name in names[::50]:
                read_books(connection, name)
    assert watched
    assert all(watched)


def _race(
    database: Database, connections: ThreadPoolExecutor, names: list[str], chance: random.Random
) -> Counter[str]:
    """64 reservations for each budget at once; what those that got one have spent in the end, by run."""
    order = [(name, task) for name in names for task in range(TASKS)]
    chance.shuffle(order)
    lots = []
    while order:  # what one group commit of an engine may have together
        size = chance.randrange(1, 256)
        lots.append([order.pop() for _ in range(min(size, len(order)))])
    won = [who for some in connections.map(lambda lot: _reserve(database, lot), lots) for who in some]
    assert Counter(name for name, _ in won) == dict.fromkeys(names, 4)  # not more than fit, nor fewer
    spent, closes = Counter[str](), []
    for name, task in won:
        verb, cost = chance.choice(["settle", "unknown", "refund"]), chance.randrange(101)
        closes.append(closing(verb, f"{name}-{task}", cost, 0, run_id=name, epoch=0))
        spent[name] += {"settle": cost, "unknown": 100, "refund": 0}[verb]
    quarters = [closes[start::4] for start in range(4)]
    list(connections.map(lambda lot: database.transact(lambda c: [close(c) for close in lot]), quarters))
    return spent


def _reserve(database: Database, lot: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Reserve in one transaction; who got it. A run's own budget refuses before anything is written."""

    def work(connection: Connection) -> list[tuple[str, int]]:
        won = []
        for name, task in lot:
            try:
                ledger.reserve(connection, name, 0, call_of(f"a[{task}]", f"{name}-{task}", 100))
            except BudgetStopped:
                continue
            won.append((name, task))
        return won

    return database.transact(work)


def _watch(database: Database, done: threading.Event, watched: list[bool]) -> None:
    """Look at committed states from another connection: are all of them in balance?"""
    over = select(Run.id).where(Run.reserved_nano + Run.settled_nano > Run.budget_nano)
    booked = select(func.sum(Run.reserved_nano))
    held = select(func.coalesce(func.sum(Call.reserved_nano), 0)).where(Call.status == "reserved")
    while not done.wait(0.05):
        with database.read() as connection:
            totals = connection.execute(booked).scalar(), connection.execute(held).scalar()
            watched.append(totals[0] == totals[1] and connection.execute(over).first() is None)


def test_64_engines_race_one_database(database: Database) -> None:
    """64 connections, each the only one of its engine, reserve against budgets that four runs share out."""
    for number in range(4):
        nested_run(database, NewBudget("a", 500), run_id=f"r{number}", budget_nano=1000)
    gate, won = threading.Barrier(TASKS), Counter[tuple[str, str]]()

    def reserve(number: int) -> None:
        run_id, task = f"r{number % 4}", "a[3]/b" if number % 8 < 4 else "ab"
        gate.wait()
        call = call_of(task, f"c{number}", 100)
        try:
            database.transact(lambda c: ledger.reserve(c, run_id, 1, call))
        except BudgetStopped:
            return
        won[run_id, task] += 1

    threads = [threading.Thread(target=reserve, args=(n,)) for n in range(TASKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        run_id = f"r{number}"
        assert won[run_id, "a[3]/b"] <= 5
        assert won[run_id, "a[3]/b"] + won[run_id, "ab"] == 10  # all that fits is given out
        assert check_books(database, run_id)[None] == Page((1000, 0), (0, 0))


@pytest.mark.parametrize("seed", range(2))
def test_the_books_balance_after_every_kill(database_url: str, seed: int) -> None:
    chance = random.Random(seed)
    with opened(database_url) as database:
        limits = [
            NewBudget("a", 60_000, 6000),
            NewBudget("a[3]", 30_000, None),
            NewBudget("a[3]/b", 9000, 900),
        ]
        nested_run(database, *limits, budget_nano=200_000, budget_tokens=20_000)
        killed = 0
        for epoch in range(1, 4):
            _run_and_kill(database_url, epoch, f"{seed}-{epoch}", chance)
            before = check_books(database)  # also as the kill left them
            open_calls = _open_calls(database)
            killed += len(open_calls)
            database.transact(lambda c, e=epoch: runs.claim(c, "r1", f"h.p.e{e}", e))
            after = check_books(database)
            _check_recovered(database, open_calls)
            assert {page.reserved for page in after.values()} == {(0, 0)}
            lost = sum(nano for status, nano in open_calls.values() if status == "sent")
            assert after[None].settled[0] == before[None].settled[0] + lost
        assert killed > 0  # else no kill hit a call


def _run_and_kill(url: str, epoch: int, seed: str, chance: random.Random) -> None:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), environment.get("PYTHONPATH")]))
    driver = subprocess.Popen(
        [sys.executable, str(TESTS / "crash" / "budget_driver.py"), url, "r1", str(epoch), seed],
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert driver.stdout is not None
    try:
        for _ in range(chance.randrange(1, 40)):
            assert driver.stdout.readline(), "the driver ended by itself"
        time.sleep(chance.random() * 0.01)  # anywhere within a round
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()


def _open_calls(database: Database) -> dict[str, tuple[str, int]]:
    with database.read() as connection:
        rows = connection.execute(
            select(Call.id, Call.status, Call.reserved_nano).where(Call.status.in_(("reserved", "sent")))
        ).all()
    return {row.id: (row.status, row.reserved_nano) for row in rows}


def _check_recovered(database: Database, open_calls: dict[str, tuple[str, int]]) -> None:
    """What was sent is settled at its worst case; what was not sent is refunded."""
    with database.read() as connection:
        rows = connection.execute(select(Call.id, Call.status, Call.cost_nano).where(Call.id.in_(open_calls)))
        found = {row.id: (row.status, row.cost_nano) for row in rows}
    for call_id, (status, nano) in open_calls.items():
        assert found[call_id] == (("unknown", nano) if status == "sent" else ("refunded", 0))
