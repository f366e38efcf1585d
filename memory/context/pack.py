"""Packing: which entries of a plan are shown within a budget, by value per token."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .calls import kind_of_key
from .digests import digest
from .nodes import Node
from .plan import Choice, Plan
from .slots import last_part
from .stated import FIELDS, Stated, without

#: a value, or a step's words, that add less to the expected number of arguments met are left out
VALUE_FLOOR, WORDS_FLOOR = 0.01, 0.0002
#: what an entry must add at least where the budget is so many tokens; falls with its cube
SCARCE, SCARCE_TOKENS = 0.25, 16
#: chance that the words just before the ask state a value that no rule finds, for each argument still open
UNSEEN = 0.03
#: an argument counts as open by at least this: no chance is a certainty
OPEN = 0.02
#: a value is left out where it is rather superseded than not, and something newer is fairly surely the wanted
#: one: to miss what is needed is worse than to show what is old
OUTDATED, SURE = 0.5, 0.7
#: steps of a thread whose words are offered
TURNS = 24
#: words of a step longer than this (characters) are offered shortened too
LONG = 480
#: of an ask in plain words the nearest steps are offered, and those that have at least this part of the
#: most relevant one's relevance
NEAREST, FAR = 3, 0.4
_TOKEN = re.compile(r"\w+|[^\w\s]")
#: what a superseded value becomes in the words around it
CUT = "…"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that can be shown: one value for an argument, or words of a step."""

    #: argument ("": words of a step)
    slot: str
    text: str
    at: int
    #: raw, fact or digest
    form: str


