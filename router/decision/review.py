"""What is to be thought of an answer, and whether a dearer one is worth its price.

Rules that do not err (a schema, a check of the task's own) come first: what they refuse is worth nothing.
Else the learned doubt of this model's answers says how likely it is wrong and what the second model would
bring; it is asked when that is worth more than it costs (`doubt.decide`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..doubt import decide
from ..learned import LearnedRouter
from ..types import Query, Review, Route
from ..verifiers import FREE, check_all
from ..verifiers.contract import Check, ruled

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
    reasons = [r.what for r in model.reasons(query.prompt, answer, most=2 * _TOLD) if r.log_odds > 0][:_TOLD]
    because = f", because of {' and '.join(reasons)}" if reasons and wrong >= 0.5 else ""
    said = f"wrong with probability {wrong:.2f}{because}"
    if second is None:
        return Review(found, wrong, gain, None, said)
    verdict = decide(gain, price, point)
    return Review(found, wrong, gain, second if verdict.escalate else None, f"{said}; {verdict.reason}")


def standing(route: Route, seen: Review, first: Review | None) -> tuple[float, dict[str, float]] | None:
    """`(expected score of an accepted answer, what single models were expected to score there)`, for the
    pacer; None: not judged. What a review found of an answer counts for more than what was expected before.

    `first`: the review of the answer that was in doubt before this one.
    """
    singles = {a.model: a.est_quality for a in route.alternatives if a.fits and a.est_quality is not None}
    quality, judged = route.est_quality, first or seen
    if quality is not None:
        singles[route.model] = quality
    if judged.wrong is not None and judged.gain is not None:
        weak, strong = 1 - judged.wrong, 1 - judged.wrong + judged.gain
        quality = strong if first is not None else weak
        if (second := route.model if first is not None else route.then) is not None:
            singles[second] = strong
    return None if quality is None else (quality, singles)
