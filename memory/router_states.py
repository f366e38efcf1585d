"""The versions of what the router learned: saved, looked at, rolled back. See `learning.py`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text, update

from .content import plain_text
from .errors import ConfigError, NotFound, UsageError
from .sealing import open_bytes, seal_bytes
from .tables import Erasure, Outcome, RouterState

#: versions that are kept
KEEP_STATES = 10


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A version of what was learned."""

    version: int
    #: the last outcome that it has read
    upto: int
    #: examples that it was learned from
    rows: int
    note: str
    active: bool
    #: seconds, UTC
    created_at: float


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A version with what was learned, as the router packs it."""

    version: int
    state: bytes
    upto: int
    rows: int
    note: str
    active: bool
    created_at: float


def last_outcome(connection: Connection, tenant: str) -> int:
    """The id of the newest outcome, void or not; 0: there is none."""
    return connection.execute(select(func.max(Outcome.id)).where(Outcome.tenant == tenant)).scalar() or 0


def last_erasure(connection: Connection, tenant: str) -> int:
    """The id of the newest erasure; 0: there is none."""
    return connection.execute(select(func.max(Erasure.id)).where(Erasure.tenant == tenant)).scalar() or 0


def save_state(
    connection: Connection,
    tenant: str,
    state: bytes,
    *,
    upto: int,
    rows: int,
    note: str,
    erasures: int | None = None,
) -> int:
    """Keep what was learned as a new version, which is in use from now on; returns its number.

    Of older versions the newest `KEEP_STATES` stay. With a memory key the state is sealed.

    Args:
        upto: the last outcome that was read for it; `last_outcome` of the same snapshot.
        rows: how many examples it was learned from.
        erasures: `last_erasure` of the same snapshot; None: nothing can have been erased since.

    Raises:
        UsageError: the state is empty, or something was erased while it was learned.
    """
    if not state:
        raise UsageError("an empty state is none", mend="save what a router's `to_state` gives")
    _lock(connection, tenant)
    if erasures is not None and last_erasure(connection, tenant) != erasures:
        raise UsageError(
            "something was forgotten while the router learned", mend="learn again: podium router train"
        )
    mine = RouterState.tenant == tenant
    version = (connection.execute(select(func.max(RouterState.version)).where(mine)).scalar() or 0) + 1
    connection.execute(update(RouterState).where(mine, RouterState.active).values(active=False))
    connection.execute(
        insert(RouterState).values(
            tenant=tenant,
            version=version,
            state=seal_bytes(connection, state, _about(tenant, version)),
            upto=upto,
            rows=rows,
            note=plain_text(note),
            active=True,
            created_at=time.time(),
        )
    )
    connection.execute(delete(RouterState).where(mine, RouterState.version <= version - KEEP_STATES))
    return version


def active_state(connection: Connection, tenant: str) -> StateRecord | None:
    """What is in use; None: nothing was learned yet.

    Raises:
        ConfigError: it is sealed with a key that is not given, or damaged.
    """
    return _state(connection, tenant, RouterState.active)


def states(connection: Connection, tenant: str) -> list[StateInfo]:
    """The versions that are kept, the newest first."""
    query = select(*_INFO).where(RouterState.tenant == tenant).order_by(RouterState.version.desc())
    return [StateInfo(*row) for row in connection.execute(query)]


def roll_back(connection: Connection, tenant: str, version: int) -> int:
    """Use what an older version had learned, as a new version; returns its number.

    Outcomes that came after the older version are set aside: void, not deleted.

    Raises:
        NotFound: there is no such version.
        UsageError: its state was erased, since it had learned from what was forgotten.
        ConfigError: as `active_state`.
    """
    _lock(connection, tenant)
    old = _state(connection, tenant, RouterState.version == version)
    if old is None:
        known = ", ".join(str(info.version) for info in states(connection, tenant)) or "none"
        raise NotFound(f"the router has no version {version}", mend=f"versions that are kept: {known}")
    if not old.state:
        raise UsageError(
            f"version {version} was erased: it had learned from what was forgotten",
            mend="take another version, or learn anew",
        )
    later = (Outcome.tenant == tenant, Outcome.id > old.upto, Outcome.void.is_(False))
    connection.execute(update(Outcome).where(*later).values(void=True))
    upto, note = last_outcome(connection, tenant), f"rolled back to {version}"
    return save_state(connection, tenant, old.state, upto=upto, rows=old.rows, note=note)


#: the columns of a StateInfo, in its order
_INFO = (
    RouterState.version,
    RouterState.upto,
    RouterState.rows,
    RouterState.note,
    RouterState.active,
    RouterState.created_at,
)


def _state(connection: Connection, tenant: str, *where: Any) -> StateRecord | None:
    query = select(RouterState.state, *_INFO).where(RouterState.tenant == tenant, *where)
    row = connection.execute(query).first()
    if row is None:
        return None
    try:
        state = open_bytes(connection, row.state, _about(tenant, row.version))
    except ValueError as error:
        raise ConfigError(
            f"what the router learned (version {row.version}) is damaged",
            mend="use another version, or learn anew",
        ) from error
    return StateRecord(row.version, bytes(state), row.upto, row.rows, row.note, row.active, row.created_at)


def _about(tenant: str, version: int) -> str:
    """What sealed bytes of a state belong to."""
    return f"router state {version} of {tenant}"


def _lock(connection: Connection, tenant: str) -> None:
    """Of two that save at the same time one waits: both would take the same number."""
    if connection.dialect.name == "postgresql":
        key = {"key": f"podium router {tenant}"}
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:key))"), key)
