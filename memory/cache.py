"""Outputs kept for tasks that are the same and get the same: opt-in, by hash."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, or_, select

from .content import get
from .errors import PodiumError
from .tables import Cache


@dataclass(frozen=True, slots=True)
class Kept:
    output: Any
    #: who made it
    run_id: str
    task: str


def find(connection: Connection, tenant: str, key: str) -> Kept | None:
    """The output for a key that is still good; a damaged one is none. `steps.Keep` is how it gets there."""
    query = select(Cache.output_blob, Cache.run_id, Cache.task).where(
        Cache.tenant == tenant,
        Cache.key == key,
        or_(Cache.expires_at.is_(None), Cache.expires_at > time.time()),
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    try:
        return Kept(get(connection, tenant, row[0]), row[1], row[2])
    except PodiumError:
        return None
