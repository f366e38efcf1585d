"""Which values an argument had in a thread, and which of them is its newest: the last statement wins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from .logit import weigh
from .nodes import Node
from .slots import Candidate, Slot, service, turns
from .values import norm, same
from .weights import VALUES

#: a value that a step states with a smaller chance is no value of the argument
LEAST = 0.002
#: chance that the newest typed value of an argument's own key is the one; the older ones share the rest
TYPED = 0.97


def shares(listed: Sequence[Candidate]) -> list[float]:
    """Chances that a step states the argument by each of its candidates; what is missing to 1: not."""
    odds = [math.exp(max(-30.0, min(30.0, VALUES[""] + weigh(c.evidence, VALUES)))) for c in listed]
    total = 1.0 + sum(odds)
    return [o / total for o in odds]


@dataclass(slots=True)
class Fill:
    """One value of an argument within a thread: every form in which it is stated."""

    #: the newest statement
    shown: Candidate
    #: chance that it is the newest value of the argument
    chance: float = 0.0
    #: chance that it never was a value of the argument
    never: float = 1.0
    #: all texts that state it, as written
    texts: set[str] = field(default_factory=set)
    #: stated after the last call
    near: bool = False
    #: stated typed, by the argument's own key
    certain: bool = False

    @property
    def superseded(self) -> float:
        """Chance that it was a value of the argument and something newer has replaced it."""
        return max(0.0, 1.0 - self.never - self.chance)


def fills(wanted: Sequence[Slot], thread: Sequence[Node]) -> list[list[Fill]]:
    """The values of each argument in a thread, likeliest first: the last statement wins.

    A step states a value of an argument with some chance (a conditional logit over what stands in it and
    "nothing"). Steps are independent, so the newest value of the argument is a certain one with the chance
    that its step states it and that no newer step states another. Several arguments share out what one span
    of text says. What a step stated typed, by the argument's own key, needs no such guess.
    """
    typed = [_typed(one, thread) for one in wanted]
    guessed = _guessed([one for one, known in zip(wanted, typed, strict=True) if not known], thread)
    return [known or next(guessed) for known in typed]


def _typed(want: Slot, thread: Sequence[Node]) -> list[Fill]:
    """The values that steps stated under the argument's own key, newest first; none: no step did.

    What a call of the same tool was given is another form of the value that held then.
    """
    found: list[Fill] = []
    for step in reversed(thread):
        for _, value in (kv for kv in step.typed if 0 < len(kv[1]) < 200 and own_key(want, kv[0])):
            c = Candidate(want.name, value, want.kind, norm(want.kind, value), step.at, {}, False)
            known = next((f for f in found if _alike(f.shown, c)), None)
            if known is not None:
                found.remove(known)
            found.append(Fill(c, 0.0, 0.0, {value} | (known.texts if known else set()), certain=True))
        for call in step.calls if found else ():
            if service(call.name) == service(want.call):
                found[-1].texts.update(v for k, v in call.arguments if k.lower() == want.name.lower() and v)
    for one in found:
        one.chance = (1 - TYPED) / len(found)
    if found:
        found[-1].chance = TYPED
    return found[::-1]


def own_key(want: Slot, key: str) -> bool:
    """Whether a typed key is an argument's own: its name, alone or below what is called."""
    above, _, name = key.rpartition(".")
    return name.lower() == want.name.lower() and above in ("", want.call, service(want.call))


def _guessed(wanted: Sequence[Slot], thread: Sequence[Node]) -> Iterator[list[Fill]]:
    listed = [turns(one, thread) for one in wanted]
    found: list[list[Fill]] = [[] for _ in wanted]
    left = [1.0] * len(wanted)
    for at in range(len(thread)):
        chances = [shares(per_slot[at]) for per_slot in listed]
        taken: dict[str, float] = {}
        for per_slot, told in zip(listed, chances, strict=True):
            for c, chance in zip(per_slot[at], told, strict=True):
                if c.said:
                    taken[c.text] = taken.get(c.text, 0.0) + chance**2
        for nth, (per_slot, told) in enumerate(zip(listed, chances, strict=True)):
            total = 0.0
            for c, chance in zip(per_slot[at], told, strict=True):
                if c.said and taken[c.text]:
                    chance *= min(1.0, 2 * chance**2 / taken[c.text])
                total += chance
                if chance > LEAST:
                    _put(found[nth], c, chance, left[nth])
            left[nth] *= max(0.0, 1.0 - total)
    for values in found:
        yield sorted(values, key=lambda v: (-v.chance, -v.shown.at, v.shown.text))


def _put(found: list[Fill], c: Candidate, chance: float, left: float) -> None:
    value = next((f for f in found if _alike(f.shown, c)), None)
    if value is None:
        value = Fill(c)
        found.append(value)
    value.chance += chance * left
    value.never *= 1.0 - chance
    value.texts.add(c.text)
    value.near |= bool(c.evidence.get("since_call"))


def _alike(a: Candidate, b: Candidate) -> bool:
    """Whether two candidates state one value."""
    if a.text.lower() == b.text.lower():
        return True
    kinds = {a.kind, b.kind}
    for kind in ("date", "time", "number", "money"):
        if kind in kinds:
            return same(kind, _form(kind, a.text), _form(kind, b.text))
    return a.norm == b.norm


_form = lru_cache(maxsize=32768)(norm)
