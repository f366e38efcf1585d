"""Calls that wait: for money that others give back, and for their turn at a limit."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from books import check_books, nested_run, opened
from engine_project import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from podium.memory import ledger
from podium.memory.chat import Message
from podium.memory.database import Database
from podium.memory.errors import BudgetStopped
from podium.memory.journal import Journal
from podium.memory.ledger import BudgetRefused, NewBudget
from podium.memory.tables import Call, Rate
from podium.orchestrator import booking
from podium.orchestrator.caller import Needs, RunContext, Services, TaskModel
from podium.orchestrator.leases import Watch
from podium.orchestrator.turns import ATTEMPT_TIMEOUT
from podium.router.policy import make_policy
from podium.router.stats import Stats
from podium.router.tokens import estimate_tokens
from podium.router.types import ModelSpec, Price
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec
from sqlalchemy import select, update

#: worst case of a short call here: 64 bytes of prompt at most, and 16 tokens of answer
WORST = 64 * 100 + 16 * 200


class Bench:
    """Engines on one database, and tasks of their runs."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self._made: list[Services] = []

    def engine(self, *specs: ModelSpec, **limits: Any) -> Services:
        pool = LocalPool(specs or (echo_spec(),), self.folder, create=ECHO)
        self._made.append(Services(self.database, Journal(self.database), pool, **limits))
        return self._made[-1]

    def run(self, run_id: str = "r1", **policy: Any) -> RunContext:
        chosen = make_policy(policy or {"kind": "cheapest"})
        return RunContext(run_id, "t", 1, str(self.folder), frozenset(), chosen, Stats.of([]))

    async def close(self) -> None:
        for services in self._made:
            await services.pool.close()
            await asyncio.to_thread(services.journal.close)

    def calls(self, run_id: str = "r1") -> list[Any]:
        """The run's calls in the order of their reservations."""
        query = select(*Call.__table__.c).where(Call.run_id == run_id).order_by(Call.created_at)
        with self.database.read() as connection:
            return list(connection.execute(query))


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(database, tmp_path)
    yield made
    await made.close()


def ask(services: Services, run: RunContext, prompt: str, task: str = "a", **options: Any) -> Any:
    model = TaskModel(services, run, task, 1, Needs("llm", options.pop("pinned", None)))
    return model.complete([Message("user", prompt)], max_tokens=options.pop("max_tokens", 16))


def most_at_once(calls: list[Any]) -> int:
    """Calls that held a reservation at the same time."""
    moments = [(c.created_at, 1) for c in calls] + [(c.finished_at or 1e18, -1) for c in calls]
    found = running = 0
    for _, change in sorted(moments):
        running += change
        found = max(found, running)
    return found


@pytest.mark.parametrize("unit", ["nano", "tokens"])
async def test_a_nested_budget_waits_for_refunds(bench: Bench, unit: str) -> None:
    """It covers one worst case at a time, and all calls in turn."""
    limit = NewBudget("a", 2 * WORST) if unit == "nano" else NewBudget("a", None, 130)
    nested_run(bench.database, limit, budget_nano=10**9)
    services, run = bench.engine(), bench.run()
    answers = await asyncio.gather(*(ask(services, run, "hi", f"a[{n}]") for n in range(8)))
    assert [answer.text for answer in answers] == ["echo: hi"] * 8
    assert most_at_once(bench.calls()) < 8
    check_books(bench.database)


@pytest.fixture(scope="module")
def books_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with opened(f"sqlite:///{tmp_path_factory.mktemp('usable')}/podium.db") as database:
        yield database


SIZES = st.lists(
    st.tuples(st.sampled_from(["a", "a[3]/b", "ab"]), st.integers(0, 60), st.integers(1, 64)),
    min_size=2,
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=SIZES, paid=st.integers(5, 60), nested=st.integers(5, 60), tokens=st.integers(50, 2000))
def test_what_a_refused_call_needed_is_not_left(
    books_database: Database, tmp_path: Path, sizes: list[Any], paid: int, nested: int, tokens: int
) -> None:
    """So nearly all of a budget is usable: less than one call's worst case stays unspent."""
    run_id, budget = uuid.uuid4().hex, paid * 1000
    limits = NewBudget("a", nested * 1000, tokens)
    nested_run(books_database, limits, run_id=run_id, budget_nano=budget)

    async def race() -> list[Any]:
        bench = Bench(books_database, tmp_path)
        try:
            services, run = bench.engine(), bench.run(run_id)
            calls = (ask(services, run, "word " * n, task, max_tokens=most) for task, n, most in sizes)
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await bench.close()

    answers = asyncio.run(race())
    pages = check_books(books_database, run_id)
    assert {page.reserved for page in pages.values()} == {(0, 0)}
    with books_database.read() as connection:
        left = {rest.scope: rest for rest in ledger.left(connection, run_id)}
    for answer, (_, words, most) in zip(answers, sizes, strict=True):
        if isinstance(answer, BaseException):
            assert isinstance(answer, BudgetRefused)
            rest, need = left[answer.scope], estimate_tokens([Message("user", "word " * words)])[1] + most
            assert (rest.nano is not None and rest.nano < answer.need_nano) or (
                rest.tokens is not None and rest.tokens < need
            )


