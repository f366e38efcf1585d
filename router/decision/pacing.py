"""What a point of score is worth now, in a closed loop over a run: enough for the quality that is wanted, and
no more than what is left of the budget allows for what is left of the run.

Two prices are sought over the latest decisions: the least at which the wanted share of the best model's score
is reached, and the greatest that the remaining money can pay for the remaining calls (the multiplier of a
budget, found online as in "Dual Mirror Descent for Online Allocation Problems", Balseiro et al. 2020). The
lower one holds. A decision is first known by its options, and once its answer was looked at, by what was
found: to keep it, or to ask the dearer model. Expected scores given up or gained move the first price, bills
the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite

from .options import CHEAPEST_POINT, DEAREST_POINT, Option, Tradeoff

#: decisions that the prices are sought over, and after how many they are sought again
WINDOW, AGAIN = 96, 8
#: how strongly a lack of so many points of score moves the price (in its logarithm), and how far at most
_GAIN, _FURTHEST = 0.15, 2.5
#: how much of what may be given up is not: a run's mean errs, and at least the wanted share is to be kept
_ABOVE = 0.2
#: share of the budget that is not planned with: estimates err
_SPARE = 0.003


@dataclass(slots=True)
class Entry:
    """A decision as far as it is known."""

    options: Sequence[Option]
    weight: float

    def found(self, keep: Option, ask: Option) -> None:
        """Its answer was looked at: it is kept, or the dearer model is asked. `ask` has the costs of both."""
        self.options = (keep, ask)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a run. `nano`: of its budget, without what calls hold; None: not limited. `calls`:
    weights of the calls to come, this one too; None: not known."""

    nano: int | None = None
    calls: float | None = None


class Pacer:
    """The price of quality of one run."""

    def __init__(self, share: float, explore: float = 0.0) -> None:
        """`share`: of the best single model's expected score that is to be kept (1: all of it). `explore`:
        share of what was spent that trying other models may cost on top."""
        self.share, self.explore = share + _ABOVE * (1 - share), explore
        #: points of score behind (above 0) or ahead of what is wanted, by expectation
        self.behind = 0.0
        #: nano-dollars: of all calls; what trying cost on top; and what it may cost for a start
        self.spent, self.tried, self.credit = 0.0, 0.0, 0.0
        #: nano-dollars that open calls are expected to cost
        self.open = 0.0
        self._window: deque[Entry] = deque(maxlen=WINDOW)
        self._seen = 0
        self._tradeoff: Tradeoff | None = None
        self._wanted = DEAREST_POINT

    def point(self, options: Sequence[Option], weight: float, left: Left) -> float:
        """What a point of score is worth for the decision between `options`, in nano-dollars."""
        self._window.append(Entry(options, weight))
        self._seen += 1
        if self._tradeoff is None or self._seen <= AGAIN or self._seen % AGAIN == 0:
            self._tradeoff = Tradeoff([e.options for e in self._window], [e.weight for e in self._window])
            self._wanted = self._tradeoff.point_for_quality(self.share * self._tradeoff.best)
        point = self._wanted * exp(max(-_FURTHEST, min(_FURTHEST, _GAIN * self.behind)))
        if left.nano is not None and left.calls:
            money = max(0.0, left.nano * (1 - _SPARE) - self.open)
            point = min(point, self._tradeoff.point_for_cost(money / max(left.calls, 1.0)))
        return max(CHEAPEST_POINT, min(DEAREST_POINT, point)) * weight

    @property
    def latest(self) -> Entry:
        """The decision that `point` was asked about last."""
        return self._window[-1]

    def may_try(self, extra: float) -> bool:
        """Whether trying may cost so many nano-dollars more than what looks best."""
        return extra <= 0 or (
            self.explore > 0 and extra <= self.credit + self.explore * self.spent - self.tried
        )

    def begin(self, expected: float, extra: float) -> None:
        """A call is made that is expected to cost so much, `extra` of it to learn."""
        self.open += expected
        self.tried += max(0.0, extra)

    def end(self, expected: float, paid: float) -> None:
        """The call is over. The first calls of a run give trying its credit."""
        self.open = max(0.0, self.open - expected)
        self.spent += paid
        if self.explore > 0 and self._seen <= AGAIN:
            self.credit += paid

    def answered(self, quality: float, singles: Mapping[str, float], weight: float) -> None:
        """An answer was accepted. `quality`: its expected score; `singles`: those of single models there."""
        known = self._tradeoff.best_model if self._tradeoff is not None else ""
        best = singles.get(known, max(singles.values(), default=quality))
        if isfinite(quality) and isfinite(best):
            self.behind = max(-10.0, min(10.0, self.behind + weight * (self.share * best - quality)))
