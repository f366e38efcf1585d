"""What a turn of a conversation does: it asks, answers, thanks, closes. General English, coarse."""

from __future__ import annotations

import re

from .nodes import Node


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_YESNO = re.compile(
    r"^(?:so,?\s+|ok(?:ay)?,?\s+|and\s+)?"
    r"(?:would|do|does|did|is|are|was|shall|should|can|could|may|will|have|has|am)\b",
    re.IGNORECASE,
)
_WH = re.compile(r"\b(?:what|which|where|when|who|whom|how)\b", re.IGNORECASE)
_ACTS = {
    "yes": _any(
        r"^(?:yes|yeah|yep|yup|sure|correct|right|ok(?:ay)?|sounds|great|perfect|good|fine|exactly)\b",
        r"^(?:that(?:'s| is| sounds| works| would)|absolutely|please do|go ahead|alright|that one)\b",
    ),
    "no": _any(
        r"^(?:no|nope|nah|not|actually|sorry|wait)\b",
        r"\b(?:changed? my mind|instead|rather)\b",
    ),
    "thanks": _any(
        r"\bthank",
    ),
    "done": _any(
        r"\bthat(?:'s| is| will be|'ll be) (?:all|it)\b",
        r"\b(?:nothing (?:else|more)|all i need|not (?:right )?now|i'?m (?:good|done|all set))\b",
    ),
    "more": _any(
        r"\b(?:anything else|something else|any(?:thing)? (?:other|more|further)|else i can)\b",
        r"\b(?:assist|further help|help you with)\b",
    ),
    "close": _any(
        r"\b(?:have a|good ?bye|bye|take care|see you|enjoy)\b",
    ),
    "confirm": _any(
        r"\b(?:confirm|is (?:that|this|everything) (?:right|correct|ok)|verify)\b",
        r"\b(?:correct|right)\?",
    ),
    "success": _any(
        r"\b(?:success\w*|has been|have been|booked|reserved|confirmed|scheduled)\b",
        r"\b(?:done|sent|completed)\b",
    ),
    "failure": _any(
        r"\b(?:sorry|unable|could ?n[o']t|was ?n[o']t able|did ?n[o']t|no (?:results|match))\b",
        r"\b(?:unavailable|failed|unfortunately)\b",
    ),
    "found": _any(
        r"\b(?:found|there (?:is|are)|i have|how about|what about|located|available)\b",
    ),
    "request": _any(
        r"\b(?:i (?:want|need|would like|'d like)|i'd like|i'm (?:looking|searching)|can you)\b",
        r"\b(?:could you|please|find|search|book|show|help me)\b",
    ),
}
_ASKED_KIND = {
    "date": re.compile(r"\b(?:date|day|when)\b", re.IGNORECASE),
    "time": re.compile(r"\b(?:time|hour)\b", re.IGNORECASE),
    "number": re.compile(r"\b(?:how many|number of|how much|amount)\b", re.IGNORECASE),
    "name": re.compile(
        r"\b(?:where|city|location|area|town|place|who|whom|which|name|title)\b", re.IGNORECASE
    ),
}


def acts(step: Node) -> tuple[str, ...]:
    """Names of what the turn does, e.g. ("asks_date", "wh"); a call: ("call", "result" or "empty")."""
    if step.calls:
        empty = step.calls[-1].result in (None, [], {}, "")
        return ("call", "empty" if empty else "result")
    if not step.role:
        return ()
    found = [name for name, pattern in _ACTS.items() if pattern.search(step.body)]
    questions = [part for part in re.split(r"(?<=[.!?])\s+", step.body) if part.rstrip().endswith("?")]
    for part in questions:
        found.append("yesno" if _YESNO.search(part) else "wh" if _WH.search(part) else "asks")
        found += [f"asks_{kind}" for kind, pattern in _ASKED_KIND.items() if pattern.search(part)]
    if len(step.body) < 45:
        found.append("short")
    found += [f"has_{kind}" for kind in ("date", "time", "number", "money", "name") if _has(step, kind)]
    return tuple(dict.fromkeys(found))


def _has(step: Node, kind: str) -> bool:
    return any(span.kind == kind for span in step.spans)