@dataclass(slots=True)
class Packed:
    """What was chosen, in the order of choice, and what was not, with the reason."""

    shown: list[Entry] = field(default_factory=list)
    left_out: list[tuple[Entry, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Offer:
    entry: Entry
    #: (argument, value as flat text, chance)
    holds: list[tuple[str, str, float]]
    #: expected gain of words beyond their known values, per open argument
    unseen: float = 0.0
    #: the same words unshortened
    whole: str = ""


def flat(text: str) -> str:
    """A text as a row of lower-case tokens between spaces: `flat(a) in flat(b)` compares whole tokens."""
    return f" {' '.join(_TOKEN.findall(text.lower()))} "


def pack(plan: Plan, nodes: Sequence[Node], budget: int, size: Callable[[Entry, bool], int]) -> Packed:
    """Choose entries greedily by expected gain per token.

    Args:
        plan: what could be shown.
        nodes: the steps by position.
        budget: tokens for all entries.
        size: tokens of an entry; the flag says that it is the first of its argument.
    """
    packed = Packed()
    scarce = SCARCE * min(1.0, SCARCE_TOKENS / max(1, budget)) ** 3
    offers = _offers(plan, nodes, packed)
    many = dict(plan.many) or {"": 1}
    need = {name: float(n) for name, n in many.items()}
    covered: set[tuple[str, str]] = set()
    keyed: set[str] = set()
    chosen: list[_Offer] = []
    sizes = [size(o.entry, False) for o in offers]
    heap = [(-_gain(o, need, covered) / max(1, sizes[at]), at) for at, o in enumerate(offers)]
    heapq.heapify(heap)
    while heap:
        promised, at = heapq.heappop(heap)
        offer = offers[at]
        entry, gain = offer.entry, _gain(offer, need, covered)
        if gain < max(scarce, VALUE_FLOOR if entry.slot else WORDS_FLOOR):
            packed.left_out.append((entry, "little value"))
            continue
        cost = size(entry, True) if entry.slot and entry.slot not in keyed else sizes[at]
        if cost > budget:
            packed.left_out.append((entry, "budget"))
            continue
        now = -gain / max(1, cost)
        if heap and now > heap[0][0] and now > promised + 1e-12:
            heapq.heappush(heap, (now, at))
            continue
        budget -= cost
        keyed.add(entry.slot)
        chosen.append(offer)
        _cover(offer, need, many, covered)
    packed.shown = _unshortened(chosen, budget, size)
    return packed


def _unshortened(chosen: list[_Offer], budget: int, size: Callable[[Entry, bool], int]) -> list[Entry]:
    """What is left of the budget shows shortened words whole, the first chosen first."""
    found = []
    for offer in chosen:
        entry = offer.entry
        if offer.whole:
            whole = Entry("", offer.whole, entry.at, "raw")
            more = size(whole, False) - size(entry, False)
            if more <= budget:
                budget -= max(0, more)
                entry = whole
        found.append(entry)
    return found


def _cover(
    offer: _Offer, need: dict[str, float], many: Mapping[str, int], covered: set[tuple[str, str]]
) -> None:
    for name, value, chance in offer.holds:
        if (name, value) not in covered:
            covered.add((name, value))
            left = need[name] * (1 - chance) if many[name] == 1 else need[name] - chance
            need[name] = max(OPEN, left)


def _gain(offer: _Offer, need: Mapping[str, float], covered: set[tuple[str, str]]) -> float:
    gain = sum(c * min(1.0, need[n]) for n, value, c in offer.holds if (n, value) not in covered)
    return gain + offer.unseen * sum(min(1.0, n) for n in need.values()) if offer.unseen else gain


def outdated(choices: Mapping[str, Sequence[Choice]]) -> Iterator[Choice]:
    """Values that are rather superseded ones than wanted ones.

    What supersedes them must be known: newer values that are likely themselves, as many as there are
    arguments of the kind (of a departure and a return, the older date is not superseded).
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name in choices:
        alike[kind_of_key(last_part(name)) or name].append(name)
    for names in alike.values():
        likely: dict[str, int] = {}
        for name in names:
            likely.update((c.text.lower(), c.at) for c in choices[name] if c.chance > SURE)
        for c in (c for name in names for c in choices[name]):
            newer = sum(at > c.at for text, at in likely.items() if text != c.text.lower())
            if c.superseded > OUTDATED and (c.certain or newer >= len(names)):
                yield c


def _offers(plan: Plan, nodes: Sequence[Node], packed: Packed) -> list[_Offer]:
    """Everything that can be shown: values of arguments, and words and typed values of the steps in view."""
    found: list[_Offer] = []
    held = _Held.of(plan)
    for name, value, choice in held.all:
        entry = Entry(name, choice.text, choice.at, "fact")
        if held.is_old(choice):
            packed.left_out.append((entry, "superseded"))
        else:
            found.append(_Offer(entry, [(name, value, choice.chance)]))
    turns: dict[int, int] = {}
    for line in plan.lines:
        for turn, step in enumerate(line.steps[: TURNS if plan.many else None]):
            turns[step.at] = min(turn, turns.get(step.at, turn))
    stated = Stated(nodes, turns)
    least = FAR * max(plan.relevance.values(), default=0.0)
    said: set[str] = set()
    for at, turn in sorted(turns.items(), reverse=True):
        if turn >= NEAREST and plan.relevance.get(at, 1.0) < least:
            packed.left_out.append((Entry("", nodes[at].text, at, "raw"), "little value"))
            continue
        for offer in _of_step(plan, nodes[at], held, stated, packed, said):
            offer.unseen = _unseen(plan, at, turn)
            found.append(offer)
    return found


def _of_step(
    plan: Plan, step: Node, held: _Held, stated: Stated, packed: Packed, said: set[str]
) -> Iterator[_Offer]:
    """The words of a step and its typed values in a row, each unless it has been `said`."""
    gone = stated.superseded(step) if plan.words and not plan.many else ()
    packed.left_out += [(Entry("", f"{k}: {v}", step.at, "fact"), "superseded") for k, v in gone]
    whole = ""
    for offer in (_words(step, held, gone), _row(plan, step, held, stated)):
        if offer is None:
            continue
        key = flat(offer.entry.text)
        told = not plan.many and offer.entry.form == "fact" and _tells(whole, step)
        whole = whole or flat(offer.whole or offer.entry.text)
        if key in said or told:
            packed.left_out.append((offer.entry, "duplicate"))
            continue
        said.add(key)
        yield offer


@dataclass(slots=True)
class _Held:
    """All values of a plan, to be found in texts."""

    #: (argument, value as flat text, choice)
    all: list[tuple[str, str, Choice]]
    by_word: dict[str, list[tuple[str, str, Choice]]]
    #: superseded values as written, longest first
    old: tuple[str, ...]
    kept: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan) -> _Held:
        every = [(n, flat(c.text), c) for n, listed in plan.choices.items() for c in listed]
        every = [held for held in every if held[1].strip()]
        by_word: dict[str, list[tuple[str, str, Choice]]] = defaultdict(list)
        for held in every:
            by_word[held[1].split(" ", 2)[1]].append(held)
        kept = {t.lower() for _, _, c in every if c.best for t in c.texts or (c.text,)}
        old = {t.lower() for c in outdated(plan.choices) for t in c.texts or (c.text,)}
        old = {t for t in old if not any(t in k for k in kept)}
        return cls(every, by_word, tuple(sorted(old, key=lambda t: (-len(t), t))), tuple(sorted(kept)))

    def is_old(self, choice: Choice) -> bool:
        """Whether a value is superseded for one argument and the wanted one of none."""
        return choice.text.lower() in self.old

    def within(self, text: str) -> list[tuple[str, str, Choice]]:
        row = flat(text)
        return [item for w in set(row.split()) for item in self.by_word.get(w, ()) if item[1] in row]

    def without_old(self, text: str) -> str:
        """The text with its superseded values cut out."""
        low = text.lower()
        for value in self.old:
            if value in low:
                text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", CUT, text, flags=re.IGNORECASE)
        return text


def _unseen(plan: Plan, at: int, turn: int) -> float:
    """Expected gain of a step's words: the nearer and, for an ask in plain words, the more to the point."""
    near = UNSEEN / (1 + turn)
    return plan.chance.get(at, 0.0) * (near + plan.relevance.get(at, 0.0) ** 2)


def _tells(whole: str, step: Node) -> bool:
    """Whether the words of a step state all its typed values."""
    return bool(whole) and all(flat(v) in whole for _, v in step.typed[:FIELDS])


def _offer(entry: Entry, held: _Held, whole: str = "") -> _Offer:
    within = sorted((name, value, choice.chance) for name, value, choice in held.within(entry.text))
    return _Offer(entry, within, 0.0, whole)


def _words(step: Node, held: _Held, gone: Sequence[tuple[str, str]]) -> _Offer | None:
    """The words of a step, superseded values cut out of them; shortened where they are long."""
    text, form = shown_text(step)
    cut = held.without_old(without(text, gone))
    if not cut:
        return None
    form = form if cut == text else "digest"
    if len(cut) > LONG:
        return _offer(Entry("", digest(cut), step.at, "digest"), held, cut)
    return _offer(Entry("", cut, step.at, form), held)


def _row(plan: Plan, step: Node, held: _Held, stated: Stated) -> _Offer | None:
    """The newest typed fields of a step in a row, for what no argument asks for by name."""
    if not step.typed or (plan.many and _tabular(step)):
        return None
    fields = [(last_part(k), v) for k, v in step.typed[:FIELDS] if stated.holds(k, step.at) and len(v) < 200]
    text = ", ".join(f"{name}: {v}" if name else v for name, v in fields)
    return _offer(Entry("", held.without_old(text), step.at, "fact"), held) if text else None


def _tabular(step: Node) -> bool:
    """Whether the typed outputs are rows of a table: too much to show when single values are asked for."""
    rows = any("[" in key for key, _ in step.typed)
    return rows or (bool(step.calls) and not isinstance(step.calls[-1].result, dict))


def shown_text(step: Node) -> tuple[str, str]:
    """(words of a step as they are shown, form): of a call's result only its id, which stands for it."""
    if not step.calls:
        return step.body.strip(), "raw"
    call = step.calls[0]
    if not call.arguments:
        return "", "digest"
    made = f"{call.name}({', '.join(f'{k}={v}' for k, v in call.arguments)})"
    gave = call.result.get("id") if isinstance(call.result, dict) else None
    return (made if gave is None else f"{made} -> {gave}"), "digest"