async def test_a_nested_budget_that_nothing_comes_back_to_refuses(bench: Bench, tmp_path: Path) -> None:
    nested_run(bench.database, NewBudget("b", 100), budget_nano=10**9)
    services, run = bench.engine(), bench.run()
    running = asyncio.create_task(ask(services, run, f"!stall {tmp_path / 'go'}", "a"))
    await asyncio.to_thread(until, lambda: [c for c in bench.calls() if c.status == "sent"])
    with pytest.raises(BudgetStopped) as caught:  # though a call runs outside of it
        await ask(services, run, "hi", "b")
    assert getattr(caught.value, "scope", None) == "b"
    (tmp_path / "go").touch()
    await running
    check_books(bench.database)


async def test_a_cancelled_call_gives_its_money_to_who_waits(bench: Bench, tmp_path: Path) -> None:
    prompt = f"!stall {tmp_path / 'never'}"
    nested_run(bench.database, budget_nano=(len(prompt) + 64) * 100 + 16 * 200)
    slow = echo_spec(concurrency=1)
    services, run = bench.engine(slow), bench.run()
    other = asyncio.create_task(services.pool.generate("echo", _request(prompt), label="x"))
    holder = asyncio.create_task(ask(services, run, prompt))  # waits for the pool's only slot: never sent
    await asyncio.to_thread(until, bench.calls)
    waiter = asyncio.create_task(ask(services, run, prompt.replace("!stall", "hello")))
    done, _ = await asyncio.wait([waiter], timeout=0.3)
    assert not done
    holder.cancel()
    await asyncio.to_thread(until, lambda: len(bench.calls()) == 2)
    (tmp_path / "never").touch()
    assert (await waiter).text.startswith("echo: hello")
    await other
    assert [c.status for c in bench.calls()] == ["refunded", "settled"]
    check_books(bench.database)


def _request(prompt: str) -> Any:
    from podium.memory.chat import ChatRequest

    return ChatRequest((Message("user", prompt),), 16)


async def test_calls_of_two_engines_at_the_same_time(bench: Bench) -> None:
    spec = echo_spec(concurrency=8, max_concurrent=2)
    for run_id in ("r1", "r2"):
        nested_run(bench.database, run_id=run_id, budget_nano=10**9)
    engines = [(bench.engine(spec), bench.run(run_id)) for run_id in ("r1", "r2")]
    await asyncio.gather(*(ask(*engine, f"n {n}", f"a[{n}]") for n in range(6) for engine in engines))
    calls = bench.calls("r1") + bench.calls("r2")
    assert [c.status for c in calls] == ["settled"] * 12  # a call that waited left no row
    assert most_at_once(calls) <= 2


async def test_a_tenants_limit_holds_over_models_and_the_rest_goes_on(bench: Bench, tmp_path: Path) -> None:
    nested_run(bench.database, budget_nano=10**9)
    nested_run(bench.database, run_id="r2", budget_nano=10**9, tenant="u")
    services = bench.engine(echo_spec(), echo_spec("other"), tenant_max_concurrent=1)
    run, free = bench.run(), replace(bench.run("r2"), tenant="u")
    first = asyncio.create_task(ask(services, run, f"!stall {tmp_path / 'go'}"))
    await asyncio.to_thread(until, bench.calls)
    second = asyncio.create_task(ask(services, run, "hi", "b", pinned="other"))
    assert (await ask(services, free, "hello")).text == "echo: hello"
    assert not second.done()
    (tmp_path / "go").touch()
    await asyncio.gather(first, second)
    assert most_at_once(bench.calls()) == 1


async def test_a_rate_paces_the_calls(bench: Bench) -> None:
    nested_run(bench.database, budget_nano=10**9)
    services, run = bench.engine(echo_spec(calls_per_minute=150)), bench.run()
    begun = time.monotonic()
    await asyncio.gather(*(ask(services, run, "hi", f"a[{n}]") for n in range(18)))
    assert time.monotonic() - begun >= 3 * 60 / 136 - 0.05  # a burst of 15, and three after it


