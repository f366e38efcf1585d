"""The policy that weighs: what each way to answer is expected to score and to cost, at the price of the
moment for quality, among the models that no rule forbids.

Rules come first and are never weighed: context, JSON, private tasks, allow and deny lists, the least expected
score, time. Then every model alone, and every cheap model whose answers can be checked with a dearer one
behind it (FrugalGPT, Chen et al. 2023), and what else `ways.py` has. The best by `quality · point − cost` is
taken; now and then another one, to learn (Thompson sampling, with its exact probability), as far as the share
of money for that goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

import numpy as np

from ...memory.chat import Message
from ...memory.errors import ConfigError
from ...memory.money import format_usd
from ..estimates import Estimate, estimate_all, no_route, pinned, route_to
from ..learned import Judged, LearnedRouter
from ..learning.online import STRAY, chances_of
from ..stats import Stats
from ..tokens import estimate_tokens
from ..types import ModelSpec, Query, Review, Route
from ..verifiers.contract import Check
from .options import Option
from .pacing import Left, Pacer
from .review import review
from .ways import Guide, Ways, reason_of

#: shares of the best single model's expected score that are to be kept
AIMS: Mapping[str, float] = {"cheap": 0.8, "balanced": 0.95, "best": 1.0}
#: score of the cheapest and of the dearest model of a pool that nothing is known of, and how sure that is
_GUESS_LOW, _GUESS_HIGH, _GUESS_SD = 0.5, 0.8, 0.2
#: tokens that models are compared by in price
_USUAL_CALL = (1000, 300)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the user wants of the router."""

    #: of the best single model's expected score, at least this share is kept, for the least money
    share: float = AIMS["balanced"]
    #: expected score below which no model is asked
    floor: float = 0.0
    #: the only models that may be asked; none: all. And those that may not
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    #: only models that run here
    local: bool = False
    #: nano-dollars that a second of waiting costs
    second_nano: float = 0.0
    #: share of the spent money that may go into trying dearer models than what looks best
    explore: float = 0.05
    #: models after one that failed, in order
    fallback: tuple[str, ...] = ()
    #: how often a model may be asked for one answer; 1: once
    samples: int = 1
    #: whether a model may look over its own draft
    refine: bool = False
    #: the model that is asked about answers in doubt
    judge: str | None = None
    #: whether a task's template may be put into its prompts
    templates: bool = False


def no_template(_task: str) -> str | None:
    """Of tenants and policies without any."""
    return None


def _no_queue(_model: str) -> float:
    return 0.0


