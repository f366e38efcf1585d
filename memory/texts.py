"""What a JSON value says as plain text: for people, for prompts and for the full-text index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import ceil
from typing import Any

_TYPES = {b'"': "text", b"{": "object", b"[": "list", b"n": "null", b"t": "boolean", b"f": "boolean"}

#: of ordinary text, by common byte-pair tokenizers
_BYTES_PER_TOKEN = 4


def type_of(data: bytes) -> str:
    """What a JSON text holds: text | number | boolean | null | list | object."""
    return _TYPES.get(data[:1], "number")


def text_of(value: Any) -> str:
    """The value as plain text: a string as it is, fields as `name: value` lines, nested names with dots."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return "\n".join(_lines(value, ""))
    return "" if value is None else json.dumps(value)


def _lines(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(x, dict | list) for x in value):
        for number, inner in enumerate(value):
            yield from _lines(inner, f"{name}[{number}]")
    elif isinstance(value, list):
        said = ", ".join(text_of(x) for x in value)
        yield f"{name}: {said}" if name else said
    elif value is not None:
        yield f"{name}: {text_of(value)}" if name else text_of(value)


def token_estimate(text: str) -> int:
    """About how many tokens a text has."""
    return ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


def has_words(data: bytes) -> bool:
    """Whether a JSON text may hold words worth finding: a letter in a string longer than a flag."""
    return len(data) > 4 and (data[:1] in b'"{[') and any(c > 64 for c in data[1:-1])


#: characters of a revision's digest
DIGEST = 240


def shortened(text: str) -> str | None:
    """The beginning of a text that is longer than a digest, cut at a word; None: it is its own digest."""
    if len(text) <= DIGEST:
        return None
    return text[: DIGEST - 2].rsplit(None, 1)[0] + " …"
