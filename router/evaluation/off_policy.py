"""What another policy would have scored and cost, from calls that were logged with the chance of each choice.

Two estimates: the self-normalised mean of the decisions that both policies take alike, each weighed by one
over its chance (Swaminathan & Joachims 2015), and the doubly robust one (Dudík, Langford & Li 2011), which
starts from a prediction for every decision and corrects it by what was seen: it is right on average when
either the chances or the predictions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...memory.errors import UsageError

Array = NDArray[np.float64]

#: standard errors of a 95 % interval
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Logged:
    """Decisions as they were taken: [n] each. Chances are in (0, 1]."""

    #: 0…1, and USD, of what was done
    was_score: Array
    was_cost: Array
    #: the same as far as the other policy goes along: of a first answer alone, say, where it stops there
    score: Array
    cost: Array
    #: the chance with which it was chosen
    propensity: Array
    #: the chance with which the other policy takes the same
    target: Array
    #: what was expected, by a model that has not seen the row, of what was done
    guess_score: Array
    guess_cost: Array
    #: and of what the other policy would do
    then_score: Array
    then_cost: Array

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> Logged:
        """Of one row a decision, in the order of the columns.

        A first answer may be had on several ways, each with a chance of its own (alone, or with a dearer
        model behind it). Its chance is all of theirs together, which is not logged: weights then come to
        more than 1 on average, and chances are scaled up until they do not.

        Raises:
            UsageError: no rows, or a chance that is none.
        """
        made = cls(*np.array(rows, float).T) if rows else cls(*(np.zeros(0) for _ in cls.__slots__))
        mean = float((made.target / made.propensity).mean())
        return replace(made, propensity=np.minimum(1.0, made.propensity * max(1.0, mean)))

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: no decision, columns of several lengths, or a chance that is none.
        """
        columns = [getattr(self, name) for name in self.__slots__]
        if not len(self.score) or len({len(column) for column in columns}) > 1:
            raise UsageError("there is no decision to estimate from", mend="grade answers of routed calls")
        wrong = (self.propensity <= 0) | (self.propensity > 1) | (self.target < 0) | (self.target > 1)
        if wrong.any():
            raise UsageError("a chance is not in (0, 1]", mend="log the chance of each choice")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Means:
    """Of one decision."""

    score: Estimate
    #: USD
    cost: Estimate


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """What the other policy is estimated to score and to cost."""

    decisions: int
    #: those that both policies take alike
    matched: int
    #: how many equally weighed decisions the weighted mean is worth: (Σw)² / Σw²
    effective: float
    #: as it was
    logged: Means
    #: self-normalised inverse propensity; None: nothing was taken alike
    weighted: Means | None
    doubly_robust: Means


def off_policy(rows: Logged) -> OffPolicy:
    """Estimates with intervals that take decisions as independent.

    An interval counts one more decision that is off by the whole range: a few decisions that happen to agree
    are no certainty.
    """
    n = len(rows.score)
    weight = rows.target / rows.propensity
    total = float(weight.sum())
    matched = int((weight > 0).sum())
    effective = total**2 / float((weight**2).sum()) if matched else 0.0
    pairs = (
        (rows.score, rows.guess_score, rows.then_score, 1.0),
        (rows.cost, rows.guess_cost, rows.then_cost, np.inf),
    )
    ones = np.ones(n)
    logged = Means(_weighed(rows.was_score, ones, 1.0), _weighed(rows.was_cost, ones, np.inf))
    weighted = Means(*(_weighed(seen, weight, most) for seen, _, _, most in pairs)) if matched else None
    robust = Means(*(_robust(seen, guess, then, weight, most) for seen, guess, then, most in pairs))
    return OffPolicy(n, matched, effective, logged, weighted, robust)


def _weighed(seen: Array, weight: Array, most: float) -> Estimate:
    """The self-normalised mean; its variance by the delta method."""
    total = weight.sum()
    mean = float(weight @ seen / total)
    off = (weight**2) @ (seen - mean) ** 2 + (weight.max() * _range(seen, most)) ** 2
    return _interval(mean, float(np.sqrt(off) / total), most)


def _robust(seen: Array, guess: Array, then: Array, weight: Array, most: float) -> Estimate:
    each = then + weight * (seen - guess)
    mean = float(each.mean())
    off = ((each - mean) ** 2).sum() + _range(seen, most) ** 2
    if np.isfinite(most):
        # a log cannot be worth more than having taken the policy itself: right or wrong, answer by answer
        off = max(off, float((then * (most - then)).clip(0).sum()))
    return _interval(mean, float(np.sqrt(off) / len(each)), most)


def _range(seen: Array, most: float) -> float:
    return most if np.isfinite(most) else float(seen.max() - min(0.0, seen.min()))


def _interval(mean: float, error: float, most: float) -> Estimate:
    value, low, high = (float(np.clip(x, 0.0, most)) for x in (mean, mean - _Z * error, mean + _Z * error))
    return Estimate(value, low, high)
