"""What could be shown to a coming step, and how much it is worth: made once an ask, for every budget."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .calls import Ask, asked, words
from .fills import Fill, fills
from .logit import softmax, weigh
from .nodes import Node
from .slots import Known, Slot, slot
from .sources import cosine
from .threads import TAILS, Threads
from .values import FUNCTION_WORDS
from .weights import ASKS

#: threads that are looked into where the ask's own thread is not declared
LOOKED = 12
#: steps of a thread that are looked at
LINE = 40
#: choices of an argument that are kept
CHOICES = 32
#: what nearness in meaning counts for against all words of an ask
NEAR = 0.25
#: values are left out as superseded where the thread is the own one with more than this chance
SURE = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """A thread, newest step first, with the chance that it is the coming step's own."""

    steps: tuple[Node, ...]
    chance: float


@dataclass(frozen=True, slots=True)
class Choice:
    """One value for an argument and the chance that it is the one."""

    slot: str
    text: str
    norm: tuple
    at: int
    chance: float
    #: chance that it is an outdated value of the argument
    superseded: float = 0.0
    #: the best choice of its argument
    best: bool = False
    #: every form in which it is stated
    texts: tuple[str, ...] = ()
    #: stated typed, by the argument's own key
    certain: bool = False


@dataclass(slots=True)
class Plan:
    """Everything that could be shown to one ask."""

    ask: Ask
    lines: list[Line] = field(default_factory=list)
    #: argument -> choices, best first
    choices: dict[str, list[Choice]] = field(default_factory=dict)
    #: argument -> how many values it takes
    many: dict[str, int] = field(default_factory=dict)
    #: position -> chance that the step is an ancestor
    chance: dict[int, float] = field(default_factory=dict)
    #: content words of the ask
    words: frozenset[str] = frozenset()
    #: position -> how much of what the ask says in plain words a step has in common with it, 0 to 1
    relevance: dict[int, float] = field(default_factory=dict)
    #: declared ancestors
    certain: frozenset[int] = frozenset()


def ancestors(threads: Threads, parents: Sequence[int]) -> list[int]:
    """Declared ancestors, newest first."""
    seen, queue = set(parents), list(parents)
    while queue:
        for parent in threads.nodes[queue.pop()].parents:
            if parent not in seen:
                seen.add(parent)
                queue.append(parent)
    return sorted(seen, reverse=True)


def plan(threads: Threads, known: Known, parents: Sequence[str], ask: str, vector: object = None) -> Plan:
    """All entries for a coming step: the threads that it may go on, and choices for its arguments."""
    want = asked(ask)
    made = Plan(want, words=frozenset(words(ask)) - FUNCTION_WORDS)
    slots = [slot(name, known, want.name) for name in want.slots]
    declared = [threads.place[p] for p in parents if p in threads.place]
    if declared:
        _declared(threads, made, declared)
        found = [fills(slots, line.steps) for line in made.lines]
    else:
        found = _guessed(threads, made, slots, vector)
    for line in made.lines:
        for step in line.steps:
            made.chance[step.at] = max(made.chance.get(step.at, 0.0), line.chance)
    if not slots and not want.counted:
        made.relevance = relevance(threads, made, vector)
    for many, ending in want.counted:
        made.many[ending] = many
        made.choices[ending] = _files(made, many, ending, declared)
    for at, name in enumerate(want.slots):
        made.many[name] = 1
        made.choices[name] = _choices(
            [(line.chance, per_slot[at]) for line, per_slot in zip(made.lines, found, strict=True)]
        )
    return made


def _declared(threads: Threads, made: Plan, declared: list[int]) -> None:
    certain = ancestors(threads, declared)
    made.certain = frozenset(certain)
    nodes = threads.nodes
    heads = [at for at in certain if not nodes[at].parents and threads.guesses.get(at)]
    if not heads:
        looked = certain[: 2 * LINE] if made.ask.slots or made.ask.counted else certain
        made.lines.append(Line(tuple(nodes[at] for at in looked), 1.0))
        return
    head = max(heads)
    for parent, chance in threads.guesses[head]:
        before = [at for at in threads.line(parent, LINE) if at not in made.certain]
        whole = sorted([*certain, *before], reverse=True)
        made.lines.append(Line(tuple(nodes[at] for at in whole), chance))
    rest = 1 - sum(line.chance for line in made.lines)
    made.lines.append(Line(tuple(nodes[at] for at in certain), max(0.0, rest)))


def _guessed(threads: Threads, made: Plan, slots: list[Slot], vector: object) -> list[list[list[Fill]]]:
    """Threads that an ask without declared parents may go on, and their candidates."""
    tails = sorted(threads.tails, reverse=True)[:TAILS]
    quick = {at: weigh(ask_evidence(threads, made.ask, at, vector), ASKS) for at in tails}
    tails = sorted(tails, key=lambda at: (-quick[at], -at))[:LOOKED]
    lines = [tuple(threads.nodes[i] for i in threads.line(at, LINE)) for at in tails]
    found = [fills(slots, line) for line in lines]
    scores = [
        quick[at] + weigh(fill_evidence(per_slot), ASKS) for at, per_slot in zip(tails, found, strict=True)
    ]
    if scores:
        for line, chance in zip(lines, softmax(scores), strict=True):
            made.lines.append(Line(line, chance))
    return found


