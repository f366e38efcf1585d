"""What each model of a pool would do with a call: whether it may take it, for what money, in what time.

Every policy chooses among these estimates, and tells of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from types import MappingProxyType

from ..memory.errors import ConfigError
from ..memory.money import format_usd
from .stats import Stats
from .types import Alternative, ModelSpec, Query, Route

#: tokens of answer below which even a pinned model counts as having no room
MIN_ANSWER = 16


class NoRoute(ConfigError):
    """No model of the pool may answer this call. `reasons` says why, model by model."""

    #: reasons by model name
    reasons: Mapping[str, str]
    #: models that fit the call were there, but each was excluded: it failed, or the ledger refused its price
    exhausted: bool

    def __init__(
        self, message: str, *, reasons: Mapping[str, str], exhausted: bool = False, mend: str = ""
    ) -> None:
        lines = "".join(f"\n  {model}: {reason}" for model, reason in reasons.items())
        super().__init__(message + lines, mend=mend)
        self.reasons = dict(reasons)
        self.exhausted = exhausted


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one model would do with the call."""

    spec: ModelSpec
    #: tokens the answer may have here
    max_tokens: int
    est_cost_nano: int
    worst_cost_nano: int
    est_seconds: float | None
    #: what to know if it is taken
    notes: tuple[str, ...]
    #: why it may not be taken at all, '' if it may
    unfit: str
    #: it failed before, or was refused
    excluded: bool
    #: expected score 0…1 and its standard deviation; None: not judged
    quality: float | None = None
    quality_sd: float | None = None
    #: tokens that are enough for nearly every answer; None: not known
    enough_tokens: int | None = None

    @property
    def fits(self) -> bool:
        return not self.unfit and not self.excluded

    @property
    def why_not(self) -> str:
        """Why it may not be taken; '' if it may."""
        return self.unfit or ("failed before in this call, or its price was refused" if self.excluded else "")


def estimate_all(
    query: Query,
    models: Sequence[ModelSpec],
    stats: Stats,
    *,
    any_form: bool = False,
    may_cut: bool = False,
    lengths: Mapping[str, float] = MappingProxyType({}),
) -> list[Estimate]:
    """What each model would do with the call, in their order.

    `any_form`: it may answer JSON unconstrained (the answer is checked and repaired afterwards).
    `may_cut`: it may lack the room for the answer that is expected, as long as there is room for a short one.
    `lengths`: tokens of its answer, by model, as far as something is known beside the figures of past calls.
    """
    return [_estimate(query, spec, stats, any_form, may_cut, lengths.get(spec.name)) for spec in models]


def _estimate(
    query: Query, spec: ModelSpec, stats: Stats, any_form: bool, may_cut: bool, length: float | None
) -> Estimate:
    wanted = spec.max_output if query.max_tokens is None else min(query.max_tokens, spec.max_output)
    wanted = max(1, wanted)
    room = spec.context - query.input_tokens
    expected = stats.est_output(spec.name, query.task, wanted, length)
    floor = min(wanted, MIN_ANSWER) if may_cut else expected
    unfit = ""
    if query.private and not spec.is_local:
        unfit = "it is not local, and the call is private"
    elif query.only and spec.name not in query.only:
        unfit = "the answer in doubt goes to another"
    elif query.needs_json and "json" not in spec.capabilities and not any_form:
        unfit = "cannot constrain its answer to JSON"
    elif room < floor:
        unfit = f"context {spec.context:,} < {query.input_tokens + floor:,} needed"
    allowed = max(1, min(wanted, room))
    notes = []
    if allowed < wanted:
        notes.append(f"the answer is cut to the {allowed:,} tokens that its context leaves")
    if query.needs_json and "json" not in spec.capabilities:
        notes.append("it cannot constrain its answer to JSON, so the answer is only checked")
    # a model with no room is still priced, at the answer it should have had, so that people can compare
    written = expected if unfit else min(expected, allowed)
    return Estimate(
        spec=spec,
        max_tokens=allowed,
        est_cost_nano=spec.price.cost(query.input_tokens, written),
        worst_cost_nano=spec.price.cost(query.input_tokens_max, allowed),
        est_seconds=stats.est_seconds(spec.name, query.task, query.input_tokens, written),
        notes=tuple(notes),
        unfit=unfit,
        excluded=spec.name in query.exclude,
    )


