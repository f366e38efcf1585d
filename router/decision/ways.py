"""The ways to answer a call that a policy chooses between, and the words for its choice.

Every model alone, in the pool's order; a cheaper one with a dearer and better one behind it; one model asked
more than once; and a model that is shown how such questions were answered well before (a thought template:
"Buffer of Thoughts", Yang et al. 2024; FusionFactory, Feng et al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

from ...memory.money import format_usd
from ..estimates import Estimate
from ..learned import Judged, LearnedRouter, arm
from ..types import Query
from .options import Gains, Option
from .review import gains_of_agreement

if TYPE_CHECKING:
    from .policy import Terms

#: how unsure it is what a way is worth that nothing is learned of
_NEW_SD = 0.1
#: how much dearer a second look is than the draft
_DRAFT = 1.5
#: models that cascades are made of at most
_RUNGS = 4
#: answers that a distribution of gains is made of, and which part of wrong ones lacks the form that was asked
#: for: a schema says nothing of what is in it
_CASES, _MALFORMED = 40, 0.2


@dataclass(frozen=True, slots=True)
class Guide:
    """The template of a call's task."""

    #: as it is put into the prompt, and its tokens at most
    text: str
    tokens: int
    #: the call with it, of each model that has the room
    longer: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Ways:
    """Makes the options of one call."""

    terms: Terms
    #: what was learned, and what it says of this call, by arm
    router: LearnedRouter | None
    known: Mapping[str, Judged]
    query: Query

    def options(self, fitting: Sequence[Estimate], guide: Guide | None = None) -> list[Option]:
        """All of them; those of single models come first, in the order of `fitting`."""
        alone = {e.spec.name: self._alone(e) for e in fitting}
        found = list(alone.values())
        for first, second in combinations(_ladder(found), 2):
            gains = self._gains(first, second)
            if gains is not None:
                way = replace(first, mode="cascade", gains=gains)
                found.append(replace(way, then=second.model, then_cost=second.cost))
        if self.query.kind == "llm":
            found += [way for one in alone.values() for way in self._repeated(one, list(alone.values()))]
        if guide is not None:
            found += [self._guided(alone[name], longer) for name, longer in guide.longer.items()]
        return found

    def _repeated(self, one: Option, alone: Sequence[Option]) -> Iterator[Option]:
        """Ways that ask one model more than once, as far as the terms allow, and cost less than the dearest
        model alone. What they are worth is learned; before, they are no better than the model."""
        dearest = max(alone, key=lambda option: option.cost)
        for mode, times in (("samples", self.terms.samples), ("refine", 2 if self.terms.refine else 1)):
            cost = times * one.cost * (_DRAFT if mode == "refine" else 1.0)
            if times < 2 or cost >= dearest.cost:
                continue
            judged = self._judged(one, arm(one.model, mode, times))
            way = replace(one, mode=mode, samples=times, quality=judged.quality, sd=judged.sd, cost=cost)
            if mode == "samples":
                gains = gains_of_agreement(judged.quality, dearest.quality)
                way = replace(way, then=dearest.model, then_cost=dearest.cost, gains=gains)
            yield way

    def _guided(self, one: Option, longer: Estimate) -> Option:
        """The model with the template before the question, which it pays for in any case."""
        judged = self._judged(one, arm(one.model, "template"))
        cost = self._alone(longer).cost
        return replace(one, mode="template", quality=judged.quality, sd=judged.sd, cost=cost)

    def _judged(self, one: Option, name: str) -> Judged:
        return self.known.get(name) or Judged(one.quality, max(one.sd, _NEW_SD))

    def _alone(self, one: Estimate) -> Option:
        waiting = self.terms.second_nano * (one.est_seconds or 0.0)
        return Option(one.spec.name, one.quality or 0.0, one.quality_sd or 0.0, one.est_cost_nano + waiting)

    def _gains(self, weak: Option, strong: Option) -> Gains | None:
        """What asking `strong` too is to bring; None: nothing tells when to."""
        if self.query.checked:
            return _ruled(round(_CASES * (1 - weak.quality)), round(50 * strong.quality) / 50)
        known = None
        if self.router is not None and self.query.kind == "llm":
            known = self.router.gains(weak.model, strong.model, strong.quality - weak.quality)
        if known is None and self.query.needs_json:
            malformed = round(_CASES * _MALFORMED * (1 - weak.quality))
            return _ruled(malformed, round(50 * strong.quality) / 50) if malformed else None
        return known


def _ladder(alone: Sequence[Option]) -> list[Option]:
    """The models worth a place in a cascade, the cheapest first: none is dearer and no better than another.
    Of many the cheapest, the dearest and some between."""
    steps: list[Option] = []
    for option in sorted(alone, key=lambda o: (o.cost, -o.quality)):
        if not steps or (option.quality > steps[-1].quality and option.cost > steps[-1].cost):
            steps.append(option)
    last = len(steps) - 1
    if last < _RUNGS:
        return steps
    return [steps[round(i * last / (_RUNGS - 1))] for i in range(_RUNGS)]


@lru_cache(maxsize=512)
def _ruled(failing: int, expected: float) -> Gains:
    """Rules find so many of `_CASES` answers wrong, and a model with that expected score is asked then."""
    return Gains.of([expected] * failing + [0.0] * (_CASES - failing))


def reason_of(options: Sequence[Option], point: float, best: int, taken: int, learned: bool) -> str:
    """Why this way, in words: what it is expected to score and cost, and the next best."""
    chosen = options[taken]
    quality, cost, share = chosen.outlook(point)
    words = [f"expected score {quality:.2f} for {format_usd(round(cost))} USD"]
    if chosen.mode == "cascade":
        words.append(f"{chosen.then} is asked where the answer is in doubt, about {100 * share:.0f} %")
    if chosen.mode == "template":
        words.append("with the task's template in the prompt")
    if taken != best:
        words.insert(0, f"tried to learn ({_way(options[best])} looks best)")
    others = [o for o in options if o is not chosen]
    if others:
        following = max(others, key=lambda o: o.worth(point))
        q, c, _ = following.outlook(point)
        words.append(f"next best {_way(following)}: {q:.2f} for {format_usd(round(c))} USD")
    words.append(f"a point of score is worth {format_usd(round(point))} USD")
    if not learned:
        words.append("nothing is learned yet: dearer is presumed better")
    return "; ".join(words)


def _way(option: Option) -> str:
    if option.mode == "cascade":
        return f"{option.model} then {option.then}"
    return arm(option.model, option.mode, option.samples)
