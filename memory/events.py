"""The run's event chain: append-only, each event's hash covers its predecessor's."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, update

from .content import canonical
from .errors import NotFound, StaleEpoch
from .hot import fetch_one, json_column, run_many
from .tables import Event, Run


@dataclass(frozen=True, slots=True)
class NewEvent:
    #: e.g. task.succeeded
    kind: str
    task: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventRecord:
    run_id: str
    #: 1, 2, 3 … without a gap: the resume token of a stream
    seq: int
    kind: str
    task: str | None
    data: dict[str, Any]
    #: seconds since the epoch, UTC
    at: float
    hash: str


def event_hash(previous: str, run_id: str, seq: int, event: NewEvent, at: float) -> str:
    body = canonical([previous, run_id, seq, event.kind, event.task, event.data, at])
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a run's chain, read under the run's lock."""

    run_id: str
    seq: int
    hash: str
    tenant: str


def fence(connection: Connection, run_id: str, epoch: int | None = None) -> str:
    """Lock a run for this transaction, before anything of it is written; returns its tenant.

    All writers of a run lock its row first, so that they come one after the other and never in a deadlock.

    Raises:
        NotFound: no such run.
        StaleEpoch: with `epoch`: another engine has claimed the run.
    """
    return lock(connection, run_id, epoch).tenant


def lock(connection: Connection, run_id: str, epoch: int | None = None) -> Head:
    """`fence`, with the end of the chain."""
    for_update = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    row = fetch_one(connection, _LOCK + for_update, (run_id,))
    if row is None:
        raise NotFound(f"there is no run {run_id}", mend="`podium runs` lists them")
    if epoch is not None and row[2] != epoch:
        raise StaleEpoch(
            f"the run is at epoch {row[2]}, this engine's is {epoch}",
            mend="another engine drives the run now; watch it with `podium watch`",
            run=run_id,
        )
    return Head(run_id, row[0], row[1], row[3])


_LOCK = "SELECT event_seq, event_head, epoch, tenant FROM run WHERE id = ?"
_HEAD = "UPDATE run SET event_seq = ?, event_head = ? WHERE id = ?"
_INSERT = (
    "INSERT INTO event (run_id, seq, tenant, kind, task, data, at, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def append(
    connection: Connection,
    run_id: str,
    events: Sequence[NewEvent],
    *,
    epoch: int | None = None,
    **changes: Any,
) -> None:
    """Append events to a run's chain, changing the run's row with it.

    With `epoch` this is also the fence: the writer must still own the run.

    Raises:
        NotFound: no such run.
        StaleEpoch: another engine has claimed the run.
    """
    head = lock(connection, run_id, epoch)
    seq, digest = write(connection, head, events)
    connection.execute(
        update(Run).where(Run.id == run_id).values(event_seq=seq, event_head=digest, **changes)
    )


def extend(connection: Connection, head: Head, events: Sequence[NewEvent]) -> None:
    """Append events behind a head that this transaction has locked."""
    seq, digest = write(connection, head, events)
    run_many(connection, _HEAD, [(seq, digest, head.run_id)])


def write(connection: Connection, head: Head, events: Sequence[NewEvent]) -> tuple[int, str]:
    """Insert events behind `head`; returns the chain's new end, which the caller stores."""
    now, seq, digest = time.time(), head.seq, head.hash
    rows = []
    for event in events:
        seq += 1
        digest = event_hash(digest, head.run_id, seq, event, now)
        data = json_column(event.data)
        rows.append((head.run_id, seq, head.tenant, event.kind, event.task, data, now, digest))
    run_many(connection, _INSERT, rows)
    return seq, digest


def read(connection: Connection, run_id: str, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
    """Events with a number above `after`, in order."""
    query = (
        select(Event.run_id, Event.seq, Event.kind, Event.task, Event.data, Event.at, Event.hash)
        .where(Event.run_id == run_id, Event.seq > after)
        .order_by(Event.seq)
        .limit(limit)
    )
    return [EventRecord(*row) for row in connection.execute(query)]


def verify(connection: Connection, run_id: str) -> int | None:
    """Number of the first event whose hash does not fit what it covers; None: the chain holds."""
    head, after = "", 0
    while page := read(connection, run_id, after=after):
        for event in page:
            body = NewEvent(event.kind, event.task, event.data)
            if event.seq != after + 1 or event.hash != event_hash(head, run_id, event.seq, body, event.at):
                return event.seq
            head, after = event.hash, event.seq
    stored = connection.execute(select(Run.event_seq, Run.event_head).where(Run.id == run_id)).first()
    return None if stored is not None and tuple(stored) == (after, head) else after + 1
