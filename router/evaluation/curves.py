"""Curves of quality against cost and against the share of strong calls, and the figures read off them.

AIQ and the zero router: RouterBench (Hu et al. 2024). PGR, APGR and CPT: RouteLLM (Ong et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .outcomes import Array

#: differences of quality below this are rounding
NOTHING = 1e-12


def area(x: Array, y: Array) -> float:
    """Under the line through the points."""
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)


def crossing(x: Array, y: Array, level: float) -> float:
    """The least x at which the line through the points reaches `level`; nan if it never does."""
    hit = np.flatnonzero(y >= level - 1e-12)
    if not len(hit):
        return float("nan")
    i = int(hit[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))


def hull_index(cost: Array, quality: Array) -> list[int]:
    """The points of the non-decreasing upper hull, by cost: what mixes of the points reach at each cost."""
    out: list[int] = []
    for i in map(int, np.lexsort((quality, cost))):
        while len(out) > 1:
            a, b = out[-2], out[-1]
            rise = (quality[b] - quality[a]) * (cost[i] - cost[a])
            if rise > (quality[i] - quality[a]) * (cost[b] - cost[a]):
                break
            out.pop()
        out.append(i)
    top = max(range(len(out)), key=lambda k: quality[out[k]])
    kept = out[: top + 1]
    # of points at one cost the best is last: those before it are below the hull
    return [i for k, i in enumerate(kept) if k + 1 == len(kept) or cost[kept[k + 1]] > cost[i]]


def aiq(cost: Array, quality: Array, low: float, high: float) -> float:
    """Mean quality of the hull between the costs `low` and `high`; nan where they are equal.

    Below its cheapest point the hull has that point's quality, above its best one that one's.
    """
    if not high > low:
        return float("nan")
    kept = hull_index(cost, quality)
    x, y = cost[kept], quality[kept]
    grid = np.concatenate(([low], x[(x > low) & (x < high)], [high]))
    return area(grid, np.interp(grid, x, y)) / (high - low)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The order in which prompts are sent to the strong model. Prompts of equal rank go together, in
    equal parts."""

    order: np.ndarray
    #: places in `order` at which a group of equal rank ends
    ends: np.ndarray

    @classmethod
    def of(cls, gain: Array) -> Ranks:
        """Highest gain first."""
        order = np.argsort(-gain, kind="stable")
        return cls(order, np.flatnonzero(np.append(np.diff(gain[order]) != 0, True)))

    def running(self, values: Array) -> Array:
        """Sums of `values` over the first 0, 1, 2 … groups."""
        return np.append(0.0, np.cumsum(values[self.order])[self.ends])


@dataclass(frozen=True, slots=True)
class Deferral:
    """Quality and cost as a growing share of the prompts goes to the strong model."""

    share: Array
    #: performance gap recovered: 0 at the weak model's quality, 1 at the strong one's
    pgr: Array
    #: PGR of `1` corresponds to `strong`, 0 to `weak` (mean scores)
    weak: float
    strong: float
    #: part of what the strong model alone costs; None without costs
    spent: Array | None

    @classmethod
    def of(
        cls,
        ranks: Ranks,
        scores: tuple[Array, Array],
        costs: tuple[Array, Array] | None = None,
        weight: Array | None = None,
        weak_billed: bool = False,
    ) -> Deferral | None:
        """`scores` and `costs` are (weak, strong), each [prompts]; None unless strong is better than weak.

        With `weak_billed` the weak call is paid for every prompt (a cascade, which reads its answer).
        """
        weak, strong = scores
        w = np.full(len(weak), 1 / len(weak)) if weight is None else weight / weight.sum()
        gain = ranks.running(w * (strong - weak))
        if not gain[-1] > NOTHING:
            return None
        spent = None
        if costs is not None and (alone := float(w @ costs[1])) > 0:
            more = costs[1] if weak_billed else costs[1] - costs[0]
            spent = (float(w @ costs[0]) + ranks.running(w * more)) / alone
        return cls(ranks.running(w), gain / gain[-1], float(w @ weak), float(w @ strong), spent)

    @property
    def apgr(self) -> float:
        """Mean PGR over all shares; one half for a router that knows nothing."""
        return area(self.share, self.pgr)

    def cpt(self, percent: float) -> float:
        """Least share of strong calls that recovers `percent` % of the gap."""
        return crossing(self.share, self.pgr, percent / 100)

    def share_for(self, part: float) -> float:
        """Least share of strong calls for `part` (0…1) of the strong model's quality."""
        return crossing(self.share, self.pgr, (part * self.strong - self.weak) / (self.strong - self.weak))

    def cost_for(self, part: float) -> float:
        """Cost at `share_for(part)`, as a part of all calls strong; nan without costs."""
        if self.spent is None:
            return float("nan")
        return float(np.interp(self.share_for(part), self.share, self.spent))
