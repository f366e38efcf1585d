"""The index of one tenant's memory: its revisions, which of them stand, and where each is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .columns import Column
from .index import Match, MemoryIndex
from .scores import Mask
from .vectors import Embedder, Vectors

#: later than any revision
NEVER = 2**62
_KINDS = {"fact": 0, "note": 1, "artifact": 2, "summary": 3}
#: where an item is kept: scope and its id
Where = tuple[str, str]


class Row(NamedTuple):
    """A revision as the database has it. A tuple, since an index starts from 100,000 of them."""

    id: int
    item_id: str
    kind: str
    scope: str
    scope_id: str
    #: packed terms; None: it has no words, or is a retraction
    words: bytes | None
    #: of this index's embedder; None: not made yet
    vector: bytes | None
    #: seconds since the epoch, UTC
    created_at: float


class TenantIndex:
    """Revisions by id. Items kept in one place are neighbours, in the order of their ids."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self.index = MemoryIndex(embedder)
        self._ids = Column(np.int64)
        self._replaced = Column(np.int64, NEVER + 1)
        self._kinds = Column(np.int8)
        #: the groups of the index: their numbers, in the order in which they came
        self._places: dict[Where, int] = {}
        #: the newest revision of each item and its number in the index (None: it is not in there)
        self._newest: dict[str, tuple[int, int | None]] = {}

    def __len__(self) -> int:
        return len(self.index)

    def add(self, rows: Sequence[Row], made: Mapping[int, bytes]) -> None:
        """Add revisions. `made`: the vectors of those that have words but come without a vector."""
        said = [row for row in rows if row.words]
        if said:
            first = len(self)
            places = [(row.scope, row.scope_id) for row in said]
            self.index.add_packed(
                [row.id for row in said],
                [row.words or b"" for row in said],
                places,
                [row.id for row in said],
                self._vectors([made.get(row.id) or row.vector or b"" for row in said]),
            )
            self._ids.append(np.array([row.id for row in said], np.int64))
            self._replaced.extend(len(said))
            self._kinds.append(np.array([_KINDS[row.kind] for row in said], np.int8))
            numbers = {row.id: number for number, row in enumerate(said, first)}
            for place in places:
                self._places.setdefault(place, len(self._places))
        else:
            numbers = {}
        for row in rows:
            self._supersede(row, numbers.get(row.id))

    def _vectors(self, packed: Sequence[bytes]) -> Vectors:
        flat = np.frombuffer(b"".join(packed), "<f4").astype(np.float32, copy=False)
        return flat.reshape(len(packed), -1)

    def _supersede(self, row: Row, number: int | None) -> None:
        known, known_number = self._newest.get(row.item_id, (0, None))
        if known < row.id:
            self._newest[row.item_id] = (row.id, number)
            if known_number is not None:
                self._replaced.all[known_number] = row.id
        elif number is not None:  # it was committed late
            self._replaced.all[number] = known

    def mask(
        self,
        limits: Mapping[Where, int] | None,
        *,
        scopes: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        at: int = NEVER,
        superseded: bool = False,
    ) -> Mask:
        """Which revisions may be seen.

        Args:
            limits: the places seen, and the newest revision seen in each; None: every place.
            at: the newest revision seen anywhere.
            superseded: also those that a newer one has replaced since.
        """
        groups = self._places
        seen = np.full(len(groups), -1, np.int64)
        for where, limit in (dict.fromkeys(groups, at) if limits is None else limits).items():
            if where in groups and (scopes is None or where[0] in scopes):
                seen[groups[where]] = min(limit, at)
        newest = seen[self.index.group_of()]
        found = self._ids.all <= newest
        if not superseded:
            found &= self._replaced.all > newest
        if kinds is not None:
            found &= np.isin(self._kinds.all, [_KINDS[kind] for kind in kinds if kind in _KINDS])
        return found

    def search(self, query: str, k: int, among: Mask) -> list[Match]:
        return self.index.search(query, k, among=among)


def packed_vectors(embedder: Embedder, texts: Sequence[str]) -> list[bytes]:
    """The texts' vectors as table `embedding` holds them: little-endian float32."""
    return [vector.astype("<f4").tobytes() for vector in embedder.embed(texts)]
