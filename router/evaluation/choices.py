"""What a router's predictions come to: the choices at each price of quality, and what they earned and
cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...memory.errors import UsageError
from .curves import Deferral, Ranks, aiq
from .routers import Predictions
from .truth import Array, Truth

#: prices of one point of quality that a sweep goes through, as multiples of the mean cost of a call
SWEEP = np.append(0.0, np.logspace(-4, 5, 140))


@dataclass(frozen=True, slots=True)
class Sweep:
    """A router's outcomes over all prices of quality; the last one is always the model cheapest in
    training."""

    #: [prices]: USD for one point of quality; nan for the last
    prices: Array
    #: [prices, prompts]
    score: Array
    cost: Array

    @classmethod
    def of(cls, said: Predictions, truth: Truth) -> Sweep:
        """Needs costs."""
        cost = _costs(truth)
        n = np.arange(len(truth))
        prices = SWEEP * cost.mean()
        picks, kept = [], []
        for price in prices:
            pick = np.argmax(price * said.quality - said.cost, 1)
            if not picks or (pick != picks[-1]).any():
                picks.append(pick)
                kept.append(price)
        picks.append(said.cheapest)
        return cls(
            np.array([*kept, np.nan]),
            np.array([truth.score[n, pick] for pick in picks]),
            np.array([cost[n, pick] for pick in picks]),
        )

    def aiq(self, weight: Array, low: float, high: float) -> float:
        """See `curves.aiq`; `weight` sums to 1."""
        return aiq(self.cost @ weight, self.score @ weight, low, high)


@dataclass(frozen=True, slots=True)
class Taken:
    """What one fixed rule gets on each prompt: [prompts] each, None where it is not known."""

    score: Array
    cost: Array | None
    tokens: Array | None

    @classmethod
    def of(cls, share: Array, truth: Truth) -> Taken:
        """`share` [prompts, models] is with what chance each model is taken."""
        total = lambda part: None if part is None else (share * part).sum(1)  # noqa: E731
        return cls((share * truth.score).sum(1), total(truth.cost), total(truth.tokens))


def taken_by(said: Predictions, truth: Truth, points_per_usd: float) -> Taken:
    """What the router takes when one USD is worth `points_per_usd` of quality. Ties are shared evenly."""
    worth = said.quality - (points_per_usd * said.cost if truth.cost is not None else 0.0)
    best = (worth >= worth.max(1, keepdims=True)).astype(float)
    return Taken.of(best / best.sum(1, keepdims=True), truth)


def exchange_rate(truth: Truth) -> float:
    """Points of quality that one USD is worth where none is given: 0.8 × what the best model's lead over the
    cheapest one costs, so that neither always-best nor always-cheapest is far off. 0 without costs."""
    if truth.cost is None:
        return 0.0
    score, cost = truth.score.mean(0), truth.cost.mean(0)
    best, low = int(np.argmax(score)), int(np.argmin(cost))
    return (
        float(0.8 * (score[best] - score[low]) / (cost[best] - cost[low])) if cost[best] > cost[low] else 0.0
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """The two models between which APGR, CPT and the share of strong calls are measured (column numbers)."""

    weak: int
    strong: int

    @classmethod
    def of(cls, truth: Truth, names: tuple[str, str] | None = None) -> Pair | None:
        """(weak, strong) by name; else, of two models, the cheaper and the dearer; of more, the cheapest
        and the best. Without costs the worst and the best. None if these are one model.

        Raises:
            UsageError: a name that the rows do not have.
        """
        if names is not None:
            unknown = [name for name in names if name not in truth.models]
            if unknown:
                known = ", ".join(truth.models)
                raise UsageError(f"no model {unknown[0]} in the rows", mend=f"name two of {known}")
            return cls(truth.models.index(names[0]), truth.models.index(names[1]))
        score = truth.score.mean(0)
        cost = score if truth.cost is None else truth.cost.mean(0)
        weak = int(np.argmin(cost))
        strong = int(np.argmax(cost)) if len(cost) == 2 else int(np.argmax(score))
        return None if weak == strong else cls(weak, strong)

    def ranks(self, said: Predictions) -> Ranks:
        """By how much better the strong model is expected to be, as a quantile of its fold: routers of
        different folds have different means, and rank each other's prompts by them the wrong way
        round."""
        gain = said.quality[:, self.strong] - said.quality[:, self.weak]
        place = np.zeros(len(gain))
        for k in np.unique(said.fold):
            mine = np.flatnonzero(said.fold == k)
            _, which, count = np.unique(gain[mine], return_inverse=True, return_counts=True)
            place[mine] = ((np.cumsum(count) - count / 2) / len(mine))[which]
        return Ranks.of(place)

    def deferral(self, ranks: Ranks, truth: Truth, weight: Array) -> Deferral | None:
        """See `Deferral.of`."""
        weak, strong = truth.columns(self.weak), truth.columns(self.strong)
        costs = None if weak[1] is None or strong[1] is None else (weak[1], strong[1])
        return Deferral.of(ranks, (weak[0], strong[0]), costs, weight)


def constant(truth: Truth) -> Ranks:
    """The order of a router that knows nothing of single prompts."""
    return Ranks.of(np.zeros(len(truth)))


def resamples(count: int, draws: int, seed: int) -> list[NDArray[np.float64]]:
    """Weights [count] that sum to 1: all alike, and then of `draws` bootstrap samples. The same for every
    router, so that differences are paired."""
    rng = np.random.default_rng(seed)
    each = [np.bincount(rng.integers(0, count, count), minlength=count) / count for _ in range(draws)]
    return [np.full(count, 1 / count), *each]


def _costs(truth: Truth) -> Array:
    if truth.cost is None:
        raise UsageError("the rows have no costs", mend="give the column cost_usd for most rows")
    return truth.cost
