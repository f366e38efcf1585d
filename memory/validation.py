"""What is checked before something is remembered, so that the one who asked learns what was wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from sqlalchemy import BigInteger, Connection, literal, select

from . import items
from .errors import NotFound, UsageError
from .hot import fetch_all, run_many
from .items import ItemKind, LinkKind, NewRevision, Place, RevisionRecord, Scope
from .tables import Item, Link, Revision

#: characters of a key
LONGEST_KEY = 1024
#: kinds of links along which nothing may come before itself
ORDERED = ("derived_from", "supersedes")
_IDS = {
    "workflow": "the workflow's name",
    "run": "the run's id",
    "task": "RUN/TASK",
}


def check_place(place: Place) -> None:
    """Whether an item can be kept there.

    Raises:
        UsageError: a bad key, an unknown scope, or one without its id.
    """
    key, scope, scope_id = place.key, place.scope, place.scope_id
    if not isinstance(key, str) or not key.strip() or len(key) > LONGEST_KEY or not _storable(key):
        raise UsageError(
            f"{str(key)[:80]!r} is no key", mend=f"give a text of 1 to {LONGEST_KEY} characters, without NUL"
        )
    if scope not in get_args(Scope):
        raise UsageError(f"there is no scope {scope!r}", mend=f"one of {', '.join(get_args(Scope))}")
    if scope == "tenant" and scope_id:
        raise UsageError(
            f"items of the tenant have no scope id, not {scope_id!r}", mend="leave it out, or name the scope"
        )
    bad = not isinstance(scope_id, str) or not _storable(scope_id)
    if scope != "tenant" and (
        bad or not scope_id or (scope == "task") != ("/" in scope_id and scope != "workflow")
    ):
        raise UsageError(f"{scope_id!r} is no id of a {scope}", mend=f"give {_IDS[scope]} as the scope id")


def check_new(tenant: str, new: Sequence[NewRevision]) -> None:
    """Raises UsageError: something about them cannot be, whatever is stored."""
    for one in new:
        check_place(one.place)
        if one.place.tenant != tenant:
            raise UsageError(
                f"{one.place.key!r} is of the tenant {one.place.tenant!r}, this memory is of {tenant!r}",
                mend="write it through that tenant's memory",
            )
        if one.kind not in get_args(ItemKind):
            raise UsageError(f"there is no kind {one.kind!r}", mend=f"one of {', '.join(get_args(ItemKind))}")
        for name in ("subject", "text"):
            value = getattr(one, name)
            if value is not None and not isinstance(value, str):
                raise UsageError(f"the {name} of {one.place.key!r} is no text", mend="give a str, or None")
        if one.subject is not None and not (one.subject and _storable(one.subject)):
            raise UsageError(f"{one.subject!r} is no subject", mend="give a text without NUL, or None")
        if one.valid_from is not None and one.valid_to is not None and one.valid_to <= one.valid_from:
            raise UsageError(
                f"{one.place.key!r} would hold until before it begins to", mend="give valid_from < valid_to"
            )


def _storable(text: str) -> bool:
    """Whether both databases can keep it as a name: neither NUL nor half of a surrogate pair."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def check_kind(connection: Connection, tenant: str, new: Sequence[NewRevision]) -> None:
    """Raises UsageError: an item is there, of another kind."""
    wanted: dict[Place, str] = {}
    for one in new:
        if wanted.setdefault(one.place, one.kind) != one.kind:
            raise _other_kind(one.place.key, wanted[one.place], one.kind)
    for (scope, scope_id), places in _by_scope(wanted).items():
        for start in range(0, len(places), 500):
            keys = [place.key for place in places[start : start + 500]]
            query = _KINDS.format(", ".join("?" * len(keys)))
            for key, kind in fetch_all(connection, query, (tenant, scope, scope_id, *keys)):
                if (asked := wanted[Place(tenant, scope, scope_id, key)]) != kind:
                    raise _other_kind(key, kind, asked)


_KINDS = "SELECT key, kind FROM item WHERE tenant = ? AND scope = ? AND scope_id = ? AND key IN ({})"


def _by_scope(places: Iterable[Place]) -> dict[tuple[Scope, str], list[Place]]:
    found: dict[tuple[Scope, str], list[Place]] = {}
    for place in places:
        found.setdefault((place.scope, place.scope_id), []).append(place)
    return found


def _other_kind(key: str, kind: str, asked: str) -> UsageError:
    return UsageError(
        f"{key!r} is of the kind {kind}, not {asked}", mend=f"use another key, or the kind {kind}"
    )


def check_sources(
    connection: Connection, tenant: str, revisions: Iterable[int], *, erased_too: bool = False
) -> None:
    """Raises NotFound: the tenant has no such revision; other tenants' are none, nor are erased ones."""
    wanted = sorted(set(revisions))
    found: set[int] = set()
    for start in range(0, len(wanted), 500):
        ids = wanted[start : start + 500]
        query = select(Revision.id).where(Revision.tenant == tenant, Revision.id.in_(ids))
        query = query if erased_too else query.where(Revision.status != "erased")
        found |= set(connection.execute(query).scalars())
    if missing := [one for one in wanted if one not in found]:
        raise NotFound(
            f"there is no revision {missing[0]}",
            mend="take the ids from `podium memory history` or a citation",
        )


def refuse_cycle(connection: Connection, tenant: str, src: int, dst: int, kind: str) -> None:
    """Raises UsageError: unknown kind, a revision linked to itself, or one that would come before itself."""
    if kind not in get_args(LinkKind):
        raise UsageError(f"there is no link {kind!r}", mend=f"one of {', '.join(get_args(LinkKind))}")
    loop = src == dst
    if not loop and kind in ORDERED:
        down = select(literal(dst, BigInteger).label("id")).cte("down", recursive=True)
        following = select(Link.dst).join(down, Link.src == down.c.id)
        down = down.union(following.where(Link.tenant == tenant, Link.kind == kind))
        loop = connection.execute(select(down.c.id).where(down.c.id == src)).first() is not None
    if loop:
        raise UsageError(
            f"revision {src} would be {kind.replace('_', ' ')} itself", mend="link the newer one to the older"
        )


def lock_newest(connection: Connection, place: Place) -> RevisionRecord | None:
    """The newest version of an item, whatever its status; other writers of the item wait from here on."""
    query = select(Item.id).where(
        Item.tenant == place.tenant,
        Item.scope == place.scope,
        Item.scope_id == place.scope_id,
        Item.key == place.key,
    )
    item = connection.execute(query.with_for_update()).scalar()
    if item is None:
        return None
    newest = items.revisions().where(Revision.item_id == item, Revision.tenant == place.tenant)
    found = items.records(connection, place.tenant, newest.order_by(Revision.version.desc()).limit(1))
    return found[0] if found else None


_TOUCH = """UPDATE item SET subject = COALESCE(?, subject), expires_at = COALESCE(?, expires_at)
WHERE tenant = ? AND scope = ? AND scope_id = ? AND key = ?"""


def touch(connection: Connection, new: NewRevision) -> None:
    """Give an item the subject and the expiry that a new version would have given it."""
    if new.subject is None and new.expires_at is None:
        return
    place = new.place
    where = (place.tenant, place.scope, place.scope_id, place.key)
    run_many(connection, _TOUCH, [(new.subject, new.expires_at, *where)])
