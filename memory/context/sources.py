"""Where an edge was not declared: which thread of steps does a step go on?

Every step that nothing follows yet is the tail of a thread. A step whose parents are not declared is
compared with all tails (and with "begins a thread of its own") by a conditional logit: whose turn it is,
what the tail asked, values and rare words in common, nearness in meaning. Several tails keep a share of
belief; the caller splits its budget over them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .acts import acts
from .calls import words
from .nodes import Node
from .values import norm, same

Embed = Callable[[Sequence[str]], Any]


class Thread:
    """A tail and what its thread has said so far. Goes from parent to child as the thread grows."""

    __slots__ = ("acts", "called", "fuzzy", "mean", "members", "sum", "values", "words")

    def __init__(self) -> None:
        #: positions of its steps, oldest first
        self.members: list[int] = []
        #: word -> turn (from 1) in which it was last said
        self.words: dict[str, int] = {}
        #: normal form of a name, number, identifier … -> turn
        self.values: dict[tuple, int] = {}
        #: (kind, normal form) of dates and times, newest last
        self.fuzzy: list[tuple[str, tuple]] = []
        #: words of the names of what was called -> turn
        self.called: dict[str, int] = {}
        self.acts: tuple[str, ...] = ()
        #: older steps count less; and its direction
        self.sum: Any = None
        self.mean: Any = None

    def copy(self) -> Thread:
        new = Thread()
        new.members, new.words, new.values = list(self.members), dict(self.words), dict(self.values)
        new.fuzzy, new.called, new.acts, new.sum = list(self.fuzzy), dict(self.called), self.acts, self.sum
        new.mean = self.mean
        return new

    def grow(self, step: Node) -> None:
        """The step becomes the tail."""
        self.members.append(step.at)
        turn = len(self.members)
        self.words.update(dict.fromkeys(step.words, turn))
        for span in step.spans:
            if span.kind in ("date", "time"):
                self.fuzzy.append((span.kind, span.norm))
            self.values[span.norm] = turn
        for call in step.calls:
            self.called.update(dict.fromkeys((call.name, *words(call.name)), turn))
            for _, value in call.arguments:
                self._value(value, turn)
        for _, value in step.typed:
            self._value(value, turn)
        self.acts = step.acts or acts(step)
        if step.vector is not None:
            self.sum = step.vector if self.sum is None else 0.6 * self.sum + step.vector
            self.mean = unit(self.sum)

    def _value(self, value: str, turn: int) -> None:
        for kind in ("date", "time"):
            if looks(kind, value):
                self.fuzzy.append((kind, norm(kind, value)))
        self.values[norm("", value)] = turn
        self.values[norm("number", value)] = turn

    def holds(self, value: str) -> int:
        """Turn in which a value was last stated (0: never; dates and times count as turn 1)."""
        for kind in ("date", "time"):
            if looks(kind, value):
                form = norm(kind, value)
                return int(any(k == kind and same(k, form, other) for k, other in self.fuzzy))
        text = norm("", value)
        return self.values.get(text, 0) or self.values.get(norm("number", value), 0) or self._worded(text)

    def _worded(self, text: tuple) -> int:
        turns = [self.words.get(w, 0) for w in text if len(w) > 2]
        return min(turns) if turns else 0


def looks(kind: str, value: str) -> bool:
    """Whether a call's value is written like a date or a time (2019-03-04, 10:00)."""
    mark = "-/" if kind == "date" else ":"
    return value[:1].isdigit() and len(value) < 11 and any(c in value for c in mark)


def evidence(
    step: Node, did: Sequence[str], tail: Node, thread: Thread, rarity: Mapping[str, float]
) -> dict[str, float]:
    """Evidence that a step goes on a thread: name -> strength."""
    found = {f"{tail.role or 'other'}>{step.role or 'other'}": 1.0, "gap": math.log(step.at - tail.at)}
    for theirs in thread.acts:
        if theirs != "short" and not theirs.startswith("has_"):
            for mine in did:
                found[f"{theirs}>{mine}"] = 1.0
    found["length"] = math.log(len(thread.members))
    turn = len(thread.members)
    shared = near = total = 0.0
    for word in step.listed:
        weight, said = rarity.get(word, 1.0), thread.words.get(word)
        total += weight
        if said:
            shared += weight
            near += weight * (turn - said < 2)
    found["words"], found["words_near"] = math.log1p(shared), math.log1p(near)
    found["words_share"] = shared / (total or 1.0)
    if step.calls:
        values = [v for call in step.calls for _, v in call.arguments]
        held = [thread.holds(v) for v in values]
        found["arguments"] = sum(map(bool, held)) / len(held) if held else 0.0
        found["arguments_missing"] = float(sum(not h for h in held))
        found["arguments_held"] = float(sum(map(bool, held)))
        found["arguments_near"] = float(sum(bool(h) and turn - h < 2 for h in held))
        found["called"] = float(step.calls[0].name in thread.called)
    else:
        stated = {s.norm: s for s in step.spans if s.kind != "text"}
        held = [thread.values.get(s.norm, 0) or _fuzzy(s, thread) for s in stated.values()]
        found["values"] = float(min(4, sum(map(bool, held))))
        found["values_new"] = float(min(4, sum(not h for h in held)))
        found["values_near"] = float(min(4, sum(bool(h) and turn - h < 2 for h in held)))
        if tail.typed:
            low = step.low
            told = {v.lower() for _, v in tail.typed if len(v) > 2 and v.lower() in low}
            found["typed_told"] = float(min(4, len(told)))
            found["typed_untold"] = float(not told)
    if step.vector is not None:
        found["meaning"] = cosine(step.vector, tail.vector)
        found["meaning_thread"] = cosine(step.vector, thread.mean)
    return found


def _fuzzy(span: Any, thread: Thread) -> int:
    return int(
        span.kind in ("date", "time")
        and any(k == span.kind and same(k, span.norm, o) for k, o in thread.fuzzy[-8:])
    )


def unit(vector: Any) -> Any:
    """A vector scaled to length 1."""
    size = math.sqrt(float(vector @ vector))
    return vector / size if size else vector


def cosine(a: Any, b: Any) -> float:
    """Cosine of two unit vectors, 0 where one is missing."""
    return 0.0 if a is None or b is None else float(a @ b)


def beginning(step: Node, did: Sequence[str], rarity: Mapping[str, float], tails: int) -> dict[str, float]:
    """Evidence that a step begins a thread of its own."""
    found = {f"begin>{mine}": 1.0 for mine in did or ("plain",)}
    found["begin"] = 1.0
    found[f"begin>{step.role or 'other'}"] = 1.0
    found["begin_tails"] = math.log1p(tails)
    found["begin_rare"] = math.log1p(sum(1 for w in step.words if w not in rarity))
    return found


class Rarity:
    """How rare words are among the steps so far (inverse document frequency)."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.steps = 0

    def add(self, step: Node) -> None:
        self.counts.update(step.words)
        self.steps += 1

    def of(self, wanted: Sequence[str] | frozenset[str]) -> dict[str, float]:
        """Weights of those of the words that were said before."""
        return {w: math.log((self.steps + 1) / (self.counts[w] + 0.5)) for w in wanted if w in self.counts}
