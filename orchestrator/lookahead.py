"""Which tasks to start now, found by scheduling the rest of the graph many times over. Pure, deterministic.

Durations are uncertain: many orders are tried on the expected ones, the best are compared by their mean over
several drawn ones, and a task starts now if it does in at least half of those.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .packing import EPSILON, Plan, Scenario


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look, counted in tasks placed so that it does not depend on the machine."""

    #: tasks placed while looking for orders, at the first decision and at each later one
    first: int = 8000
    more: int = 5000
    #: drawn scenarios, and tasks placed to compare the best orders on them
    draws: int = 8
    compare: int = 3000
    #: share of the scenarios in which a task must start now, to start now
    quorum: float = 0.5
    #: how far priorities are moved to try another order (share of the priority; share of the whole plan)
    spread: float = 0.3
    shift: float = 0.15
    #: an order this close to the lower bound (share of it) needs no bettering
    near: float = 0.002


class Search:
    """Looks for the best order of the rest; keeps the random numbers, so that a run can be repeated."""

    def __init__(self, effort: Effort, seed: int = 0) -> None:
        self.effort = effort
        self._random = random.Random(seed)

    def choose(
        self, mean: Scenario, drawn: Sequence[Scenario], before: Sequence[int] | None
    ) -> tuple[Sequence[int], list[int]]:
        """The order to follow from now on, and which tasks start now, most important first.

        `mean`: expected durations; `drawn`: others that may come; `before`: the order followed so far.
        """
        size, effort = len(mean.seconds), self.effort
        limit = effort.first if before is None else effort.more
        orders: list[Sequence[int]] = list(self._orders(mean, before, limit))
        if drawn:
            orders = orders[: max(2, effort.compare // (size * len(drawn)))]
            if before is not None:
                orders.append(before)
            best = _least(orders, drawn)
        else:
            best = orders[0]
        votes = [0] * size
        for scenario in drawn or [mean]:
            for i, at in enumerate(scenario.serial(best)[1]):
                if at <= EPSILON:
                    votes[i] += 1
        enough = max(1.0, effort.quorum * len(drawn))
        return best, [i for i in best if votes[i] >= enough]

    def _orders(self, mean: Scenario, before: Sequence[int] | None, limit: int) -> list[tuple[int, ...]]:
        """The best orders found for `mean` within `limit` placed tasks, best first."""
        rest, draw, effort = mean.rest, self._random.uniform, self.effort
        tail = mean.tails()
        enough = mean.bound(tail) * (1 + effort.near)
        found: dict[tuple[int, ...], float] = {}
        best: Plan = (float("inf"), [])

        def keep(plan: Plan) -> None:
            nonlocal best
            plan = mean.justify(plan)
            order = tuple(sorted(rest.order, key=plan[1].__getitem__))
            found[order] = min(plan[0], found.get(order, plan[0]))
            if plan[0] < best[0] - EPSILON:
                best = plan

        if before is not None:
            keep(mean.serial(before))
        keep(mean.parallel([-t for t in tail]))
        keep(mean.serial(rest.repair([-t for t in tail])))
        low, high = 1 - effort.spread, 1 + effort.spread
        while best[0] > enough and mean.placed < limit:
            if self._random.random() < 0.5:
                keep(mean.parallel([-t * draw(low, high) for t in tail]))
            else:
                reach = best[0] * effort.shift
                keep(mean.serial(rest.repair([t + draw(-reach, reach) for t in best[1]])))
        return sorted(found, key=found.__getitem__)


def _least(orders: Sequence[Sequence[int]], drawn: Sequence[Scenario]) -> Sequence[int]:
    """The order whose schedules end earliest on average."""
    best, least = orders[0], float("inf")
    for order in orders:
        total = 0.0
        for scenario in drawn:
            total += scenario.serial(order)[0]
            if total >= least:
                break
        if total < least:
            best, least = order, total
    return best
