"""Items of the tenant that are found by the beginning of their keys."""

from __future__ import annotations

from sqlalchemy import Connection, select

from . import items
from .items import RevisionRecord
from .tables import Item
from .visible import visible


def under(connection: Connection, tenant: str, prefix: str) -> list[RevisionRecord]:
    """The newest versions of the tenant's items whose keys begin with `prefix`, by key; what is retracted,
    erased or expired is left out."""
    query = select(Item.key).where(
        Item.tenant == tenant,
        Item.scope == "tenant",
        Item.scope_id == "",
        Item.key.startswith(prefix, autoescape=True),
    )
    keys = connection.execute(query).scalars().all()
    if not keys:
        return []
    seen = visible(tenant, [], scopes=["tenant"], keys=keys)
    # LIKE of SQLite takes capitals for small letters
    found = [one for one in items.records(connection, tenant, seen) if one.key.startswith(prefix)]
    return sorted(found, key=lambda one: one.key)
