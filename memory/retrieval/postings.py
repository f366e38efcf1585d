"""Which items say a term, and how often: postings in chunks that only grow by merging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int32]
Counts = NDArray[np.float32]

_NONE = (np.empty(0, np.int32), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Entries by term, then by item. Entry i of `terms` has its items at `starts[i]:starts[i + 1]`."""

    terms: NDArray[np.uint32]
    starts: NDArray[np.int64]
    items: Numbers
    counts: Counts

    def find(self, term: int) -> slice | None:
        at = int(np.searchsorted(self.terms, np.uint32(term)))
        if at == len(self.terms) or self.terms[at] != term:
            return None
        return slice(int(self.starts[at]), int(self.starts[at + 1]))

    def entry_terms(self) -> NDArray[np.uint32]:
        return np.repeat(self.terms, np.diff(self.starts))


class Postings:
    """Append-only. A chunk joins the one before it when that is not much larger, so there are few."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []

    def add(self, terms: NDArray[np.uint32], items: Numbers) -> None:
        """Add the terms of new items, one entry an occurrence. Items are numbered on from call to call."""
        if len(terms) == 0:
            return
        keys = (terms.astype(np.uint64) << np.uint64(32)) | items.astype(np.uint64)
        unique, counts = np.unique(keys, return_counts=True)
        new = _chunk(
            (unique >> np.uint64(32)).astype(np.uint32),
            (unique & np.uint64(0xFFFFFFFF)).astype(np.int32),
            counts.astype(np.float32),
        )
        while self._chunks and len(self._chunks[-1].items) < 4 * len(new.items):
            new = _merged(self._chunks.pop(), new)
        self._chunks.append(new)

    def find(self, term: int) -> tuple[Numbers, Counts]:
        """The items that say it, in order, and how often."""
        found = [(c, at) for c in self._chunks if (at := c.find(term)) is not None]
        if not found:
            return _NONE
        if len(found) == 1:
            chunk, at = found[0]
            return chunk.items[at], chunk.counts[at]
        return (
            np.concatenate([chunk.items[at] for chunk, at in found]),
            np.concatenate([chunk.counts[at] for chunk, at in found]),
        )


def _chunk(terms: NDArray[np.uint32], items: Numbers, counts: Counts) -> _Chunk:
    """Of entries sorted by term."""
    first = np.flatnonzero(np.concatenate([[True], terms[1:] != terms[:-1]]))
    return _Chunk(terms[first], np.append(first, len(terms)), items, counts)


def _merged(old: _Chunk, new: _Chunk) -> _Chunk:
    terms = np.concatenate([old.entry_terms(), new.entry_terms()])
    # stable: the old chunk's items come first within a term
    order = np.argsort(terms, kind="stable")
    return _chunk(
        terms[order],
        np.concatenate([old.items, new.items])[order],
        np.concatenate([old.counts, new.counts])[order],
    )
