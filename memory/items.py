"""Task memory: items, their append-only revisions and the links between them. Writing, and reading by name.

Every output of a run's own tasks is an artifact here, linked to the revisions it was made from.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Select, select

from .content import Encoded, encode, get_many, insert_missing, plain_text, put_encoded
from .hot import Row, fetch_one, run_many
from .indexing import Indexed, index
from .sealing import open_text, seal_text
from .tables import Item, Link, Revision
from .texts import shortened, text_of, token_estimate, type_of

ItemKind = Literal["fact", "note", "artifact", "summary"]
Scope = Literal["task", "run", "workflow", "tenant"]
LinkKind = Literal["derived_from", "relates", "contradicts", "supersedes"]
Status = Literal["active", "retracted", "erased"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item is kept, and so who sees it."""

    tenant: str
    scope: Scope
    #: `RUN/TASK`, run id, workflow name or '' as the scope says
    scope_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Producer:
    """Who made a revision: the attempt and call of a run; all None: a person."""

    run_id: str | None = None
    task: str | None = None
    attempt: int | None = None
    call_id: str | None = None
    model: str | None = None
    #: SHA-256 of the request that it answers
    prompt_hash: str | None = None
    cost_nano: int | None = None


@dataclass(frozen=True, slots=True)
class NewRevision:
    """A version to append to the item at `place`, which is made if it is missing."""

    place: Place
    kind: ItemKind
    #: any JSON value
    value: Any
    producer: Producer = field(default_factory=Producer)
    #: None: what the value says (`texts.text_of`)
    text: str | None = None
    #: of the item; None leaves what it has
    subject: str | None = None
    #: seconds, UTC, of the item; None leaves what it has
    expires_at: float | None = None
    status: Status = "active"
    #: seconds, UTC: when it holds in the world
    valid_from: float | None = None
    valid_to: float | None = None
    #: revisions that it was made from
    derived_from: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    id: int
    key: str
    kind: str
    version: int
    value: Any
    producer: Producer
    #: seconds since the epoch, UTC
    created_at: float
    item_id: str = ""
    scope: str = "run"
    scope_id: str = ""
    subject: str | None = None
    status: str = "active"
    #: what it says as plain text
    text: str = ""
    digest: str | None = None
    #: estimated, of the text
    tokens: int | None = None
    #: SHA-256 of the value's JSON
    hash: str = ""
    valid_from: float | None = None
    valid_to: float | None = None
    #: seconds, UTC
    expires_at: float | None = None


