"""The slots of an engine divided between tenants and runs."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from podium.memory.errors import PodiumError
from podium.orchestrator import shares as module
from podium.orchestrator.shares import BASE, Shares


def take_all(shares: Shares, run: str) -> int:
    taken = 0
    while shares.take(run):
        taken += 1
    return taken


def served(shares: Shares, runs: list[str], slots: int) -> Counter[str]:
    """Who gets the next slots when every run always wants more and each job ends before the next starts."""
    got: Counter[str] = Counter()
    woken: list[str] = []
    for run in runs:
        woken += [str(r) for r in shares.want(run, slots + 1)]
    for _ in range(slots):
        run = woken.pop(0)
        assert shares.take(run)
        got[run] += 1
        woken += [str(r) for r in shares.give(run)]
    return got


def test_a_lone_run_gets_all() -> None:
    shares = Shares(8)
    shares.join("r", "t", 0, 0.0)
    assert shares.want("r", 100) == ["r"]
    assert take_all(shares, "r") == 8
    assert shares.free == 0
    assert not shares.take("r")


def test_it_takes_no_more_than_it_wants() -> None:
    shares = Shares(8)
    shares.join("r", "t")
    shares.want("r", 3)
    assert take_all(shares, "r") == 3
    assert shares.free == 5


def test_tenants_end_up_with_equal_shares_however_many_runs_they_have() -> None:
    shares = Shares(8)
    for n in range(6):
        shares.join(f"a{n}", "a")
        shares.want(f"a{n}", 50)
        take_all(shares, f"a{n}")
    shares.join("b", "b")
    assert shares.want("b", 50) == []  # no slot is free yet
    for _ in range(40):  # the first tenant's jobs end one by one
        holder = max((f"a{n}" for n in range(6)), key=shares.held)
        for run in shares.give(holder):
            take_all(shares, str(run))
    assert shares.held("b") == 4
    assert sum(shares.held(f"a{n}") for n in range(6)) == 4


def test_runs_of_a_tenant_take_turns() -> None:
    shares = Shares(1)
    for run in "xyz":
        shares.join(run, "t")
    assert served(shares, ["x", "y", "z"], 30) == {"x": 10, "y": 10, "z": 10}


def test_a_higher_priority_goes_first_and_starves_nobody() -> None:
    shares = Shares(1)
    shares.join("low", "t", 0)
    shares.join("high", "t", 1)
    got = served(shares, ["low", "high"], 90)
    assert got["high"] == pytest.approx(90 * BASE / (BASE + 1), abs=1)
    assert got["low"] >= 9


def test_priority_orders_runs_that_begin_together() -> None:
    shares = Shares(1)
    shares.join("busy", "t")
    shares.want("busy", 1)
    assert shares.take("busy")
    for run, priority in (("low", -1), ("high", 2), ("middle", 1)):
        shares.join(run, "t", priority)
        shares.want(run, 1)
    order = []
    run = "busy"
    for _ in range(3):
        run = str(shares.give(run)[0])
        assert shares.take(run)
        order.append(run)
    assert order == ["high", "middle", "low"]


def test_who_was_away_gets_no_arrears() -> None:
    shares = Shares(1)
    shares.join("old", "t")
    served(shares, ["old"], 500)
    shares.want("old", 0)
    shares.join("new", "t")
    got = served(shares, ["old", "new"], 20)
    assert got["old"] == pytest.approx(10, abs=1)


def test_wanting_less_passes_the_slot_on() -> None:
    shares = Shares(1)
    shares.join("x", "t")
    shares.join("y", "t")
    assert shares.want("x", 1) == ["x"]
    assert shares.want("y", 1) == []
    assert shares.want("x", 0) == ["y"]
    assert not shares.take("x")
    assert shares.take("y")


def test_leaving_frees_what_the_run_had() -> None:
    shares = Shares(2)
    shares.join("x", "s")
    shares.join("y", "t")
    shares.want("x", 2)
    assert shares.take("x")  # one in use, one set aside
    shares.want("y", 2)
    assert shares.leave("x") == ["y"]
    assert take_all(shares, "y") == 2
    assert shares.leave("x") == []


def test_a_raised_priority_counts_at_once() -> None:
    shares = Shares(1)
    for run in ("x", "y"):
        shares.join(run, "t")
    shares.join("y", "t", 2)
    got = served(shares, ["x", "y"], 65)
    assert got["y"] > 60


def test_misuse_is_named() -> None:
    shares = Shares(1)
    shares.join("x", "t")
    with pytest.raises(PodiumError, match="had not"):
        shares.give("x")
    with pytest.raises(PodiumError, match="not joined"):
        shares.want("nobody", 1)
    with pytest.raises(PodiumError, match="0 slots"):
        Shares(0)


RUNS = st.sampled_from([f"r{n}" for n in range(8)])


class Division(RuleBasedStateMachine):
    """Any order of calls: slots are neither lost nor doubled, none lies idle, nobody waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = Shares(3)
        self.tenant: dict[str, str] = {}
        self.want: dict[str, int] = {}
        self.held: Counter[str] = Counter()
        self.granted: Counter[str] = Counter()

    def wake(self, before: Counter[str], woken: list[Hashable]) -> None:
        """`woken` are exactly the runs for which more is set aside than before."""
        now = Counter({r: self.shares._runs[r].granted for r in self.want})
        assert {r for r in self.want if now[r] > before[r]} <= set(woken)
        self.granted = now

    @rule(run=RUNS, tenant=st.sampled_from("abc"), priority=st.integers(-6, 6))
    def join(self, run: str, tenant: str, priority: int) -> None:
        self.tenant.setdefault(run, tenant)
        self.want.setdefault(run, 0)
        self.shares.join(run, self.tenant[run], priority)

    @precondition(lambda self: self.want)
    @rule(data=st.data(), n=st.integers(0, 6))
    def wants(self, data: st.DataObject, n: int) -> None:
        run = data.draw(st.sampled_from(sorted(self.want)))
        self.want[run] = n
        self.wake(self.granted, self.shares.want(run, n))

    @precondition(lambda self: self.want)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.want)))
        may = self.granted[run] > 0
        assert self.shares.take(run) is may
        if may:
            self.granted[run] -= 1
            self.want[run] -= 1
            self.held[run] += 1

    @precondition(lambda self: +self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(+self.held)))
        self.held[run] -= 1
        self.wake(self.granted, self.shares.give(run))

    @precondition(lambda self: self.want)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.want)))
        del self.want[run], self.tenant[run], self.held[run]
        self.wake(self.granted, self.shares.leave(run))

    @invariant()
    def slots_add_up(self) -> None:
        assert self.shares.free + sum(self.held.values()) + sum(self.granted.values()) == 3
        assert self.shares.free >= 0
        assert all(self.shares.held(r) == self.held[r] for r in self.want)

    @invariant()
    def none_idle(self) -> None:
        unmet = sum(n - self.granted[r] for r, n in self.want.items())
        assert unmet == 0 or self.shares.free == 0

    def teardown(self) -> None:
        """From any state: whoever wants a slot gets one within a bounded number of turns."""
        if not self.want:
            return
        for run in self.want:
            self.shares.want(run, 10**9)
        got: Counter[str] = Counter()
        for _ in range(400):
            for run in self.want:
                while self.shares.take(run):
                    got[run] += 1
                    self.held[run] += 1
            holder = next(r for r in sorted(self.want) if self.held[r])
            self.held[holder] -= 1
            self.shares.give(holder)
        tenants = {self.tenant[r] for r in self.want if got[r] or self.held[r]}
        assert tenants == set(self.tenant.values())


Division.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDivision = Division.TestCase


def test_the_lowest_priority_gets_its_turn() -> None:
    shares = Shares(1)
    shares.join("low", "t", -1)
    shares.join("high", "t", 1)
    got = served(shares, ["low", "high"], 2 * int(BASE**2) + 4)
    assert got["low"] >= 2


def heap_calls(monkeypatch: pytest.MonkeyPatch, runs: int) -> float:
    """Heap operations for each slot that changes hands."""
    calls: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return getattr(heapq, name)(*args)

        return call

    fake = SimpleNamespace(heappush=counting("heappush"), heappop=counting("heappop"))
    monkeypatch.setattr(module, "heapq", fake)
    shares = Shares(4)
    names = [f"r{n}" for n in range(runs)]
    for n, run in enumerate(names):
        shares.join(run, f"t{n % 5}")
    served(shares, names, 2000)
    return calls.total() / (2000 + runs)


def test_cost_does_not_grow_with_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heap_calls(monkeypatch, 1000) < 2 * heap_calls(monkeypatch, 10)
