"""Finds items by what they say: full text with neighbours and groups, joined with static word vectors.

Nothing is learned and no model runs; an index is a few arrays in memory. A search adds up, for each item:

- BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) of the question's words in the
  item and, with less weight, in its neighbours: an answer often says few words of what it answers;
- the same of its group (a session, a run): a group that fits as a whole lifts its items;
- whether the item or its group bears a label that is asked for (`Ann: …`);
- how near the vectors of the question, the item and its group are;
- for an item that follows somebody else's question: how near the vector of that one is;
- how much the item says, whether it only asks, and, when a time is asked for, whether it tells one.

The words of the item and around it weigh most. Parts and weights were chosen by cross-validation over public
conversations (fitted on some, judged on the others), alone and among others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .entries import Items, read_packed
from .postings import Postings
from .scores import Mask, Scores, Weights, ask, derive, join, reasons, sum_up
from .terms import pack
from .vectors import NEAR_TEXT, Embedder, Vectors, default_embedder


@dataclass(frozen=True, slots=True)
class Match:
    """An item that was found."""

    key: Hashable
    score: float
    #: the words that it says, those near it, and how near its vector is
    why: str


class MemoryIndex:
    """An index in memory, for one thread at a time. What is added is indexed by the next search."""

    def __init__(self, embedder: Embedder | None = None, weights: Weights | None = None) -> None:
        """`embedder`: default: the static vectors of this process.

        Raises:
            ConfigError: the static vectors are missing.
        """
        self._embedder = default_embedder() if embedder is None else embedder
        self._weights = weights or Weights()
        self._items = Items(self._embedder.dimensions)
        self._postings = Postings()
        self._keys: list[Hashable] = []
        self._known: set[Hashable] = set()
        self._group_numbers: dict[Hashable, int] = {}
        self._texts: list[str] = []
        self._pending: list[tuple[int, float]] = []
        self._derived = derive(self._items, self._weights)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: Hashable, text: str, group: Hashable, position: float) -> None:
        """Add an item. Items of a group are neighbours in the order of their positions.

        Raises:
            UsageError: there is an item of this key.
        """
        self._register([key])
        self._texts.append(text)
        self._pending.append((self._group_number(group), position))

    def add_packed(
        self,
        keys: Sequence[Hashable],
        packed: Sequence[bytes],
        groups: Sequence[Hashable],
        positions: Sequence[float],
        vectors: Vectors,
    ) -> None:
        """Add many items as they are stored: their packed terms, and vectors of this index's embedder.

        Raises:
            UsageError: there is an item of one of these keys.
        """
        self._settle()
        self._register(keys)
        self._append(packed, [self._group_number(group) for group in groups], positions, vectors)

    def group_of(self) -> NDArray[np.int32]:
        """The number of each item's group, counted in the order in which the groups came."""
        self._settle()
        return self._items.groups.all

    def search(self, query: str, k: int, *, among: Mask | None = None) -> list[Match]:
        """The `k` items that fit best, best first; fewer when fewer have anything of the question.

        `among`: of each item, in the order of adding, whether it may be found.
        """
        self._settle()
        if k <= 0 or not self._keys:
            return []
        asked = ask(query, self._embedder)
        parts = sum_up(asked, self._items, self._postings, self._derived)
        cosines = self._items.vectors.all @ asked.vector
        found = (parts.window[:-1] > 0) | (cosines >= NEAR_TEXT)
        if among is not None:
            found &= among
        candidates = np.flatnonzero(found)
        scores = join(asked, parts, cosines, candidates, self._items, self._derived, self._weights)
        best = _best(scores, candidates, k)
        return [
            Match(self._keys[i], float(scores[i]), why)
            for i, why in zip(best.tolist(), reasons(best, parts, cosines, self._items), strict=True)
        ]

    def _register(self, keys: Sequence[Hashable]) -> None:
        new = set(keys)
        if len(new) < len(keys) or not self._known.isdisjoint(new):
            raise UsageError("an item is added to the index a second time", mend="give each item its own key")
        self._known |= new
        self._keys.extend(keys)

    def _group_number(self, group: Hashable) -> int:
        return self._group_numbers.setdefault(group, len(self._group_numbers))

    def _settle(self) -> None:
        """Index what was added."""
        if self._texts:
            texts, pending = self._texts, self._pending
            self._texts, self._pending = [], []
            vectors = self._embedder.embed(texts)
            groups, positions = zip(*pending, strict=True)
            self._append([pack(text) for text in texts], groups, positions, vectors)

    def _append(
        self, packed: Sequence[bytes], groups: Sequence[int], positions: Sequence[float], vectors: Vectors
    ) -> None:
        if not packed:
            return
        said, first = read_packed(packed), len(self._items)
        self._postings.add(said.terms, said.items + np.int32(first))
        self._items.append(said, np.array(groups, np.int32), np.array(positions, np.float64), vectors)
        self._derived = derive(self._items, self._weights)


def _best(scores: Scores, candidates: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The candidates of the `k` highest scores, the highest first; of equal ones, those that came first."""
    if len(candidates) > k:
        of = scores[candidates]
        least = np.partition(of, len(of) - k)[len(of) - k]
        candidates = candidates[of >= least]
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
