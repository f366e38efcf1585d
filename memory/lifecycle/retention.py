"""Sweeps: what has expired or is too old goes, some rows at a time, so that writers never wait long.

A sweep takes the items themselves: content, texts, words, vectors. What was made from them stays, since a
note that has served is not a person who wants to be forgotten: that is `erasure.forget`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from ..database import Database
from ..errors import UsageError
from ..tables import Item, Revision
from .erasure_apply import Apply
from .erasure_bytes import PATIENCE, alone
from .erasure_words import tombstone

#: revisions in one transaction
BATCH = 200
#: contents that are looked for in one transaction, which reads every table that refers to contents
CONTENTS = 5000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long items are kept; None: of any kind, any scope, any age, any number of versions.

    Raises:
        UsageError: it limits nothing, or to less than one version.
    """

    kind: str | None = None
    scope: str | None = None
    #: seconds after which an item goes that has got no new version
    max_age_s: float | None = None
    #: newest versions of an item that stay
    keep_versions: int | None = None

    def __post_init__(self) -> None:
        if self.max_age_s is None and self.keep_versions is None:
            raise UsageError("a retention without a limit", mend="give max_age_s or keep_versions")
        if self.keep_versions is not None and self.keep_versions < 1:
            raise UsageError("at least one version is kept", mend="to let all go, give max_age_s")


@dataclass(frozen=True, slots=True)
class Swept:
    """How much a sweep took."""

    items: int
    revisions: int
    #: contents that nothing refers to any more
    blobs: int


def sweep(
    database: Database,
    tenant: str | None,
    now: float | None = None,
    *,
    rules: Sequence[Retention] = (),
    batch: int = BATCH,
) -> Swept:
    """Erase what expired before `now` (seconds, UTC), and what the rules let go; of all tenants with None.

    Each `batch` of revisions is a transaction of its own; a sweep that was killed is finished by the next.
    Deleted bytes are overwritten in SQLite's pages (`secure_delete`), not in its log: that does
    `podium memory vacuum`.

    Raises:
        ConfigError, PodiumError: as `Database.transact`; what is swept already stays so.
    """
    moment = time.time() if now is None else now
    items: set[str] = set()
    revisions, blobs = 0, 0
    for one in [tenant] if tenant is not None else _tenants(database):
        for query in _queries(one, moment, rules):
            for taken in _batches(database, one, query, batch):
                items |= taken[0]
                revisions += taken[1]
        blobs += bury(database, one, "expired")
    return Swept(len(items), revisions, blobs)


def _tenants(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(Item.tenant).distinct().order_by(Item.tenant)).scalars())


def _queries(tenant: str, now: float, rules: Sequence[Retention]) -> Iterator[Select[int, str]]:
    """Revisions to go, with their item and whether all of that goes."""
    yield _living(tenant).where(Item.expires_at <= now)
    for rule in rules:
        query = _living(tenant)
        for column, value in ((Item.kind, rule.kind), (Item.scope, rule.scope)):
            if value is not None:
                query = query.where(column == value)
        if rule.max_age_s is not None:
            # of each item alone: the index of its versions is used
            newest = _of_item(func.max(Revision.created_at))
            yield query.where(newest < now - rule.max_age_s)
        if rule.keep_versions is not None:
            yield query.where(Revision.version <= _of_item(func.max(Revision.version)) - rule.keep_versions)


def _living(tenant: str) -> Select[int, str]:
    query = select(Revision.id, Revision.item_id).join(Item, Item.id == Revision.item_id)
    return query.where(Item.tenant == tenant, Revision.tenant == tenant, Revision.status != "erased")


def _of_item(value: Any) -> Any:
    other = select(value).where(Revision.item_id == Item.id).correlate(Item)
    return other.scalar_subquery()


def _batches(
    database: Database, tenant: str, query: Select[int, str], batch: int
) -> Iterator[tuple[set[str], int]]:
    """Items and how many revisions of each transaction."""

    def work(connection: Connection) -> tuple[set[str], int]:
        rows = connection.execute(query.order_by(Revision.id).limit(batch)).all()
        Apply(connection, tenant, tombstone("expired")).hide([number for number, _ in rows])
        items = {item for _, item in rows}
        # what is put under the same key later does not expire by the old time
        living = select(Revision.id).where(Revision.item_id == Item.id, Revision.status != "erased")
        mine = update(Item).where(Item.id.in_(items), ~living.correlate(Item).exists())
        connection.execute(mine.values(expires_at=None))
        return items, len(rows)

    while (taken := database.transact(work))[1]:
        yield taken
        if taken[1] < batch:
            return


def bury(database: Database, tenant: str, reason: str, patience: float = PATIENCE) -> int:
    """Take the contents of hidden revisions away, and delete those that nothing else refers to; how many."""
    gone = 0

    def work(connection: Connection) -> tuple[int, int]:
        hidden = select(Revision.id).where(
            Revision.tenant == tenant, Revision.status == "erased", Revision.value_type.is_not(None)
        )
        numbers = connection.execute(hidden.order_by(Revision.id).limit(CONTENTS)).scalars().all()
        if not numbers:
            return 0, 0
        apply = Apply(connection, tenant, tombstone(reason))
        apply.bury(numbers)
        return len(numbers), apply.free()

    while True:
        found, freed = alone(database, work, patience)
        gone += freed
        if found < CONTENTS:
            return gone