def relevance(threads: Threads, made: Plan, vector: object) -> dict[int, float]:
    """What the steps in view have in common with an ask in plain words: its rare words, and its meaning."""
    rare = threads.rarity.of(made.words)
    whole = sum(rare.values())
    found = {}
    for at in made.chance:
        step = threads.nodes[at]
        said = sum(rare[w] for w in made.words & step.words if w in rare) / whole if whole else 0.0
        found[at] = said + NEAR * max(0.0, cosine(vector, step.vector))
    return found


def ask_evidence(threads: Threads, ask: Ask, at: int, vector: object) -> dict[str, float]:
    """Evidence that an ask goes on a thread, without looking at values."""
    tail = threads.tails[at]
    thread, turn = tail.thread, len(tail.thread.members)
    told = {f"tail_{tail.node.role or 'other'}": 1.0, "gap": math.log(len(threads.nodes) - at)}
    told["open"] = math.log(max(tail.open, 1e-3))
    for act in thread.acts:
        told[f"act_{act}"] = 1.0
    told["length"] = math.log(turn)
    service = words(ask.name.rsplit(".", 1)[0])
    name = words(ask.name)
    told["same_call"] = float(ask.name in thread.called)
    said = [thread.called.get(w, 0) for w in service if w.isalpha()]
    told["same_service"] = float(bool(said) and all(said))
    told["name_said"] = sum(w in thread.words for w in name) / (len(name) or 1)
    told["name_near"] = sum(turn - thread.words[w] < 3 for w in name if w in thread.words) / (len(name) or 1)
    keys = {w for s in ask.slots for w in words(s)}
    told["keys_said"] = sum(w in thread.words for w in keys) / (len(keys) or 1)
    if vector is not None:
        told["meaning"] = cosine(vector, tail.node.vector)
        told["meaning_thread"] = cosine(vector, thread.mean)
    return told


def fill_evidence(found: list[list[Fill]]) -> dict[str, float]:
    """Evidence from how well a thread fills the arguments."""
    best = [max((c.chance for c in per_slot), default=0.0) for per_slot in found]
    near = [max((c.chance for c in per_slot if c.near), default=0.0) for per_slot in found]
    if not best:
        return {}
    return {
        "fill": sum(best) / len(best),
        "fill_least": min(best),
        "fill_log": sum(math.log(b + 0.02) for b in best) / len(best),
        "fill_near": sum(near) / len(near),
        "fill_none": sum(b < 0.15 for b in best) / len(best),
    }


def _choices(offers: list[tuple[float, list[Fill]]]) -> list[Choice]:
    """One choice a value: its chances are the sums over the threads."""
    total: dict[str, list[float]] = {}
    shown: dict[str, Fill] = {}
    texts: dict[str, set[str]] = defaultdict(set)
    for line, listed in offers:
        for fill in listed:
            key = next((k for k in (t.lower() for t in sorted(fill.texts)) if k in total), None)
            key = fill.shown.text.lower() if key is None else key
            sums = total.setdefault(key, [0.0, 0.0])
            sums[0] += fill.chance * line
            sums[1] += fill.superseded * line if line > SURE else 0.0
            texts[key] |= fill.texts
            if key not in shown or fill.shown.at > shown[key].shown.at:
                shown[key] = fill
    ranked = sorted(total, key=lambda k: (-total[k][0], -shown[k].shown.at, k))
    return [
        Choice(
            (c := shown[k].shown).slot,
            c.text,
            c.norm,
            c.at,
            min(1.0, total[k][0]),
            total[k][1],
            not rank,
            tuple(sorted(texts[k])),
            shown[k].certain,
        )
        for rank, k in enumerate(ranked[:CHOICES])
    ]


def _files(made: Plan, many: int, ending: str, declared: Sequence[int]) -> list[Choice]:
    """Files with an ending that the threads made: those of the parents and those named alike first."""
    found: dict[str, Choice] = {}
    named = frozenset(words(made.ask.name))
    for line in made.lines:
        for turn, step in enumerate(line.steps):
            listed = [v for _, v in step.typed] or [
                s.text for s in step.spans if s.kind in ("file", "identifier")
            ]
            for text in listed:
                if not text.endswith(ending) or text in found:
                    continue
                near = 0.8 if step.at in declared else 0.3 / (1 + 0.1 * turn)
                alike = len(named & frozenset(words(text))) / (len(named) or 1)
                found[text] = Choice(
                    ending, text, (text,), step.at, line.chance * min(0.99, near + 0.15 * alike)
                )
    ranked = sorted(found.values(), key=lambda c: (-c.chance, -c.at, c.text))
    return ranked[: max(CHOICES, 3 * many)]
