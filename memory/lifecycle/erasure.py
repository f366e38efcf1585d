"""Forgetting: a subject's items, all that was made from them, and every copy of their words. A receipt stays.

What goes, of one tenant:

- every revision of the items, and every revision derived from one (see `erasure_trace.py` for what that is),
  with text, digest, full-text words, terms and vectors;
- every content that shows a string of theirs of at least 8 characters (or the subject's name, if it has as
  many), or a request whose context cites one of the revisions: prompts, answers, outputs, inputs, arguments
  and results of tools, kept outputs, plans, examples of the router; besides, errors, questions and events
  of runs that repeat it, and every state of the router that was learned from one of them.

In its place stands `{"erased": true, "receipt": id}`; of inputs, outputs and workflows only the fields and
texts that show it go. The rows stay, so that runs can still be shown, and no hash of what is gone. A run
that is not over is paused, since its engine still knows it. Shorter strings are found where links lead.

On SQLite the bytes are overwritten as well (`erasure_bytes.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, or_, select, update

from ..content import Encoded
from ..database import Database
from ..errors import NotFound, PodiumError
from ..items import Place, records, revisions
from ..tables import Erasure, Item, Link, Revision
from .erasure_apply import Apply
from .erasure_bytes import PATIENCE, alone, vacuum
from .erasure_outcomes import forget_outcomes
from .erasure_runs import pause_open, seal_chain, silence
from .erasure_scan import Scan, pages
from .erasure_trace import Trace
from .erasure_words import Words, is_tombstone, tombstone

__all__ = [
    "ErasureRecord", "Receipt", "forget", "forget_items", "is_receipt_for", "is_tombstone", "preview",
    "receipts", "vacuum",
]  # fmt: skip

_BLOCKED = "a reader kept its snapshot: run `podium memory vacuum`, which overwrites the bytes that are left"
_POSTGRES = "rows only: run VACUUM FULL on the database, and let its old WAL and backups expire"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did. It tells nothing of what is gone."""

    id: int
    tenant: str
    #: HMAC-SHA-256 of the subject; see `is_receipt_for`
    subject_hash: str
    #: seconds, UTC
    at: float
    #: rows that went or changed, by table
    counts: dict[str, int]
    #: hex of the key of the hash, when none was given: it is kept nowhere else
    salt: str | None
    #: SQLite: whether no byte of it is left in the database's files. None: Postgres, where only rows go
    bytes_cleared: bool | None
    #: what is left to do; empty: nothing
    note: str
    #: runs that lost something
    runs: tuple[str, ...] = ()
    #: those of them that were not over, and were paused
    paused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """A receipt as it is kept."""

    id: int
    subject_hash: str
    #: seconds, UTC
    at: float
    counts: dict[str, int]
    bytes_cleared: bool | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which items are to go."""

    tenant: str
    #: what the receipt is for
    name: str
    subject: str | None = None
    items: tuple[str | Place, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seeds:
    items: frozenset[str]
    revisions: frozenset[int]
    words: Words
    #: revisions that a request must not cite
    cited: frozenset[int]


def forget(
    database: Database, tenant: str, subject: str, *, key: bytes | None = None, patience: float = PATIENCE
) -> Receipt:
    """Erase every item about a subject, with all that was made from them. See the module's docstring.

    All of it happens in one transaction, or nothing; overwriting the bytes comes after it, and a call that
    was killed in between is finished by calling it again, or by `vacuum`. Calling it again erases what came
    since.

    Args:
        key: of the receipt's hash; without one a random salt is in the receipt, and nowhere else.
        patience: seconds to wait for others' transactions, and again for readers before the bytes are
            overwritten.

    Raises:
        ConfigError, PodiumError: as `Database.transact`; nothing was erased.
    """
    return _erase(database, _Wanted(tenant, subject, subject=subject), key, patience)


def forget_items(
    database: Database,
    tenant: str,
    items: Sequence[str | Place],
    *,
    key: bytes | None = None,
    patience: float = PATIENCE,
) -> Receipt:
    """Erase items by their ids or places, as `forget` does. The receipt is for their ids, one a line.

    Raises:
        NotFound: there is no such item; nothing was erased.
        ConfigError, PodiumError: as `forget`.
    """
    with database.read() as connection:
        ids = sorted(_item_ids(connection, _Wanted(tenant, "", items=tuple(items))))
    return _erase(database, _Wanted(tenant, "\n".join(ids), items=tuple(ids)), key, patience)


def preview(database: Database, tenant: str, subject: str) -> dict[str, int]:
    """What `forget` would find now, by kind: items, revisions, contents, tasks, runs. Nothing is changed."""
    wanted = _Wanted(tenant, subject, subject=subject)
    with database.read() as connection:
        seeds = _seeds(connection, wanted)
        scan = _looked(connection, tenant, seeds)
        trace = Trace(connection, scan)
        trace.follow(seeds.revisions)
    return {
        "items": len(seeds.items),
        "revisions": len(trace.revisions),
        "contents": len(scan.blobs | trace.copies),
        "tasks": sum(map(len, trace.tasks.values())),
        "runs": len(trace.runs),
    }


def receipts(connection: Connection, tenant: str, limit: int = 50) -> list[ErasureRecord]:
    """The erasures of a tenant, the newest first."""
    query = select(Erasure).where(Erasure.tenant == tenant).order_by(Erasure.id.desc()).limit(limit)
    rows = connection.execute(query).mappings()
    return [
        ErasureRecord(
            r["id"], r["subject_hash"], r["at"], r["counts"].get("rows", {}), r["counts"].get("bytes_cleared")
        )
        for r in rows
    ]


def subject_hash(tenant: str, subject: str, key: bytes) -> str:
    """HMAC-SHA-256 (RFC 2104) of a tenant's subject, hex."""
    return hmac.new(key, f"{tenant}\0{subject}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def is_receipt_for(hashed: str, tenant: str, subject: str, key: bytes) -> bool:
    """Whether a receipt's hash is that of a subject. `key`: the one of the receipt, or its salt."""
    return hmac.compare_digest(hashed, subject_hash(tenant, subject, key))


def _erase(database: Database, wanted: _Wanted, key: bytes | None, patience: float) -> Receipt:
    with database.read() as connection:  # the long look, while others write
        scan = _looked(connection, wanted.tenant, _seeds(connection, wanted))
    used = key if key is not None else secrets.token_bytes(32)

    def work(connection: Connection) -> Receipt:
        seeds, known = _seeds(connection, wanted), scan
        if not known.covers(seeds.words, seeds.cited):  # more was said meanwhile
            known = Scan(wanted.tenant, seeds.words, seeds.cited)
        known.look(connection)
        return _write(connection, database.is_sqlite, wanted, seeds, known, used)

    receipt = alone(database, work, patience)
    cleared, note = _clear(database, patience)
    if receipt.paused:
        names = ", ".join(receipt.paused)
        paused = f"runs that were not over are paused; `podium resume` goes on with them: {names}"
        note = f"{note}; {paused}" if note else paused
    return Receipt(
        receipt.id, receipt.tenant, receipt.subject_hash, receipt.at, receipt.counts,
        used.hex() if key is None else None, cleared, note, receipt.runs, receipt.paused,
    )  # fmt: skip


def _clear(database: Database, patience: float) -> tuple[bool | None, str]:
    """The rows are gone already: what comes in the way now is told in the receipt."""
    try:
        cleared = vacuum(database, patience)
    except PodiumError as error:
        return False, f"{error.message}: {error.mend}"
    return cleared, {True: "", False: _BLOCKED, None: _POSTGRES}[cleared]


def _write(
    connection: Connection, is_sqlite: bool, wanted: _Wanted, seeds: _Seeds, scan: Scan, key: bytes
) -> Receipt:
    tenant, now = wanted.tenant, time.time()
    trace = Trace(connection, scan)
    trace.follow(seeds.revisions)
    hashed = subject_hash(tenant, wanted.name, key)
    row = insert(Erasure).values(tenant=tenant, subject_hash=hashed, at=now, counts={})
    number = connection.execute(row.returning(Erasure.id)).scalar_one()
    apply = Apply(connection, tenant, tombstone(number))
    apply.revisions(trace.revisions)
    apply.items(trace.revisions, _names(wanted.subject, scan.words))
    apply.forget_subject(seeds.items)
    forget_outcomes(connection, apply, trace, number)
    paused = _write_runs(connection, apply, trace, number, key)
    apply.contents(trace)
    apply.free()
    counts = {table: count for table, count in sorted(apply.counts.items()) if count}
    kept = {"kind": "forget", "rows": counts, "bytes_cleared": False if is_sqlite else None}
    connection.execute(update(Erasure).where(Erasure.id == number).values(counts=kept))
    runs = tuple(sorted(trace.runs))
    return Receipt(number, tenant, hashed, now, counts, None, None, "", runs, tuple(paused))


def _write_runs(connection: Connection, apply: Apply, trace: Trace, number: int, key: bytes) -> list[str]:
    """Returns the runs that were paused."""
    paused = []
    for run in sorted(trace.runs):
        tasks = trace.tasks.get(run, {})
        words = apply.tasks(run, tasks) | trace.scan.words
        apply.outputs(run, tasks, words)
        apply.counts["run"] += silence(connection, run, tasks, words.are_in)
        if pause_open(connection, run):
            paused.append(run)
        apply.counts["event"] += seal_chain(connection, run, tasks, words.are_in, number, key)
    return paused


def _names(subject: str | None, words: Words) -> Callable[[str], bool]:
    """Whether a key of an item tells what is erased: the subject's name, however short, or its words."""
    name = (subject or "").casefold()
    return lambda key: bool(name and name in key.casefold()) or words.are_in(key)


def _looked(connection: Connection, tenant: str, seeds: _Seeds) -> Scan:
    scan = Scan(tenant, seeds.words, seeds.cited)
    scan.look(connection)
    return scan


def _seeds(connection: Connection, wanted: _Wanted) -> _Seeds:
    tenant, items = wanted.tenant, _item_ids(connection, wanted)
    values: list[Any] = [] if wanted.subject is None else [wanted.subject]
    mine: set[int] = set()
    for some in pages(sorted(items)):
        query = revisions().where(Revision.tenant == tenant, Item.id.in_(some), _has_content())
        for record in records(connection, tenant, query):
            mine.add(record.id)
            values += [record.value, record.text]
    gone, late = _erased_before(connection, tenant)
    return _Seeds(frozenset(items), frozenset(mine | late), Words.of_values(values), frozenset(mine | gone))


def _has_content() -> ColumnElement[bool]:
    """Not erased, or by a sweep that did not come to its end (`erasure_apply.Apply.bury`)."""
    return or_(Revision.status != "erased", Revision.value_type.is_not(None))


def _item_ids(connection: Connection, wanted: _Wanted) -> set[str]:
    query = select(Item.id).where(Item.tenant == wanted.tenant)
    if wanted.subject is not None:
        return set(connection.execute(query.where(Item.subject == wanted.subject)).scalars())
    found = set()
    for one in wanted.items:
        if isinstance(one, Place):
            where = (Item.scope == one.scope, Item.scope_id == one.scope_id, Item.key == one.key)
        else:
            where = (Item.id == one,)
        item = connection.execute(query.where(*where)).scalar()
        if item is None:
            shown = one if isinstance(one, str) else one.key
            raise NotFound(f"there is no item {shown}", mend="`podium memory history KEY` shows one")
        found.add(item)
    return found


def _erased_before(connection: Connection, tenant: str) -> tuple[set[int], set[int]]:
    """Revisions that were forgotten, and what a run that knew them has made of them since."""
    rows = connection.execute(select(Erasure.id, Erasure.counts).where(Erasure.tenant == tenant))
    stones = [Encoded.of(tombstone(number)).hash for number, counts in rows if counts.get("kind") == "forget"]
    gone: set[int] = set()
    for some in pages(stones):
        query = select(Revision.id).where(Revision.tenant == tenant, Revision.content_blob.in_(some))
        gone |= set(connection.execute(query).scalars())
    return gone, _made_from(connection, tenant, gone)


def _made_from(connection: Connection, tenant: str, gone: Collection[int]) -> set[int]:
    late: set[int] = set()
    for some in pages(sorted(gone)):
        query = (
            select(Link.src)
            .join(Revision, Revision.id == Link.src)
            .where(Link.tenant == tenant, Link.kind == "derived_from", Link.dst.in_(some))
            .where(Revision.status != "erased")
        )
        late |= set(connection.execute(query).scalars())
    return late
