"""Schedules from orders, their bettering, the search for an order, and what is believed about durations."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.orchestrator.beliefs import CERTAIN, Belief, Beliefs
from podium.orchestrator.lookahead import Effort, Search
from podium.orchestrator.packing import EPSILON, Packing, Plan, Rest, Scenario


@st.composite
def scenarios(draw: st.DrawFn, units: int = 3) -> tuple[Scenario, list[tuple[int, ...]], tuple[int, ...]]:
    """A scenario, the need of each of its tasks, the capacity."""
    capacity = tuple(draw(st.lists(st.integers(1, units), min_size=1, max_size=3)))
    size = draw(st.integers(1, 7))
    need = [tuple(draw(st.integers(0, c)) for c in capacity) for _ in range(size)]
    seconds = [draw(st.sampled_from([0.5, 1.0, 3.0, 8.0])) for _ in range(size)]
    succ: list[list[int]] = [[] for _ in range(size)]
    for i in range(size - 1):
        succ[i] = sorted(draw(st.sets(st.integers(i + 1, size - 1), max_size=2)))
    packing = Packing(capacity)
    busy = tuple(draw(st.integers(0, c)) for c in capacity)
    running = [(draw(st.sampled_from([1.0, 4.0])), packing.pack(busy))] if any(busy) else []
    free = packing.pack([c - b for c, b in zip(capacity, busy, strict=True)])
    earliest = [draw(st.sampled_from([0.0, running[0][0]])) if running else 0.0 for _ in range(size)]
    rest = Rest.of([packing.pack(n) for n in need], succ, packing)
    return Scenario(rest, seconds, earliest, free, running), need, capacity


def check(scenario: Scenario, plan: Plan, need: list[tuple[int, ...]], capacity: tuple[int, ...]) -> None:
    """Precedence, earliest starts and free units hold, and the end is the last task's."""
    end, start = plan
    ends = [at + s for at, s in zip(start, scenario.seconds, strict=True)]
    assert end == pytest.approx(max(*ends, scenario.times[-1]))
    assert all(at >= e for at, e in zip(start, scenario.earliest, strict=True))
    for i, following in enumerate(scenario.rest.succ):
        assert all(ends[i] <= start[j] + EPSILON for j in following)
    packing = scenario.rest.packing
    for at in start:
        level = max(k for k, t in enumerate(scenario.times) if t <= at + EPSILON)
        live = [n for n, b, e in zip(need, start, ends, strict=True) if b <= at + EPSILON < e - EPSILON]
        used = [sum(n[k] for n in live) for k in range(len(capacity))]
        left = scenario.levels[level] - packing.pack(used)
        assert left & packing.guard == packing.guard


@given(st.data())
def test_packed_needs_fit_like_the_separate_ones(data: st.DataObject) -> None:
    capacity = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    packing = Packing(capacity)
    free = [data.draw(st.integers(0, c)) for c in capacity]
    need = [data.draw(st.integers(0, c)) for c in capacity]
    left = (packing.pack(free) | packing.guard) - packing.pack(need)
    fits = all(n <= f for n, f in zip(need, free, strict=True))
    assert (left & packing.guard == packing.guard) is fits


@settings(deadline=None)
@given(made=scenarios(), seed=st.integers(0, 9))
def test_every_way_to_schedule_is_valid_and_justification_never_worse(
    made: tuple[Scenario, list[tuple[int, ...]], tuple[int, ...]], seed: int
) -> None:
    scenario, need, capacity = made
    rng = random.Random(seed)
    wish = [rng.random() for _ in need]
    order = scenario.rest.repair(wish)
    rank = {i: k for k, i in enumerate(order)}
    assert all(rank[i] < rank[j] for i, following in enumerate(scenario.rest.succ) for j in following)
    bound = scenario.bound(scenario.tails())
    for plan in (scenario.serial(order), scenario.parallel(wish)):
        check(scenario, plan, need, capacity)
        assert plan[0] >= bound - EPSILON
        better = scenario.justify(plan)
        check(scenario, better, need, capacity)
        assert better[0] <= plan[0] + EPSILON


@settings(deadline=None, max_examples=40)
@given(made=scenarios())
def test_the_search_lies_between_the_best_order_and_the_longest_path_first(
    made: tuple[Scenario, list[tuple[int, ...]], tuple[int, ...]],
) -> None:
    scenario, need, capacity = made
    size = min(len(need), 5)
    packing = scenario.rest.packing
    succ = [[j for j in following if j < size] for following in scenario.rest.succ[:size]]
    rest = Rest.of(scenario.rest.need[:size], succ, packing)
    small = Scenario(rest, scenario.seconds[:size], [0.0] * size, packing.full, [])
    best = min(small.serial(rest.repair(p))[0] for p in itertools.permutations(map(float, range(size))))
    order, start = Search(Effort(near=0.0)).choose(small, [], None)
    plan = small.serial(order)
    assert best - EPSILON <= plan[0]
    tails = small.tails()
    assert plan[0] <= small.serial(rest.repair([-tail for tail in tails]))[0] + EPSILON
    assert set(start) == {i for i, at in enumerate(plan[1]) if at == 0.0}
    check(small, plan, need[:size], capacity)


def pool(seconds: list[float], succ: list[list[int]], units: int) -> Scenario:
    packing = Packing((units,))
    return Scenario(Rest.of([1] * len(seconds), succ, packing), seconds, [0.0] * len(seconds), units, [])