def pinned(query: Query, models: Sequence[ModelSpec], stats: Stats, policy: str) -> Route:
    seen = estimate_all(query, models, stats, any_form=True, may_cut=True)
    chosen = next((e for e in seen if e.spec.name == query.pinned), None)
    if chosen is None:
        names = [m.name for m in models]
        raise NoRoute(
            f"the call is pinned to {query.pinned!r}, which is no model of the pool",
            reasons=dict.fromkeys(names, "the call is pinned to another model"),
            mend=did_you_mean(str(query.pinned), names),
        )
    if not chosen.fits:
        raise no_route([chosen], f"the call is pinned to {query.pinned}")
    left = "the call is pinned to another"
    return route_to(chosen, seen, "pinned by the workflow or the user", policy, left)


def route_to(taken: Estimate, seen: Sequence[Estimate], reason: str, policy: str, left: str) -> Route:
    """The Route to `taken`. `left` is why a model that fits was left, unless the price says it."""
    notes = [reason, *taken.notes]
    if taken.est_seconds is not None:
        notes.append(f"about {taken.est_seconds:.1f} s by its past calls")
    others = (e for e in seen if e is not taken)
    return Route(
        model=taken.spec.name,
        max_tokens=taken.max_tokens,
        mode="direct",
        est_cost_nano=taken.est_cost_nano,
        worst_cost_nano=taken.worst_cost_nano,
        est_seconds=taken.est_seconds,
        reason="; ".join(notes),
        policy=policy,
        alternatives=tuple(
            Alternative(
                e.spec.name,
                e.fits,
                e.est_cost_nano,
                e.why_not or _compare(e, taken, left),
                e.quality,
                e.quality_sd,
            )
            for e in others
        ),
        est_quality=taken.quality,
        quality_sd=taken.quality_sd,
        enough_tokens=taken.enough_tokens,
    )


def _compare(other: Estimate, taken: Estimate, left: str) -> str:
    """Why `other`, which fits, was left for `taken`."""
    price = _price_words(other.est_cost_nano, taken.est_cost_nano)
    if left:
        return f"{left}; {price}"
    if other.est_cost_nano != taken.est_cost_nano:
        return price
    slower = seconds_of(other) > seconds_of(taken)
    return f"{price}, {'slower' if slower else 'later in the pool'}"


def _price_words(cost: int, chosen: int) -> str:
    if cost == chosen:
        return "price the same as the chosen"
    if chosen == 0:
        return f"price {format_usd(cost)} USD, the chosen costs nothing"
    ratio = cost / chosen
    return f"price {ratio:.1f}× of the chosen" if ratio >= 0.05 else "price below 0.1× of the chosen"


def seconds_of(estimate: Estimate) -> float:
    return inf if estimate.est_seconds is None else estimate.est_seconds


def cost_then_time(estimate: Estimate) -> tuple[int, float]:
    return estimate.est_cost_nano, seconds_of(estimate)


def no_route(seen: Sequence[Estimate], message: str) -> NoRoute:
    exhausted = any(e.excluded and not e.unfit for e in seen)
    if exhausted:
        mend = (
            "look at the failed calls with `podium show`, or add a model to the pool or to the fallback order"
        )
    elif seen and all("private" in e.unfit for e in seen):
        mend = "add a local model to the pool, or say `local: true` of one that is"
    elif any("JSON" in e.unfit for e in seen):
        mend = "add a model with the capability `json` to the pool, or pin one with `model:`"
    else:
        mend = "shorten the prompt or lower max_tokens, or add a model with a larger context to the pool"
    if not seen:
        mend = "add a model to the pool: `podium models add`"
    return NoRoute(message, reasons={e.spec.name: e.why_not for e in seen}, exhausted=exhausted, mend=mend)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"use one of: {', '.join(known)}" if known else "add a model to the pool: `podium models add`"
