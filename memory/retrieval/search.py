"""Search in task memory: an index in memory for each tenant that catches up with the database by itself.

What is found is filtered by `visible.visible` in SQL, whatever the index thinks: it only narrows down.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, func, select

from ..database import Database
from ..errors import ConfigError
from ..hot import run_many
from ..items import RevisionRecord, indexed_text, records, revisions
from ..sealing import is_sealed
from ..tables import Embedding, Erasure, Item, Revision, Term
from ..visible import AsOf, Seen, chain, visible, workflow_of

if TYPE_CHECKING:
    from .tenant import Row, TenantIndex, Where
    from .vectors import Embedder

#: tenants whose index is kept in memory; the one not asked for longest goes first
TENANTS = 8
#: seconds a transaction of Postgres may take: ids can become visible later than higher ones, and a revision
#: that does so after a longer time is found only by a new process
LATE = 60.0
#: revisions that one query asks for
_PAGE = 2_000
#: revisions whose vectors are made and stored at once
_BATCH = 2_000
#: vectors of revisions that were erased meanwhile are not stored
_STORE = """INSERT INTO embedding (revision_id, model, tenant, dimensions, vector)
SELECT revision_id, ?, tenant, ?, ? FROM term WHERE revision_id = ? ON CONFLICT DO NOTHING"""


@dataclass(frozen=True, slots=True)
class Hit:
    """A revision that was found."""

    revision: RevisionRecord
    #: higher is better; comparable within one search only
    score: float
    #: the words that it says, those near it, and how near in meaning it is
    why: str


@dataclass(slots=True)
class _State:
    """One tenant's index and how far it has come."""

    index: TenantIndex
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: the newest erasure when it was built
    erasure: int | None = None
    newest: int = 0
    #: ids above it may still become visible; only on Postgres
    settled: int = 0
    #: when the known ones above it were written
    recent: dict[int, float] = field(default_factory=dict)
    #: something in it has gone from the database without an erasure, by a sweep or compaction
    stale: bool = False


class Searcher:
    """Searches one database. Safe to use from any thread.

    Errors of all methods: ConfigError when the database is away or damaged, or the word vectors are missing.
    """

    def __init__(
        self, database: Database, *, embedder: Embedder | None = None, tenants: int = TENANTS
    ) -> None:
        """`embedder`: default: the static vectors that come with Podium."""
        self._database = database
        self._embedder_given = embedder
        self._most = tenants
        self._states: OrderedDict[str, _State] = OrderedDict()
        self._lock = threading.Lock()

    def search(
        self,
        tenant: str,
        query: str,
        k: int = 10,
        *,
        run_id: str | None = None,
        task: str | None = None,
        kinds: Collection[str] | None = None,
        scopes: Collection[str] | None = None,
        as_of: AsOf | None = None,
    ) -> list[Hit]:
        """The `k` revisions that fit a question best, best first, of those that `visible` shows the run.

        Without a run all of the tenant's are searched. Vectors that are missing are made and stored.
        """
        state = self._state(tenant)
        with state.lock:
            with self._database.read() as connection:
                made = self._catch_up(connection, tenant, state)
                seen = None if run_id is None else chain(connection, tenant, run_id, at=_revision(as_of))
                workflow = None if run_id is None else workflow_of(connection, tenant, run_id)
                among = state.index.mask(
                    None if seen is None else _limits(seen, workflow, task),
                    scopes=scopes,
                    kinds=kinds,
                    at=_latest(as_of),
                    superseded=as_of is not None and not isinstance(as_of, int),
                )
                options = {
                    "workflow": workflow,
                    "task": task,
                    "kinds": kinds,
                    "scopes": scopes,
                    "as_of": as_of,
                }
                hits = _find(connection, tenant, state, query, k, among, seen, options)
            self._store(made)
            return hits

    def _embedder(self) -> Embedder:
        if self._embedder_given is None:
            from .vectors import default_embedder

            self._embedder_given = default_embedder()
        return self._embedder_given

    def _state(self, tenant: str) -> _State:
        from .tenant import TenantIndex

        with self._lock:
            if tenant not in self._states:
                self._states[tenant] = _State(TenantIndex(self._embedder()))
                if len(self._states) > self._most:
                    self._states.popitem(last=False)
            self._states.move_to_end(tenant)
            return self._states[tenant]

    def _catch_up(self, connection: Connection, tenant: str, state: _State) -> dict[int, bytes]:
        """Add what is new to the index; returns the vectors that were made for it."""
        query = select(func.max(Erasure.id)).where(Erasure.tenant == tenant)
        erasure = connection.execute(query).scalar()
        if state.stale or erasure != state.erasure:
            from .tenant import TenantIndex

            state.index = TenantIndex(self._embedder())
            state.newest, state.settled, state.recent, state.stale = 0, 0, {}, False
            state.erasure = erasure
        new = self._rows(connection, tenant, [Revision.id > state.newest])
        rows = [*self._late(connection, tenant, state), *new]
        if not rows:
            return {}
        if is_sealed(connection):
            rows = _with_words(connection, tenant, rows)
        missing = [row.id for row in rows if row.words and row.vector is None]
        made = self._make(connection, tenant, missing)
        state.stale = True  # if it is cut off in the middle
        state.index.add(rows, made)
        state.newest = max(state.newest, rows[-1].id)
        if not self._database.is_sqlite:
            _settle(state, rows)
        state.stale = False
        return made

    def _late(self, connection: Connection, tenant: str, state: _State) -> list[Row]:
        """Revisions with lower ids than known ones, whose transactions were committed after theirs."""
        if self._database.is_sqlite or not state.newest:
            return []
        between = [Revision.id > state.settled, Revision.id <= state.newest]
        ids = connection.execute(select(Revision.id).where(Revision.tenant == tenant, *between)).scalars()
        late = [i for i in ids if i not in state.recent]
        if not late:
            return []
        return self._rows(connection, tenant, [Revision.id.in_(late)])

    def _rows(self, connection: Connection, tenant: str, where: Sequence[Any]) -> list[Row]:
        """Revisions in the order of their ids."""
        from .tenant import Row

        embedder = self._embedder()
        query = (
            select(
                Revision.id, Revision.item_id, Item.kind, Item.scope, Item.scope_id, Term.words,
                Embedding.vector, Revision.created_at,
            )
            .join(Item, Item.id == Revision.item_id)
            .outerjoin(Term, Term.revision_id == Revision.id)
            .outerjoin(
                Embedding, and_(Embedding.revision_id == Revision.id, Embedding.model == embedder.name)
            )
            .where(Revision.tenant == tenant, *where)
            .order_by(Revision.id)
        )  # fmt: skip
        return [Row(*row) for row in connection.execute(query).all()]

    def _make(self, connection: Connection, tenant: str, ids: Sequence[int]) -> dict[int, bytes]:
        """The vectors of revisions that have none."""
        from .tenant import packed_vectors

        made: dict[int, bytes] = {}
        for start in range(0, len(ids), _BATCH):
            query = revisions().where(Revision.tenant == tenant, Revision.id.in_(ids[start : start + _BATCH]))
            found = records(connection, tenant, query)
            texts = [indexed_text(one.kind, one.key, one.text) for one in found]
            vectors = packed_vectors(self._embedder(), texts)
            made.update(zip((one.id for one in found), vectors, strict=True))
        return made

    def _store(self, made: dict[int, bytes]) -> None:
        embedder = self._embedder()
        rows = [(embedder.name, embedder.dimensions, vector, i) for i, vector in sorted(made.items())]
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            try:
                self._database.transact(lambda connection, part=part: run_many(connection, _STORE, part))
            except ConfigError:
                # read-only, full or locked: what was found holds, and the vectors are made again next time
                return


