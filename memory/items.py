"""Task memory: items, their append-only revisions and the links between them.

Every output of a run's own tasks is an artifact here, linked to the revisions it was made from.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert, select

from .content import get_many, insert_missing, put
from .tables import Item, Link, Revision

ItemKind = Literal["fact", "note", "artifact", "summary"]
Scope = Literal["task", "run", "workflow", "tenant"]
LinkKind = Literal["derived_from", "relates", "contradicts", "supersedes"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item is kept."""

    tenant: str
    scope: Scope
    #: run id, workflow name, … as the scope says
    scope_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Producer:
    """The attempt that made a revision; all None: a person."""

    run_id: str | None = None
    task: str | None = None
    attempt: int | None = None


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


def put_revision(
    connection: Connection,
    place: Place,
    kind: ItemKind,
    value: Any,
    *,
    producer: Producer,
    derived_from: Sequence[int] = (),
) -> int:
    """Append a version to the item at `place` (made if missing); returns the revision's id."""
    now = time.time()
    row = {
        "id": uuid.uuid4().hex,
        "tenant": place.tenant,
        "kind": kind,
        "scope": place.scope,
        "scope_id": place.scope_id,
        "key": place.key,
        "created_at": now,
    }
    if insert_missing(connection, Item, [row]):
        item_id, version = row["id"], 1
    else:
        query = select(Item.id).where(*_at(place)).with_for_update()
        item_id = connection.execute(query).scalar_one()
        last = select(Revision.version).where(Revision.item_id == item_id).order_by(Revision.version.desc())
        version = (connection.execute(last.limit(1)).scalar() or 0) + 1
    revision_id = connection.execute(
        insert(Revision)
        .values(
            tenant=place.tenant,
            item_id=item_id,
            version=version,
            content_blob=put(connection, place.tenant, value),
            status="active",
            run_id=producer.run_id,
            task=producer.task,
            attempt=producer.attempt,
            created_at=now,
        )
        .returning(Revision.id)
    ).scalar_one()
    for source in sorted(set(derived_from)):
        link(connection, place.tenant, revision_id, source, "derived_from")
    return revision_id


def link(connection: Connection, tenant: str, src: int, dst: int, kind: LinkKind) -> None:
    """Add a typed edge between two revisions; an edge that is there stays as it is."""
    insert_missing(
        connection,
        Link,
        [{"src": src, "dst": dst, "kind": kind, "tenant": tenant, "created_at": time.time()}],
    )


def history(connection: Connection, place: Place) -> list[RevisionRecord]:
    """All versions of an item, the oldest first; empty if there is none."""
    query = (
        select(Revision, Item.key, Item.kind)
        .join(Item, Item.id == Revision.item_id)
        .where(*_at(place))
        .order_by(Revision.version)
    )
    rows = connection.execute(query).mappings().all()
    values = get_many(connection, place.tenant, [row["content_blob"] for row in rows])
    return [
        RevisionRecord(
            id=row["id"],
            key=row["key"],
            kind=row["kind"],
            version=row["version"],
            value=values[row["content_blob"]],
            producer=Producer(row["run_id"], row["task"], row["attempt"]),
            created_at=row["created_at"],
        )
        for row in rows
    ]


def latest_ids(connection: Connection, run_id: str, tasks: Sequence[str]) -> list[int]:
    """Ids of the newest revisions that these tasks of a run made."""
    newest: dict[str, int] = {}
    query = select(Revision.task, Revision.id).where(
        Revision.run_id == run_id, Revision.task.in_(list(tasks))
    )
    for task, revision_id in connection.execute(query):
        newest[str(task)] = max(revision_id, newest.get(str(task), 0))
    return sorted(newest.values())


def _at(place: Place) -> tuple[Any, ...]:
    return (
        Item.tenant == place.tenant,
        Item.scope == place.scope,
        Item.scope_id == place.scope_id,
        Item.key == place.key,
    )