@dataclass(slots=True)
class Shelf:
    """Where the latest of what was learned stands: exchanged while policies use it."""

    #: None: nothing was learned yet
    router: LearnedRouter | None = None
    #: version of its state; None: no state yet, only outcomes
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a policy of one run may know beside the call."""

    shelf: Shelf = field(default_factory=Shelf)
    #: what is left of the run, asked at each choice
    left: Callable[[], Left] = Left
    #: how many calls come before a new one in each slot of a model
    queue: Callable[[str], float] = _no_queue
    #: the template of a task, as it is put into a prompt; None: the task has none
    template: Callable[[str], str | None] = no_template

    @property
    def router(self) -> LearnedRouter | None:
        return self.shelf.router

    @property
    def version(self) -> int | None:
        return self.shelf.version


@dataclass(frozen=True, slots=True)
class Learned:
    """Weighs expected quality against money. One object serves one run: its pacer follows that run."""

    terms: Terms
    known: Known
    pacer: Pacer
    name: str = "learned"

    def choose(self, query: Query, models: Sequence[ModelSpec], stats: Stats) -> Route:
        """See `Policy.choose`."""
        if self.terms.local:  # binds pinned models and judges, too
            query = replace(query, private=True)
        if query.pinned is not None:
            return pinned(query, models, stats, self.name)
        known = self.known.router.judge(query.prompt, query.task) if self.known.router is not None else {}
        judged = _judged(known, models)
        seen = self._estimates(query, models, stats, judged)
        fitting = [e for e in seen if e.fits]
        if not fitting:
            raise no_route(seen, "no model of the pool may answer this call")
        after = self._fallback(query, seen)
        if after is not None:
            reason = f"next in the fallback order after {', '.join(sorted(query.exclude))}"
            return route_to(after, seen, reason, self.name, "later in the fallback order")
        guide = self._guide(query, [e.spec for e in fitting], stats, judged)
        options = Ways(self.terms, self.known.router, known, query).options(fitting, guide)
        if query.only:
            return self._escalated(query, options, seen)
        point = self.pacer.point(options, query.weight, self.known.left())
        best, taken, chance = self._take(query, options, point)
        route = self._route(options, seen, guide, point, best, taken, chance)
        return replace(route, entry=self.pacer.latest)

    def review(self, query: Query, route: Route, answer: str, checks: Sequence[Check]) -> Review:
        """What is to be thought of an answer (`review.review`), and whether `route.then` is to be asked."""
        return review(self.known.router, query, route, answer, checks)

    # ------------------------------------------------------------ inside

    def _estimates(
        self, query: Query, models: Sequence[ModelSpec], stats: Stats, judged: Mapping[str, Judged]
    ) -> list[Estimate]:
        found = self._look(query, models, stats, judged, may_cut=False)
        if any(e.fits for e in found):
            return found
        return self._look(query, models, stats, judged, may_cut=True)

    def _look(
        self, query: Query, models: Sequence[ModelSpec], stats: Stats, judged: Mapping[str, Judged], *,
        may_cut: bool,
    ) -> list[Estimate]:  # fmt: skip
        lengths = {name: one.out_tok for name, one in judged.items() if one.out_tok is not None}
        found = estimate_all(query, models, stats, may_cut=may_cut, lengths=lengths)
        return [self._ruled(query, e, judged[e.spec.name]) for e in found]

    def _ruled(self, query: Query, one: Estimate, judged: Judged) -> Estimate:
        """An estimate with its quality, and with the terms' rules."""
        terms, name, unfit = self.terms, one.spec.name, one.unfit
        if one.est_seconds is not None:  # calls before it take as long as it will
            one = replace(one, est_seconds=one.est_seconds * (1 + self.known.queue(name)))
        if terms.allow and name not in terms.allow:
            unfit = "it is not on the allow list"
        elif name in terms.deny:
            unfit = "it is on the deny list"
        elif not unfit and judged.quality < terms.floor:
            unfit = f"expected score {judged.quality:.2f} < {terms.floor:.2f} asked for"
        elif not unfit and query.seconds_left is not None and (one.est_seconds or 0.0) > query.seconds_left:
            unfit = f"about {one.est_seconds:.1f} s, and {max(0.0, query.seconds_left):.1f} s are left"
        return replace(
            one, unfit=unfit, quality=judged.quality, quality_sd=judged.sd, enough_tokens=judged.enough_tokens
        )

    def _fallback(self, query: Query, seen: Sequence[Estimate]) -> Estimate | None:
        if not any(e.excluded for e in seen):
            return None
        fitting = {e.spec.name: e for e in seen if e.fits}
        return next((fitting[name] for name in self.terms.fallback if name in fitting), None)

    def _guide(
        self, query: Query, models: Sequence[ModelSpec], stats: Stats, judged: Mapping[str, Judged]
    ) -> Guide | None:
        """The task's template, with the models that may take the call with it; None: it has none."""
        if not (self.terms.templates and query.may_guide and query.kind == "llm") or query.only:
            return None
        text = self.known.template(query.task)
        if not text:
            return None
        whole, bare = (estimate_tokens([Message("user", said)]) for said in (text, ""))
        more, most = whole[0] - bare[0], whole[1] - bare[1]
        longer = replace(
            query, input_tokens=query.input_tokens + more, input_tokens_max=query.input_tokens_max + most
        )
        found = self._look(longer, models, stats, judged, may_cut=False)
        return Guide(text, most, {e.spec.name: e for e in found if e.fits})

    def _escalated(self, query: Query, options: Sequence[Option], seen: Sequence[Estimate]) -> Route:
        """To the model that an answer in doubt goes to. It was decided before, at the price of then."""
        one = next(e for e in seen if e.spec.name == options[0].model)
        route = route_to(one, seen, query.why, self.name, "")
        return replace(route, state=self.known.version)

    def _take(self, query: Query, options: Sequence[Option], point: float) -> tuple[int, int, float]:
        """`(the best option, the taken one, the probability of that)`."""
        worth = np.array([option.worth(point) for option in options])
        best = int(np.argmax(worth))
        if self.terms.explore <= 0 or self.known.router is None:
            return best, best, 1.0
        spread = np.array([option.sd * (1 - option.outlook(point)[2]) for option in options])
        chances = chances_of(worth / point, STRAY * spread)
        dearer = [option.outlook(point)[1] - options[best].outlook(point)[1] for option in options]
        open_to = np.array([i == best or self.pacer.may_try(extra) for i, extra in enumerate(dearer)])
        chances = np.where(open_to, chances, 0.0)
        chances = chances / chances.sum()
        rng = np.random.default_rng(query.seed)
        taken = min(int(np.searchsorted(np.cumsum(chances), rng.random())), len(options) - 1)
        taken = taken if chances[taken] > 0 else best
        return best, taken, float(chances[taken])

    def _route(
        self, options: Sequence[Option], seen: Sequence[Estimate], guide: Guide | None, point: float,
        best: int, taken: int, chance: float,
    ) -> Route:  # fmt: skip
        option = options[taken]
        quality, cost, _ = option.outlook(point)
        one = next(e for e in seen if e.spec.name == option.model)
        if guide is not None and option.mode == "template":
            one, seen = guide.longer[option.model], [e for e in seen if e is not one]
        reason = reason_of(options, point, best, taken, self.known.router is not None)
        extra = cost - options[best].outlook(point)[1]
        left = f"worth less at {format_usd(round(point))} USD a point of score"
        route = route_to(one, seen, reason, self.name, left)
        return replace(
            route,
            mode=option.mode,
            then=option.then,
            samples=option.samples,
            way_quality=None if option.is_single else quality,
            way_nano=None if option.is_single else round(cost),
            propensity=chance,
            point_nano=round(point),
            explored=taken != best,
            extra_nano=round(max(0.0, extra)) if taken != best else 0,
            state=self.known.version,
            template=guide.text if guide is not None and option.mode == "template" else "",
            template_tokens=guide.tokens if guide is not None and option.mode == "template" else 0,
        )


