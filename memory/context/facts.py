"""Facts: the typed values that a step's output states."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .calls import calls, fields, kind_of_key
from .values import mentions

#: longest text that is a value and not prose
LONGEST = 200
#: most facts taken from one output
MOST = 2_000
#: of a longer text only so many characters are looked at
LOOKED_AT = 20_000
_PAIR = re.compile(
    r"(?:^|(?<=[\n;|]))[ \t>*-]*\"?(?P<key>[A-Za-z][\w .-]{0,40}?)\"?[ \t]*"
    r"(?P<mark>[:=])[ \t]+(?P<value>[^\n;|]{1,200})"
    r"|(?<![\w=(,.])(?P<name>[A-Za-z]\w*)=(?P<plain>\"[^\"\n]*\"|[^\s,;()=\"]+)"
)
#: who speaks is no key
_SPEAKERS = frozenset(
    [
        "user",
        "system",
        "assistant",
        "agent",
        "human",
        "bot",
        "customer",
        "model",
        "tool",
        "ai",
        "note",
        "warning",
        "http",
        "https",
    ]
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One value that a step states."""

    #: path of the value, e.g. `hotel.rooms[0].price`; "" for a mention without a name
    key: str
    #: a JSON scalar: str, int, float, bool (never None)
    value: Any
    #: date, time, number, money, email, phone, url, file, identifier, name, quote, text or boolean
    kind: str
    #: worth a fact row of its own (a typed field, an explicit key and value); False: a mention
    durable: bool


def kind_of(value: Any, key: str = "") -> str:
    """The kind of a scalar: by its type, else by its form, else by its key."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    text = str(value).strip()
    found = mentions(text[:LONGEST])
    if len(found) == 1 and found[0].start <= 1 and found[0].end >= len(text) - 1 and found[0].kind != "quote":
        return found[0].kind
    return kind_of_key(key) if kind_of_key(key) in ("name", "identifier") and len(text) <= 60 else "text"


def extract(value: Any, text: str, writes: Sequence[tuple[str, Any]] | None = None) -> list[Fact]:
    """The facts in a step's output, without a model: typed fields first, then rules over the text.

    Args:
        value: the typed output (JSON), or None. A text that is the whole output is no field: rules read it.
        text: what the step said.
        writes: (key, value) pairs that the step is known to have written.

    Returns:
        At most 2,000 facts in the order in which they are stated, each (key, value) once.
    """
    found: dict[tuple[str, str, str], Fact] = {}
    typed: set[tuple[str, str]] = set()
    for fact in _all(value, text[:LOOKED_AT], writes or ()):
        said = (fact.key, str(fact.value).lower())
        if isinstance(fact.value, str) and said in typed:
            continue  # the text writes what is a typed value already: `open: true`, `guests: 4`
        if not isinstance(fact.value, str):
            typed.add(said)
        found.setdefault((fact.key, type(fact.value).__name__, str(fact.value)), fact)
        if len(found) >= MOST:
            break
    stated = {str(f.value).lower() for f in found.values() if f.key}
    return [f for f in found.values() if f.key or str(f.value).lower() not in stated]


def _all(value: Any, text: str, writes: Sequence[tuple[str, Any]]) -> Iterator[Fact]:
    for key, held in writes:
        yield from _typed(held, str(key))
    if isinstance(value, (dict, list)):
        yield from _typed(value, "")
    elif isinstance(value, (bool, int, float)):
        yield Fact("", value, kind_of(value), False)
    made = calls(text)
    for call in made:
        for key, held in call.arguments:
            if held:
                yield Fact(f"{call.name}.{key}", held, kind_of(held, key), len(held) <= LONGEST)
        yield from _typed(call.result, call.name)
    if made:
        return
    taken = []
    for match in _PAIR.finditer(text):
        key, held = match["key"] or match["name"], (match["value"] or match["plain"]).strip().strip('"')
        if held and key.lower() not in _SPEAKERS and _keyed(key, held):
            taken.append(match.span())
            yield Fact(key.strip(), held, kind_of(held, key), True)
    for mention in mentions(text):
        if not any(a <= mention.start < b for a, b in taken):
            yield Fact("", mention.surface, mention.kind, False)


def _typed(value: Any, prefix: str) -> Iterator[Fact]:
    for path, held in fields(value):
        key = f"{prefix}.{path}" if prefix and path and not path.startswith("[") else prefix + path
        if isinstance(held, str) and not held.strip():
            continue
        prose = isinstance(held, str) and len(held) > LONGEST
        if not prose:
            yield Fact(key, held, kind_of(held, key), True)


def _keyed(key: str, value: str) -> bool:
    """Whether `key: value` is an entry of a record and no sentence with a colon."""
    return len(key.split()) <= 4 and len(value.split()) <= 12 and not value.rstrip().endswith(("?", "!"))