def search(database: Database, tenant: str, query: str, *, k: int = 10, **visible_to: Any) -> list[Hit]:
    """`Searcher.search` by the searcher that this process keeps for a database."""
    with _GUARD:
        searcher = _SEARCHERS.get(database)
        if searcher is None:
            # by a proxy: a searcher that held its database would keep both here for ever
            searcher = _SEARCHERS[database] = Searcher(weakref.proxy(database))
    return searcher.search(tenant, query, k, **visible_to)


_SEARCHERS: weakref.WeakKeyDictionary[Database, Searcher] = weakref.WeakKeyDictionary()
_GUARD = threading.Lock()


def _find(
    connection: Connection,
    tenant: str,
    state: _State,
    query: str,
    k: int,
    among: Any,
    seen: Sequence[Seen] | None,
    options: dict[str, Any],
) -> list[Hit]:
    """The best of the index that are visible: more are looked at when too many were not."""
    hits: list[Hit] = []
    hidden: list[int] = []
    looked, wanted = 0, 2 * k + 8
    while True:
        matches = state.index.search(query, wanted, among)
        ids = [int(str(match.key)) for match in matches[looked:]]
        found = records(connection, tenant, visible(tenant, seen, among=ids, **options)) if ids else []
        shown = {one.id: one for one in found}
        hidden += [i for i in ids if i not in shown]
        hits += [
            Hit(shown[i], m.score, m.why) for i, m in zip(ids, matches[looked:], strict=True) if i in shown
        ]
        if len(hits) >= k or len(matches) < wanted:
            break
        looked, wanted = wanted, min(4 * wanted, wanted + _PAGE)
    some = hidden[:_PAGE]
    if some:
        kept = select(func.count()).where(Revision.id.in_(some), Revision.status != "erased")
        there = connection.execute(kept).scalar_one()
        state.stale = there < len(some)
    return hits[:k]


def _with_words(connection: Connection, tenant: str, rows: Sequence[Row]) -> list[Row]:
    """Rows of sealed revisions with their words: those stand in no table, nor will their vectors."""
    from .terms import pack

    sealed = [row.id for row in rows if row.words is None]
    words: dict[int, bytes] = {}
    for start in range(0, len(sealed), _BATCH):
        some = Revision.id.in_(sealed[start : start + _BATCH])
        query = revisions().where(Revision.tenant == tenant, Revision.status == "active", some)
        for one in records(connection, tenant, query):
            words[one.id] = pack(indexed_text(one.kind, one.key, one.text))
    return [row._replace(words=words[row.id]) if row.id in words else row for row in rows]


def _settle(state: _State, new: Sequence[Row]) -> None:
    """Note when new revisions were written, and up to which id no more can come."""
    limit = time.time() - LATE
    state.recent.update((row.id, row.created_at) for row in new)
    state.settled = max([state.settled, *(i for i, written in state.recent.items() if written < limit)])
    state.recent = {i: written for i, written in state.recent.items() if i > state.settled}


def _limits(seen: Sequence[Seen], workflow: str | None, task: str | None) -> dict[Where, int]:
    """The places that a run sees, and the newest revision that it sees there."""
    from .tenant import NEVER

    limits: dict[Where, int] = {("tenant", ""): NEVER}
    if workflow is not None:
        limits["workflow", workflow] = NEVER
    if task is not None and seen:
        limits["task", f"{seen[0].run_id}/{task}"] = NEVER
    for one in seen:
        limits["run", one.run_id] = NEVER if one.limit is None else one.limit
    return limits


def _revision(as_of: AsOf | None) -> int | None:
    return as_of if isinstance(as_of, int) else None


def _latest(as_of: AsOf | None) -> int:
    from .tenant import NEVER

    return as_of if isinstance(as_of, int) else NEVER
