"""Calls in traces (`CALL name(a=b) -> result`), what an ask wants, and what the words of a key tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_CALL = re.compile(r"\b([A-Za-z_][\w.:-]*)\(")
_ARGUMENT = re.compile(r"(?:^|,\s*)([A-Za-z_][\w.]*)\s*=\s*")
_ARROW = re.compile(r"\s*(?:->|=>|→|returned:?|result:?)\s*", re.IGNORECASE)
_ASKED = re.compile(r"\b(?:call|run|invoke|use|execute|start)\s+`?([A-Za-z_][\w.:-]*\w)`?", re.IGNORECASE)
_WITH = re.compile(
    r"\b(?:with|using|given|needs?|arguments?:?|parameters?:?|reading|inputs?:?)\s+(.*)",
    re.IGNORECASE | re.DOTALL,
)
_COUNTED = re.compile(r"(\d+)\s+(\.\w+)")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Call:
    """A call written in a trace."""

    name: str
    #: (name, value as written), in order
    arguments: tuple[tuple[str, str], ...]
    #: parsed JSON after the arrow, None where there is none
    result: Any
    end: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a coming step is about to do, as far as its words tell."""

    #: what it calls or runs ("": unknown)
    name: str
    #: names of the arguments that it needs
    slots: tuple[str, ...]
    #: (how many, file ending) of files that it reads
    counted: tuple[tuple[int, str], ...]


@lru_cache(maxsize=32768)
def words(name: str) -> tuple[str, ...]:
    """Lower-case words of an identifier or text, split at underscores and capitals."""
    return tuple(w.lower() for w in _WORDS.findall(name))


def _closing(text: str, start: int) -> int:
    depth = 1
    for at in range(start, min(len(text), start + 20_000)):
        depth += (text[at] == "(") - (text[at] == ")")
        if not depth:
            return at
    return -1


def _arguments(inside: str) -> tuple[tuple[str, str], ...] | None:
    """Named arguments of a call, None if the text between the brackets is something else."""
    names = list(_ARGUMENT.finditer(inside))
    if (inside.strip() and not names) or (names and names[0].start()):
        return None
    ends = [n.start() for n in names[1:]] + [len(inside)] * bool(names)
    return tuple(
        (n[1], inside[n.end() : end].strip().strip("\"'")) for n, end in zip(names, ends, strict=True)
    )


@lru_cache(maxsize=8192)
def calls(text: str) -> tuple[Call, ...]:
    """Calls with named arguments in a text, with the JSON result that follows an arrow."""
    found, at = [], 0
    while match := _CALL.search(text, at):
        close = _closing(text, match.end())
        arguments = _arguments(text[match.end() : close]) if close >= 0 else None
        at = match.end()
        if arguments is None:
            continue
        at, result = close + 1, None
        arrow = _ARROW.match(text, at)
        if arrow:
            try:
                result, at = json.JSONDecoder().raw_decode(text, arrow.end())
            except ValueError:
                at = arrow.end()
        if arguments or arrow:
            found.append(Call(match[1], arguments, result, at))
    return tuple(found)


def fields(value: Any, path: str = "", depth: int = 6) -> Iterator[tuple[str, Any]]:
    """(path, scalar) of every scalar in a JSON value, in order; nothing below `depth` levels."""
    if isinstance(value, dict) and depth:
        for key, inner in value.items():
            yield from fields(inner, f"{path}.{key}" if path else str(key), depth - 1)
    elif isinstance(value, list) and depth:
        for at, inner in enumerate(value):
            yield from fields(inner, f"{path}[{at}]", depth - 1)
    elif value is not None and not isinstance(value, (dict, list)):
        yield path, value


@lru_cache(maxsize=4096)
def asked(ask: str) -> Ask:
    """What an ask names: `"Call Hotels.Reserve with city, date"`, `"Run sort, reading 2 .bam"`, any text."""
    name = _ASKED.search(ask)
    counted = tuple((int(n), ending) for n, ending in _COUNTED.findall(ask))
    rest = _WITH.search(ask, name.end() if name else 0)
    slots: list[str] = []
    written = calls(ask)
    if written:
        slots += [key for key, _ in written[0].arguments]
    if rest and not counted:
        slots += [
            part
            for part in re.split(r"\s*,\s*|\s+and\s+", rest[1].strip(" .\n"))
            if re.fullmatch(r"[\w.-]+", part)
        ]
    slots += re.findall(r"\{\{?\s*([A-Za-z_][\w.]*)\s*\}?\}", ask)
    return Ask(name[1] if name else "", tuple(dict.fromkeys(slots)), counted)


#: general English: words of a key -> the kind of its values
_KEY_KINDS = {
    "date": "date day days dates deadline birthday dob",
    "time": "time times hour clock at",
    "number": "number count amount num size total quantity people persons score age year price cost fee "
    "balance rate distance limit max min group temperature percent weight height width length",
    "email": "email mail",
    "phone": "phone telephone mobile fax",
    "url": "url link website uri href",
    "file": "file path filename folder",
    "name": "name city town place location where area country state region address street from to origin "
    "destination author person user customer company station title team label contact recipient receiver "
    "sender owner member product brand",
    "identifier": "id ids code key uuid token ref reference hash",
}
_KIND_OF = {word: kind for kind, listed in _KEY_KINDS.items() for word in listed.split()}
#: a key's last word names its kind best, but these win wherever they stand
_STRONG = ("date", "time", "email", "phone")


@lru_cache(maxsize=4096)
def kind_of_key(key: str) -> str:
    """The kind of values that a key's words promise, "" where they promise none."""
    parts = words(key.rsplit("].", 1)[-1])
    for word in parts:
        if _KIND_OF.get(word) in _STRONG and word not in ("at", "days", "times"):
            return _KIND_OF[word]
    if "number" in parts or "num" in parts or "count" in parts:
        return "number"
    return next((_KIND_OF[word] for word in reversed(parts) if word in _KIND_OF), "")
