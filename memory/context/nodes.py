"""A step prepared for assembly, once: who speaks, its values, its calls, its questions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .calls import Call, calls, fields, words
from .values import FUNCTION_WORDS, OPENERS, Mention, mentions

_SPEAKER = re.compile(r"\s*\[?([A-Za-z][A-Za-z_ -]{1,20})\]?\s*(?::|>)\s*")
_TAG = re.compile(r"\s*([A-Z]{3,})\b")
_ASKER = frozenset(["user", "human", "customer", "client", "caller", "visitor"])
_REPLIER = frozenset(["system", "assistant", "agent", "bot", "ai", "model", "operator", "support"])
_TOOL = frozenset(["call", "tool", "function", "action", "invoke"])
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[\w'’]+")
#: rows of a result that are looked at
ROWS = 12
#: words of one stem begin with so many equal letters
STEM = 5


@dataclass(frozen=True, slots=True)
class Span:
    """A value or a group of content words in a step's text, and what stands around it."""

    kind: str
    text: str
    norm: tuple
    #: the nearest function word before it, e.g. "from"
    cue: str
    #: words before it, nearest first (at most six)
    before: tuple[str, ...]
    #: first letters of the words of its sentence
    around: frozenset[str]


@dataclass(slots=True)
class Node:
    """A step as assembly sees it."""

    at: int
    id: str
    text: str
    #: asker, replier, tool or "" (unknown)
    role: str
    #: text without the speaker's name
    body: str
    calls: tuple[Call, ...]
    #: (key, value as text) of typed outputs, results' fields included
    typed: tuple[tuple[str, str], ...]
    spans: tuple[Span, ...]
    words: frozenset[str]
    #: the same in a fixed order: sums over them are the same in every process
    listed: tuple[str, ...]
    #: words of its questions
    question: frozenset[str]
    #: the body in lower case
    low: str = ""
    parents: tuple[int, ...] = ()
    #: what it does, see `acts.py`
    acts: tuple[str, ...] = ()
    vector: Any = None


def speaker(text: str) -> tuple[str, str]:
    """(role, text without the speaker's name)."""
    match = _SPEAKER.match(text)
    if match:
        name = match[1].strip().lower()
        for role, names in (("asker", _ASKER), ("replier", _REPLIER), ("tool", _TOOL)):
            if name in names:
                return role, text[match.end() :]
    tag = _TAG.match(text)
    if tag and tag[1].lower() in _TOOL:
        return "tool", text[tag.end() :].lstrip()
    return "", text


def _chunks(sentence: str, taken: list[Mention], offset: int) -> list[tuple[int, int]]:
    """(start, end) of runs of content words between the mentions of a sentence."""
    runs: list[list[int]] = []
    covered = [(m.start - offset, m.end - offset) for m in taken]
    last = -2
    for match in _WORD.finditer(sentence):
        word = match[0].lower().strip("'’")
        inside = any(a <= match.start() < b for a, b in covered)
        if inside or word in FUNCTION_WORDS or word in OPENERS or not word:
            last = -2
            continue
        if runs and last >= 0 and sentence[last : match.start()] in (" ", "-"):
            runs[-1][1] = match.end()
        else:
            runs.append([match.start(), match.end()])
        last = match.end()
    return [(a, b) for a, b in runs]


def _spans(body: str) -> list[Span]:
    found: list[Span] = []
    offset = 0
    all_mentions = mentions(body)
    for part in _SENTENCE.split(body):
        start = body.find(part, offset)
        end = start + len(part)
        offset = end
        if not part.strip():
            continue
        taken = [m for m in all_mentions if start <= m.start < end]
        around = frozenset(w[:STEM] for w in words(part) if w not in FUNCTION_WORDS)
        listed = [(m.start, m.end, m.kind, m.surface, m.norm) for m in taken]
        for a, b in _chunks(part, taken, start):
            text = part[a:b]
            listed.append((start + a, start + b, "text", text, tuple(_WORD.findall(text.lower()))))
        for a, _, kind, text, norm in sorted(listed):
            before = tuple(reversed(_WORD.findall(body[max(start, a - 50) : a].lower())))[:6]
            cue = next((w for w in before if w in FUNCTION_WORDS and w not in ("the", "a", "an")), "")
            found.append(Span(kind, text, norm, cue, before, around))
    return found


def _typed(made: tuple[Call, ...], writes: tuple[tuple[str, Any], ...] | None) -> tuple[tuple[str, str], ...]:
    if writes is not None:
        return tuple((str(k), _written(v)) for k, v in writes)
    found = []
    for call in made:
        rows = call.result[:ROWS] if isinstance(call.result, list) else call.result
        found += [(path, _written(v)) for path, v in fields(rows)]
    return tuple(found)


def _written(value: Any) -> str:
    """A scalar as texts write it: truth values as in JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def node(at: int, step_id: str, text: str, writes: tuple[tuple[str, Any], ...] | None) -> Node:
    """A step prepared. Cost: one pass over its text."""
    role, body = speaker(text)
    made = calls(text)
    if made and not role:
        role = "tool"
    spans = () if made else tuple(_spans(body[:4000]))
    asking = " ".join(s for s in _SENTENCE.split(body[:4000]) if s.rstrip().endswith("?")) if not made else ""
    content = frozenset(w for w in words(body[:8000]) if w not in FUNCTION_WORDS)
    return Node(
        at,
        step_id,
        text,
        role,
        body,
        made,
        _typed(made, writes),
        spans,
        content,
        tuple(sorted(content)),
        frozenset(words(asking)),
        body.lower(),
    )


def meaning(step: Node) -> str:
    """The words of a step that tell what it is about: its text, or a call's name and arguments."""
    if not step.calls:
        return step.body[:1000]
    call = step.calls[0]
    told = [*words(call.name)]
    for key, value in call.arguments:
        told += [*words(key), value]
    return " ".join(told)[:1000]
