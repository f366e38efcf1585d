"""Schedules of a graph whose durations are given: from an order of its tasks to a start for each. Pure.

A schedule is made from an order of the tasks: each one, in that order, starts as early as its
predecessors and the free units allow (serial schedule generation, Kelley 1963); so a task may wait
although it would fit, when a better one comes first. It is bettered by justification: all tasks as late
as possible, then as early as possible (Valls, Ballestín and Quintanilla 2005). Times are seconds from
now.

The needs of a task for all resources are packed into one integer with a guard bit above each field: `need`
fits into `free` if `(free - need) & guard == guard`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: end of a schedule, and the start of each task in it
Plan = tuple[float, list[float]]
#: schedules that differ less are the same
EPSILON = 1e-9


class Packing:
    """Several resources as one integer."""

    def __init__(self, capacity: Sequence[int]) -> None:
        """`capacity`: units of each resource; `full` is that, packed."""
        self.guard, self._shifts, at = 0, [], 0
        for units in capacity:
            self._shifts.append(at)
            at += max(1, int(units).bit_length())
            self.guard |= 1 << at
            at += 1
        self.full = self.pack(capacity)

    def pack(self, units: Sequence[int]) -> int:
        """The units as one integer."""
        return sum(int(u) << s for u, s in zip(units, self._shifts, strict=True))


@dataclass(slots=True)
class Rest:
    """What has not started: tasks 0..n-1 with needs (packed), successors, predecessors among each other."""

    need: list[int]
    succ: list[list[int]]
    packing: Packing
    pred: list[list[int]]
    order: list[int]
    #: rank of each task in `order` (topological)
    rank: list[int]
    #: one resource, and each task needs one unit of it
    alike: bool

    @classmethod
    def of(cls, need: list[int], succ: list[list[int]], packing: Packing) -> Rest:
        pred: list[list[int]] = [[] for _ in need]
        for i, following in enumerate(succ):
            for j in following:
                pred[j].append(i)
        missing = [len(p) for p in pred]
        order = [i for i, count in enumerate(missing) if not count]
        for i in order:
            for j in succ[i]:
                missing[j] -= 1
                if not missing[j]:
                    order.append(j)
        rank = [0] * len(order)
        for at, i in enumerate(order):
            rank[i] = at
        alike = all(units == 1 for units in need) and packing.guard & (packing.guard - 1) == 0
        return cls(need, succ, packing, pred, order, rank, alike)

    def repair(self, wish: Sequence[float]) -> list[int]:
        """Tasks by `wish`, smallest first, but none before its predecessors."""
        missing = [len(p) for p in self.pred]
        heap = [(wish[i], i) for i, count in enumerate(missing) if not count]
        heapq.heapify(heap)
        found = []
        while heap:
            i = heapq.heappop(heap)[1]
            found.append(i)
            for j in self.succ[i]:
                missing[j] -= 1
                if not missing[j]:
                    heapq.heappush(heap, (wish[j], j))
        return found


class Scenario:
    """One set of durations: seconds of each task of the rest, and when the running ones end and free what."""

    __slots__ = ("earliest", "levels", "placed", "pool", "rest", "seconds", "times")

    def __init__(
        self,
        rest: Rest,
        seconds: list[float],
        earliest: list[float],
        free: int,
        running: Sequence[tuple[float, int]],
    ) -> None:
        """`earliest`: end of the last running predecessor, else 0. `free`: packed units free now. `running`:
        when each running task ends, and its units."""
        self.rest, self.seconds, self.earliest = rest, seconds, earliest
        #: how many tasks were placed so far: what looking has cost
        self.placed = 0
        level = free | rest.packing.guard
        self.times, self.levels = [0.0], [level]
        for end, units in sorted(running):
            level += units
            if end <= self.times[-1]:
                self.levels[-1] = level
            else:
                self.times.append(end)
                self.levels.append(level)
        if level != rest.packing.full | rest.packing.guard:  # held by others: given back at an unknown time
            self.times.append(2 * self.times[-1] + max(seconds, default=0.0) + EPSILON)
            self.levels.append(rest.packing.full | rest.packing.guard)
        self.pool = self._pool(free, running) if rest.alike else None

    def _pool(self, free: int, running: Iterable[tuple[float, int]]) -> list[float]:
        """One resource, one unit a task: when each unit is free."""
        return [0.0] * (free & ~self.rest.packing.guard) + sorted(
            end for end, units in running for _ in range(units)
        )

    def tails(self) -> list[float]:
        """Longest path from the start of each task to the end of all."""
        tail = [0.0] * len(self.seconds)
        for i in reversed(self.rest.order):
            tail[i] = self.seconds[i] + max((tail[j] for j in self.rest.succ[i]), default=0.0)
        return tail

    def bound(self, tail: Sequence[float]) -> float:
        """No schedule ends before: the longest path through running tasks and the rest, or all the work."""
        earliest = self.earliest[:]
        end = self.times[-1]
        if self.pool is not None:
            end = max(end, (sum(self.pool) + sum(self.seconds)) / len(self.pool))
        for i in self.rest.order:
            end = max(end, earliest[i] + tail[i])
            after = earliest[i] + self.seconds[i]
            for j in self.rest.succ[i]:
                if earliest[j] < after:
                    earliest[j] = after
        return end

    def serial(self, order: Iterable[int]) -> Plan:
        """Each task, in that order (predecessors first), as early as it fits."""
        self.placed += len(self.seconds)
        times, levels, earliest = self.times[:], self.levels[:], self.earliest[:]
        start = [0.0] * len(self.seconds)
        if self.pool is not None:
            last = _deal(self.seconds, order, self.rest.succ, self.pool[:], earliest, start)
            return max(last, self.times[-1]), start
        last = _place(self, order, self.rest.succ, times, levels, earliest, start)
        return max(last, self.times[-1]), start

    def latest(self, order: Iterable[int], end: float) -> list[float] | None:
        """Each task, in that order (successors first), as late as it fits before `end`; None: it does not.

        With a pool of like units what is running is left out: the times are good for an order only.
        """
        self.placed += len(self.seconds)
        if self.pool is not None:
            start = [0.0] * len(self.seconds)
            _deal(self.seconds, order, self.rest.pred, [0.0] * len(self.pool), [0.0] * len(start), start)
            return [end - at - seconds for at, seconds in zip(start, self.seconds, strict=True)]
        times, levels = [0.0], [self.levels[-1]]
        for k in range(len(self.times) - 1, 0, -1):
            at = end - self.times[k]
            if at <= times[-1]:
                levels[-1] = self.levels[k - 1]
            else:
                times.append(at)
                levels.append(self.levels[k - 1])
        times.append(max(end, times[-1]) + 1.0)  # beyond `end` all is free, so that a place is always found
        levels.append(self.levels[-1])
        start = [0.0] * len(self.seconds)
        last = _place(self, order, self.rest.pred, times, levels, [0.0] * len(start), start)
        if last > end + EPSILON:
            return None
        return [end - at - seconds for at, seconds in zip(start, self.seconds, strict=True)]

    def justify(self, plan: Plan) -> Plan:
        """The schedule bettered by justification until that gains no more."""
        rank, seconds = self.rest.rank, self.seconds
        tasks = range(len(seconds))
        while True:
            end, start = plan
            ends = [(-at - length, -r) for at, length, r in zip(start, seconds, rank, strict=True)]
            late = self.latest(sorted(tasks, key=ends.__getitem__), end)
            if late is None:
                return plan
            other = self.serial(sorted(tasks, key=list(zip(late, rank, strict=True)).__getitem__))
            if other[0] >= end - EPSILON:
                return plan if end < other[0] else other
            plan = other

    def parallel(self, wish: Sequence[float]) -> Plan:
        """At each end of a task, whatever fits starts, smallest `wish` first; nothing that fits waits."""
        self.placed += len(self.seconds)
        rest, seconds, guard = self.rest, self.seconds, self.rest.packing.guard
        by = sorted(range(len(seconds)), key=wish.__getitem__)
        rank = [0] * len(by)
        for at, i in enumerate(by):
            rank[i] = at
        missing = [len(p) for p in rest.pred]
        free = self.levels[0]
        ends = [
            (t, -1, now - was)
            for t, was, now in zip(self.times[1:], self.levels, self.levels[1:], strict=False)
        ]
        n = len(by)
        ends += [(self.earliest[i], n + i, 0) for i in range(n) if not missing[i] and self.earliest[i] > 0.0]
        heapq.heapify(ends)
        fitting = sorted(rank[i] for i in range(n) if not missing[i] and self.earliest[i] <= 0.0)
        start, now = [0.0] * n, 0.0
        while True:
            at = 0
            while at < len(fitting):
                i = by[fitting[at]]
                left = free - rest.need[i]
                if left & guard != guard:
                    if rest.alike:
                        break
                    at += 1
                    continue
                del fitting[at]
                free = left
                start[i] = now
                heapq.heappush(ends, (now + seconds[i], i, rest.need[i]))
            if not ends:
                return max(now, self.times[-1]), start
            now = ends[0][0]
            while ends and ends[0][0] == now:
                _, i, units = heapq.heappop(ends)
                free += units
                if i >= n:
                    insort(fitting, rank[i - n])
                    continue
                for j in rest.succ[i] if i >= 0 else ():
                    missing[j] -= 1
                    if missing[j]:
                        continue
                    if self.earliest[j] <= now:
                        insort(fitting, rank[j])
                    else:
                        heapq.heappush(ends, (self.earliest[j], n + j, 0))


def _deal(
    seconds: list[float],
    order: Iterable[int],
    succ: list[list[int]],
    pool: list[float],
    earliest: list[float],
    start: list[float],
) -> float:
    """Give each task the unit that waits least for it; `pool`: when each is free, in order."""
    last = 0.0
    for i in order:
        at = earliest[i]
        unit = bisect_right(pool, at) - 1
        if unit < 0:
            unit, at = 0, pool[0]
        end = at + seconds[i]
        del pool[unit]
        insort(pool, end)
        start[i] = at
        if end > last:
            last = end
        for j in succ[i]:
            if earliest[j] < end:
                earliest[j] = end
    return last


def _place(
    scenario: Scenario,
    order: Iterable[int],
    succ: list[list[int]],
    times: list[float],
    levels: list[int],
    earliest: list[float],
    start: list[float],
) -> float:
    """Put tasks into a profile (`levels[k]` free from `times[k]` on); returns when the last one ends."""
    seconds, need, guard = scenario.seconds, scenario.rest.need, scenario.rest.packing.guard
    last = 0.0
    for i in order:
        at = earliest[i]
        length = seconds[i]
        end = at + length
        if length > 0.0:
            units = need[i]
            first = to = bisect_right(times, at) - 1
            n = len(times)
            while True:
                if (levels[to] - units) & guard != guard:
                    to += 1
                    first = to
                    at = times[to]
                    end = at + length
                    continue
                to += 1
                if to == n or times[to] >= end:
                    break
            if to == n or times[to] != end:
                times.insert(to, end)
                levels.insert(to, levels[to - 1])
            if times[first] != at:
                first += 1
                to += 1
                times.insert(first, at)
                levels.insert(first, levels[first - 1])
            for k in range(first, to):
                levels[k] -= units
        start[i] = at
        if end > last:
            last = end
        for j in succ[i]:
            if earliest[j] < end:
                earliest[j] = end
    return last
