"""Task memory as people, programs and agents use it: `TaskMemory`, of one tenant.

Every method is a transaction of its own. What is seen is decided in `visible.py`, what is written in
`items.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, or_, select

from . import branches, items, versions
from .branches import Difference
from .database import Database
from .errors import UsageError
from .items import ItemKind, LinkKind, NewRevision, Place, Producer, RevisionRecord, Scope
from .tables import Link
from .validation import check_kind, check_new, check_place, check_sources, refuse_cycle
from .visible import AsOf, chain, visible, workflow_of

if TYPE_CHECKING:
    from .context.assembly import Context
    from .context.workspace import Workspaces
    from .lifecycle.compaction import Compacted
    from .lifecycle.erasure import Receipt
    from .lifecycle.retention import Swept
    from .retrieval.search import Hit


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A typed edge: revision `src` is derived from, relates to, contradicts or supersedes `dst`."""

    src: int
    dst: int
    kind: LinkKind
    #: seconds since the epoch, UTC
    created_at: float


class TaskMemory:
    """The memory of one tenant. Safe to use from any thread. Keep one: it remembers what `context` has read.

    Errors of all methods: ConfigError when the database is away, locked, full or damaged.
    """

    def __init__(self, database: Database, tenant: str, *, receipt_key: str = "") -> None:
        """
        Args:
            receipt_key: `env:NAME` or `file:/path` of the key that receipts are made with; without one, each
                has a salt of its own.
        """
        if not tenant:
            raise UsageError("a memory needs a tenant", mend="name one, e.g. 'default'")
        self.database = database
        self.tenant = tenant
        self.receipt_key = receipt_key
        self._lock = threading.Lock()
        #: what `context` has read
        self._spaces: Workspaces | None = None

    # -- writing

    def put(
        self,
        key: str,
        value: Any,
        *,
        kind: ItemKind = "note",
        scope: Scope = "tenant",
        scope_id: str = "",
        text: str | None = None,
        subject: str | None = None,
        ttl: float | None = None,
        valid_from: float | None = None,
        valid_to: float | None = None,
        derived_from: Sequence[int] = (),
        producer: Producer | None = None,
    ) -> RevisionRecord:
        """Remember a JSON value under a key, as the newest version of its item.

        A value that is the newest version already makes no other one: only its subject, expiry and sources
        are added to.

        Args:
            scope: who sees it: all runs of the tenant, of a workflow, one run (and its forks), one task.
            scope_id: workflow name, run id or `RUN/TASK`; '' for the tenant.
            text: what it says as plain text; None: what the value says.
            subject: whom it is about: `forget` erases by it.
            ttl: seconds after which it is no longer seen, and is swept away.
            valid_from, valid_to: seconds, UTC: when it holds in the world.
            derived_from: ids of the revisions that it was made from.

        Raises:
            UsageError: unknown kind or scope, a scope without its id, an item of another kind, a bad key.
            NotFound: a revision of `derived_from` is not this tenant's.
            PodiumError: the value is no JSON.
        """
        new = NewRevision(
            Place(self.tenant, scope, scope_id, key),
            kind,
            value,
            producer or Producer(),
            text=text,
            subject=subject,
            expires_at=_expiry(ttl),
            valid_from=valid_from,
            valid_to=valid_to,
            derived_from=tuple(derived_from),
        )
        check_new(self.tenant, [new])
        return self.database.keep(lambda connection: versions.put_one(connection, new))

    def put_many(self, new: Sequence[NewRevision]) -> list[int]:
        """Append versions in one transaction, equal or not to those before; returns their revisions' ids.

        Raises:
            UsageError, NotFound, PodiumError: as `put`; or a place of another tenant. Nothing was written.
        """
        check_new(self.tenant, new)

        def work(connection: Connection) -> list[int]:
            check_kind(connection, self.tenant, new)
            check_sources(connection, self.tenant, [s for one in new for s in one.derived_from])
            return branches.write(connection, self.tenant, new)

        return self.database.keep(work)

    def link(self, src: int, dst: int, kind: LinkKind) -> None:
        """Say that revision `src` is derived from, relates to, contradicts or supersedes revision `dst`.

        Raises:
            NotFound: the tenant has no such revision.
            UsageError: unknown kind, or the revision would come before itself.
        """

        def work(connection: Connection) -> None:
            check_sources(connection, self.tenant, [src, dst])
            refuse_cycle(connection, self.tenant, src, dst, kind)
            items.link(connection, self.tenant, src, dst, kind)

        self.database.keep(work)

    def retract(self, key: str, *, scope: Scope = "tenant", scope_id: str = "") -> RevisionRecord:
        """Take an item out of view; its history stays, and `rollback` brings it back.

        Raises:
            NotFound: there is no such item in view.
        """
        place = self._place(key, scope, scope_id)

        return self.database.keep(lambda c: versions.retract(c, place))

    def rollback(
        self, key: str, version: int, *, scope: Scope = "tenant", scope_id: str = ""
    ) -> RevisionRecord:
        """Make an old version the newest again, by appending it; rolling forward works the same way.

        Of a forked run's item, a version of the nearest run that has it. Returns the newest revision.

        Raises:
            NotFound: no such item or version.
            UsageError: the version was erased.
        """
        place = self._place(key, scope, scope_id)
        return self.database.keep(lambda c: versions.roll_back(c, place, version))

    # -- reading

    def get(
        self, key: str, *, scope: Scope = "tenant", scope_id: str = "", as_of: AsOf | None = None
    ) -> RevisionRecord | None:
        """The newest version of an item; None: there is none in view.

        `as_of`: a revision's id, or a moment: what was seen then. A forked run sees its parent's items.
        """
        place = self._place(key, scope, scope_id)
        with self.database.read() as connection:
            return versions.newest(connection, place, as_of)

    def history(self, key: str, *, scope: Scope = "tenant", scope_id: str = "") -> list[RevisionRecord]:
        """All versions of an item, the oldest first, retracted ones too; a forked run's item begins with
        those versions of its parent's that it was forked with. Empty if there is none.
        """
        place = self._place(key, scope, scope_id)
        with self.database.read() as connection:
            return versions.history(connection, place)

    def revision(self, revision: int) -> RevisionRecord | None:
        """The revision that a citation names; None: the tenant has none of this id."""
        with self.database.read() as connection:
            return versions.one(connection, self.tenant, revision, missing_ok=True)

    def all(
        self,
        *,
        run_id: str | None = None,
        task: str | None = None,
        kinds: Collection[str] | None = None,
        scopes: Collection[str] | None = None,
        as_of: AsOf | None = None,
    ) -> list[RevisionRecord]:
        """The newest version of every item that a run (and its task) sees, by id; no run: of all."""
        with self.database.read() as connection:
            query = self._visible(connection, run_id, task, as_of=as_of, kinds=kinds, scopes=scopes)
            found = items.records(connection, self.tenant, query)
        return sorted(found, key=lambda record: record.id)

    def links(self, revision: int) -> list[LinkRecord]:
        """The edges from and to a revision.

        Raises:
            NotFound: the tenant has no such revision.
        """
        with self.database.read() as connection:
            check_sources(connection, self.tenant, [revision], erased_too=True)
            query = select(Link.src, Link.dst, Link.kind, Link.created_at).where(
                Link.tenant == self.tenant, or_(Link.src == revision, Link.dst == revision)
            )
            rows = connection.execute(query.order_by(Link.src, Link.dst, Link.kind))
            return [LinkRecord(*row) for row in rows]

    # -- finding

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        run_id: str | None = None,
        kinds: Collection[str] | None = None,
        scopes: Collection[str] | None = None,
        as_of: AsOf | None = None,
    ) -> list[Hit]:
        """The `k` revisions that fit a question best, of those that the run sees (without one: of all)."""
        from .retrieval.search import search

        return search(
            self.database, self.tenant, query, k=k, run_id=run_id, kinds=kinds, scopes=scopes, as_of=as_of
        )

    def context(
        self,
        run_id: str,
        task: str,
        budget: int,
        *,
        ask: str = "",
        count: Callable[[str], int] | None = None,
    ) -> Context:
        """What a task of a run should be told of what came before, in at most `budget` tokens.

        Args:
            ask: what the task is about to do: its prompt.
            count: the target model's counter of tokens; None: an estimate.
        """
        return self._workspaces().context(run_id, task, budget, ask=ask, count=count)

    # -- forks

    def fork(self, run_id: str, new_run_id: str, at: AsOf | None = None) -> None:
        """Let `new_run_id` see what `run_id` sees of its own, up to `at` (default: now). Nothing is copied.

        Raises:
            NotFound: the tenant has no such run.
            UsageError: the new run has a memory already.
        """
        self.database.keep(lambda c: branches.fork(c, self.tenant, run_id, new_run_id, at))

    def diff(self, run_a: str, run_b: str) -> Difference:
        """How the items of run b differ from those of run a, by key."""
        with self.database.read() as connection:
            return branches.diff(connection, self.tenant, run_a, run_b)

    # -- life and death

    def forget(self, subject: str) -> Receipt:
        """Erase everything about a subject and what was derived from it; the receipt says how much went.

        Raises:
            ConfigError: the key for receipts is not where it should be. Nothing was erased.
        """
        from .lifecycle.erasure import forget
        from .sealing import read_key

        key = read_key(self.receipt_key) if self.receipt_key else None
        return forget(self.database, self.tenant, subject, key=key)

    def sweep(self, now: float | None = None) -> Swept:
        """Erase what has expired at `now` (seconds, UTC)."""
        from .lifecycle.retention import sweep

        return sweep(self.database, self.tenant, time.time() if now is None else now)

    def compact(self, run_id: str) -> Compacted:
        """Replace the items of a run that is over by one summary, which names the hashes of what they were.

        Raises:
            NotFound: there is no such run.
            UsageError: it, or a run forked from it, is not over.
        """
        from .lifecycle.compaction import compact

        return compact(self.database, self.tenant, run_id)

    def export(self, path: Path | str) -> int:
        """Write the tenant's memory to a file of JSON lines; returns how many revisions.

        Raises:
            UsageError: the file cannot be written.
        """
        from .transfer.exchange import export

        return export(self.database, self.tenant, Path(path))

    def import_(self, path: Path | str) -> int:
        """Read what `export` wrote, of whichever tenant, all or nothing; returns how many revisions are new.

        Raises:
            UsageError: the file is damaged, cut short, of another kind, or contradicts what is there.
        """
        from .transfer.exchange import import_

        new = import_(self.database, self.tenant, Path(path))
        with self._lock:
            self._spaces = None
        return new

    # -- inside

    def _workspaces(self) -> Workspaces:
        with self._lock:
            if self._spaces is None:
                from .context.workspace import Workspaces

                self._spaces = Workspaces(self.database, self.tenant)
            return self._spaces

    def _place(self, key: str, scope: Scope, scope_id: str) -> Place:
        place = Place(self.tenant, scope, scope_id, key)
        check_place(place)
        return place

    def _visible(self, connection: Connection, run_id: str | None, task: str | None, **narrow: Any) -> Any:
        if run_id is None:
            return visible(self.tenant, None, **narrow)
        seen = chain(connection, self.tenant, run_id)
        workflow = workflow_of(connection, self.tenant, run_id)
        return visible(self.tenant, seen, workflow=workflow, task=task, **narrow)


def _expiry(ttl: float | None) -> float | None:
    if ttl is None:
        return None
    if ttl <= 0:
        raise UsageError(f"a ttl of {ttl:g} seconds is over already", mend="give seconds above 0, or none")
    return time.time() + ttl
