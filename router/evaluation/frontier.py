"""The cost–quality frontier: what routers, single models, the zero router, random and the oracle reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...memory.errors import UsageError
from .choices import Sweep, resamples
from .curves import hull_index
from .routers import Predictions
from .scoring import Kind
from .truth import Array, Truth

Shape = Literal["line", "points"]


@dataclass(frozen=True, slots=True)
class Point:
    """Something that can be had."""

    #: mean USD a prompt
    cost: float
    #: mean score
    quality: float
    #: 95 % interval of the quality
    low: float
    high: float
    #: a model's name, '' on lines
    label: str = ""
    #: USD for one point of quality at which a router chooses so; None where it is no router's price
    price: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points by rising cost. Between two points of a line their mixes lie, straight in cost and quality."""

    name: str
    kind: Kind
    shape: Shape
    points: tuple[Point, ...]

    def between(self, count: int, log: bool) -> list[tuple[float, float, float, float]]:
        """(cost, quality, low, high) of the line at `count` costs, its own points included."""
        cost, *rest = np.array([(p.cost, p.quality, p.low, p.high) for p in self.points]).T
        steps = np.geomspace if log and cost[0] > 0 else np.linspace
        grid = np.union1d(steps(cost[0], cost[-1], count).clip(cost[0], cost[-1]), cost)
        return list(zip(grid.tolist(), *(np.interp(grid, cost, part).tolist() for part in rest), strict=True))


@dataclass(frozen=True, slots=True)
class Frontier:
    """All series, routers first."""

    series: tuple[Series, ...]
    prompts: int
    notes: tuple[str, ...] = ()

    @property
    def log(self) -> bool:
        """Whether costs are better shown by their logarithm: they differ by more than 20 times."""
        costs = [point.cost for series in self.series for point in series.points]
        return min(costs) > 0 and max(costs) > 20 * min(costs)

    def box(self) -> tuple[float, float, float, float]:
        """Least and greatest cost, least and greatest quality that is drawn."""
        points = [point for series in self.series for point in series.points]
        cost = [p.cost for p in points]
        quality = [q for p in points for q in (p.quality, p.low, p.high)]
        return min(cost), max(cost), min(quality), max(quality)

    def data(self) -> dict[str, Any]:
        """For JSON."""
        series = [
            {
                "name": s.name, "kind": s.kind, "shape": s.shape,
                "points": [
                    {"cost_usd": p.cost, "quality": p.quality, "low": p.low, "high": p.high, "label": p.label,
                     "price": p.price}
                    for p in s.points
                ],
            }
            for s in self.series
        ]  # fmt: skip
        return {"series": series, "prompts": self.prompts, "notes": list(self.notes)}


def frontier(
    truth: Truth, predictions: Mapping[str, Predictions], *, draws: int = 200, seed: int = 0
) -> Frontier:
    """The frontier of routers (name → `cross_validate`), each over all prices of quality, between the
    costs of the cheapest and the dearest model. Lines are non-decreasing hulls, as AIQ measures them; the
    oracle's is absent where cells were estimated.

    Raises:
        UsageError: the rows have no costs.
    """
    if truth.cost is None:
        raise UsageError("the rows have no costs: no frontier", mend="give cost_usd for most rows")
    samples = resamples(len(truth), draws, seed)
    found = [
        _line(name, "router", Sweep.of(p.of(truth.index), truth), samples) for name, p in predictions.items()
    ]
    static = Sweep(np.full(len(truth.models), np.nan), truth.score.T, truth.cost.T)
    models = tuple(
        sorted(_points(static, range(len(truth.models)), samples, truth.models), key=lambda p: p.cost)
    )
    found.append(Series("models", "model", "points", models))
    found.append(_line("zero router", "zero", static, samples))
    mixed = Sweep(np.full(1, np.nan), truth.score.mean(1)[None], truth.cost.mean(1)[None])
    found.append(Series("random", "random", "points", _points(mixed, [0], samples)))
    if not truth.estimated:
        none = np.zeros(len(truth), np.intp)
        known = Predictions(truth.score, truth.cost, none + int(truth.cost.mean(0).argmin()), none)
        found.append(_line("oracle", "oracle", Sweep.of(known, truth), samples))
    return Frontier(tuple(found), len(truth), truth.notes)


def _line(name: str, kind: Kind, sweep: Sweep, samples: Sequence[Array]) -> Series:
    kept = hull_index(sweep.cost.mean(1), sweep.score.mean(1))
    return Series(name, kind, "line", _points(sweep, kept, samples))


def _points(
    sweep: Sweep, kept: Sequence[int], samples: Sequence[Array], labels: Sequence[str] = ()
) -> tuple[Point, ...]:
    index = list(kept)
    quality = np.array([sweep.score[index] @ w for w in samples])
    drawn = quality[1:] if len(quality) > 1 else quality
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    cost = sweep.cost[index].mean(1)
    return tuple(
        Point(
            float(cost[k]), float(quality[0, k]), float(low[k]), float(high[k]),
            labels[i] if labels else "", float(sweep.prices[i]) if np.isfinite(sweep.prices[i]) else None,
        )
        for k, i in enumerate(index)
    )  # fmt: skip
