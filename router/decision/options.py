"""Ways to answer a call, what they are worth at a given price of quality, and what that price has to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from ..types import Mode

Array = NDArray[np.float64]

#: nano-dollars for a point of score between which the price of quality is sought
CHEAPEST_POINT, DEAREST_POINT = 1.0, 1e15
#: how close it is found, in its logarithm
_CLOSE = 2e-3
#: how far from its ends a tilted distribution's mean stays, and how steep it may be tilted
_EDGE, _STEEPEST = 0.01, 60.0


@dataclass(frozen=True, slots=True)
class Gains:
    """What a dearer answer brings, in points of score, for answers like those to come: their quantiles."""

    #: falling
    each: Array
    #: sums of the first 0, 1, 2 … of them
    sums: Array

    @classmethod
    def of(cls, gains: Sequence[float] | Array) -> Gains:
        each = -np.sort(-np.asarray(gains, float))
        return cls(each, np.concatenate([[0.0], np.cumsum(each)]))

    @classmethod
    def tilted(cls, gains: Array, mean: float) -> Gains:
        """Gains like these with another mean: each counts for more or less, the more so the higher it is
        (exponential tilting; Esscher 1932), and none lies beyond the least and the greatest."""
        each = np.sort(gains)
        mean = min(max(mean, float(each[0]) + _EDGE), float(each[-1]) - _EDGE)
        low, high = -_STEEPEST, _STEEPEST
        weights = np.full(len(each), 1 / len(each))
        while high - low > 1e-6 and each[-1] - each[0] > 2 * _EDGE:
            middle = (low + high) / 2
            logs = middle * each
            weights = np.exp(logs - logs.max())
            weights /= weights.sum()
            low, high = (middle, high) if float(weights @ each) < mean else (low, middle)
        at = (np.arange(len(each)) + 0.5) / len(each)
        return cls.of(np.interp(at, np.cumsum(weights) - weights / 2, each))

    def above(self, least: float | Array) -> tuple[Array, Array]:
        """`(share, sum of gains per answer)` of the answers that gain more than `least`."""
        count = np.searchsorted(-self.each, -np.asarray(least, float), side="left")
        many = max(len(self.each), 1)
        return count / many, self.sums[count] / many


@dataclass(frozen=True, slots=True)
class Option:
    """One way to answer a call: ask `model`; with `then`, ask that one too where the answer is in doubt."""

    model: str
    #: expected score of the model's own answer, and the standard deviation of that expectation
    quality: float
    sd: float
    #: nano-dollars, with what its seconds are worth
    cost: float
    then: str | None = None
    then_cost: float = 0.0
    gains: Gains | None = field(default=None, repr=False)
    mode: Mode = "direct"
    samples: int = 1

    @property
    def is_single(self) -> bool:
        """Whether it is one answer of one model, and no more."""
        return self.mode == "direct"

    def outlook(self, point: float) -> tuple[float, float, float]:
        """`(quality, cost, share that asks the second model)` when a point of score is worth `point`."""
        if self.gains is None:
            return self.quality, self.cost, 0.0
        share, gain = self.gains.above(self.then_cost / point)
        return self.quality + float(gain), self.cost + float(share) * self.then_cost, float(share)

    def worth(self, point: float) -> float:
        quality, cost, _ = self.outlook(point)
        return quality * point - cost


class Tradeoff:
    """What quality is to be had for what money over several decisions, each taken at the same price."""

    def __init__(self, decisions: Sequence[Sequence[Option]], weights: Sequence[float] | None = None) -> None:
        """`weights`: how much each decision's quality counts; none given: all alike. No decision is empty."""
        flat = list(chain.from_iterable(decisions))
        sizes = [len(options) for options in decisions]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
        self._of = np.repeat(np.arange(len(sizes)), sizes)
        self._weights = np.ones(len(sizes)) if weights is None else np.asarray(weights, float)
        self._quality = np.array([option.quality for option in flat])
        self._cost = np.array([option.cost for option in flat])
        self._then = np.array([option.then_cost for option in flat])
        self._behind = np.flatnonzero([option.gains is not None for option in flat])
        self._each, self._sums, self._many = _stacked([o.gains for o in flat if o.gains is not None])
        #: the model that is best on average over the decisions that it may take, and the mean score of it
        #: (where it may not be taken: of the best there)
        self.best_model = _best_model(flat)
        direct = np.array([option.is_single for option in flat])
        single = np.where(direct, self._quality, -np.inf)
        its = np.where(direct & [option.model == self.best_model for option in flat], self._quality, -np.inf)
        best = np.maximum.reduceat(its, self._starts)
        self.best = self._mean(np.where(np.isfinite(best), best, np.maximum.reduceat(single, self._starts)))

    def at(self, point: float) -> tuple[float, float]:
        """`(mean score, mean cost)` when a point of score is worth `point` times the decision's weight."""
        points = point * self._weights[self._of]
        quality, cost = self._quality.copy(), self._cost.copy()
        if len(self._behind):
            places = self._behind
            count = (self._each > (self._then[places] / points[places])[:, None]).sum(1)
            quality[places] += self._sums[np.arange(len(places)), count] / self._many
            cost[places] += count / self._many * self._then[places]
        worth = quality * points - cost
        top = np.maximum.reduceat(worth, self._starts)[self._of]
        # of equals the first
        order = np.where(worth >= top, np.arange(len(worth)), len(worth))
        taken = np.minimum.reduceat(order, self._starts)
        return self._mean(quality[taken]), float(cost[taken].mean())

    def point_for_quality(self, target: float) -> float:
        """The least point at which the mean score reaches `target`; `DEAREST_POINT` if none does."""
        return self._edge(lambda point: self.at(point)[0] >= target - 1e-9)[1]

    def point_for_cost(self, most: float) -> float:
        """The greatest point at which the mean cost is not above `most`; `CHEAPEST_POINT` if none is."""
        return self._edge(lambda point: self.at(point)[1] > most)[0]

    def _mean(self, values: Array) -> float:
        return float(values @ self._weights / self._weights.sum())

    def _edge(self, reached: Callable[[float], bool]) -> tuple[float, float]:
        """Two points close together; from the second on something is reached, which at the first is not."""
        low, high = log(CHEAPEST_POINT), log(DEAREST_POINT)
        if not reached(DEAREST_POINT):
            return DEAREST_POINT, DEAREST_POINT
        while high - low > _CLOSE:
            middle = (low + high) / 2
            low, high = (low, middle) if reached(exp(middle)) else (middle, high)
        # a little more, or decisions at the very edge fall by rounding
        return exp(low), exp(high) * (1 + _CLOSE)


def _stacked(tables: Sequence[Gains]) -> tuple[Array, Array, Array]:
    """Tables of gains side by side, `(each [n, most], sums [n, most + 1], how many [n])`; what a shorter one
    lacks is never gained."""
    most = max((len(table.each) for table in tables), default=0)
    each, sums = np.full((len(tables), most), -np.inf), np.zeros((len(tables), most + 1))
    for row, table in enumerate(tables):
        each[row, : len(table.each)], sums[row, : len(table.sums)] = table.each, table.sums
    return each, sums, np.array([max(len(table.each), 1) for table in tables], float)


def _best_model(options: Sequence[Option]) -> str:
    sums: dict[str, tuple[float, int]] = {}
    for option in options:
        if option.is_single:
            total, count = sums.get(option.model, (0.0, 0))
            sums[option.model] = total + option.quality, count + 1
    return max(sums, key=lambda model: (sums[model][0] / sums[model][1], model))