@pytest.mark.parametrize("dearer", [False, True])
async def test_only_a_model_that_costs_no_more_stands_in(bench: Bench, tmp_path: Path, dearer: bool) -> None:
    nested_run(bench.database, budget_nano=10**9)
    price = Price(input=Decimal("0.1"), output=Decimal("0.3" if dearer else "0.2"))
    services = bench.engine(echo_spec(max_concurrent=1), echo_spec("twin", price=price))
    run = bench.run()
    first = asyncio.create_task(ask(services, run, f"!stall {tmp_path / 'go'}"))
    await asyncio.to_thread(until, bench.calls)
    second = asyncio.create_task(ask(services, run, "hi", "b"))
    done, _ = await asyncio.wait([second], timeout=0.3 if dearer else 20)
    assert bool(done) is not dearer
    (tmp_path / "go").touch()
    await asyncio.gather(first, second)
    last = bench.calls()[-1]
    assert last.model == ("echo" if dearer else "twin")
    assert ("echo is at its limit" in last.route["reason"]) is not dearer


async def test_time_in_line_is_not_the_attempts_time(bench: Bench) -> None:
    nested_run(bench.database, budget_nano=10**9)
    spec = echo_spec(calls_per_minute=20)
    services, run = bench.engine(spec), bench.run()
    await ask(services, run, "hi")
    (limit,) = services.limits_of("echo", "t")
    due = time.time() + (limit.burst - 1) * limit.interval + 2.0  # the next call has to wait for 2 s
    await asyncio.to_thread(bench.database.transact, lambda c: c.execute(update(Rate).values(next_at=due)))
    async with asyncio.timeout(1.0) as timeout:
        ATTEMPT_TIMEOUT.set(timeout)
        before = timeout.when() or 0.0
        assert (await ask(services, run, "hi", "b")).text == "echo: hi"
        assert (timeout.when() or 0.0) - before > 1.0


async def test_a_call_cut_off_while_it_reserves_holds_nothing(bench: Bench) -> None:
    nested_run(bench.database, budget_nano=10**9)
    services, run = bench.engine(), bench.run()
    go = threading.Event()
    services.journal.submit("call.sent", lambda _: go.wait(20))
    cut = asyncio.create_task(ask(services, run, "hi"))
    await asyncio.wait([cut], timeout=0.2)
    cut.cancel()
    await asyncio.wait([cut])
    go.set()
    await services.journal.commit("call.sent", lambda _: None)  # all before it is written
    assert [call.status for call in bench.calls()] == ["refunded"]
    assert check_books(bench.database)[None].reserved == (0, 0)


async def test_a_dead_engines_calls_are_not_waited_for(bench: Bench, tmp_path: Path) -> None:
    """Its run is nobody's, and nobody has resumed it: the lock of its engine says that it is dead."""
    for run_id in ("r1", "r2"):
        nested_run(bench.database, run_id=run_id, budget_nano=10**9)
    spec = echo_spec(max_concurrent=1)
    lost = booking.Asked(_query(), "a", 1, 0, {}, "h")
    await booking.book(bench.engine(spec), bench.run(), lost)
    watch = Watch(tmp_path)
    services = bench.engine(spec, watch=_NoLock(watch))
    assert (await ask(services, bench.run("r2"), "hi")).text == "echo: hi"
    assert [c.status for c in bench.calls()] == ["reserved"]


def _query() -> Any:
    from podium.router.types import Query

    return Query(64, 8, 16, task="a")


class _NoLock:
    """A watch that finds no engine alive but after a second look, as with one that stopped beating."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._looks = watch, 0

    def is_driven(self, run: Any) -> bool:
        self._looks += 1
        return self._looks < 2


async def test_many_waiters_cost_no_more_than_one(bench: Bench, tmp_path: Path) -> None:
    """While a line stands still only its first looks again."""
    nested_run(bench.database, budget_nano=10**9)
    services, run = bench.engine(echo_spec(max_concurrent=1)), bench.run()
    tries = _count(services.journal)
    first = asyncio.create_task(ask(services, run, f"!stall {tmp_path / 'go'}"))
    await asyncio.to_thread(until, bench.calls)
    second = asyncio.create_task(ask(services, run, "hi", "b"))
    await asyncio.to_thread(until, lambda: tries.count("call.reserve") == 2)
    await asyncio.wait([second], timeout=0.1)  # it stands in the line now
    others = [asyncio.create_task(ask(services, run, "hi", f"c[{n}]")) for n in range(50)]
    await asyncio.wait(others, timeout=booking.POLL * 1.5)
    assert tries.count("call.reserve") <= 5
    (tmp_path / "go").touch()
    await asyncio.gather(first, second, *others)
    assert tries.count("call.reserve") <= 2 * 52


def _count(journal: Journal) -> list[str]:
    names: list[str] = []
    submit: Callable[..., Any] = journal.submit

    def counting(name: str, work: Any) -> Any:
        names.append(name)
        return submit(name, work)

    journal.submit = counting  # type: ignore[method-assign]
    return names
