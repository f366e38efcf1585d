"""Digests of long texts without a model: the sentences that say most, shortened the same way every time."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

from .values import FUNCTION_WORDS, mentions

#: most characters of a stored digest
CHARACTERS = 240
#: of a longer text only so many characters are looked at
LOOKED_AT = 40_000
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[\w'’]+")
_CUT = "…"


def digest(text: str, characters: int = CHARACTERS) -> str:
    """At most `characters` of a text: its weightiest sentences in their order, gaps marked by "…".

    A text that fits comes back as it is, with runs of white space made one space.
    """
    return _digest(text, lambda part: len(part) <= characters)


def digest_tokens(text: str, tokens: int, count: Callable[[str], int]) -> str:
    """At most `tokens` of a text by this counter, "" if not even its first word fits."""
    return _digest(text, lambda part: count(part) <= tokens)


def _digest(text: str, fits: Callable[[str], bool]) -> str:
    whole = " ".join(text[:LOOKED_AT].split())
    if len(text) <= LOOKED_AT and fits(whole):
        return whole
    parts = [" ".join(p.split()) for p in _SENTENCE.split(text[:LOOKED_AT]) if p.strip()]
    kept: list[int] = []
    for at in _ranked(parts):
        if fits(_joined(parts, sorted([*kept, at]))):
            kept.append(at)
        elif not kept:
            return _clipped(parts[at], fits)
    return _joined(parts, sorted(kept))


def _ranked(parts: list[str]) -> list[int]:
    """Sentences by weight a word: rare words and values count, so do the first and the last sentence."""
    said = [[w.lower() for w in _WORD.findall(p)] for p in parts]
    counts = Counter(w for listed in said for w in set(listed))
    seen: set[str] = set()
    weights = []
    for at, (part, listed) in enumerate(zip(parts, said, strict=True)):
        rare = sum(math.log(1 + len(parts) / counts[w]) for w in set(listed) if w not in FUNCTION_WORDS)
        weight = (rare + 2 * len(mentions(part[:1000]))) / math.sqrt(4 + len(listed))
        weight *= 1.5 if at in (0, len(parts) - 1) else 1.0
        key = " ".join(listed)
        weights.append(0.0 if key in seen else weight)
        seen.add(key)
    return sorted(range(len(parts)), key=lambda at: (-weights[at], at))[:64]


def _joined(parts: list[str], kept: list[int]) -> str:
    found, last = [], -1
    for at in kept:
        if at != last + 1:
            found.append(_CUT)
        found.append(parts[at])
        last = at
    if kept and last != len(parts) - 1:
        found.append(_CUT)
    return " ".join(found)


def _clipped(part: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of a sentence, cut at a word, that fits with its mark."""
    ends = [m.end() for m in re.finditer(r"\S+", part)]
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(f"{part[: ends[middle - 1]]} {_CUT}") else (low, middle - 1)
    if low:
        return f"{part[: ends[low - 1]]} {_CUT}"
    size = next((n for n in range(min(len(part), CHARACTERS), 0, -1) if fits(part[:n])), 0)
    return part[:size]
