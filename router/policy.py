"""Who decides which model answers a call. A policy is a pure function of the call, the pool and past calls.

A model fits a call when it is not excluded, can do what the call needs, and has room for the prompt and for
the answer that is expected. A policy takes one of those that fit; the Route lists all the others and says in
plain words why each was left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..memory.errors import ConfigError
from .estimates import (
    Estimate,
    NoRoute,
    cost_then_time,
    did_you_mean,
    estimate_all,
    no_route,
    pinned,
    route_to,
    seconds_of,
)
from .stats import Stats
from .types import ModelSpec, Query, Review, Route

if TYPE_CHECKING:
    from .decision.policy import Known
    from .verifiers.contract import Check

__all__ = ["CheapestThatFits", "Fixed", "NoRoute", "Policy", "make_policy"]


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

    def review(self, query: Query, route: Route, answer: str, checks: Sequence[Check]) -> Review:
        """What is to be thought of an answer that a model gave on `route`, and which model is asked then.

        `checks`: what rules found of it. Policies that judge no quality hand them on.
        """
        ...


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
            return pinned(query, models, stats, self.name)
        seen = estimate_all(query, models, stats, any_form=True, may_cut=True)
        fitting = {e.spec.name: e for e in seen if e.fits}
        for name in order:
            if name in fitting:
                reason = "the pool's policy fixes this model"
                if name != self.model:
                    first = next(e for e in seen if e.spec.name == self.model)
                    reason = f"fallback for {self.model}, which {_which(first)}"
                return route_to(fitting[name], seen, reason, self.name, "the policy fixes another model")
        listed = [e for e in seen if e.spec.name in order]
        raise no_route(listed, f"the policy allows only {', '.join(order)}")

    def review(self, query: Query, route: Route, answer: str, checks: Sequence[Check]) -> Review:
        """See `Policy.review`."""
        return plain_review(checks)


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
            return pinned(query, models, stats, self.name)
        seen = estimate_all(query, models, stats)
        key, tight = cost_then_time, False
        if not any(e.fits for e in seen):
            seen = estimate_all(query, models, stats, may_cut=True)
            key, tight = _room_then_cost, True
        fitting = sorted((e for e in seen if e.fits), key=key)  # stable: ties stay in the pool's order
        if not fitting:
            raise no_route(seen, "no model of the pool may answer this call")
        failed = [e.spec.name for e in seen if e.excluded]
        for name in self.fallback if failed else ():
            for taken in fitting:
                if taken.spec.name == name:
                    reason = f"next in the fallback order after {', '.join(failed)}"
                    return route_to(taken, seen, reason, self.name, "later in the fallback order")
        if tight and len(fitting) > 1:
            return route_to(
                fitting[0], seen, "most room for the answer, of too little", self.name, "less room"
            )
        return route_to(fitting[0], seen, _cheapest_reason(fitting, seen, failed), self.name, "")

    def review(self, query: Query, route: Route, answer: str, checks: Sequence[Check]) -> Review:
        """See `Policy.review`."""
        return plain_review(checks)


def plain_review(checks: Sequence[Check]) -> Review:
    """Of a policy that judges no quality: an answer in doubt goes to nobody else."""
    from .verifiers.contract import ruled

    return Review(tuple(checks), score=ruled(checks))


_LEARNED = ("aim", "quality", "floor", "allow", "deny", "local", "second_usd", "explore", "judge")
#: what a policy of each kind may say beside `kind` and `fallback`
KINDS: Mapping[str, frozenset[str]] = {
    "cheapest": frozenset(),
    "fixed": frozenset({"model"}),
    "learned": frozenset({*_LEARNED, "samples", "refine", "templates"}),
}


def make_policy(
    spec: Mapping[str, Any], models: Sequence[str] | None = None, known: Known | None = None
) -> Policy:
    """The policy of a pool file: `{kind: cheapest}`, `{kind: fixed, model: NAME}` or `{kind: learned, …}`
    (`decision.policy.Terms`), each with `fallback: [NAME, …]`.

    With `models`, the pool's names, unknown names are found now and not at the first call. `known`: what was
    learned, and what is left of the run.

    Raises:
        ConfigError: an unknown kind or key, a missing model, a name that the pool does not have.
    """
    kind = spec.get("kind") or "cheapest"
    if kind not in KINDS:
        raise ConfigError(f"policy: unknown kind {kind!r}", mend=f"set kind to one of {', '.join(KINDS)}")
    given = {key: value for key, value in spec.items() if value not in (None, [], ())}
    unknown = sorted(set(given) - KINDS[kind] - {"kind", "fallback"})
    if unknown:
        said = ", ".join(sorted(KINDS[kind] | {"fallback"}))
        raise ConfigError(f"policy: {kind!r} takes no {unknown[0]!r}", mend=f"use {said} only")
    fallback = tuple(given.get("fallback", ()))
    if models is not None:
        one = [str(given[key]) for key in ("model", "judge") if key in given]
        _check_known([*one, *fallback, *given.get("allow", ()), *given.get("deny", ())], models)
    if kind == "learned":
        from .decision.policy import make_learned

        return make_learned(given, known)
    if kind == "cheapest":
        return CheapestThatFits(fallback)
    if "model" not in given:
        raise ConfigError("policy: 'fixed' needs a model", mend="add `model: NAME` to the policy")
    return Fixed(str(given["model"]), fallback)


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
            if seconds_of(taken) == seconds_of(ties[1])
            else ", fastest of equal price"
        )
    return f"cheapest of {len(by_cost)} models{after} that fit{tie}"


def _which(first: Estimate) -> str:
    return "failed or was refused" if not first.unfit else f"does not fit ({first.unfit})"


def _room_then_cost(estimate: Estimate) -> tuple[int, int, float]:
    return -estimate.max_tokens, *cost_then_time(estimate)


def _check_names(names: Sequence[str], models: Sequence[ModelSpec]) -> None:
    _check_known(names, [m.name for m in models])


def _check_known(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"the policy names {name!r}, which the pool does not have", mend=did_you_mean(name, known)
            )
