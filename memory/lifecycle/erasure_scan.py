"""Looks through all that a tenant's database holds for copies of what is to be erased.

The long look is done on a snapshot, while others write; under the lock only what has come since is looked at.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Text, cast, select

from ..content import unpacked
from ..sealing import open_text
from ..tables import Attempt, Blob, Call, Effect, Event, Item, Revision, Run, Task
from .erasure_words import Words

#: rows in one page, ids in one query
PAGE = 500

#: every column of a run's rows that holds text by itself: the run's id, the column
TEXTS: tuple[tuple[Any, Any], ...] = (
    (Run.id, Run.error),
    (Run.id, Run.idempotency_key),
    (Task.run_id, Task.error),
    (Task.run_id, Task.approval_text),
    (Task.run_id, Task.approval_comment),
    (Attempt.run_id, Attempt.error),
    (Call.run_id, Call.error),
    (Call.run_id, Call.route),
    (Call.run_id, Call.review),
    (Effect.run_id, Effect.error),
    (Event.run_id, Event.data),
)


class Scan:
    """What was found so far. `look` may be called again: it looks at what it has not seen."""

    def __init__(self, tenant: str, words: Words, cited: Iterable[int]) -> None:
        """`cited`: revisions; a request whose context cites one shows it, whatever its words."""
        self.tenant, self.words, self.cited = tenant, words, frozenset(cited)
        #: hashes of contents that show it
        self.blobs: set[str] = set()
        #: runs whose rows show it
        self.runs: set[str] = set()
        #: revisions whose own text or key shows it, though their value may not
        self.revisions: set[int] = set()
        self._seen: set[bytes] = set()
        self._runs: dict[str, int] = {}
        self._last_revision = 0

    def covers(self, words: Words, cited: Iterable[int]) -> bool:
        """Whether it looked for all of this."""
        return words <= self.words and set(cited) <= self.cited

    def look(self, connection: Connection) -> None:
        """Look at all that is new since the last time."""
        self._look_at_blobs(connection)
        changed = self._changed_runs(connection)
        if self.words:
            self._look_at_texts(connection, changed)
            self._look_at_revisions(connection)

    def _look_at_blobs(self, connection: Connection) -> None:
        hashes = select(Blob.hash).where(Blob.tenant == self.tenant).order_by(Blob.hash)
        new = [h for h in connection.execute(hashes).scalars() if bytes.fromhex(h) not in self._seen]
        for some in pages(new, 100):
            query = select(Blob.hash, Blob.data).where(Blob.tenant == self.tenant, Blob.hash.in_(some))
            for digest, stored in connection.execute(query):
                if self.shows(_text(connection, digest, stored)):
                    self.blobs.add(digest)
                self._seen.add(bytes.fromhex(digest))

    def shows(self, text: str) -> bool:
        """Whether a content shows what is looked for, or is a request that cites it."""
        return self.words.are_in(text) or (
            bool(self.cited) and '"citations"' in text and not self.cited.isdisjoint(citations(text))
        )

    def _changed_runs(self, connection: Connection) -> list[str]:
        """Runs that have gone on since: each change of a run's rows adds an event to it."""
        query = select(Run.id, Run.event_seq).where(Run.tenant == self.tenant)
        now = {str(run): int(seq) for run, seq in connection.execute(query)}
        changed = [run for run, seq in now.items() if self._runs.get(run) != seq]
        self._runs = now
        return changed

    def _look_at_texts(self, connection: Connection, runs: Sequence[str]) -> None:
        for run, column in TEXTS:
            for some in pages(runs):
                query = select(run, cast(column, Text)).where(run.in_(some), column.is_not(None))
                self.runs |= {
                    found for found, text in connection.execute(query) if self.words.are_in(str(text))
                }

    def _look_at_revisions(self, connection: Connection) -> None:
        query = (
            select(Revision.id, Item.key, Revision.text, Revision.digest)
            .join(Item, Item.id == Revision.item_id)
            .where(Revision.tenant == self.tenant, Revision.id > self._last_revision)
        )
        for number, key, *texts in connection.execute(query.order_by(Revision.id)):
            self._last_revision = number
            said = [key, *(open_text(connection, text) or "" for text in texts)]
            if self.words.are_in("\n".join(said)):
                self.revisions.add(number)


def _text(connection: Connection, digest: str, stored: bytes) -> str:
    try:
        return unpacked(connection, digest, stored).decode("utf-8", "replace")
    except (zlib.error, ValueError):  # damaged, which is another command's matter; it may show it as it is
        return stored.decode("latin-1")


def citations(text: str) -> Iterator[int]:
    """The revisions that the context of a recorded request cites."""
    try:
        context = json.loads(text).get("context")
    except (ValueError, AttributeError):  # no request, though it speaks of citations
        return
    for entry in (context or {}).get("citations", ()) if isinstance(context, dict) else ():
        number = entry.get("revision") if isinstance(entry, dict) else entry
        if isinstance(number, int):
            yield number


def pages(ids: Sequence[Any], size: int = PAGE) -> Iterator[Sequence[Any]]:
    """Some ids at a time."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
