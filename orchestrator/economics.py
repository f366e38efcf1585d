"""What a run's routing saved: its recorded calls as the router's evaluation wants them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..memory.money import parse_usd
from ..memory.reads import CallRecord
from ..router.evaluation.savings import Expected, MadeCall, Savings, savings


def run_savings(calls: Iterable[CallRecord]) -> Savings | None:
    """The run's answered calls beside always the best and always the cheapest model; None: no policy judged
    what models would do with them."""
    made = [_made(call) for call in calls if call.status == "settled" and _is_judged(call.route)]
    return savings(made) if made else None


def _is_judged(route: Mapping[str, Any]) -> bool:
    return route.get("est_quality") is not None


def _made(call: CallRecord) -> MadeCall:
    route, review = call.route, call.review or {}
    fitting = [other for other in route["alternatives"] if other["fits"]]
    expected = {other["model"]: _expected(other) for other in [*fitting, {**route, "model": call.model}]}
    wrong = review.get("wrong")
    paid = min(call.cost_nano or 0, call.reserved_nano)
    step = f"{call.task} {call.attempt} {call.step}"
    if wrong is None or call.verdict == "escalated":
        return MadeCall(call.model, paid, expected, step)
    # what the checks leave open is no more than what was open before them
    return MadeCall(call.model, paid, expected, step, 1 - wrong, expected[call.model].variance)


def _expected(one: Mapping[str, Any]) -> Expected:
    sd = one.get("quality_sd") or 0.0
    return Expected(parse_usd(one["est_cost_usd"]), one.get("est_quality"), sd * sd)
