"""Facts: the typed values that a step's output states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fact:
    """One value that a step states."""

    #: path of the value, e.g. `hotel.rooms[0].price`; "" for a mention without a name
    key: str
    #: a JSON scalar: str, int, float, bool (never None)
    value: Any
    #: date, time, number, money, email, url, file, identifier, name, quote, text or boolean
    kind: str
    #: worth a fact row of its own (a typed field, an explicit key and value); False: a mention
    durable: bool


def extract(value: Any, text: str, writes: Sequence[tuple[str, Any]] | None = None) -> list[Fact]:
    """The facts in a step's output, without a model: typed fields first, then rules over the text.

    Args:
        value: the typed output (JSON), or None.
        text: what the step said.
        writes: (key, value) pairs that the step is known to have written.

    Returns:
        Facts in the order in which they are stated; durable ones have unique (key, value).
    """
    return []
