"""Limits of calls: at the same time and in a minute, by model and tenant, for all engines of a database."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from books import call_of, check_books, closing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from podium.memory import ledger, limits, runs
from podium.memory.database import Database
from podium.memory.errors import BudgetStopped, ConfigError
from podium.memory.limits import Holder, Limit, Throttled, admit
from podium.memory.tables import Rate
from podium.orchestrator.settings import load_settings
from podium.workers.poolfile import parse_pool
from run_rows import claimed
from sqlalchemy import select, update

NOW = 1_700_000_000.0
TWO = Limit("model:m", max_concurrent=2)


def reserve(
    database: Database,
    call_id: str,
    *limit: Limit,
    run_id: str = "r1",
    model: str = "m",
    nano: int = 100,
    dead: frozenset[Holder] = frozenset(),
) -> None:
    call = call_of("a", call_id, nano, model=model)
    database.transact(lambda c: ledger.reserve(c, run_id, 1, call, limit, dead))


def wait_of(database: Database, limit: Limit, now: float) -> float | None:
    """Seconds that a call at `now` has to wait; None: it begins."""
    try:
        database.transact(lambda c: admit(c, [limit], now=now))
    except Throttled as error:
        return error.seconds
    return None


def next_at(database: Database, key: str = "model:m") -> float | None:
    with database.read() as connection:
        return connection.execute(select(Rate.next_at).where(Rate.key == key)).scalar()


def test_calls_at_the_same_time(database: Database) -> None:
    claimed(database)
    claimed(database, "r2")
    reserve(database, "c1", TWO)
    reserve(database, "c2", TWO, run_id="r2")
    with pytest.raises(Throttled) as caught:
        reserve(database, "c3", TWO)
    assert (caught.value.key, caught.value.seconds) == ("model:m", None)
    assert set(caught.value.holders) == {Holder("r1", "h.p.e1", 1, 0), Holder("r2", "h.p.e1", 1, 0)}
    assert check_books(database)[None].reserved[0] == 100  # the wait holds no money
    reserve(database, "other", Limit("model:other", 1), model="other")
    database.transact(closing("sent", "c1", 0, 0))
    with pytest.raises(Throttled):
        reserve(database, "c3", TWO)
    database.transact(closing("settle", "c1", 50, 5))
    reserve(database, "c3", TWO)


def test_a_tenant_is_limited_over_all_models_and_runs(database: Database) -> None:
    claimed(database)
    claimed(database, "r2")
    claimed(database, "r3", tenant="u")
    both = (Limit("model:m", 5), Limit("tenant:t", 2))
    reserve(database, "c1", *both)
    reserve(database, "c2", Limit("tenant:t", 2), run_id="r2", model="other")
    with pytest.raises(Throttled) as caught:
        reserve(database, "c3", *both)
    assert caught.value.key == "tenant:t"
    reserve(database, "c4", Limit("tenant:u", 2), run_id="r3")


def test_a_budget_refuses_before_a_limit_does(database: Database) -> None:
    claimed(database)
    with pytest.raises(BudgetStopped):
        reserve(database, "c1", Limit("model:m", 1, 1), nano=1001)
    assert next_at(database) is None  # nor has it used up the rate


def test_calls_of_a_dead_engine_hold_no_place(database: Database) -> None:
    claimed(database)
    claimed(database, "r2")
    one = Limit("model:m", 1)
    reserve(database, "lost", one)
    with pytest.raises(Throttled) as caught:
        reserve(database, "c1", one, run_id="r2")
    dead = frozenset(caught.value.holders)
    reserve(database, "c1", one, run_id="r2", dead=dead)
    database.transact(closing("settle", "c1", 1, 1, run_id="r2"))
    database.transact(lambda c: runs.beat(c, ["r1"], "h.p.e1"))  # it was only slow
    with pytest.raises(Throttled):
        reserve(database, "c2", one, run_id="r2", dead=dead)
    database.transact(lambda c: runs.claim(c, "r1", "h.p.e2", 1))  # a claim closes its calls
    reserve(database, "c2", one, run_id="r2")


def test_a_rate_gives_a_burst_and_then_a_pace(database: Database) -> None:
    limit = Limit("model:m", calls_per_minute=30)
    assert (limit.burst, round(limit.interval, 3)) == (3, 2.143)
    assert [wait_of(database, limit, NOW) for _ in range(3)] == [None, None, None]
    for _ in range(2):  # a refusal uses nothing up
        assert wait_of(database, limit, NOW) == pytest.approx(limit.interval)
    assert wait_of(database, limit, NOW + limit.interval + 0.001) is None
    assert wait_of(database, limit, NOW + limit.interval + 0.002) == pytest.approx(limit.interval, abs=0.01)
    assert [wait_of(database, limit, NOW + 600) for _ in range(4)][:3] == [None] * 3  # no more than the burst
    assert wait_of(database, limit, NOW + 600) is not None


def test_a_rate_below_one_a_minute(database: Database) -> None:
    limit = Limit("tenant:t", calls_per_minute=0.5)
    assert wait_of(database, limit, NOW) is None
    assert wait_of(database, limit, NOW + 60) == pytest.approx(60)
    assert wait_of(database, limit, NOW + 120) is None


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_does_not_stop_the_calls(database: Database, jump: float) -> None:
    limit = Limit("model:m", calls_per_minute=30)
    while wait_of(database, limit, NOW) is None:
        pass
    now, begun = NOW + jump, []
    while now < NOW + jump + 60:
        wait = wait_of(database, limit, now)
        if wait is None:
            begun.append(now)
        now += wait or 0.0
    assert begun[0] == NOW + jump
    # the rate holds again at once: one call more than without a jump, at most
    assert 60 / limit.interval - 1 <= len(begun) <= 31


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.integers(1, 40),
    gaps=st.lists(st.one_of(st.just(0.0), st.floats(0, 20)), min_size=20, max_size=50),
)
def test_no_minute_has_more_than_its_calls(database: Database, rate: int, gaps: list[float]) -> None:
    key = f"model:{time.monotonic_ns()}"
    limit = Limit(key, calls_per_minute=rate)
    now, begun = NOW, []
    for gap in gaps:  # as a caller does: at some time, and if it must wait, then when it is told
        now += gap
        wait = wait_of(database, limit, now)
        if wait is not None:
            now += wait + 1e-6
            assert wait_of(database, limit, now) is None  # what is told is enough
        begun.append(now)
    for first in begun:
        assert sum(first <= moment < first + 60 - 1e-3 for moment in begun) <= rate


def test_the_shared_clock_is_used(database: Database) -> None:
    database.transact(lambda c: admit(c, [Limit("model:m", calls_per_minute=6)]))
    stored = next_at(database)
    assert stored == pytest.approx(time.time() + 10, abs=5)
    database.transact(lambda c: c.execute(update(Rate).values(next_at=time.time() + 3600)))
    database.transact(lambda c: admit(c, [Limit("model:m", calls_per_minute=6)]))  # the clock was set back
    with pytest.raises(Throttled) as caught:
        database.transact(lambda c: admit(c, [Limit("model:m", calls_per_minute=6)]))
    assert caught.value.seconds == pytest.approx(10, abs=5)


def test_engines_that_race_share_the_limits(database: Database) -> None:
    """Each thread has its own connection, as an engine has."""
    kinds = [Limit("model:m", max_concurrent=3), Limit("model:n", calls_per_minute=40)]
    claimed(database, "r1", budget_nano=10**6)
    claimed(database, "r2", budget_nano=10**6)
    gate, begun = threading.Barrier(16), []

    def try_all(number: int) -> None:
        gate.wait()
        for limit in kinds if number % 2 else reversed(kinds):
            name = limit.key.partition(":")[2]
            try:
                reserve(database, f"{name}{number}", limit, run_id=f"r{number % 2 + 1}", model=name)
            except Throttled:
                continue
            begun.append(name)

    began_at = time.monotonic()
    threads = [threading.Thread(target=try_all, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paced = int((time.monotonic() - began_at) / kinds[1].interval)
    assert begun.count("m") == 3
    assert kinds[1].burst == 4
    assert 4 <= begun.count("n") <= 4 + paced


def test_no_limit_touches_nothing(database: Database) -> None:
    database.transact(lambda c: admit(c, []))
    database.transact(lambda c: admit(c, [Limit("model:m")]))
    assert next_at(database, limits.GATE) is None


def test_limits_stand_in_the_pool_file_and_in_the_settings(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "models: [{name: m, engine: openai, source: x, price: {input: 1, output: 1}, %s}]"
    spec = parse_pool(entry % "max_concurrent: 8, calls_per_minute: 0.5", home).models["m"]
    assert (spec.max_concurrent, spec.calls_per_minute) == (8, 0.5)
    with pytest.raises(ConfigError, match="max_concurent") as caught:
        parse_pool(entry % "max_concurent: 8", home)
    assert "'max_concurrent'" in caught.value.mend
    for wrong in ("max_concurrent: 0", "calls_per_minute: 0", "calls_per_minute: .inf"):
        with pytest.raises(ConfigError, match=wrong.split(":")[0]):
            parse_pool(entry % wrong, home)
    monkeypatch.setenv("PODIUM_TENANT_MAX_CONCURRENT", "4")
    monkeypatch.setenv("PODIUM_TENANT_CALLS_PER_MINUTE", "90")
    found = load_settings()
    assert (found.tenant_max_concurrent, found.tenant_calls_per_minute) == (4, 90.0)
    monkeypatch.setenv("PODIUM_TENANT_MAX_CONCURRENT", "0")
    with pytest.raises(ConfigError, match="tenant_max_concurrent"):
        load_settings()