def make_learned(spec: Mapping[str, Any], known: Known | None = None) -> Learned:
    """The policy of kind `learned`, as data.

    Raises:
        ConfigError: an unknown aim, or a figure that is none.
    """
    aim, share = spec.get("aim", "balanced"), spec.get("quality")
    if aim not in AIMS:
        raise ConfigError(f"policy: unknown aim {aim!r}", mend=f"set aim to one of {', '.join(AIMS)}")
    try:
        terms = Terms(
            share=AIMS[aim] if share is None else _part(share),
            floor=_part(spec.get("floor", 0.0)),
            allow=frozenset(spec.get("allow", ())),
            deny=frozenset(spec.get("deny", ())),
            local=bool(spec.get("local")),
            second_nano=float(spec.get("second_usd", 0.0)) * 1e9,
            explore=_part(spec.get("explore", 0.05)),
            fallback=tuple(spec.get("fallback", ())),
            samples=int(spec.get("samples", 1)),
            refine=bool(spec.get("refine")),
            judge=spec.get("judge"),
            templates=bool(spec.get("templates")),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"policy: {error}", mend="quality, floor and explore are 0 to 1") from error
    return Learned(terms, known or Known(), Pacer(terms.share, terms.explore))


def _part(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{value} is not between 0 and 1")
    return number


def _judged(known: Mapping[str, Judged], models: Sequence[ModelSpec]) -> dict[str, Judged]:
    """Of every model: as learned; one that was never seen as models of its price."""
    price = {m.name: log(max(m.price.cost(*_USUAL_CALL), 1)) for m in models}
    seen = [name for name in price if name in known]
    if seen:
        line = _line([price[name] for name in seen], [known[name].quality for name in seen])
    else:
        line = _guess(min(price.values(), default=0.0), max(price.values(), default=0.0))
    return {
        name: known.get(name) or Judged(min(1.0, max(0.0, line(at))), _GUESS_SD) for name, at in price.items()
    }


def _guess(low: float, high: float) -> Callable[[float], float]:
    """Quality by the logarithm of the price, between the lowest and the highest of models that nothing is
    known of; of equal prices all are taken to be good."""
    rise = (_GUESS_HIGH - _GUESS_LOW) / (high - low) if high > low else 0.0
    return lambda at: _GUESS_HIGH - rise * (high - at)


def _line(x: Sequence[float], y: Sequence[float]) -> Callable[[float], float]:
    """Quality by the logarithm of the price: a line through what is known that does not fall."""
    middle, mean = sum(x) / len(x), sum(y) / len(y)
    square = sum((one - middle) ** 2 for one in x)
    # drawn to level by what one more pair of models would weigh
    rise = sum((one - middle) * (value - mean) for one, value in zip(x, y, strict=True)) / (square + 1.0)
    return lambda at: mean + max(rise, 0.0) * (at - middle)
