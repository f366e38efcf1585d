"""What a run has learnt about how long its tasks last. Pure: no clock, no I/O.

A prediction x of a duration y is taken as x = y * exp(e), e normal with mean 0 and an unknown deviation
that is learnt from the tasks that are over. How y is distributed among tasks of one kind is learnt from
their predictions and from the true durations so far (empirical Bayes; the mixing distribution by EM:
Kiefer and Wolfowitz 1956, Laird 1978). Each prediction is then shrunk by Bayes' rule: the longest of a
hundred alike is mostly an error.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

#: deviation of the log of a prediction before anything is over, and how many observations that counts as
ERROR, ERROR_WEIGHT = 0.3, 3.0
#: deviations below this are taken as exact predictions
EXACT = 0.03
#: how many tasks of its kind the distribution of all tasks counts as
POOL_WEIGHT = 3.0
POOL_ROUNDS, KIND_ROUNDS = 12, 6
#: the grid: cells to the deviation of a prediction, and how many cells it may be off
CELLS, REACH = 3, 10
#: predictions and durations below this many seconds are not told apart
TINY = 1e-6


@dataclass(frozen=True, slots=True)
class Belief:
    """Distribution of a duration: `factors[k]` times the prediction, with cumulated probability `upto[k]`."""

    mean: float
    factors: Sequence[float] = (1.0,)
    upto: Sequence[float] = (1.0,)

    def quantile(self, u: float) -> float:
        """The factor below which a share `u` (0..1) lies."""
        k = min(bisect_left(self.upto, u), len(self.upto) - 1)
        if k == 0:
            return self.factors[0]
        low, high = self.upto[k - 1], self.upto[k]
        part = (u - low) / (high - low) if high > low else 1.0
        return self.factors[k - 1] + part * (self.factors[k] - self.factors[k - 1])

    def below(self, factor: float) -> float:
        """Share of the distribution below `factor`."""
        k = bisect_left(self.factors, factor)
        if k == 0:
            return 0.0
        if k == len(self.factors):
            return 1.0
        low, high = self.factors[k - 1], self.factors[k]
        return self.upto[k - 1] + (self.upto[k] - self.upto[k - 1]) * (factor - low) / (high - low)


#: a prediction taken at its word
CERTAIN = Belief(1.0)


class Beliefs:
    """Learns from finished tasks (`learn`) and says what to expect of the others (`expect`)."""

    def __init__(self, error: float = ERROR) -> None:
        """`error`: deviation of the log of predictions, as far as known beforehand (0.3: about ±30 %)."""
        self._squares, self._count = error * error * ERROR_WEIGHT, ERROR_WEIGHT
        self._seen: dict[Hashable, list[float]] = defaultdict(list)

    @property
    def error(self) -> float:
        """Deviation of the log of a prediction, as learnt so far."""
        return math.sqrt(self._squares / self._count)

    def learn(self, kind: Hashable, predicted: float, seconds: float) -> None:
        """A task of that kind is over and took `seconds`."""
        if predicted <= TINY or seconds <= TINY:
            return
        self._squares += math.log(predicted / seconds) ** 2
        self._count += 1.0
        self._seen[kind].append(math.log(seconds))

    def expect(self, tasks: Iterable[tuple[Hashable, float]]) -> list[Belief]:
        """One belief for each (kind, predicted seconds), in that order."""
        tasks, error = list(tasks), self.error
        if error < EXACT or not tasks:
            return [CERTAIN] * len(tasks)
        step = error / CELLS
        cells = [round(math.log(x) / step) if x > TINY else None for _, x in tasks]
        hoped: dict[Hashable, Counter[int]] = defaultdict(Counter)
        for (kind, _), cell in zip(tasks, cells, strict=True):
            if cell is not None:
                hoped[kind][cell] += 1
        known = {kind: Counter(round(y / step) for y in seen) for kind, seen in self._seen.items()}
        every, over = _sum(hoped.values()), _sum(known.values())
        lattice = _Lattice(step, [*every, *over])
        pool = lattice.fit(every, over, None, POOL_ROUNDS)
        prior = {
            kind: lattice.fit(cells_of, known.get(kind, Counter()), pool, KIND_ROUNDS)
            for kind, cells_of in hoped.items()
        }
        made: dict[tuple[Hashable, int], Belief] = {}
        found = []
        for (kind, _), cell in zip(tasks, cells, strict=True):
            if cell is None:
                found.append(CERTAIN)
                continue
            belief = made.get((kind, cell))
            if belief is None:
                belief = made[kind, cell] = lattice.belief(cell, prior[kind])
            found.append(belief)
        return found


def _sum(counters: Iterable[Counter[int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for counter in counters:
        total.update(counter)
    return total


class _Lattice:
    """Logs of durations in cells; a prediction's true duration is sought within REACH cells."""

    def __init__(self, step: float, cells: Sequence[int]) -> None:
        self._low = min(cells, default=0) - REACH
        self._size = max(cells, default=0) + REACH + 1 - self._low
        offsets = range(-REACH, REACH + 1)
        self._kernel = [math.exp(-0.5 * (k / CELLS) ** 2) for k in offsets]
        self._factors = [math.exp(k * step) for k in offsets]

    def fit(
        self, hoped: Counter[int], known: Counter[int], pool: list[float] | None, rounds: int
    ) -> list[float]:
        """Distribution over the cells that explains predictions and durations; `pool`: where it begins."""
        total = sum(hoped.values()) + sum(known.values())
        weight = POOL_WEIGHT if pool else 0.0
        prior = pool or [1.0] * self._size
        if not total:
            return prior
        for _ in range(rounds):
            new = [weight * p for p in pool] if pool else [0.0] * self._size
            for cell, count in hoped.items():
                at = cell - self._low - REACH
                for k, p in enumerate(self._posterior(cell, prior), at):
                    new[k] += p * count
            for cell, count in known.items():
                new[cell - self._low] += count
            scale = 1.0 / (total + weight)
            prior = [p * scale for p in new]
        return prior

    def _posterior(self, cell: int, prior: list[float]) -> list[float]:
        """Over the cells from `cell` - REACH to `cell` + REACH."""
        at = cell - self._low - REACH
        found = [w * p for w, p in zip(self._kernel, prior[at : at + 2 * REACH + 1], strict=True)]
        total = sum(found)
        if total <= 0.0:
            return [float(k == REACH) for k in range(2 * REACH + 1)]
        return [p / total for p in found]

    def belief(self, cell: int, prior: list[float]) -> Belief:
        factors, upto, sofar, mean = [], [], 0.0, 0.0
        for factor, p in zip(self._factors, self._posterior(cell, prior), strict=True):
            if p > 0.0:
                sofar += p
                mean += p * factor
                factors.append(factor)
                upto.append(sofar)
        return Belief(mean, factors, upto)
