"""The threads of a run as they grow: declared edges are followed, missing ones inferred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .acts import acts
from .logit import softmax, weigh
from .nodes import Node
from .source_weights import LINKS
from .sources import Rarity, Thread, beginning, evidence

#: a tail that something else probably goes on keeps being offered while its chance to be open is above this
OPEN = 0.12
#: at most so many tails are compared, newest first
TAILS = 64


@dataclass(slots=True)
class Tail:
    """The end of a thread, open with some chance."""

    node: Node
    thread: Thread
    #: chance that nothing follows it yet
    open: float = 1.0


@dataclass(slots=True)
class Threads:
    """All threads of a run.

    Attributes:
        nodes: steps in order.
        guesses: position -> [(parent's position, chance)] of steps without a declared parent; what is missing
            to 1 is the chance that the step begins a thread.
        missing: estimate of the share of edges that were not declared: among replies and calls, which always
            answer something, those without a parent.
    """

    nodes: list[Node] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)
    guesses: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    tails: dict[int, Tail] = field(default_factory=dict)
    rarity: Rarity = field(default_factory=Rarity)
    answers: int = 0
    orphans: int = 0
    edges: int = 0

    @property
    def missing(self) -> float:
        """See the class."""
        return self.orphans / self.answers if self.answers else 0.0

    def add(self, step: Node, parents: Sequence[str]) -> None:
        """Append a step and find out what it goes on."""
        known = [self.place[p] for p in parents if p in self.place]
        step.parents = tuple(dict.fromkeys(known))
        step.acts = acts(step)
        self.nodes.append(step)
        self.place[step.id] = step.at
        answering = step.role in ("replier", "tool")
        self.answers += answering
        self.orphans += answering and not parents
        self.edges += len(known)
        if known:
            self._follow(step, max(known))
        elif self.missing:
            self._infer(step)
        else:
            self._begin(step)
        self.rarity.add(step)

    def _begin(self, step: Node) -> None:
        thread = Thread()
        thread.grow(step)
        self.tails[step.at] = Tail(step, thread)

    def _follow(self, step: Node, parent: int) -> None:
        tail = self.tails.pop(parent, None)
        thread = tail.thread if tail else self._rebuilt(parent)
        thread.grow(step)
        self.tails[step.at] = Tail(step, thread)

    def _rebuilt(self, at: int) -> Thread:
        """The thread of a step that is no tail any more (it has several children)."""
        thread = Thread()
        for member in reversed(self.line(at, 40)):
            thread.grow(self.nodes[member])
        return thread

    def line(self, at: int, limit: int) -> list[int]:
        """The most probable thread that ends in a step, newest first."""
        found = []
        while len(found) < limit:
            found.append(at)
            node = self.nodes[at]
            guessed = self.guesses.get(at)
            if node.parents:
                at = max(node.parents)
            elif guessed and guessed[0][1] >= 1 - sum(p for _, p in guessed):
                at = guessed[0][0]
            else:
                break
        return found

    def _infer(self, step: Node) -> None:
        chances, begins = self.chances(step)
        best = chances[:3]
        self.guesses[step.at] = best
        if not best or begins > best[0][1]:
            self._begin(step)
        else:
            thread = self.tails[best[0][0]].thread.copy()
            thread.grow(step)
            self.tails[step.at] = Tail(step, thread)
        for at, chance in best:
            tail = self.tails[at]
            tail.open *= 1 - chance
            if tail.open < OPEN:
                del self.tails[at]

    def chances(self, step: Node) -> tuple[list[tuple[int, float]], float]:
        """([(tail's position, chance)], best first, chance that the step begins a thread)."""
        rarity, did = self.rarity.of(step.words), step.acts or acts(step)
        offered = sorted(self.tails, reverse=True)[:TAILS]
        scores = []
        for at in offered:
            tail = self.tails[at]
            told = evidence(step, did, tail.node, tail.thread, rarity)
            scores.append(weigh(told, LINKS) + math.log(max(tail.open, 1e-3)) + prior(self.missing))
        scores.append(weigh(beginning(step, did, rarity, len(offered)), LINKS))
        shares = softmax(scores)
        ranked = sorted(zip(offered, shares[:-1], strict=True), key=lambda pair: (-pair[1], -pair[0]))
        return ranked, shares[-1]


def prior(missing: float) -> float:
    """Log-odds that a step without declared parents has lost them, against a run in which all are lost."""
    return math.log(max(missing, 0.01))
