"""One item's versions inside a transaction: what is seen of it, what it was, and how it is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from . import branches, items
from .content import encode
from .errors import NotFound, UsageError
from .items import NewRevision, Place, RevisionRecord
from .tables import Revision
from .validation import check_kind, check_sources, lock_newest, refuse_cycle, touch
from .visible import AsOf, Seen, chain, visible


def put_one(connection: Connection, new: NewRevision) -> RevisionRecord:
    """See `TaskMemory.put`."""
    tenant = new.place.tenant
    check_kind(connection, tenant, [new])
    check_sources(connection, tenant, new.derived_from)
    last = lock_newest(connection, new.place)
    if last is None or not _says_the_same(last, new):
        return one(connection, tenant, branches.write(connection, tenant, [new])[0])
    touch(connection, new)
    for source in sorted(set(new.derived_from) - {last.id}):
        refuse_cycle(connection, tenant, last.id, source, "derived_from")
        items.link(connection, tenant, last.id, source, "derived_from")
    return one(connection, tenant, last.id)


def roll_back(connection: Connection, place: Place, version: int) -> RevisionRecord:
    """See `TaskMemory.rollback`."""
    past = history(connection, place)
    if not past:
        raise NotFound(f"there is no item {place.key!r}", mend="`podium memory list` shows them")
    last, old = past[-1], next((r for r in reversed(past) if r.version == version), None)
    if old is None:
        known = ", ".join(str(r.version) for r in past)
        raise NotFound(f"{place.key!r} has no version {version}", mend=f"its versions: {known}")
    if old.status == "erased":
        raise UsageError(
            f"version {version} of {place.key!r} was erased", mend="choose a version that has its content"
        )
    if old.id == last.id:
        return last
    again = NewRevision(
        place,
        old.kind,  # type: ignore[arg-type]
        old.value,
        text=old.text,
        status=old.status,  # type: ignore[arg-type]
        subject=old.subject,
        valid_from=old.valid_from,
        valid_to=old.valid_to,
        derived_from=(old.id,),
    )
    (made,) = branches.write(connection, place.tenant, [again])
    items.link(connection, place.tenant, made, last.id, "supersedes")
    return one(connection, place.tenant, made)


def retract(connection: Connection, place: Place) -> RevisionRecord:
    """See `TaskMemory.retract`."""
    last = newest(connection, place)
    if last is None:
        raise NotFound(f"there is no item {place.key!r} in view", mend="`podium memory list` shows them")
    gone = NewRevision(place, last.kind, None, status="retracted")  # type: ignore[arg-type]
    (made,) = branches.write(connection, place.tenant, [gone])
    items.link(connection, place.tenant, made, last.id, "supersedes")
    return one(connection, place.tenant, made)


def newest(connection: Connection, place: Place, as_of: AsOf | None = None) -> RevisionRecord | None:
    """The version of an item that is seen from its place."""
    seen: list[Seen] = []
    task = None
    if place.scope == "run":
        seen = chain(connection, place.tenant, place.scope_id)
    elif place.scope == "task":
        run_id, _, task = place.scope_id.partition("/")
        seen = [Seen(run_id)]
    query = visible(
        place.tenant,
        seen,
        workflow=place.scope_id if place.scope == "workflow" else None,
        task=task,
        as_of=as_of,
        scopes=[place.scope],
        keys=[place.key],
    )
    return next(iter(items.records(connection, place.tenant, query)), None)


def history(connection: Connection, place: Place) -> list[RevisionRecord]:
    """See `TaskMemory.history`."""
    if place.scope != "run":
        return items.history(connection, place)
    found: list[RevisionRecord] = []
    for seen in chain(connection, place.tenant, place.scope_id):
        mine = items.history(connection, replace(place, scope_id=seen.run_id))
        found = [r for r in mine if seen.limit is None or r.id <= seen.limit] + found
    return found


def one(connection: Connection, tenant: str, revision: int, *, missing_ok: bool = False) -> Any:
    """A revision of the tenant; with `missing_ok` None where there is none, which else cannot be."""
    query = items.revisions().where(Revision.tenant == tenant, Revision.id == revision)
    found = items.records(connection, tenant, query)
    return found[0] if found or not missing_ok else None


def _says_the_same(last: RevisionRecord, new: NewRevision) -> bool:
    said = last.text if new.text is None or last.kind == "artifact" else new.text
    return (
        last.status == new.status
        and last.hash == encode(new.value, "the value").hash
        and last.text == said
        and (last.valid_from, last.valid_to) == (new.valid_from, new.valid_to)
    )
