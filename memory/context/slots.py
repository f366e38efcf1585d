"""Which value fills an argument: candidates from a thread of steps, each with the evidence for it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .calls import kind_of_key, words
from .nodes import STEM, Node, Span
from .values import mentions, norm

#: general English: function words that announce a value -> words of keys whose values they announce
_CUES = {
    "from": "from source origin start departure leaving sender begin first",
    "to": "to destination end arrival recipient target receiver return till until last",
    "till": "end to return until till last",
    "until": "end to return until till last",
    "through": "end to return until till last",
    "in": "in city town location area place where country region address",
    "near": "city town location area place address",
    "around": "city town location area place address time",
    "at": "at time location venue address place",
    "on": "on date day device platform",
    "by": "by author person owner",
    "for": "number count people persons size group days name",
    "with": "with member person people",
    "under": "max limit price budget name",
    "about": "topic subject title",
}
_CUED = {cue: frozenset(listed.split()) for cue, listed in _CUES.items()}
_DIRECTED = frozenset(w for cue in ("from", "to") for w in _CUES[cue].split())
_ASKING = {
    "date": {"date", "day", "when", "dates"},
    "time": {"time", "when", "hour"},
    "number": {"many", "much", "number", "size", "long"},
    "name": {"where", "who", "whom", "which", "name", "city", "place", "location", "area"},
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that may fill an argument."""

    slot: str
    text: str
    kind: str
    norm: tuple
    #: position of the step that states it
    at: int
    #: evidence, name -> strength
    evidence: Mapping[str, float]
    #: from a span of text (False: from a call or a typed output)
    said: bool


@dataclass(frozen=True, slots=True)
class Slot:
    """An argument to fill, prepared."""

    name: str
    kind: str
    words: frozenset[str]
    #: their first letters
    stems: frozenset[str]
    #: what values of the run stood for so far
    known: Known
    #: what is about to be called ("": unknown)
    call: str = ""


class Known:
    """What the values of a run stood for so far: they tell such a value where it stands in plain words."""

    def __init__(self) -> None:
        #: value -> names of arguments, names of fields, words of both
        self.arguments: dict[tuple, set[str]] = {}
        self.fields: dict[tuple, set[str]] = {}
        self.words: dict[tuple, set[str]] = {}
        #: name of an argument -> sort of its values -> how many
        self.sorts: dict[str, Counter[str]] = {}

    def add(self, step: Node) -> None:
        """Learn from the calls and typed outputs of a step."""
        for call in step.calls:
            for key, value in call.arguments:
                self._learn(self.arguments, key, value)
                self.sorts.setdefault(key.lower(), Counter())[sort_of(value)] += 1
        for key, value in step.typed:
            if len(value) < 80:
                self._learn(self.fields, last_part(key), value)

    def _learn(self, where: dict[tuple, set[str]], key: str, value: str) -> None:
        form = plain(value)
        if form:
            where.setdefault(form, set()).add(key.lower())
            self.words.setdefault(form, set()).update(words(key))

    def evidence(self, want: Slot, form: tuple) -> dict[str, float]:
        """Evidence that a value in words is one of an argument's."""
        seen = self.words.get(form)
        if seen is None:
            return {}
        if want.name.lower() in self.arguments.get(form, ()):
            return {"known": 1.0}
        if want.name.lower() in self.fields.get(form, ()):
            return {"known_field": 1.0}
        return {"known_kin" if seen & want.words else "known_other": 1.0}

    def likeness(self, want: Slot, kind: str) -> float:
        """How much more (or less) often than by chance values of the argument were of this sort, -1 to 1."""
        seen = self.sorts.get(want.name.lower())
        if not seen:
            return 0.0
        total, like = sum(seen.values()), seen[_SORTS.get(kind, kind)]
        return (2 * like - total) / (total + 1)


_INDEX = re.compile(r"\[[^\]]*\]")
#: kinds that are one sort: a name may be written small, a price is a number
_SORTS = {"text": "name", "quote": "name", "money": "number"}


@lru_cache(maxsize=8192)
def sort_of(value: str) -> str:
    """The sort of a whole value: its kind by its form."""
    found = mentions(value[:80])
    whole = len(found) == 1 and found[0].end - found[0].start >= len(value.strip()) - 1
    kind = found[0].kind if whole else "name"
    return _SORTS.get(kind, kind)


@lru_cache(maxsize=32768)
def plain(value: str) -> tuple:
    """A value as a row of words, the form in which values are compared across steps."""
    return norm("", value)