_ITEM = """INSERT INTO item (id, tenant, kind, scope, scope_id, key, subject, expires_at, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_TOUCH = """UPDATE item SET subject = COALESCE(?, subject), expires_at = COALESCE(?, expires_at)
WHERE tenant = ? AND scope = ? AND scope_id = ? AND key = ?"""
#: the update above has locked the item, so that versions of one item are numbered one after the other
_REVISION = """INSERT INTO revision (tenant, item_id, version, content_blob, value_type, text, digest, tokens,
status, valid_from, valid_to, run_id, task, attempt, call_id, model, prompt_hash, cost_nano, created_at)
SELECT item.tenant, item.id, 1 + COALESCE((SELECT MAX(version) FROM revision WHERE item_id = item.id), 0),
CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS TEXT),
CAST(? AS FLOAT), CAST(? AS FLOAT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS TEXT),
CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS FLOAT)
FROM item WHERE tenant = ? AND scope = ? AND scope_id = ? AND key = ? RETURNING id"""


def put_revision(
    connection: Connection, place: Place, kind: ItemKind, value: Any, *, producer: Producer, **options: Any
) -> int:
    """Append a version to the item at `place` (made if missing); returns the revision's id.

    `options`: the further fields of `NewRevision`.
    """
    return put_many(connection, [NewRevision(place, kind, value, producer, **options)])[0]


def put_many(connection: Connection, new: Sequence[NewRevision]) -> list[int]:
    """Append versions, their index rows and links with them; returns the revisions' ids, in the order given.

    Raises:
        PodiumError: a value is no JSON.
    """
    now = time.time()
    values = [encode(n.value, f"the value of {n.place.key!r}") for n in new]
    _make_items(connection, new, now)
    for tenant in {n.place.tenant for n in new}:
        put_encoded(
            connection, tenant, [v for n, v in zip(new, values, strict=True) if n.place.tenant == tenant]
        )
    texts = [plain_text(n.text if n.text is not None else text_of(n.value)) for n in new]
    ids = []
    for one, value, said in zip(new, values, texts, strict=True):
        row = fetch_one(connection, _REVISION, _revision_row(connection, one, value, said, now))
        assert row is not None  # its item is there: nobody deletes items outside of an erasure
        ids.append(int(row[0]))
    _index(connection, new, texts, ids)
    links = [(i, s, n.place.tenant, now) for i, n in zip(ids, new, strict=True) for s in set(n.derived_from)]
    run_many(
        connection,
        "INSERT INTO link (src, dst, kind, tenant, created_at) VALUES (?, ?, 'derived_from', ?, ?)"
        " ON CONFLICT DO NOTHING",
        links,
    )
    return ids


def _make_items(connection: Connection, new: Sequence[NewRevision], now: float) -> None:
    """The items that are missing, and a lock on each, in one order whoever writes."""
    by_place = {n.place: n for n in new}
    ordered = sorted(by_place.values(), key=lambda n: _at(n.place))
    rows = [
        (uuid.uuid4().hex, n.place.tenant, n.kind, *_at(n.place)[1:], n.subject, n.expires_at, now)
        for n in ordered
    ]
    run_many(connection, _ITEM, rows)
    run_many(connection, _TOUCH, [(n.subject, n.expires_at, *_at(n.place)) for n in ordered])


def _at(place: Place) -> tuple[str, str, str, str]:
    return (place.tenant, place.scope, place.scope_id, place.key)


def _revision_row(connection: Connection, new: NewRevision, value: Encoded, said: str, now: float) -> Row:
    by = new.producer
    kept = seal_text(connection, None if new.kind == "artifact" else said)
    digest = seal_text(connection, shortened(said))
    return (
        value.hash, type_of(value.data), kept, digest, token_estimate(said), new.status,
        new.valid_from, new.valid_to, by.run_id, by.task, by.attempt, by.call_id, by.model, by.prompt_hash,
        by.cost_nano, now, *_at(new.place),
    )  # fmt: skip


def _index(
    connection: Connection, new: Sequence[NewRevision], texts: Sequence[str], ids: Sequence[int]
) -> None:
    for tenant in {n.place.tenant for n in new}:
        rows = [
            Indexed(i, indexed_text(n.kind, n.place.key, said))
            for n, said, i in zip(new, texts, ids, strict=True)
            if n.place.tenant == tenant and n.status == "active"
        ]
        index(connection, tenant, rows)


def indexed_text(kind: str, key: str, said: str) -> str:
    """What of a revision is in the full-text index: its key too, but for artifacts."""
    return said if kind == "artifact" else f"{key}\n{said}"


def link(connection: Connection, tenant: str, src: int, dst: int, kind: LinkKind) -> None:
    """Add a typed edge between two revisions; an edge that is there stays as it is."""
    row = {"src": src, "dst": dst, "kind": kind, "tenant": tenant, "created_at": time.time()}
    insert_missing(connection, Link, [row])


def revisions() -> Select[Any]:
    """The columns that `records` wants, of all revisions: narrow it down."""
    columns = (Item.key, Item.kind, Item.scope, Item.scope_id, Item.subject, Item.expires_at)
    query: Any = select(Revision, *columns)
    return query.join(Item, Item.id == Revision.item_id)


def records(connection: Connection, tenant: str, query: Select[Any]) -> list[RevisionRecord]:
    """The revisions of a narrowed `revisions()`, with their values."""
    rows = connection.execute(query).mappings().all()
    values = get_many(connection, tenant, [row["content_blob"] for row in rows])
    return [_record(connection, row, values[row["content_blob"]]) for row in rows]


def _record(connection: Connection, row: Any, value: Any) -> RevisionRecord:
    same = (
        "id", "key", "kind", "version", "created_at", "item_id", "scope", "scope_id", "subject", "status",
        "tokens", "valid_from", "valid_to", "expires_at",
    )  # fmt: skip
    text, digest = open_text(connection, row["text"]), open_text(connection, row["digest"])
    by = ("run_id", "task", "attempt", "call_id", "model", "prompt_hash", "cost_nano")
    return RevisionRecord(
        **{name: row[name] for name in same},
        value=value,
        text=text_of(value) if text is None else text,
        digest=digest,
        hash=row["content_blob"],
        producer=Producer(**{name: row[name] for name in by}),
    )


def history(connection: Connection, place: Place) -> list[RevisionRecord]:
    """All versions of an item, the oldest first; empty if there is none."""
    names = (Item.tenant, Item.scope, Item.scope_id, Item.key)
    query = revisions().where(*(column == value for column, value in zip(names, _at(place), strict=True)))
    return records(connection, place.tenant, query.order_by(Revision.version))
