"""What a run saved: its bill beside that of one model for everything, and what that did to quality.

Money is whole nano-dollars. What was not called is known by estimates only; the estimates of what *was*
called stand beside the bill, so that one sees how far they can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

#: standard deviations of a 95 % interval
_WIDE = 1.96


@dataclass(frozen=True, slots=True)
class Expected:
    """What one model was expected to do with a call."""

    cost_nano: int
    #: expected score 0…1, None where nothing is known
    quality: float | None = None
    #: variance of the expected score: what is not known of it
    variance: float = 0.0


@dataclass(frozen=True, slots=True)
class MadeCall:
    """One call of a run, and what the models that could have taken it were expected to do (the taken one
    too)."""

    model: str
    #: settled cost
    cost_nano: int
    expected: Mapping[str, Expected]
    #: calls of one step (a cascade, repairs) are one decision with the last call's answer; '' stands alone
    step: str = ""
    #: expected score of this answer after its checks, and its variance; None: as was expected of the model
    quality: float | None = None
    variance: float = 0.0


@dataclass(frozen=True, slots=True)
class Side:
    """One way to make all decisions."""

    #: 'actual', or the model's name
    name: str
    cost_nano: int
    #: mean expected score, None where no decision has one
    quality: float | None
    #: 95 % interval of it
    low: float | None
    high: float | None
    #: decisions for which this model could not be taken: they are as they were
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Lead:
    """The actual side less another one."""

    other: Side
    #: nano-dollars saved; below 0 if the run cost more
    saved_nano: int
    #: that as a part of the other's cost, None if it costs nothing
    saved_share: float | None
    #: quality gained (below 0: given up), over decisions that both sides have estimates of
    quality: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Savings:
    """A run's choices beside always the best and always the cheapest model (None where no model has
    estimates)."""

    actual: Side
    best: Lead | None
    cheapest: Lead | None
    calls: int
    decisions: int
    #: what the estimates said that the decisions would cost, over those that have one: the same as…
    expected_nano: int
    #: …the bill of these
    billed_nano: int

    def data(self) -> dict[str, Any]:
        """For JSON; money in whole nano-dollars."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Decision:
    """The calls of one step as one."""

    calls: tuple[MadeCall, ...]

    @property
    def model(self) -> str:
        """Whose answer counted."""
        return self.calls[-1].model

    @property
    def expected(self) -> Mapping[str, Expected]:
        """Of the models that could have taken it."""
        return self.calls[0].expected

    def actual(self) -> Expected:
        """All its calls were paid; the quality is that of the last answer."""
        last = self.calls[-1]
        cost = sum(call.cost_nano for call in self.calls)
        if last.quality is not None:
            return Expected(cost, last.quality, last.variance)
        known = self.expected.get(last.model, Expected(0))
        return Expected(cost, known.quality, known.variance)

    def by(self, model: str) -> Expected | None:
        """One call of `model` alone, at the price that it was billed where it was called; None: not
        possible."""
        found = self.actual() if model == self.model else self.expected.get(model)
        billed = [call.cost_nano for call in self.calls if call.model == model]
        if found is None or not billed:
            return found
        return replace(found, cost_nano=billed[-1])


def savings(calls: Iterable[MadeCall]) -> Savings:
    """Compares a run's calls with always-best and always-cheapest: the models of the greatest mean expected
    quality and of the least expected cost, among those that could take the most decisions.

    Intervals take what is not known of a model to be the same in all its calls (the cautious case) and
    independent between models. They are of the *expected* quality; the luck of single answers comes on top.
    """
    made = list(calls)
    decisions = _decisions(made)
    known = [d for d in decisions if all(call.model in d.expected for call in d.calls)]
    expected = sum(d.expected[call.model].cost_nano for d in known for call in d.calls)
    billed = sum(d.actual().cost_nano for d in known)
    wide = _widest(decisions)
    rated = {m: q for m in wide if (q := _mean_quality(decisions, m)) is not None}
    best = min(rated, key=lambda m: (-rated[m], m), default=None)
    cheapest = min(wide, key=lambda m: (_cost(decisions, m), m), default=None)
    return Savings(
        _side("actual", [(d.model, d.actual()) for d in decisions]),
        None if best is None else _lead(decisions, best),
        None if cheapest is None else _lead(decisions, cheapest),
        len(made), len(decisions), expected, billed,
    )  # fmt: skip


def _decisions(calls: Sequence[MadeCall]) -> list[_Decision]:
    steps: dict[str | int, list[MadeCall]] = {}
    for number, call in enumerate(calls):
        steps.setdefault(call.step or number, []).append(call)
    return [_Decision(tuple(each)) for each in steps.values()]


def _widest(decisions: Sequence[_Decision]) -> list[str]:
    """The models that could take the most decisions."""
    reach: dict[str, int] = {}
    for decision in decisions:
        for model in decision.expected:
            reach[model] = reach.get(model, 0) + 1
    return sorted(m for m, count in reach.items() if count == max(reach.values()))


def _mean_quality(decisions: Sequence[_Decision], model: str) -> float | None:
    """As expected beforehand, so that models are compared alike."""
    known = [e.quality for d in decisions if (e := d.expected.get(model)) and e.quality is not None]
    return sum(known) / len(known) if known else None


def _cost(decisions: Sequence[_Decision], model: str) -> int:
    return sum(d.expected[model].cost_nano for d in decisions if model in d.expected)


def _lead(decisions: Sequence[_Decision], model: str) -> Lead:
    others, parts, count = [], [], 0
    for d in decisions:
        actual, found = d.actual(), d.by(model)
        other = actual if found is None else found
        others.append((d.model if found is None else model, other))
        if actual.quality is not None and other.quality is not None:
            count += 1
            if found is not None and model != d.model:
                parts += [(1, d.model, actual), (-1, model, other)]
    side = _side(model, others, sum(d.by(model) is None for d in decisions))
    saved = side.cost_nano - sum(d.actual().cost_nano for d in decisions)
    share = saved / side.cost_nano if side.cost_nano else None
    return Lead(side, saved, share, *_interval(parts, count))


def _side(name: str, taken: Sequence[tuple[str, Expected]], kept: int = 0) -> Side:
    known = [(1, model, e) for model, e in taken if e.quality is not None]
    return Side(name, sum(e.cost_nano for _, e in taken), *_interval(known, len(known)), kept)


def _interval(
    parts: Sequence[tuple[int, str, Expected]], count: int
) -> tuple[float | None, float | None, float | None]:
    """Mean over `count` decisions of signed qualities, with its interval."""
    if not count:
        return None, None, None
    mean = sum(sign * (e.quality or 0.0) for sign, _, e in parts) / count
    spread: dict[str, float] = {}
    for sign, model, e in parts:
        spread[model] = spread.get(model, 0.0) + sign * sqrt(max(e.variance, 0.0))
    deviation = sqrt(sum(s * s for s in spread.values())) / count
    return mean, mean - _WIDE * deviation, mean + _WIDE * deviation
