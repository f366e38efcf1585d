"""What is to be thought of an answer, and whether a dearer one is worth its price.

Rules that do not err (a schema, a check of the task's own) come first: what they refuse is worth nothing.
Else the learned doubt of this model's answers says how likely it is wrong and what the second model would
bring; it is asked when that is worth more than it costs (`doubt.decide`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ..doubt import decide
from ..learned import LearnedRouter
from ..types import Query, Review, Route
from ..verifiers import FREE, check_all
from ..verifiers.contract import OWN, Check, ruled
from .options import Gains, Option

#: reasons of a doubt that are told
_TOLD = 2


def review(
    router: LearnedRouter | None, query: Query, route: Route, answer: str, checks: Sequence[Check]
) -> Review:
    """The review of `answer` to `query`, which `route.model` gave. `checks`: those by rules, done before.

    The price of a second answer is `route.then`'s estimate among the route's alternatives.
    """
    found = (*checks, *(check_all(FREE, query.prompt, answer) if query.kind == "llm" else ()))
    then = next((a for a in route.alternatives if a.model == route.then), None)
    price, point = (then.est_cost_nano if then is not None else 0), route.point_nano or 0
    second = route.then if then is not None else None
    expected = then.est_quality if then is not None and then.est_quality is not None else 1.0
    score = ruled(checks)
    if score is not None:
        broken = next((f"{c.name}: {c.evidence}; " for c in checks if c.verdict == "fail"), "")
        if any(c.name == OWN and c.verdict == "fail" for c in checks):
            better = second or _better(route)
            said = "it is of no use" if better is None else f"it is of no use, so {better} is asked"
            return Review(found, 1 - score, expected - score, better, broken + said, score)
        verdict = decide(expected - score, price, point)
        go = second if verdict.escalate else None
        return Review(found, 1 - score, verdict.gain, go, broken + verdict.reason, score)
    doubt = router.doubt_of(route.model, route.then or "") if router is not None else None
    if doubt is None or query.kind != "llm":
        return Review(found)
    model, of_pair = doubt
    asked = model.ask([query.prompt], [answer])
    wrong = float(asked.wrong[0])
    gain = float(asked.gain[0]) if of_pair else expected - (1 - wrong)
    moved = model.reasons(query.prompt, answer, most=2 * _TOLD) if wrong >= 0.5 else ()
    reasons = [reason.what for reason in moved if reason.log_odds > 0][:_TOLD]
    because = f", because of {' and '.join(reasons)}" if reasons else ""
    said = f"wrong with probability {wrong:.2f}{because}"
    if second is None:
        return Review(found, wrong, gain, None, said)
    verdict = decide(gain, price, point)
    return Review(found, wrong, gain, second if verdict.escalate else None, f"{said}; {verdict.reason}")


def _better(route: Route) -> str | None:
    """The cheapest model that is expected to do better than the one that was asked; None: there is none."""
    found = [a for a in route.alternatives if a.fits and (a.est_quality or 0.0) > (route.est_quality or 0.0)]
    return min(found, key=lambda a: a.est_cost_nano).model if found else None


#: between these the doubt of an answer is open, and a judge is worth asking
OPEN = (0.1, 0.9)
#: how much likelier a judge's yes is for a right answer than for a wrong one, and its no the other way round
JUDGED = 3.0
#: cases that a distribution of gains is made of
_CASES = 40
#: the same of samples that all agree, or that none agrees with
AGREED = 4.0


def is_open(route: Route, seen: Review) -> bool:
    """Whether a judge could change what comes next."""
    return route.then is not None and OPEN[0] < _wrong(route, seen) < OPEN[1]


def judged(route: Route, seen: Review, right: bool, judge: str) -> Review:
    """A review after a judge has spoken: its word moves the odds, and the decision is made anew."""
    check = Check.of("judge", float(right), f"{judge} says {'yes' if right else 'no'}")
    return _moved(route, replace(seen, checks=(*seen.checks, check)), 1 / JUDGED if right else JUDGED)


def agreed(route: Route, seen: Review, check: Check) -> Review:
    """A review after several answers of one model were compared."""
    return _moved(route, seen, AGREED ** (1 - 2 * check.score))


@lru_cache(maxsize=512)
def _agreement(wrong: float, expected: float) -> Gains:
    odds = wrong / (1 - wrong)
    apart, alike = (odds * factor / (1 + odds * factor) for factor in (AGREED, 1 / AGREED))
    differing = round(_CASES * (wrong - alike) / (apart - alike))
    gains = [expected - (1 - apart)] * differing + [expected - (1 - alike)] * (_CASES - differing)
    return Gains.of(gains)


def gains_of_agreement(quality: float, expected: float) -> Gains:
    """What a model with the expected score `expected` brings on what several answers of another come to,
    whose expected score is `quality`: more where they do not agree."""
    # few different tables, so that they are quickly weighed together
    return _agreement(min(max(round(50 * (1 - quality)) / 50, 0.02), 0.98), round(50 * expected) / 50)


def _wrong(route: Route, seen: Review) -> float:
    return seen.wrong if seen.wrong is not None else 1 - (route.est_quality or 0.5)


def _moved(route: Route, seen: Review, factor: float) -> Review:
    """A review whose odds of being wrong are multiplied by `factor`."""
    before = min(max(_wrong(route, seen), 0.01), 0.99)
    odds = before / (1 - before) * factor
    wrong = odds / (1 + odds)
    gain = (seen.gain if seen.gain is not None else 0.0) + wrong - before
    then = next((a for a in route.alternatives if a.model == route.then), None)
    if then is None:
        return replace(seen, wrong=wrong, gain=gain, then=None)
    if seen.gain is None:
        gain = (then.est_quality if then.est_quality is not None else 1.0) - (1 - wrong)
    verdict = decide(gain, then.est_cost_nano, route.point_nano or 0)
    reason = f"wrong with probability {wrong:.2f}; {verdict.reason}"
    return replace(seen, wrong=wrong, gain=gain, then=route.then if verdict.escalate else None, reason=reason)


def note(route: Route, seen: Review) -> None:
    """The pacer's memory of a decision becomes what its review has found."""
    then = next((a for a in route.alternatives if a.model == route.then), None)
    if route.entry is None or then is None or seen.wrong is None or seen.gain is None:
        return
    weak, cost = 1 - seen.wrong, float(route.est_cost_nano)
    route.entry.found(
        Option(route.model, weak, 0.0, cost),
        Option(then.model, weak + seen.gain, 0.0, cost + then.est_cost_nano),
    )


def standing(route: Route, seen: Review, first: Review | None) -> tuple[float, dict[str, float]] | None:
    """`(expected score of an accepted answer, what single models were expected to score there)`, for the
    pacer; None: not judged. What a review found of an answer counts for more than what was expected before.

    `first`: the review of the answer that was in doubt before this one.
    """
    singles = {a.model: a.est_quality for a in route.alternatives if a.fits and a.est_quality is not None}
    quality, judged = route.est_quality, first or seen
    if quality is not None:
        singles[route.model] = quality
        if route.mode == "template" and route.way_quality is not None:
            quality = route.way_quality
    if judged.wrong is not None and judged.gain is not None:
        weak, strong = 1 - judged.wrong, 1 - judged.wrong + judged.gain
        quality = strong if first is not None else weak
        if (second := route.model if first is not None else route.then) is not None:
            singles[second] = strong
    return None if quality is None else (quality, singles)
