"""Finds stored bytes that are not what they were: a disk's fault, or somebody's hand."""

from __future__ import annotations

from sqlalchemy import Connection, select

from .content import get
from .database import Database
from .errors import ConfigError, PodiumError
from .tables import Blob

#: contents that are looked at in one transaction
PAGE = 500


def damage(database: Database) -> list[str]:
    """What is wrong with a database's bytes, one line each; empty when it is sound. Reads all of it.

    Every content is compared with its hash; SQLite checks its file besides. The chain of a run's events is
    checked by `events.verify`.

    Raises:
        ConfigError: the database cannot be read at all, or is sealed with a key that is not given.
    """
    found: list[str] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        with database.read() as connection:
            lines, after = _page(connection, after)
        found += lines
    if database.is_sqlite:
        with database.read() as connection:
            told = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
        found += [f"the file: {line}" for line in told if line != "ok"]
    return found


def _page(connection: Connection, after: tuple[str, str]) -> tuple[list[str], tuple[str, str] | None]:
    """The damage of the next contents, and after which one to go on."""
    tenant, digest = after
    later = (Blob.tenant > tenant) | ((Blob.tenant == tenant) & (Blob.hash > digest))
    query = select(Blob.tenant, Blob.hash).where(later).order_by(Blob.tenant, Blob.hash).limit(PAGE)
    keys = [(row.tenant, row.hash) for row in connection.execute(query)]
    found = []
    for tenant, digest in keys:
        try:
            get(connection, tenant, digest)
        except ConfigError:
            raise  # no key for what is sealed: nothing can be said of any of it
        except PodiumError as error:
            found.append(f"tenant {tenant}: {error.message}")
    return found, keys[-1] if keys else None
