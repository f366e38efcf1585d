"""Why a call went to its model, in plain words: from what was recorded of it, or for a prompt as it would be
routed now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..memory import learning, reads
from ..memory.chat import Message
from ..memory.money import format_usd, parse_usd
from ..router.tokens import estimate_tokens
from ..router.types import ModelSpec, Query
from .booking import route_data
from .policies import Policies

if TYPE_CHECKING:
    from ..memory.database import Connection
    from ..memory.reads import CallRecord
    from ..router.learned import LearnedRouter

#: verdicts of answers that were no more than a part of the way
GIVEN_UP = ("escalated", "sampled", "drafted")
#: checks that are told
_CHECKS = 8


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was looked at."""

    name: str
    fits: bool
    quality: float | None
    sd: float | None
    cost_nano: int
    #: what its answers are doubted in favour of; None: they are not
    doubt: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, with all of it in words."""

    route: Mapping[str, Any]
    models: Sequence[Model]
    words: Sequence[str]
    #: None: it is what would be done now
    call: CallRecord | None = None
    run_id: str | None = None
    task: str | None = None
    review: Mapping[str, Any] = field(default_factory=dict)


def accepted_of(calls: Sequence[CallRecord]) -> CallRecord:
    """Of the answered calls of one decision, the earliest first, the one whose answer was taken."""
    kept = [call for call in calls if call.verdict not in GIVEN_UP]
    return next((call for call in reversed(kept) if call.verdict == "accepted"), (kept or list(calls))[-1])


# -- a call that was made


def explain_call(connection: Connection, tenant: str, ref: str) -> Explanation:
    """Of a call, named by its id or the start of it.

    Raises:
        NotFound, UsageError: see `learning.find_call`.
    """
    named = learning.find_call(connection, tenant, ref)
    calls = reads.calls(connection, named.run_id)
    call = next(one for one in calls if one.id == named.id)
    place = (call.task, call.attempt, call.step)
    beside = [c for c in calls if (c.task, c.attempt, c.step) == place and c.id != call.id]
    models, review = _models(call.route), call.review or {}
    words = [
        f"{call.model} {_did(call)} for task {call.task} of run {named.run_id} (call {call.id})",
        *_why(call.route, models, [c for c in beside if c.created_at <= call.created_at]),
        *_found(call, [c for c in beside if c.created_at >= call.created_at]),
    ]
    return Explanation(call.route, models, words, call, named.run_id, call.task, review)


def _did(call: CallRecord) -> str:
    if call.status != "settled":
        return f"was asked ({call.status})"
    return "answered" if call.verdict is None else f"answered, and was {call.verdict},"


def _models(route: Mapping[str, Any], doubts: Mapping[str, str] | None = None) -> list[Model]:
    """The taken model first, then the alternatives, as the route records them."""
    known = doubts or {}
    taken = Model(
        route["model"], True, route.get("est_quality"), route.get("quality_sd"),
        _nano(route.get("est_cost_usd")), known.get(route["model"]), "taken",
    )  # fmt: skip
    others = [
        Model(
            a["model"], bool(a["fits"]), a.get("est_quality"), a.get("quality_sd"), _nano(a["est_cost_usd"]),
            known.get(a["model"]), a["reason"],
        )
        for a in route.get("alternatives", ())
    ]  # fmt: skip
    return [taken, *others]


def _nano(usd: str | None) -> int:
    return 0 if usd is None else parse_usd(usd)


def _usd(nano: float) -> str:
    return f"{format_usd(round(nano))} USD"


def _expected(model: Model) -> str:
    """`0.72 ± 0.05 for 0.0002 USD`, as far as it is known."""
    if model.quality is None:
        return _usd(model.cost_nano)
    spread = "" if model.sd is None else f" ± {model.sd:.2f}"
    return f"{model.quality:.2f}{spread} for {_usd(model.cost_nano)}"


def _why(
    route: Mapping[str, Any], models: Sequence[Model], before: Sequence[CallRecord] = ()
) -> Iterator[str]:
    """Why this model and not another."""
    taken, point = models[0], _nano(route.get("point_usd"))
    doubted = next((c for c in before if (c.review or {}).get("then") == taken.name), None)
    if doubted is not None:
        whose = f"{doubted.model} (call {doubted.id})"
        yield f"it was asked since the answer of {whose} was in doubt: {_reason(doubted)}"
        return
    if not point:
        yield f"policy {route.get('policy')}: {route.get('reason')}"
    else:
        yield f"{_way(route)}: expected score {_expected(taken)}"
    if point and route.get("way_quality") is not None:
        whole = f"{route['way_quality']:.2f} for {_usd(_nano(route.get('way_usd')))}"
        yield f"of the whole way, a score of {whole} was expected"
    if route.get("explored"):
        chance = 100 * float(route.get("propensity") or 0)
        yield f"it did not look best: it was tried to learn, which had a chance of {chance:.1f} %"
    if point:
        yield f"a point of score (from all wrong to all right) was worth {_usd(point)}"
        yield f"the router's words: {route.get('reason')}"
    yield from _next_best(route, models, point)
    yield from (f"{m.name} could not be taken: {m.reason}" for m in models[1:] if not m.fits)
    if point:
        state = route.get("state")
        yield (
            f"it knew version {state} of what was learned"
            if state is not None
            else "nothing was trained then"
        )


def _way(route: Mapping[str, Any]) -> str:
    mode, then = route.get("mode"), route.get("then")
    doubted = f"{then} behind it where the answer is in doubt"
    if mode == "samples":
        behind = f", with {then} behind it where they do not agree" if then else ""
        return f"it was asked {route.get('samples')} times, for what most answers come to{behind}"
    if mode == "template":
        return "it was asked with the task's template in its prompt"
    if mode == "refine":
        return "it was asked to look over its own draft once"
    return f"it was asked first, with {doubted}; its own answer" if then else "it was asked alone"


def _next_best(route: Mapping[str, Any], models: Sequence[Model], point: int) -> Iterator[str]:
    """The model that was worth most of those that were left."""
    others = [model for model in models[1:] if model.fits]
    if not others:
        yield "no other model could be taken"
        return
    following = max(others, key=lambda m: (m.quality or 0.0) * point - m.cost_nano)
    text = f"next best model alone: {following.name}, expected {_expected(following)}"
    quality, cost = models[0].quality, models[0].cost_nano
    if route.get("way_quality") is not None:
        quality, cost = route["way_quality"], _nano(route.get("way_usd"))
    more = following.cost_nano - cost
    if point and quality is not None and following.quality is not None:
        gain = following.quality - quality
        text += f": {gain:+.2f} of score, worth {_signed(gain * point)}, for {_signed(more)}"
    else:
        text += f": {_signed(more)}"
    yield text


def _signed(nano: float) -> str:
    return f"{'-' if nano < 0 else '+'}{_usd(abs(nano))}"


def _found(call: CallRecord, after: Sequence[CallRecord]) -> Iterator[str]:
    """What was found of the answer, what came of it, and what it cost."""
    review = call.review or {}
    for check in review.get("checks", ())[:_CHECKS]:
        yield f"check {check['name']}: {check['verdict']} ({check['score']:.2f}), {check['evidence']}"
    if call.status == "settled" and not review:
        yield "nothing checked its answer"
    if review:
        yield f"its answer was {_verdict(review)}{_because(review)}"
    then = review.get("then")
    second = next((c for c in after if then and c.model == then), None)
    if second is not None:
        cost = "its cost is not known" if second.cost_nano is None else _usd(second.cost_nano)
        yield f"{second.model}'s answer (call {second.id}) was taken: {cost} more"
    elif then and call.status == "settled":
        yield f"{then} did not answer, so this answer was kept"
    if call.cost_nano is not None:
        expected = call.route.get("est_cost_usd")
        yield f"it cost {_usd(call.cost_nano)}" + (f"; {expected} USD were expected" if expected else "")
    if call.error:
        yield f"error: {call.error}"


def _verdict(review: Mapping[str, Any]) -> str:
    then = review.get("then")
    return f"in doubt, so {then} was asked" if then else "accepted"


def _because(review: Mapping[str, Any]) -> str:
    return f": {review['reason']}" if review.get("reason") else ""


def _reason(call: CallRecord) -> str:
    return (call.review or {}).get("reason") or "it did not pass its checks"


# -- a prompt, now


def explain_prompt(
    connection: Connection,
    tenant: str,
    spec: Mapping[str, Any],
    models: Sequence[ModelSpec],
    prompt: str,
    task: str | None,
) -> Explanation:
    """What the policy `spec` would do now with a prompt of a task. Nothing is called or tried out.

    Raises:
        ConfigError: it is no policy, or no model may answer (`NoRoute`).
    """
    from .caller import DEFAULT_MAX_TOKENS, stats_of

    made = Policies(connection, tenant, spec, models)
    tokens, upper = estimate_tokens([Message("user", prompt)])
    query = Query(upper, tokens, DEFAULT_MAX_TOKENS, task=task or "", prompt=prompt)
    route = made().choose(query, models, stats_of(reads.latencies(connection, tenant)))
    data = route_data(route)
    seen = _models(data, _doubts(made.router, [model.name for model in models]))
    words = [
        f"{route.model} would be asked{f' for task {task}' if task else ''}",
        *(line.replace("it was asked", "it would be asked", 1) for line in _why(data, seen)),
    ]
    if spec.get("kind") != "learned":
        words.append("qualities are not judged by this policy: --aim balanced shows the one that learns")
    return Explanation(data, seen, words, task=task)


def _doubts(router: LearnedRouter | None, names: Sequence[str]) -> dict[str, str]:
    """model → what its answers can be doubted in favour of."""
    pairs = () if router is None else router.doubts
    found: dict[str, list[str]] = {}
    for weak, strong in pairs:
        if strong in names or strong == "":
            found.setdefault(weak, []).append(strong or "any other")
    return {weak: ", ".join(strong) for weak, strong in found.items()}
