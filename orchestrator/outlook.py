"""A run's graph as its scheduler remembers it, and what is to be expected of it. Pure: no clock, no I/O."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from .beliefs import CERTAIN, Belief, Beliefs
from .lookahead import Effort, Search
from .packing import Packing, Rest, Scenario

WAITING, READY, RUNNING, GONE = range(4)
#: place of a job that no search has seen
UNPLACED = 1 << 60
#: share of a belief after which a running job counts as overdue; it then lasts as its past lets fear
OVERDUE = 0.98


@dataclass(frozen=True, slots=True)
class Job:
    """A task as the scheduler sees it."""

    id: Hashable
    #: predicted
    seconds: float
    #: units of each resource
    need: tuple[int, ...] = (1,)
    #: higher first
    priority: int = 0
    #: place in the workflow
    position: int = 0
    #: jobs of one kind last about equally; None: told by the place in the graph
    kind: Hashable = None


@dataclass(slots=True, eq=False)
class Entry:
    """A job that has not ended."""

    job: Job
    #: needs, packed
    units: int
    serial: int
    #: seconds that it is expected to last, and the longest path from its start
    seconds: float
    tail: float
    #: its place in the distribution of its duration in each drawn scenario, and its seconds there
    draws: Sequence[float]
    drawn: Sequence[float]
    belief: Belief = CERTAIN
    kind: Hashable = None
    state: int = WAITING
    #: when it became ready; while it runs: when it started
    since: float = 0.0
    #: its valid entry in the line
    stamp: int = 0
    #: its place in the order that the last search found
    place: int = UNPLACED
    before: list[Entry] = field(default_factory=list)
    after: list[Entry] = field(default_factory=list)

    def left(self, now: float) -> list[float]:
        """Seconds that it may still run, one figure for each drawn scenario."""
        past, predicted = now - self.since, self.job.seconds
        if predicted <= 0.0:
            return [0.0] * len(self.draws)
        gone = self.belief.below(past / predicted)
        if gone > OVERDUE or self.belief is CERTAIN:
            late = 0.05 * self.seconds, 0.1 * past
            return [max(self.seconds - past, late[0] + late[1] * (0.5 + u)) for u in self.draws]
        return [max(1e-6, predicted * self.belief.quantile(gone + (1 - gone) * u) - past) for u in self.draws]


class Outlook:
    """Expects durations and searches for the best order of what is left."""

    def __init__(self, packing: Packing, effort: Effort) -> None:
        self.packing, self.effort = packing, effort
        self._beliefs, self._search = Beliefs(), Search(effort)
        self._random = random.Random(1)
        self._middle = (0.5,) * effort.draws

    def enter(self, job: Job, serial: int) -> Entry:
        """A job just added; it gets its own draws when thought begins."""
        drawn = (job.seconds,) * len(self._middle)
        return Entry(job, self.packing.pack(job.need), serial, job.seconds, job.seconds, self._middle, drawn)

    def learn(self, entry: Entry, now: float) -> None:
        """A running job has ended."""
        self._beliefs.learn(entry.kind, entry.job.seconds, now - entry.since)

    def renew(self, entries: Iterable[Entry]) -> None:
        """Look at all predictions again in the light of what has ended; longest paths follow."""
        order = in_order(list(entries))
        find_kinds(order)
        beliefs = self._beliefs.expect((e.kind, e.job.seconds) for e in order)
        for entry, belief in zip(order, beliefs, strict=True):
            predicted = entry.job.seconds
            if entry.draws is self._middle:
                draws = [(k + 0.5) / self.effort.draws for k in range(self.effort.draws)]
                self._random.shuffle(draws)
                entry.draws = draws
            entry.belief = belief
            entry.seconds = predicted * belief.mean
            entry.drawn = [predicted * belief.quantile(u) for u in entry.draws]
        for entry in reversed(order):
            entry.tail = entry.seconds + max((e.tail for e in entry.after if e.state != GONE), default=0.0)

    def choose(
        self, rest: Sequence[Entry], running: Sequence[Entry], now: float, free: Sequence[int], placed: bool
    ) -> list[Entry]:
        """Jobs to start now, most important first; the order found is noted in `place`.

        `rest`: all that has not started. `placed`: it has places from an earlier search.
        """
        at = {entry: k for k, entry in enumerate(rest)}
        succ = [[at[e] for e in entry.after if e in at] for entry in rest]
        graph = Rest.of([e.units for e in rest], succ, self.packing)
        lefts = [(e, e.left(now)) for e in running]
        ends = [[(e, left[k]) for e, left in lefts] for k in range(self.effort.draws)]
        means = [(e, sum(left) / len(left)) for e, left in lefts]
        level = self.packing.pack(free)
        mean = _scenario(graph, at, [e.seconds for e in rest], means, level)
        drawn = [
            _scenario(graph, at, [e.drawn[k] for e in rest], ends[k], level) for k in range(self.effort.draws)
        ]
        before = graph.repair([float(e.place) for e in rest]) if placed else None
        order, start = self._search.choose(mean, drawn, before)
        for place, k in enumerate(order):
            rest[k].place = place
        return [rest[k] for k in start if rest[k].state == READY]


def _scenario(
    graph: Rest, at: dict[Entry, int], seconds: list[float], ends: list[tuple[Entry, float]], level: int
) -> Scenario:
    earliest = [0.0] * len(seconds)
    for entry, end in ends:
        for after in entry.after:
            k = at.get(after)
            if k is not None and earliest[k] < end:
                earliest[k] = end
    return Scenario(graph, seconds, earliest, level, [(end, entry.units) for entry, end in ends])


def in_order(entries: list[Entry]) -> list[Entry]:
    """Topological order."""
    missing = {entry: sum(before.state != GONE for before in entry.before) for entry in entries}
    order = [entry for entry in entries if not missing[entry]]
    for entry in order:
        for after in entry.after:
            if after in missing:
                missing[after] -= 1
                if not missing[after]:
                    order.append(after)
    return order


def find_kinds(order: list[Entry]) -> None:
    """Jobs of no given kind are alike when they stand in a like place: as deep, as high and as forked.

    A kind once found stays, so that what was learnt about it does.
    """
    if all(entry.kind is not None for entry in order):
        return
    depth: dict[Entry, int] = {}
    for entry in order:
        depth[entry] = 1 + max((depth[e] for e in entry.before if e in depth), default=0)
    height: dict[Entry, int] = {}
    for entry in reversed(order):
        height[entry] = 1 + max((height[e] for e in entry.after if e in height), default=0)
    for entry in order:
        if entry.kind is None:
            place = (depth[entry], height[entry], min(2, len(entry.before)), min(2, len(entry.after)))
            entry.kind = place if entry.job.kind is None else entry.job.kind
