"""Packing: which entries of a plan are shown within a budget, by value per token."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .digests import digest
from .nodes import Node
from .plan import Choice, Plan
from .slots import last_part

#: a value, or a step's words, that add less to the expected number of arguments met are left out
VALUE_FLOOR, WORDS_FLOOR = 0.001, 0.0002
#: what an entry must add at least where the budget is so many tokens; falls with its cube
SCARCE, SCARCE_TOKENS = 0.25, 16
#: chance that the words just before the ask state a value that no rule finds, for each argument still open
UNSEEN = 0.03
#: an argument counts as open by at least this: no chance is a certainty
OPEN = 0.02
#: a value is left out where it is outdated with this chance, and this many times as likely as wanted
OUTDATED, OUTDATED_RATIO = 0.05, 0.5
#: steps of a thread whose words are offered
TURNS = 24
#: words of a step longer than this (characters) are offered shortened too
LONG = 480
#: fields of one result that are offered in a row
FIELDS = 40
_TOKEN = re.compile(r"\w+|[^\w\s]")
_Held = tuple[str, str, float]


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
    holds: list[_Held]
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


def outdated(choice: Choice) -> bool:
    """Whether a value is rather a superseded one than the wanted one."""
    return choice.superseded > max(OUTDATED, OUTDATED_RATIO * choice.chance)


def _offers(plan: Plan, nodes: Sequence[Node], packed: Packed) -> list[_Offer]:
    found: list[_Offer] = []
    by_word: dict[str, list[tuple[str, str, Choice]]] = defaultdict(list)
    for name, listed in plan.choices.items():
        for choice in listed:
            value = flat(choice.text)
            if not value.strip():
                continue
            by_word[value.split(" ", 2)[1]].append((name, value, choice))
            entry = Entry(name, choice.text, choice.at, "fact")
            if outdated(choice):
                packed.left_out.append((entry, "superseded"))
            else:
                found.append(_Offer(entry, [(name, value, choice.chance)]))
    turns: dict[int, int] = {}
    for line in plan.lines:
        for turn, step in enumerate(line.steps[:TURNS]):
            turns[step.at] = min(turn, turns.get(step.at, turn))
    latest = _latest(nodes, turns)
    said: set[str] = set()
    for at, turn in sorted(turns.items(), reverse=True):
        unseen = _relevance(plan, nodes[at]) * UNSEEN * plan.chance.get(at, 0.0) / (1 + turn)
        for offer in (_words(nodes[at], by_word), _row(plan, nodes[at], by_word, latest)):
            if offer is None:
                continue
            key = flat(offer.entry.text)
            if key in said:
                packed.left_out.append((offer.entry, "duplicate"))
                continue
            said.add(key)
            offer.unseen = unseen
            found.append(offer)
    return found


def _relevance(plan: Plan, step: Node) -> float:
    """Words in common with an ask that names no arguments make a step's words worth more."""
    if plan.many or not plan.words:
        return 1.0
    return 1.0 + 8.0 * len(plan.words & step.words) / len(plan.words)


def _held(text: str, by_word: Mapping[str, list[tuple[str, str, Choice]]]) -> list[tuple[str, str, Choice]]:
    row = flat(text)
    return [item for w in set(row.split()) for item in by_word.get(w, ()) if item[1] in row]


def _offer(entry: Entry, held: list[tuple[str, str, Choice]], whole: str = "") -> _Offer:
    return _Offer(entry, sorted((name, value, choice.chance) for name, value, choice in held), 0.0, whole)


def _words(step: Node, by_word: Mapping[str, list[tuple[str, str, Choice]]]) -> _Offer | None:
    """The words of a step, superseded values cut out of them; shortened where they are long."""
    text, form = shown_text(step)
    if not text:
        return None
    held = _held(text, by_word)
    kept = [c.text.lower() for _, _, c in held if c.best]
    cut = {c.text for _, _, c in held if outdated(c) and not any(c.text.lower() in k for k in kept)}
    for value in sorted(cut, key=lambda t: (-len(t), t)):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "…", text, flags=re.IGNORECASE)
    if cut:
        form = "digest"
    if len(text) > LONG:
        short = digest(text)
        return _offer(Entry("", short, step.at, "digest"), _held(short, by_word), text)
    return _offer(Entry("", text, step.at, form), _held(text, by_word) if cut else held)


def _latest(nodes: Sequence[Node], turns: Mapping[int, int]) -> dict[str, int]:
    """Key of a typed output -> newest step that states it."""
    found: dict[str, int] = {}
    for at in sorted(turns):
        found.update((key, at) for key, _ in nodes[at].typed[:FIELDS])
    return found


def _row(
    plan: Plan, step: Node, by_word: Mapping[str, list[tuple[str, str, Choice]]], latest: Mapping[str, int]
) -> _Offer | None:
    """The newest typed fields of a step in a row, for what no argument asks for by name."""
    if not step.typed or (plan.many and _tabular(step)):
        return None
    text = ", ".join(
        f"{last_part(k)}: {v}" for k, v in step.typed[:FIELDS] if latest.get(k) == step.at and len(v) < 200
    )
    return _offer(Entry("", text, step.at, "fact"), _held(text, by_word)) if text else None


def _tabular(step: Node) -> bool:
    """Whether the typed outputs are rows of a table: too much to show when single values are asked for."""
    rows = any("[" in key for key, _ in step.typed)
    return rows or (bool(step.calls) and not isinstance(step.calls[-1].result, dict))


def shown_text(step: Node) -> tuple[str, str]:
    """(words of a step as they are shown, form): a call is shown without its result."""
    if not step.calls:
        return step.body.strip(), "raw"
    call = step.calls[0]
    if not call.arguments:
        return "", "digest"
    return f"{call.name}({', '.join(f'{k}={v}' for k, v in call.arguments)})", "digest"
