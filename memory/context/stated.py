"""Typed values that a newer step has replaced: which they are, and a step's words without them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .calls import words
from .nodes import Node
from .slots import last_part

#: fields of one result that are looked at
FIELDS = 40
#: a key that more steps than this, and more than this part of them, state anew is a field of each step's own
#: record (`date` of an entry), no state of the run that the newest step has changed (`carrier.telephone`)
RECORDS, RECORDS_PART = 8, 1 / 3


class Stated:
    """The typed values of some steps, and which of them are still the newest."""

    def __init__(self, nodes: Sequence[Node], within: Iterable[int]) -> None:
        self._latest: dict[str, tuple[int, str]] = {}
        self._fields: dict[int, dict[str, str]] = {}
        count: Counter[str] = Counter()
        typed = 0
        for at in sorted(within):
            # what a call gave is a record of that call
            fields = {} if nodes[at].calls else dict(nodes[at].typed[:FIELDS])
            typed += bool(fields)
            self._fields[at] = fields
            count.update(list(fields))
            self._latest.update((key, (at, value)) for key, value in fields.items())
        self._records = {k for k, n in count.items() if n > RECORDS and n > RECORDS_PART * typed}

    def holds(self, key: str, at: int) -> bool:
        """Whether no newer step has stated the key anew, or one has that speaks of another thing."""
        newest = self._latest.get(key, (at, ""))[0]
        return newest <= at or self._other_thing(key, at, newest)

    def _other_thing(self, key: str, at: int, newer: int) -> bool:
        """Whether a key without a path is a field of two records: several such fields, and none alike."""
        one, other = (_own(self._fields.get(n, {})) for n in (at, newer))
        return (
            key in one
            and len(one) > 1
            and one.keys() == other.keys()
            and all(other[k] != v for k, v in one.items())
        )

    def superseded(self, step: Node) -> list[tuple[str, str]]:
        """(key, value) of a step's typed values that a newer step has replaced by others."""
        found = []
        for key, value in step.typed[:FIELDS]:
            at, now = self._latest.get(key, (step.at, value))
            kept = key in self._records or at == step.at or self._other_thing(key, step.at, at)
            if not kept and now.lower() != value.lower():
                found.append((key, value))
        return found


def _own(fields: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in fields.items() if "." not in key}


def without(text: str, gone: Sequence[tuple[str, str]]) -> str:
    """A text without values: a line that states one by its key goes, elsewhere the value becomes "…"."""
    for key, value in gone:
        if len(value) < 2 or value.lower() not in text.lower():
            continue
        named = set(words(last_part(key)))
        pattern = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)", re.IGNORECASE)
        kept = []
        for line in text.split("\n"):
            if not pattern.search(line):
                kept.append(line)
            elif not (named <= set(words(line)) and len(line) <= len(key) + len(value) + 8):
                kept.append(pattern.sub("…", line))
        text = "\n".join(kept)
    return text.strip()