def slot(name: str, known: Known, call: str = "") -> Slot:
    """An argument by its name (a dotted path counts by its last part)."""
    short = name.rsplit(".", 1)[-1]
    parts = frozenset(words(short))
    return Slot(short, kind_of_key(short), parts, frozenset(w[:STEM] for w in parts), known, call)


def service(call: str) -> str:
    """`Hotels.Reserve` -> `Hotels`: what calls of one tool have in common."""
    return call.rsplit(".", 1)[0] if "." in call else call.rsplit("_", 1)[0]


def last_part(path: str) -> str:
    """`hotel.rooms[0].price` -> `price`; of a list's entry the list: `sums[0]` -> `sums`, `[0]` -> ``."""
    return _INDEX.sub("", path).rstrip(".").rsplit(".", 1)[-1]


def _of_call(want: Slot, key: str, result: bool) -> dict[str, float] | None:
    """Evidence of a named value for an argument, None: unrelated."""
    name = last_part(key)
    prefix = "field" if result else "argument"
    if name.lower() == want.name.lower():
        return {f"{prefix}_exact": 1.0}
    parts = frozenset(words(name))
    share = len(parts & want.words) / len(parts | want.words)
    kind = kind_of_key(name) == want.kind != ""
    if share:
        return {f"{prefix}_similar": share, f"{prefix}_similar_kind": float(kind)}
    if kind and not result:
        return {"argument_kind": 1.0}
    return None


def _of_result(want: Slot, key: str, call: str, other: bool) -> dict[str, float]:
    """Evidence of a field of a result by the name of its call, e.g. `weather` for an id of GetWeather."""
    stems = {w[:5] for w in words(call)}
    share = sum(w[:5] in stems for w in want.words) / (len(want.words) or 1)
    found = {"result_call": share, "result_identifier": float(kind_of_key(last_part(key)) == "identifier")}
    found["result_call_identifier"] = share * found["result_identifier"]
    if other:
        found["result_other"] = 1.0
    return found


def _of_span(want: Slot, span: Span) -> dict[str, float]:
    found: dict[str, float] = {"likeness": want.known.likeness(want, span.kind)}
    if (want.kind and span.kind == want.kind) or (span.kind == "money" and want.kind == "number"):
        found["kind_equal"] = 1.0
        found[f"kind_{want.kind}"] = 1.0
    elif span.kind in ("name", "text", "quote", "identifier") and want.kind in ("name", "", "identifier"):
        found[f"{span.kind}_for_{want.kind or 'any'}"] = 1.0
    else:
        found["kind_other"] = 1.0
        found[f"{span.kind}_not_{want.kind or 'any'}"] = 1.0
    if any(word[:STEM] in want.stems for word in span.before):
        found["key_before"] = 1.0
    share = len(want.stems & span.around) / len(want.stems or "x")
    if share:
        found["key_around"] = share
    cued = _CUED.get(span.cue)
    if cued is not None:
        if cued & want.words:
            found["cue"] = 1.0
        elif want.words & _DIRECTED and span.cue in ("from", "to"):
            found["cue_other"] = 1.0
    return found


_BEGINS = frozenset(
    ["start", "begin", "from", "departure", "leaving", "origin", "source", "first", "min", "in"]
)
_ENDS = frozenset(["end", "till", "until", "to", "return", "arrival", "destination", "last", "max", "out"])


def _in_order(want: Slot, span: Span, spans: Sequence[Span], nth: int) -> dict[str, float]:
    """Evidence from the order of several values of one kind: who leaves before arriving is named before."""
    others = [n for n, s in enumerate(spans) if s.kind == span.kind]
    if len(others) < 2 or span.kind == "text":
        return {}
    begins, ends = bool(want.words & _BEGINS), bool(want.words & _ENDS)
    if begins == ends:
        return {"among": 1.0}
    return {"in_order" if (nth == others[0]) == begins else "out_of_order": 1.0}


def _stated(want: Slot, step: Node, base: dict[str, float], later: Sequence[Node]) -> list[Candidate]:
    """Candidates from the calls and typed outputs of a step; `later`: the steps after it, newest first."""
    found: list[Candidate] = []
    for call in step.calls:
        for key, text in call.arguments:
            evidence = _of_call(want, key, False)
            if evidence and text:
                if call.name == want.call:
                    evidence["same_call"] = 1.0
                elif service(call.name) == service(want.call):
                    evidence["same_service"] = 1.0
                else:
                    evidence[f"other_service_{next(iter(evidence))}"] = 1.0
                value = norm(want.kind, text)
                found.append(Candidate(want.name, text, want.kind, value, step.at, base | evidence, False))
    for key, text in step.typed:
        evidence = _of_call(want, key, True)
        if step.calls and "[" not in key:
            evidence = (evidence or {}) | _of_result(want, key, step.calls[-1].name, evidence is None)
        if evidence and text and len(text) < 200:
            after = _said(text, later)
            evidence["field_said" if after else "field_unsaid"] = 1.0
            if after:
                evidence["field_said_near"] = 1.0 / (1 + after)
            if "[0]" in key or "[" not in key:
                evidence["field_first"] = 1.0
            value = norm(want.kind, text)
            found.append(Candidate(want.name, text, want.kind, value, step.at, base | evidence, False))
    return found


