"""The run's event chain: append-only, each event's hash covers its predecessor's."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update

from .content import canonical
from .errors import NotFound, StaleEpoch
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


def fence(connection: Connection, run_id: str, epoch: int | None = None) -> str:
    """Lock a run for this transaction, before anything of it is written; returns its tenant.

    All writers of a run lock its row first, so that they come one after the other and never in a deadlock.

    Raises:
        NotFound: no such run.
        StaleEpoch: with `epoch`: another engine has claimed the run.
    """
    return _lock(connection, run_id, epoch).tenant


def _lock(connection: Connection, run_id: str, epoch: int | None) -> Any:
    query = select(Run.event_seq, Run.event_head, Run.epoch, Run.tenant).where(Run.id == run_id)
    row = connection.execute(query.with_for_update()).first()
    if row is None:
        raise NotFound(f"there is no run {run_id}", mend="`podium runs` lists them")
    if epoch is not None and row.epoch != epoch:
        raise StaleEpoch(
            f"the run is at epoch {row.epoch}, this engine's is {epoch}",
            mend="another engine drives the run now; watch it with `podium watch`",
            run=run_id,
        )
    return row


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
    seq, head, _, tenant = _lock(connection, run_id, epoch)
    now = time.time()
    rows = []
    for event in events:
        seq += 1
        head = event_hash(head, run_id, seq, event, now)
        rows.append(
            {
                "run_id": run_id,
                "seq": seq,
                "tenant": tenant,
                "kind": event.kind,
                "task": event.task,
                "data": event.data,
                "at": now,
                "hash": head,
            }
        )
    if rows:
        connection.execute(insert(Event), rows)
    connection.execute(update(Run).where(Run.id == run_id).values(event_seq=seq, event_head=head, **changes))


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