def test_a_pool_of_like_units() -> None:
    scenario = pool([2.0, 2.0, 3.0, 3.0], [[], [], [3], []], 2)
    assert scenario.pool == [0.0, 0.0]
    assert scenario.serial([0, 1, 2, 3]) == (8.0, [0.0, 0.0, 2.0, 5.0])
    assert scenario.parallel([1.0, 2.0, 0.0, 3.0]) == (6.0, [0.0, 2.0, 0.0, 3.0])
    assert scenario.bound(scenario.tails()) == 6.0
    assert pool([1.0] * 9, [[]] * 9, 2).bound([1.0] * 9) == 4.5  # all the work over both units


def test_drawn_durations_decide_which_order_is_followed() -> None:
    """One unit, then a task without need: by the expected durations 0 goes first, in those drawn 1 must."""
    packing = Packing((1,))
    rest = Rest.of([1, 1, 0, 0], [[2], [3], [], []], packing)

    def scenario(after_0: float, after_1: float) -> Scenario:
        return Scenario(rest, [4.0, 4.0, after_0, after_1], [0.0] * 4, 1, [])

    mean, drawn = scenario(5.0, 4.9), [scenario(5.0, 9.0), scenario(1.0, 9.0), scenario(5.0, 1.0)]
    assert Search(Effort(near=0.0)).choose(mean, [], None)[1] == [0]
    assert Search(Effort(near=0.0)).choose(mean, drawn, [1, 0, 2, 3])[1] == [1]


def test_work_is_limited_by_tasks_placed() -> None:
    rng = random.Random(0)
    size = 40
    succ = [[j for j in range(i + 1, size) if rng.random() < 0.05] for i in range(size)]
    packing = Packing((4, 4))
    need = [packing.pack((rng.randint(1, 3), rng.randint(0, 3))) for _ in range(size)]
    rest = Rest.of(need, succ, packing)
    free = packing.full
    for limit in (2000, 8000):
        mean = Scenario(rest, [rng.uniform(1, 9) for _ in range(size)], [0.0] * size, free, [])
        Search(Effort(first=limit)).choose(mean, [], None)
        assert limit <= mean.placed < limit + 20 * size


# -- beliefs


def test_a_belief_is_a_distribution() -> None:
    belief = Beliefs().expect([("k", 1.0), ("k", 2.0), ("k", 2.5), ("k", 9.0)])[2]
    for u in (0.05, 0.3, 0.5, 0.9):
        assert belief.below(belief.quantile(u)) == pytest.approx(u, abs=0.05)
    assert belief.below(0.01) == 0.0
    assert belief.below(100.0) == 1.0
    draws = [belief.quantile((k + 0.5) / 400) for k in range(400)]
    assert sum(draws) / 400 == pytest.approx(belief.mean, rel=0.05)


def test_exact_predictions_are_soon_taken_at_their_word() -> None:
    beliefs = Beliefs()
    before = beliefs.error
    for _ in range(400):
        beliefs.learn("k", 3.0, 3.0)
    assert beliefs.error < 0.1 * before
    assert beliefs.expect([("k", 7.0)]) == [CERTAIN]


def test_the_error_is_learnt() -> None:
    rng = random.Random(0)
    beliefs = Beliefs()
    for _ in range(500):
        beliefs.learn("k", 5.0 * math.exp(rng.gauss(0, 0.6)), 5.0)
    assert beliefs.error == pytest.approx(0.6, abs=0.05)


def test_predictions_of_one_kind_are_drawn_together() -> None:
    """Three hundred that all last 10 s: less than half of the error remains."""
    rng = random.Random(1)
    predicted = [10.0 * math.exp(rng.gauss(0, 0.3)) for _ in range(300)]
    expected = [
        x * b.mean for x, b in zip(predicted, Beliefs().expect(("k", x) for x in predicted), strict=True)
    ]

    def error(values: list[float]) -> float:
        return math.sqrt(sum((v - 10.0) ** 2 for v in values) / len(values))

    assert error(expected) < 0.5 * error(predicted)


def test_kinds_stay_apart() -> None:
    predicted = [("short", 1.0)] * 50 + [("long", 100.0)] * 50
    found = Beliefs().expect(predicted)
    assert found[0].mean == pytest.approx(1.0, rel=0.05)
    assert found[99].mean == pytest.approx(1.0, rel=0.05)


def test_what_ended_moves_what_is_left_of_its_kind() -> None:
    beliefs = Beliefs()
    for _ in range(30):
        beliefs.learn("slow", 10.0, 15.0)
        beliefs.learn("other", 10.0, 10.0)
    slow, other = beliefs.expect([("slow", 10.0), ("other", 10.0)])
    assert slow.mean > 1.2
    assert other.mean == pytest.approx(1.0, abs=0.1)


def test_nothing_is_made_of_nothing() -> None:
    beliefs = Beliefs()
    beliefs.learn("k", 0.0, 5.0)
    beliefs.learn("k", 5.0, 0.0)
    assert beliefs.error == pytest.approx(0.3)
    assert beliefs.expect([]) == []
    assert beliefs.expect([("k", 0.0)]) == [CERTAIN]
    assert Belief(1.0).quantile(0.5) == 1.0
