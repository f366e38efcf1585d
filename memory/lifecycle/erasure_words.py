"""The words by which erased content is known again wherever it was copied to, and what stands in for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..content import plain_text
from ..texts import DIGEST, shortened, text_of

#: characters that a text must have to be looked for inside other texts
LEAST = 8
#: characters of a sentence or line of a long text that is looked for by itself
LEAST_EXCERPT = 24
#: texts from which on they are looked for together
MANY = 256
#: what stands in the place of a text that is erased inside a structure that stays
ERASED = "[erased]"

_UNICODE = re.compile(r"\\+u([0-9a-fA-F]{4})")
_BREAK = re.compile(r"\\+[nrtbf]")
_SENTENCE = re.compile(r"[\n\r]+|(?<=[.!?])\s+")
_PLACEHOLDER = re.compile(r"(?<!\{)\{[\w.\[\]-]+\}(?!\})")


def flat(text: str) -> str:
    """Text without whitespace and escapes: the same for a text as it is and inside JSON, however deep."""
    if "\\" in text:
        text = _UNICODE.sub(lambda found: chr(int(found[1], 16)), text)
        text = _BREAK.sub(" ", text).replace("\\", "")
        # escaped pairs of surrogates stand for one character
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(text.split())


class Words:
    """Texts to be found again. Whitespace, escapes and quoting by JSON make no difference."""

    def __init__(self, texts: Iterable[str] = (), *, least: int = LEAST) -> None:
        """`least`: characters below which a text is left out, since it would be found everywhere. So is one
        word in small letters (`confirmed`): what others say with it is theirs.
        """
        flats: set[str] = set()
        for text in texts:
            if len(text.strip()) >= least and not _is_common(text.strip()):
                for form in (text, plain_text(text)):
                    flats.add(flat(json.dumps(form, ensure_ascii=False)[1:-1]))
        self._keep(f for f in flats if len(f) >= least * 3 // 4)

    def _keep(self, flats: Iterable[str]) -> None:
        self.flats = _shortest(flats)
        self._size = min(map(len, self.flats), default=0)
        #: what many of them begin with: one look at each place of a text instead of one for each of them
        self._starts: dict[str, list[str]] = {}
        for one in self.flats if len(self.flats) > MANY else ():
            self._starts.setdefault(one[: self._size], []).append(one)

    @classmethod
    def of_values(cls, values: Iterable[Any], *, least: int = LEAST) -> Words:
        """What the values say: their strings and long numbers, and of long texts the sentences and lines."""
        return cls((text for value in values for text in said(value)), least=least)

    def __bool__(self) -> bool:
        return bool(self.flats)

    def __le__(self, other: Words) -> bool:
        return set(self.flats) <= set(other.flats)

    def __or__(self, other: Words) -> Words:
        both = Words()
        both._keep({*self.flats, *other.flats})
        return both

    def are_in(self, text: str) -> bool:
        """Whether a text, or JSON, shows one of them."""
        if not self.flats:
            return False
        within, size = flat(text), self._size
        if not self._starts:
            return any(one in within for one in self.flats)
        here = {within[at : at + size] for at in range(len(within) - size + 1)}
        return any(one in within for start in here & self._starts.keys() for one in self._starts[start])


def _is_common(text: str) -> bool:
    return text.isalpha() and text.islower()


def _shortest(flats: Iterable[str]) -> list[str]:
    """Without those that contain another one."""
    kept: list[str] = []
    for one in sorted(set(flats), key=lambda f: (len(f), f)):
        if len(kept) > 2 * MANY or not any(short in one for short in kept):
            kept.append(one)
    return kept


def said(value: Any) -> Iterator[str]:
    """The texts of a value by which a copy of it is known: strings, numbers, excerpts of long strings."""
    if isinstance(value, str):
        yield value
        if len(value) > DIGEST:
            yield (shortened(value) or value).removesuffix(" …")
            yield from (part for part in _SENTENCE.split(value) if len(part) >= LEAST_EXCERPT)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from said(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from said(inner)
        if value and not any(isinstance(inner, dict | list) for inner in value):
            yield text_of(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)


def tombstone(why: int | str) -> dict[str, Any]:
    """The value that stands for an erased one. `why`: a receipt's id, or the reason of a sweep."""
    return {"erased": True, "receipt" if isinstance(why, int) else "reason": why}


def is_tombstone(value: Any) -> bool:
    """Whether a value stands for one that was erased."""
    return (
        isinstance(value, Mapping)
        and value.get("erased") is True
        and ("receipt" in value or "reason" in value)
    )


def redacted(value: Any, hit: Callable[[str], bool], *, keys: bool = True) -> Any:
    """The value with `[erased]` for each text that is hit. A template keeps its placeholders: they are edges.

    `keys`: whether the names of fields are looked at as well.
    """
    if isinstance(value, str):
        return " ".join([ERASED, *_PLACEHOLDER.findall(value)]) if hit(value) else value
    if isinstance(value, Mapping):
        renamed = {}
        for number, (key, inner) in enumerate(value.items()):
            name = f"{ERASED} {number}" if keys and hit(str(key)) else key
            renamed[name] = redacted(inner, hit, keys=keys)
        return renamed
    if isinstance(value, list | tuple):
        return [redacted(inner, hit, keys=keys) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and hit(json.dumps(value)):
        return None
    return value


def is_prose(text: str) -> bool:
    """Whether a string of a structure is something said, not a name or a reference."""
    return len(text.split()) > 1


def fields_erased(value: Any, hit: Callable[[str, Any], bool], instead: Any) -> Any:
    """An object with `instead` for each field that is hit; anything else is replaced as a whole."""
    if is_tombstone(value):
        return value
    if not isinstance(value, Mapping):
        return instead
    return {n: instead if not is_tombstone(inner) and hit(n, inner) else inner for n, inner in value.items()}