def turns(want: Slot, thread: Sequence[Node]) -> list[list[Candidate]]:
    """Candidates of an argument, a list for each step of a thread (newest first), each with its evidence."""
    found: list[list[Candidate]] = []
    named: dict[str, Candidate] = {}
    called = sum(bool(step.calls) for step in thread)
    for turn in range(len(thread) - 1, -1, -1):
        step = thread[turn]
        called -= bool(step.calls)
        base = {"distance": math.log1p(turn), "since_call": float(not called)}
        listed = _stated(want, step, base, thread[:turn])
        for c in listed:
            if len(c.text) > 1 and ("argument_exact" in c.evidence or "field_exact" in c.evidence):
                named[c.text.lower()] = c
        if step.spans:
            base |= _of_turn(want, thread, turn)
            for nth, span in enumerate(step.spans):
                listed += _spoken(want, step, span, nth, base)
            listed += _named(want, step, named, base, {c.text.lower() for c in listed})
        found.append(listed)
    return found[::-1]


def _of_turn(want: Slot, thread: Sequence[Node], turn: int) -> dict[str, float]:
    """Evidence that all values in the words of one step share."""
    step, before = thread[turn], thread[turn + 1] if turn + 1 < len(thread) else None
    found = {f"by_{step.role or 'other'}": 1.0, "spans": math.log1p(len(step.spans))}
    asking = want.words | _ASKING.get(want.kind, set())
    asked = bool(before and before.question & asking)
    found["asked"] = float(asked)
    if before and before.question and not asked:
        found["asked_other"] = 1.0
    if step.role == "asker" and "no" in step.acts:
        found["corrects"] = 1.0
    if step.role == "replier":
        found |= {f"by_{act}": 1.0 for act in step.acts if act in ("confirm", "success", "failure", "found")}
    if turn and step.role == "replier":
        found |= {f"then_{act}": 1.0 for act in thread[turn - 1].acts if act in ("yes", "no")}
    return found


def _named(
    want: Slot, step: Node, named: Mapping[str, Candidate], base: dict[str, float], seen: set[str]
) -> list[Candidate]:
    """Values that stood under the argument's own name before and are said again, in whatever span."""
    found = []
    for text, c in named.items():
        if text not in seen and text in step.low and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", step.low):
            sort = "argument" if "argument_exact" in c.evidence else "field"
            told = {**base, f"again_{sort}": 1.0}
            found.append(Candidate(want.name, c.text, c.kind, c.norm, step.at, told, True))
    return found


def _spoken(want: Slot, step: Node, span: Span, nth: int, base: dict[str, float]) -> list[Candidate]:
    """A value in words as a candidate, with those of its parts that are known values."""
    told = base | _of_span(want, span) | _in_order(want, span, step.spans, nth)
    whole = told | want.known.evidence(want, plain(span.text))
    found = [Candidate(want.name, span.text, span.kind, span.norm, step.at, whole, True)]
    if span.kind not in ("text", "name", "quote"):
        return found
    split = span.text.split()
    kept = [w for w in split if w.lower()[:STEM] not in want.stems]
    if 0 < len(kept) < len(split) and (text := " ".join(kept)) in span.text:
        part = {**told, **want.known.evidence(want, plain(text)), "stripped": 1.0}
        found.append(Candidate(want.name, text, "text", plain(text), step.at, part, True))
    for size in range(1, min(4, len(split))):
        for start in range(len(split) - size + 1):
            text = " ".join(split[start : start + size])
            form = plain(text)
            seen = want.known.evidence(want, form)
            if "known" in seen or "known_field" in seen:
                part = {**told, **seen, "part": 1.0}
                found.append(Candidate(want.name, text, "text", form, step.at, part, True))
    return found


def _said(text: str, later: Sequence[Node]) -> int:
    """How many steps after it was stated a value is said in words (0: never)."""
    low = text.lower()
    return next((n for n, step in enumerate(reversed(later), 1) if step.spans and low in step.low), 0)
