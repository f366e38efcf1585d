"""Which values an argument had in a thread, and which of them is its newest: the last statement wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .logit import weigh
from .nodes import Node
from .slots import Candidate, Slot, turns
from .values import norm, same
from .weights import VALUES

#: a value that a step states with a smaller chance is no value of the argument
LEAST = 0.002


def shares(listed: Sequence[Candidate]) -> list[float]:
    """Chances that a step states the argument by each of its candidates; what is missing to 1: it does not."""
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

    @property
    def superseded(self) -> float:
        """Chance that it was a value of the argument and something newer has replaced it."""
        return max(0.0, 1.0 - self.never - self.chance)


def fills(wanted: Sequence[Slot], thread: Sequence[Node]) -> list[list[Fill]]:
    """The values of each argument in a thread, likeliest first: the last statement wins.

    A step states a value of an argument with some chance (a conditional logit over what stands in it and
    "nothing"). Steps are independent, so the newest value of the argument is a certain one with the chance
    that its step states it and that no newer step states another. Several arguments share out what one span
    of text says.
    """
    listed = [turns(one, thread) for one in wanted]
    found: list[list[Fill]] = [[] for _ in wanted]
    left = [1.0] * len(wanted)
    for at in range(len(thread)):
        chances = [shares(per_slot[at]) for per_slot in listed]
        taken: dict[str, float] = {}
        for per_slot, told in zip(listed, chances, strict=True):
            for c, chance in zip(per_slot[at], told, strict=True):
                if c.said:
                    taken[c.text] = taken.get(c.text, 0.0) + chance
        for nth, (per_slot, told) in enumerate(zip(listed, chances, strict=True)):
            total = 0.0
            for c, chance in zip(per_slot[at], told, strict=True):
                chance /= max(1.0, taken.get(c.text, 0.0)) if c.said else 1.0
                total += chance
                if chance > LEAST:
                    _put(found[nth], c, chance, left[nth])
            left[nth] *= max(0.0, 1.0 - total)
    return [sorted(f, key=lambda v: (-v.chance, -v.shown.at, v.shown.text)) for f in found]


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
            return same(kind, norm(kind, a.text), norm(kind, b.text))
    return a.norm == b.norm
