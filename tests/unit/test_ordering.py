"""Which ready job is next: priority, longest path, ageing, deadline, patches, retries, cost."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Hashable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.memory.errors import ConfigError
from podium.orchestrator import ordering as module
from podium.orchestrator.ordering import Job, Scheduler

Edges = list[tuple[Hashable, Hashable]]


def made(jobs: Iterable[Job], edges: Iterable[tuple[Hashable, Hashable]] = (), **more: Any) -> Scheduler:
    more.setdefault("lookahead", False)
    scheduler = Scheduler(more.pop("capacity", (1,)), **more)
    scheduler.add(jobs, edges)
    return scheduler


def drain(scheduler: Scheduler, now: float = 0.0, free: tuple[int, ...] = (1,)) -> list[Hashable]:
    """Ids in the order in which they start when each ends at once."""
    found = []
    while (id := scheduler.pick(now, free)) is not None:
        found.append(id)
        scheduler.done(id, now)
    return found


def replay(
    scheduler: Scheduler,
    jobs: list[Job],
    edges: Edges,
    capacity: tuple[int, ...],
    true: dict[Hashable, float],
) -> dict[Hashable, tuple[float, float]]:
    """(start, end) of each job; asserts that only what is ready and fits starts, and that nothing stalls."""
    need = {job.id: job.need for job in jobs}
    missing = Counter(dst for _, dst in edges)
    ready = {job.id for job in jobs if not missing[job.id]}
    for id in sorted(ready, key=str):
        scheduler.ready(id, 0.0)
    free, now, ends, spans = list(capacity), 0.0, [], {}
    while True:
        while (id := scheduler.pick(now, tuple(free))) is not None:
            assert id in ready
            ready.remove(id)
            free = [f - n for f, n in zip(free, need[id], strict=True)]
            assert min(free) >= 0
            spans[id] = now, now + true[id]
            heapq.heappush(ends, (now + true[id], str(id), id))
        if not ends:
            assert not ready
            return spans
        now = ends[0][0]
        while ends and ends[0][0] == now:
            id = heapq.heappop(ends)[2]
            free = [f + n for f, n in zip(free, need[id], strict=True)]
            scheduler.done(id, now)
            for src, dst in edges:
                if src == id:
                    missing[dst] -= 1
                    if not missing[dst]:
                        ready.add(dst)
                        scheduler.ready(dst, now)


def makespan(spans: dict[Hashable, tuple[float, float]]) -> float:
    return max(end for _, end in spans.values())


# -- order


def test_longest_remaining_path_first() -> None:
    jobs = [Job("short", 2), Job("long", 3), Job("head", 1), Job("tail", 9)]
    scheduler = made(jobs, [("head", "tail")])
    for id in ("short", "long", "head"):
        scheduler.ready(id, 0.0)
    assert len(scheduler) == 3
    assert drain(scheduler) == ["head", "long", "short"]
    assert len(scheduler) == 0


def test_explicit_priority_comes_before_the_longest_path() -> None:
    scheduler = made([Job("long", 9), Job("urgent", 1, priority=2), Job("late", 20, priority=-1)])
    for id in ("late", "long", "urgent"):
        scheduler.ready(id, 0.0)
    assert drain(scheduler) == ["urgent", "long", "late"]


def test_ties_follow_the_workflow_s_order() -> None:
    scheduler = made([Job(n, 1, position=-n) for n in range(5)])
    for n in range(5):
        scheduler.ready(n, 0.0)
    assert drain(scheduler) == [4, 3, 2, 1, 0]


def test_waiting_overtakes_a_longer_path_in_the_end() -> None:
    jobs = [Job("patient", 1), Job("soon", 10), Job("later", 10)]
    scheduler = made(jobs)
    scheduler.ready("patient", 0.0)
    scheduler.ready("soon", 100.0)  # its longer path weighs more than 100 s of waiting
    assert scheduler.pick(100.0, (1,)) == "soon"
    scheduler.ready("later", 1000.0)
    assert scheduler.pick(1000.0, (1,)) == "patient"


def test_near_its_deadline_ageing_ends() -> None:
    def scheduler(deadline: float | None) -> Scheduler:
        one = made([Job("patient", 1), Job("long", 10)], deadline=deadline)
        one.ready("patient", 0.0)
        one.ready("long", 1000.0)
        return one

    assert scheduler(None).pick(1000.0, (1,)) == "patient"
    assert scheduler(5000.0).pick(1000.0, (1,)) == "patient"
    assert scheduler(1001.0).pick(1000.0, (1,)) == "long"


def test_slack() -> None:
    assert made([Job("a", 1)]).slack(0.0) is None
    scheduler = made([Job("a", 3), Job("b", 4), Job("c", 1)], [("a", "b")], deadline=20.0)
    scheduler.ready("a", 0.0)
    scheduler.ready("c", 0.0)
    assert scheduler.slack(5.0) == 8.0
    assert scheduler.pick(5.0, (1,)) == "a"
    assert scheduler.slack(7.0) == 8.0  # the path runs as predicted
    scheduler.done("a", 12.0)
    scheduler.ready("b", 12.0)
    assert scheduler.slack(12.0) == 4.0  # `a` took 4 s longer than that


# -- what happens in a run


def test_a_job_stands_in_line_once() -> None:
    scheduler = made([Job("a", 1), Job("b", 1)])
    for _ in range(3):
        scheduler.ready("a", 0.0)
    assert len(scheduler) == 1
    assert drain(scheduler) == ["a"]


def test_nothing_starts_without_a_free_unit() -> None:
    scheduler = made([Job("a", 1)])
    scheduler.ready("a", 0.0)
    assert scheduler.pick(0.0, (0,)) is None
    assert scheduler.pick(0.0, (1,)) == "a"


def test_a_retry_stands_in_line_again() -> None:
    scheduler = made([Job("a", 5), Job("b", 1)])
    scheduler.ready("a", 0.0)
    scheduler.ready("b", 0.0)
    assert scheduler.pick(0.0, (1,)) == "a"
    assert len(scheduler) == 1
    scheduler.again("a", 1.0)
    scheduler.again("a", 1.0)
    assert len(scheduler) == 2
    assert drain(scheduler, 1.0) == ["a", "b"]


def test_a_dropped_job_is_gone() -> None:
    scheduler = made([Job("a", 5), Job("b", 1), Job("c", 1)], [("a", "c")])
    scheduler.ready("a", 0.0)
    scheduler.ready("b", 0.0)
    scheduler.drop("a")
    scheduler.drop("c")
    assert len(scheduler) == 1
    assert drain(scheduler) == ["b"]


def test_a_patch_lengthens_what_waits_before_it() -> None:
    scheduler = made([Job("a", 2), Job("b", 3), Job("c", 1)], [("a", "c")])
    scheduler.ready("a", 0.0)
    scheduler.ready("b", 0.0)
    scheduler.add([Job("d", 10)], [("c", "d")])  # two edges away from the job in line
    assert drain(scheduler) == ["a", "b"]


def test_a_patch_between_known_jobs() -> None:
    scheduler = made([Job("a", 2), Job("b", 3), Job("c", 10)])
    scheduler.ready("a", 0.0)
    scheduler.ready("b", 0.0)
    scheduler.add([], [("a", "c"), ("gone", "c")])
    assert drain(scheduler) == ["a", "b"]


def test_a_known_job_takes_a_new_priority_where_it_stands() -> None:
    scheduler = made([Job("a", 2), Job("b", 3)])
    scheduler.ready("a", 0.0)
    scheduler.ready("b", 0.0)
    scheduler.add([Job("a", 2, priority=1)], [])
    assert len(scheduler) == 2
    assert drain(scheduler) == ["a", "b"]


def test_a_job_that_never_fits_is_refused() -> None:
    for need in ((3,), (1, 1)):
        with pytest.raises(ConfigError, match="job a needs"):
            made([Job("a", 1, need)], capacity=(2,))


def test_a_big_job_is_not_starved_by_small_ones() -> None:
    """Two units, one job that needs both, and small jobs that come one by one and never end together."""
    scheduler = made([Job("big", 2, (2,)), *(Job(n, 5) for n in range(100))], capacity=(2,))
    scheduler.ready("big", 0.0)
    running: list[tuple[float, Hashable]] = []
    free, now = 2, 0.0
    for n in range(100):
        scheduler.ready(n, now)
        while (id := scheduler.pick(now, (free,))) is not None:
            if id == "big":
                assert 8 * 5 < now < 100
                return
            free -= 1
            running.append((now + 5.0, id))
        now += 2.5
        for end, id in [r for r in running if r[0] <= now]:
            running.remove((end, id))
            scheduler.done(id, now)
            free += 1
    raise AssertionError("the big job never started")


# -- lookahead


def test_lookahead_waits_for_a_better_job() -> None:
    """`wide` is ready at 1 and needs both units: greedily `long` has one of them until 10."""
    jobs = [Job("start", 1.0), Job("long", 10.0), Job("wide", 4.0, (2,)), Job("after", 9.0)]
    edges: Edges = [("start", "wide"), ("wide", "after")]
    true = {job.id: job.seconds for job in jobs}
    greedy = replay(made(jobs, edges, capacity=(2,)), jobs, edges, (2,), true)
    ahead = replay(made(jobs, edges, capacity=(2,), lookahead=True), jobs, edges, (2,), true)
    assert makespan(greedy) == 23.0  # long 0-10, wide 10-14, after 14-23
    assert makespan(ahead) == 15.0  # wide 1-5, then after and long side by side
    assert ahead["long"][0] == 5.0


def test_a_held_back_job_starts_when_what_it_waits_for_is_overdue() -> None:
    jobs = [Job("start", 1.0), Job("long", 10.0), Job("wide", 4.0, (2,)), Job("after", 9.0)]
    scheduler = made(jobs, [("start", "wide"), ("wide", "after")], capacity=(2,), lookahead=True)
    scheduler.ready("start", 0.0)
    scheduler.ready("long", 0.0)
    assert scheduler.pick(0.0, (2,)) == "start"
    assert scheduler.pick(0.0, (1,)) is None
    assert scheduler.ask_again is not None
    assert 0.5 < scheduler.ask_again < 2.0
    assert scheduler.pick(0.5, (1,)) is None
    assert scheduler.pick(2.0, (1,)) == "long"
    assert scheduler.ask_again is None


def test_units_that_others_hold_are_not_counted_on() -> None:
    jobs = [Job("big", 4.0, (3,)), Job("small", 1.0), Job("other", 2.0)]
    scheduler = made(jobs, capacity=(4,), lookahead=True)
    for job in jobs:
        scheduler.ready(job.id, 0.0)
    assert {scheduler.pick(0.0, (2,)), scheduler.pick(0.0, (1,))} == {"small", "other"}


def test_explicit_priority_holds_with_lookahead_too() -> None:
    scheduler = made([Job("long", 9.0), Job("urgent", 1.0, priority=1)], lookahead=True)
    scheduler.ready("long", 0.0)
    scheduler.ready("urgent", 0.0)
    assert scheduler.pick(0.0, (1,)) == "urgent"


def random_graph(seed: int, size: int) -> tuple[list[Job], Edges, dict[Hashable, float]]:
    rng = random.Random(seed)
    true: dict[Hashable, float] = {n: float(rng.randint(1, 10)) for n in range(size)}
    jobs = [
        Job(n, true[n] * rng.lognormvariate(0, 0.3), (rng.randint(1, 3), rng.randint(0, 2)))
        for n in range(size)
    ]
    edges: Edges = [(a, b) for b in range(1, size) for a in {rng.randrange(b), rng.randrange(b)} if b - a < 9]
    return jobs, edges, true


def test_lookahead_ends_earlier_on_average() -> None:
    greedy = ahead = 0.0
    for seed in range(8):
        jobs, edges, true = random_graph(seed, 18)
        greedy += makespan(replay(made(jobs, edges, capacity=(4, 3)), jobs, edges, (4, 3), true))
        ahead += makespan(
            replay(made(jobs, edges, capacity=(4, 3), lookahead=True), jobs, edges, (4, 3), true)
        )
    assert ahead < 0.99 * greedy


def test_the_same_calls_give_the_same_answers() -> None:
    jobs, edges, true = random_graph(5, 15)
    once, again = (
        replay(made(jobs, edges, capacity=(4, 3), lookahead=True), jobs, edges, (4, 3), true)
        for _ in range(2)
    )
    assert once == again


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Job], Edges, tuple[int, ...], dict[Hashable, float]]:
    capacity = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    size = draw(st.integers(1, 12))
    seconds = st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0])
    jobs = [
        Job(n, draw(seconds), tuple(draw(st.integers(0, c)) for c in capacity), draw(st.integers(0, 1)) // 9)
        for n in range(size)
    ]
    edges: Edges = [
        (a, b)
        for b in range(size)
        for a in draw(st.sets(st.integers(0, b - 1), max_size=3) if b else st.just(set()))
    ]
    return jobs, edges, capacity, {n: draw(seconds) for n in range(size)}


@pytest.mark.parametrize("lookahead", [False, True])
@settings(max_examples=50, deadline=None)
@given(graph=graphs())
def test_every_schedule_is_valid_and_none_stalls(lookahead: bool, graph: Any) -> None:
    jobs, edges, capacity, true = graph
    spans = replay(
        made(jobs, edges, capacity=capacity, lookahead=lookahead), jobs, edges, capacity, true
    )  # which checks readiness and capacity
    assert set(spans) == {job.id for job in jobs}
    assert all(spans[a][1] <= spans[b][0] for a, b in edges)


# -- cost, counted


def heap_calls(monkeypatch: pytest.MonkeyPatch, size: int) -> float:
    """Heap operations a job, for a patch of that many elements of one map that run four at a time."""
    calls: Counter[str] = Counter()

    def counting(name: str) -> Any:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return getattr(heapq, name)(*args)

        return call

    monkeypatch.setattr(
        module, "heapq", SimpleNamespace(heappush=counting("heappush"), heappop=counting("heappop"))
    )
    scheduler = made([Job("map", 1.0), Job("end", 1.0)], [("map", "end")], capacity=(4,), lookahead=True)
    scheduler.ready("map", 0.0)
    assert scheduler.pick(0.0, (4,)) == "map"
    scheduler.add((Job(n, 1e-3) for n in range(size)), ((n, "end") for n in range(size)))
    for n in range(size):
        scheduler.ready(n, 0.0)
    for n in range(size):
        id = scheduler.pick(0.0, (1,))
        assert id is not None
        scheduler.done(id, 1.0)
        assert len(scheduler) == size - n - 1
    return calls.total() / size


def test_cost_of_a_job_does_not_grow_with_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heap_calls(monkeypatch, 10_000) <= 1.1 * heap_calls(monkeypatch, 1_000) <= 4.0


class CountedList(list[Any]):
    """A list that counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Any:
        CountedList.passes += 1
        return super().__iter__()


def test_patches_do_not_go_through_what_has_ended_or_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 patches of one job behind a running one: the cost of each does not grow with those before."""
    scheduler = made([Job("root", 1.0)], capacity=(2,))
    scheduler.ready("root", 0.0)
    assert scheduler.pick(0.0, (2,)) == "root"
    root = scheduler._entries["root"]
    root.after = CountedList()
    for n in range(1000):
        scheduler.add([Job(n, 1.0)], [("root", n)])
    assert len(root.after) == 1000
    assert CountedList.passes == 0
