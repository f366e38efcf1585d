"""Who decides which model answers a call. A policy is a pure function of the call, the pool and past calls.

A model fits a call when it is not excluded, can do what the call needs, and has room for the prompt and for
the answer that is expected. A policy takes one of those that fit; the Route lists all the others and says in
plain words why each was left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import Any, Protocol

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


class Policy(Protocol):
    """Takes a model for a call. Deterministic policies answer the same for the same arguments."""

    @property
    def name(self) -> str:
        """Stands in the Route."""
        ...

    def choose(self, query: Query, models: Sequence[ModelSpec], stats: Stats) -> Route:
        """The Route for `query` among `models` (in the pool's order).

        `query.pinned` binds every policy. A model in `query.exclude` is never taken.

        Raises:
            NoRoute: no model may answer; with a reason for each.
            ConfigError: the policy names a model that the pool does not have.
        """
        ...


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

    @property
    def fits(self) -> bool:
        return not self.unfit and not self.excluded

    @property
    def why_not(self) -> str:
        """Why it may not be taken; '' if it may."""
        return self.unfit or ("failed before in this call, or its price was refused" if self.excluded else "")


@dataclass(frozen=True, slots=True)
class Fixed:
    """One model for every call; after it failed, those of `fallback` in order, and no other."""

    model: str
    fallback: Sequence[str] = ()
    name: str = "fixed"

    def choose(self, query: Query, models: Sequence[ModelSpec], stats: Stats) -> Route:
        """See `Policy.choose`."""
        order = (self.model, *self.fallback)
        _check_names(order, models)
        if query.pinned is not None:
            return _pinned(query, models, stats, self.name)
        seen = _estimate_all(query, models, stats, any_form=True, may_cut=True)
        fitting = {e.spec.name: e for e in seen if e.fits}
        for name in order:
            if name in fitting:
                reason = "the pool's policy fixes this model"
                if name != self.model:
                    first = next(e for e in seen if e.spec.name == self.model)
                    reason = f"fallback for {self.model}, which {_which(first)}"
                return _route(fitting[name], seen, reason, self.name, "the policy fixes another model")
        listed = [e for e in seen if e.spec.name in order]
        raise _no_route(listed, f"the policy allows only {', '.join(order)}")


@dataclass(frozen=True, slots=True)
class CheapestThatFits:
    """The model with the least expected cost among those that fit.

    Ties go to the one with the least expected seconds (unknown counts as slowest), then to the pool's order.
    After a model failed, those of `fallback` come first, in order, and then the rest by cost.
    When none has room for the answer that is expected, the one with the most room answers, cut if need be:
    the expectation is a guess, and no reason to answer nothing.
    """

    fallback: Sequence[str] = ()
    name: str = "cheapest"

    def choose(self, query: Query, models: Sequence[ModelSpec], stats: Stats) -> Route:
        """See `Policy.choose`."""
        _check_names(self.fallback, models)
        if query.pinned is not None:
            return _pinned(query, models, stats, self.name)
        seen = _estimate_all(query, models, stats)
        key, tight = _cost_then_time, False
        if not any(e.fits for e in seen):
            seen = _estimate_all(query, models, stats, may_cut=True)
            key, tight = _room_then_cost, True
        fitting = sorted((e for e in seen if e.fits), key=key)  # stable: ties stay in the pool's order
        if not fitting:
            raise _no_route(seen, "no model of the pool may answer this call")
        failed = [e.spec.name for e in seen if e.excluded]
        for name in self.fallback if failed else ():
            for taken in fitting:
                if taken.spec.name == name:
                    reason = f"next in the fallback order after {', '.join(failed)}"
                    return _route(taken, seen, reason, self.name, "later in the fallback order")
        if tight and len(fitting) > 1:
            return _route(fitting[0], seen, "most room for the answer, of too little", self.name, "less room")
        return _route(fitting[0], seen, _cheapest_reason(fitting, seen, failed), self.name, "")


def make_policy(spec: Mapping[str, Any], models: Sequence[str] | None = None) -> Policy:
    """The policy of a pool file: `{kind: cheapest | fixed, model: NAME, fallback: [NAME, …]}`.

    With `models`, the pool's names, unknown names are found now and not at the first call.

    Raises:
        ConfigError: an unknown kind or key, a missing model, a name that the pool does not have.
    """
    unknown = sorted(set(spec) - {"kind", "model", "fallback"})
    if unknown:
        raise ConfigError(f"policy: unknown key {unknown[0]!r}", mend="use kind, model and fallback only")
    kind, model = spec.get("kind") or "cheapest", spec.get("model")
    fallback = tuple(spec.get("fallback") or ())
    if models is not None:
        _check_known([*([model] if model else []), *fallback], models)
    if kind == "cheapest":
        if model:
            raise ConfigError("policy: 'cheapest' takes no model", mend="remove `model`, or set kind: fixed")
        return CheapestThatFits(fallback)
    if kind == "fixed":
        if not model:
            raise ConfigError("policy: 'fixed' needs a model", mend="add `model: NAME` to the policy")
        return Fixed(str(model), fallback)
    raise ConfigError(f"policy: unknown kind {kind!r}", mend="set kind to cheapest or fixed")


def _estimate_all(
    query: Query, models: Sequence[ModelSpec], stats: Stats, *, any_form: bool = False, may_cut: bool = False
) -> list[Estimate]:
    return [_estimate(query, spec, stats, any_form, may_cut) for spec in models]


def _estimate(query: Query, spec: ModelSpec, stats: Stats, any_form: bool, may_cut: bool) -> Estimate:
    """What `spec` would do with the call.

    `any_form`: it may answer JSON unconstrained (the answer is checked and repaired afterwards).
    `may_cut`: it may lack the room for the answer that is expected, as long as there is room for a short one.
    """
    wanted = spec.max_output if query.max_tokens is None else min(query.max_tokens, spec.max_output)
    wanted = max(1, wanted)
    room = spec.context - query.input_tokens
    expected = stats.est_output(spec.name, query.task, wanted)
    floor = min(wanted, MIN_ANSWER) if may_cut else expected
    unfit = ""
    if query.needs_json and "json" not in spec.capabilities and not any_form:
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


def _pinned(query: Query, models: Sequence[ModelSpec], stats: Stats, policy: str) -> Route:
    seen = _estimate_all(query, models, stats, any_form=True, may_cut=True)
    chosen = next((e for e in seen if e.spec.name == query.pinned), None)
    if chosen is None:
        names = [m.name for m in models]
        raise NoRoute(
            f"the call is pinned to {query.pinned!r}, which is no model of the pool",
            reasons=dict.fromkeys(names, "the call is pinned to another model"),
            mend=_did_you_mean(str(query.pinned), names),
        )
    if not chosen.fits:
        raise _no_route([chosen], f"the call is pinned to {query.pinned}")
    return _route(chosen, seen, "pinned by the workflow or the user", policy, "the call is pinned to another")


def _route(taken: Estimate, seen: Sequence[Estimate], reason: str, policy: str, left: str) -> Route:
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
            Alternative(e.spec.name, e.fits, e.est_cost_nano, e.why_not or _compare(e, taken, left))
            for e in others
        ),
    )


def _compare(other: Estimate, taken: Estimate, left: str) -> str:
    """Why `other`, which fits, was left for `taken`."""
    price = _price_words(other.est_cost_nano, taken.est_cost_nano)
    if left:
        return f"{left}; {price}"
    if other.est_cost_nano != taken.est_cost_nano:
        return price
    slower = _time(other) > _time(taken)
    return f"{price}, {'slower' if slower else 'later in the pool'}"


def _price_words(cost: int, chosen: int) -> str:
    if cost == chosen:
        return "price the same as the chosen"
    if chosen == 0:
        return f"price {format_usd(cost)} USD, the chosen costs nothing"
    ratio = cost / chosen
    return f"price {ratio:.1f}× of the chosen" if ratio >= 0.05 else "price below 0.1× of the chosen"


def _cheapest_reason(by_cost: Sequence[Estimate], seen: Sequence[Estimate], failed: Sequence[str]) -> str:
    taken = by_cost[0]
    after = f" left after {', '.join(failed)}" if failed else ""
    if len(by_cost) == 1:
        return f"the only model{after} that fits" if len(seen) > 1 else "the pool's only model"
    ties = [e for e in by_cost if e.est_cost_nano == taken.est_cost_nano]
    tie = ""
    if len(ties) > 1:
        tie = (
            ", first in the pool among equals"
            if _time(taken) == _time(ties[1])
            else ", fastest of equal price"
        )
    return f"cheapest of {len(by_cost)} models{after} that fit{tie}"


def _which(first: Estimate) -> str:
    return "failed or was refused" if not first.unfit else f"does not fit ({first.unfit})"


def _time(estimate: Estimate) -> float:
    return inf if estimate.est_seconds is None else estimate.est_seconds


def _cost_then_time(estimate: Estimate) -> tuple[int, float]:
    return estimate.est_cost_nano, _time(estimate)


def _room_then_cost(estimate: Estimate) -> tuple[int, int, float]:
    return -estimate.max_tokens, *_cost_then_time(estimate)


def _no_route(seen: Sequence[Estimate], message: str) -> NoRoute:
    exhausted = any(e.excluded and not e.unfit for e in seen)
    if exhausted:
        mend = (
            "look at the failed calls with `podium show`, or add a model to the pool or to the fallback order"
        )
    elif any("JSON" in e.unfit for e in seen):
        mend = "add a model with the capability `json` to the pool, or pin one with `model:`"
    else:
        mend = "shorten the prompt or lower max_tokens, or add a model with a larger context to the pool"
    if not seen:
        mend = "add a model to the pool: `podium models add`"
    return NoRoute(message, reasons={e.spec.name: e.why_not for e in seen}, exhausted=exhausted, mend=mend)


def _check_names(names: Sequence[str], models: Sequence[ModelSpec]) -> None:
    _check_known(names, [m.name for m in models])


def _check_known(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"the policy names {name!r}, which the pool does not have", mend=_did_you_mean(name, known)
            )


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"use one of: {', '.join(known)}" if known else "add a model to the pool: `podium models add`"
