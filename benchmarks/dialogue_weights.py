"""Fits the weights of context assembly on self-made dialogues (`dialogues.py`) and prints them.

`python -m benchmarks.dialogue_weights` prints the tables of `memory/context/weights.py` and
`source_weights.py`. Each is a conditional logit with a Gaussian prior: of the options in a group one, or
"none of them", is right. No row of a public split is read.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from podium.memory.context import fills, plan, weights
from podium.memory.context.acts import acts
from podium.memory.context.calls import asked, words
from podium.memory.context.nodes import Node, meaning, node
from podium.memory.context.pack import flat
from podium.memory.context.slots import Known, slot, turns
from podium.memory.context.source_weights import LINKS
from podium.memory.context.sources import beginning, evidence, unit
from podium.memory.context.threads import Threads
from podium.memory.retrieval.vectors import default_embedder

from benchmarks.dialogue_chains import chains
from benchmarks.dialogues import run

#: runs of so many branches, and the seed of the first
RUNS, SEED = {2: 8, 8: 10, 16: 2}, 77_000
#: strength of the prior (pairs of acts depend on the made-up talk most), rarest evidence that gets a
#: weight, smallest weight kept, steps of the descent
PRIOR, PRIOR_PAIRS, RARE, LEAST, DESCENT = 2.0, 12.0, 40, 0.2, 400

#: rounds of guessing edges and learning from it
ROUNDS = 2

#: options (evidence of each), and which of them are right (none: the empty option is)
Group = tuple[Sequence[Mapping[str, float]], Sequence[int]]


@dataclass(slots=True)
class Moment:
    """A run just before one of its steps."""

    step: dict[str, Any]
    made: Node
    threads: Threads
    known: Known
    #: positions of its branch, newest first
    line: list[int]

    def goes_on(self, tails: Sequence[int]) -> int | None:
        """Which of the tails is the newest of its branch, None: its branch has none."""
        return next((tails.index(at) for at in self.line if at in tails), None)


def moments(runs: Mapping[int, int], hidden: bool = False) -> Iterator[Moment]:
    """Every step of the self-made runs, with what was known before it; `hidden`: most edges are guessed."""
    embed = default_embedder().embed
    for branches, count in runs.items():
        for n in range(count * (1 if hidden else 2)):
            make = run if n < count else chains
            threads, known = Threads(), Known()
            dice, share = random.Random(n), (1.0, 1.0, 0.5)[n % 3] if hidden else 0.0
            lines: dict[str, list[int]] = {}
            for step in make(SEED + 100 * branches + n, branches)["steps"]:
                made = node(len(threads.nodes), step["id"], step["text"], None)
                made.vector = unit(embed([meaning(made)])[0])
                line = lines.setdefault(step["branch"], [])
                now = Moment(step, made, threads, known, line)
                parents = [] if dice.random() < share else step["parents"]
                if not hidden or not parents:
                    yield now
                threads.add(made, parents)
                known.add(made)
                line.insert(0, made.at)


def values(now: Moment) -> Iterator[Group]:
    """Which candidates of the steps before a call state a value that its argument had."""
    ask = asked(now.step["ask"])
    thread = [now.threads.nodes[at] for at in now.line]
    for name in ask.slots:
        had = [flat(v) for v in now.step["had"][name]]
        for listed in turns(slot(name, now.known, ask.name), thread):
            if listed:
                right = [n for n, c in enumerate(listed) if _states(flat(c.text), had)]
                yield [{**c.evidence, "": 1.0} for c in listed], right


def _states(text: str, had: Sequence[str]) -> bool:
    """Whether a candidate holds one of the values; a short value must be all of it."""
    return any(v == text or (len(v) > 5 and v in text) for v in had)


def asks(now: Moment) -> Iterator[Group]:
    """Which thread a call goes on."""
    ask, tails = asked(now.step["ask"]), sorted(now.threads.tails)
    vector = unit(default_embedder().embed([" ".join(words(now.step["ask"]))])[0])
    told = []
    for at in tails:
        line = [now.threads.nodes[i] for i in now.threads.line(at, plan.LINE)]
        filled = fills.fills([slot(name, now.known, ask.name) for name in ask.slots], line)
        told.append(plan.ask_evidence(now.threads, ask, at, vector) | plan.fill_evidence(filled))
    right = now.goes_on(tails)
    if right is not None:
        yield told, [right]


def links(now: Moment) -> Iterator[Group]:
    """Which thread a step goes on; the last option begins a thread."""
    tails, did = sorted(now.threads.tails), acts(now.made)
    rarity = now.threads.rarity.of(now.made.words)
    told = []
    for at in tails:
        tail = now.threads.tails[at]
        found = evidence(now.made, did, tail.node, tail.thread, rarity)
        told.append(found | {"open": math.log(max(tail.open, 1e-3))})
    told.append(beginning(now.made, did, rarity, len(tails)))
    right = now.goes_on(tails)
    if right is not None or not now.line:
        yield told, [len(tails) if right is None else right]


def fit(groups: Sequence[Group], null: bool) -> dict[str, float]:
    """Weights by gradient ascent (Adam) on the likelihood; `null`: "none" is an option of weight 0."""
    counts = Counter(name for options, _ in groups for told in options for name, v in told.items() if v)
    names = sorted(name for name, n in counts.items() if n >= RARE)
    place = {name: n for n, name in enumerate(names)}
    rows, columns, strength, group, right = [], [], [], [], []
    for g, (options, good) in enumerate(groups):
        for n, told in enumerate(options):
            for name, value in told.items():
                if value and name in place:
                    rows.append(len(group))
                    columns.append(place[name])
                    strength.append(value)
            group.append(g)
            right.append(n in good)
    row, column, value = np.array(rows), np.array(columns), np.array(strength)
    of, good = np.array(group), np.array(right, dtype=float)
    none = np.array([null and not g for _, g in groups], dtype=float)
    free = np.array([name != "open" for name in names])  # a log-chance already: its weight is 1
    prior = np.array([PRIOR_PAIRS if ">" in name else PRIOR for name in names])
    weight = np.array([float(name == "open") for name in names])
    first = second = np.zeros(len(names))
    total = hit = np.ones(len(groups))
    for step in range(1, DESCENT + 1):
        odds = np.exp(np.clip(np.bincount(row, value * weight[column], len(of)), -30, 30))
        total = np.bincount(of, odds, len(groups)) + null
        hit = np.bincount(of, odds * good, len(groups))
        posterior = odds * good / np.maximum(hit[of], 1e-12)
        push = np.bincount(column, value * (posterior - odds / total[of])[row], len(names)) - prior * weight
        push *= free
        first, second = 0.9 * first + 0.1 * push, 0.999 * second + 0.001 * push**2
        pace = 0.1 * min(1.0, 3 * (1 - step / (DESCENT + 1)))
        weight = weight + pace * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-9)
    likely = np.log((hit + none) / total)
    print(f"# {len(groups)} groups, mean log-likelihood {likely.mean():.3f}", file=sys.stderr)
    found = {name: round(float(w), 1) for name, w in zip(names, weight, strict=True)}
    return {name: w for name, w in found.items() if abs(w) >= LEAST}


def table(name: str, found: Mapping[str, float]) -> str:
    """A table as it stands in the source."""
    lines, line = [f"{name}: dict[str, float] = {{"], "   "
    for key, weight in sorted(found.items()):
        part = f' "{key}": {weight},'
        if len(line) + len(part) > 108:
            lines.append(line)
            line = "   "
        line += part
    return "\n".join([*lines, line, "}  # fmt: skip"])


def main() -> None:
    """See the module."""
    weights.VALUES.clear()
    weights.VALUES.update(fit([g for m in moments(RUNS) if m.step["ask"] for g in values(m)], True))
    print(table("VALUES", weights.VALUES), flush=True)
    for _ in range(ROUNDS):  # each round meets the mistakes that the weights of the round before make
        LINKS.update(
            dict.fromkeys(LINKS, 0.0) | fit([g for m in moments(RUNS, True) for g in links(m)], False)
        )
    print(table("LINKS", {name: w for name, w in LINKS.items() if w and name != "open"}))
    weights.ASKS.clear()
    print(table("ASKS", fit([g for m in moments(RUNS, True) if m.step["ask"] for g in asks(m)], False)))


if __name__ == "__main__":
    main()
