"""Forks of what a run remembers: one row that says how much of its parent's it sees; how they are written to,
and compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, true

from . import items
from .errors import NotFound, UsageError
from .hot import fetch_one, run_many
from .items import NewRevision, Place, RevisionRecord
from .tables import Item, Revision
from .visible import AsOf, Seen, chain, visible


@dataclass(frozen=True, slots=True)
class Difference:
    """How the items of a run b differ from those of a run a, by key."""

    #: only b has them
    added: Mapping[str, RevisionRecord]
    #: only a has them
    removed: Mapping[str, RevisionRecord]
    #: both have them, with another value: a's and b's
    changed: Mapping[str, tuple[RevisionRecord, RevisionRecord]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


# plain SQL: a fork is to cost nothing, however much there is to see
_KNOWN = """SELECT (SELECT 1 FROM branch WHERE run_id = ?),
(SELECT 1 FROM item WHERE tenant = ? AND scope = 'run' AND scope_id = ? LIMIT 1),
(SELECT 1 FROM item WHERE tenant = ? AND scope = 'run' AND scope_id = ? LIMIT 1),
(SELECT 1 FROM run WHERE tenant = ? AND id = ?), (SELECT 1 FROM branch WHERE tenant = ? AND run_id = ?),
(SELECT MAX(id) FROM revision)"""
_IS_FORK = "SELECT 1 FROM branch WHERE tenant = ? AND run_id = ?"
_FORK = "INSERT INTO branch (run_id, tenant, parent, revision_id) VALUES (?, ?, ?, ?)"


def fork(connection: Connection, tenant: str, run_id: str, new_run_id: str, at: AsOf | None = None) -> None:
    """Let a run see another one's items as they are, or were `at` a revision or a moment. One row.

    Raises:
        NotFound: the tenant has no such run.
        UsageError: the new run remembers something already, or is the run itself.
    """
    if not new_run_id or "/" in new_run_id:
        raise UsageError(f"{new_run_id!r} is no id of a run", mend="give one without '/'")
    where = ((new_run_id,), (tenant, new_run_id), *((tenant, run_id),) * 3)
    row = fetch_one(connection, _KNOWN, tuple(x for pair in where for x in pair))
    assert row is not None  # a SELECT without a table has one row
    forked, own, *parent, newest = row
    if run_id == new_run_id or forked or own:
        raise UsageError(
            f"the run {new_run_id} has a memory of its own already", mend="fork to a run id that is new"
        )
    if not any(parent):
        raise NotFound(f"there is no run {run_id}", mend="`podium runs` lists them")
    if isinstance(at, int):
        newest = min(at, newest or 0)
    elif at is not None:
        newest = _until(connection, tenant, chain(connection, tenant, run_id), at.timestamp())
    run_many(connection, _FORK, [(new_run_id, tenant, run_id, newest or 0)])


def write(connection: Connection, tenant: str, new: Sequence[NewRevision]) -> list[int]:
    """`items.put_many`; what a forked run says anew of an inherited item counts on from its versions."""
    bases = _inherited(connection, tenant, new)
    ids = items.put_many(connection, new)
    rows = [(base, place.tenant, place.scope_id, place.key) for place, base in bases.items()]
    for sql in _COUNT_ON:
        run_many(connection, sql, rows)
    return ids


#: in two steps: no version may be one that another row has at that moment
_COUNT_ON = tuple(
    f"UPDATE revision SET version = {to} CAST(? AS BIGINT) WHERE item_id ="
    " (SELECT id FROM item WHERE tenant = ? AND scope = 'run' AND scope_id = ? AND key = ?)"
    for to in ("-version -", "-version + 0 *")
)


def _inherited(connection: Connection, tenant: str, new: Sequence[NewRevision]) -> dict[Place, int]:
    """Items of forked runs that are about to be made → the newest version that they were forked with."""
    found: dict[Place, int] = {}
    for run in {one.place.scope_id for one in new if one.place.scope == "run"}:
        if fetch_one(connection, _IS_FORK, (tenant, run)) is None:
            continue
        seen = chain(connection, tenant, run)
        keys = sorted(
            {one.place.key for one in new if one.place.scope == "run" and one.place.scope_id == run}
        )
        bounds = [
            and_(Item.scope_id == one.run_id, true() if one.limit is None else Revision.id <= one.limit)
            for one in seen
        ]
        query = (
            select(Item.key, Item.scope_id, func.max(Revision.version))
            .join(Revision, Revision.item_id == Item.id)
            .where(Item.tenant == tenant, Item.scope == "run", Item.key.in_(keys), or_(*bounds))
            .group_by(Item.key, Item.scope_id)
        )
        rows = connection.execute(query).all()
        own = {key for key, where, _ in rows if where == run}
        for key, _, version in rows:
            if key not in own:
                place = Place(tenant, "run", run, key)
                found[place] = max(version, found.get(place, 0))
    return found


def _until(connection: Connection, tenant: str, seen: list[Seen], moment: float) -> int:
    """The newest revision of these runs' items at a moment; 0: none."""
    query = (
        select(func.max(Revision.id))
        .join(Item, Item.id == Revision.item_id)
        .where(Item.tenant == tenant, Item.scope == "run", Item.scope_id.in_([one.run_id for one in seen]))
        .where(Revision.created_at <= moment)
    )
    return connection.execute(query).scalar() or 0


def diff(connection: Connection, tenant: str, run_a: str, run_b: str) -> Difference:
    """The runs' own items and those that they were forked with. Values are compared by their hashes."""
    hashes_a, hashes_b = (_hashes(connection, tenant, run) for run in (run_a, run_b))
    keys = {key for key in hashes_a.keys() | hashes_b.keys() if hashes_a.get(key) != hashes_b.get(key)}
    a, b = (_records(connection, tenant, run, keys) for run in (run_a, run_b))
    return Difference(
        added={key: b[key] for key in sorted(b.keys() - a.keys())},
        removed={key: a[key] for key in sorted(a.keys() - b.keys())},
        changed={key: (a[key], b[key]) for key in sorted(a.keys() & b.keys())},
    )


def _hashes(connection: Connection, tenant: str, run_id: str) -> dict[str, str]:
    columns = visible(tenant, chain(connection, tenant, run_id), scopes=["run"]).subquery().c
    rows: Any = connection.execute(select(columns.key, columns.content_blob))
    return dict(rows.all())


def _records(connection: Connection, tenant: str, run_id: str, keys: set[str]) -> dict[str, RevisionRecord]:
    seen, wanted, found = chain(connection, tenant, run_id), sorted(keys), {}
    for start in range(0, len(wanted), 1000):
        query = visible(tenant, seen, scopes=["run"], keys=wanted[start : start + 1000])
        found |= {record.key: record for record in items.records(connection, tenant, query)}
    return found
