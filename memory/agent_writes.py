"""What an agent keeps and finds, each with the tool call that did it, in one transaction: so that a replay
after a crash meets either both or neither, and never writes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from . import effects, items
from .content import Encoded
from .items import ItemKind, NewRevision, Place, Producer
from .tables import Call
from .validation import lock_newest


@dataclass(frozen=True, slots=True)
class Said:
    """Something that an agent wants kept."""

    place: Place
    kind: ItemKind
    #: any JSON value
    value: Any
    #: revisions that the agent had read before
    derived_from: Sequence[int] = ()


def keep(connection: Connection, run_id: str, epoch: int, new: effects.NewEffect, said: Said) -> int:
    """Write what an agent said, and that it did; the revision's id.

    A tool call that is known is not done again. A value that is the newest of its item already makes no
    version of its own.

    Raises:
        StaleEpoch: another engine drives the run.
        PodiumError: the value is no JSON.
    """
    known = effects.load(connection, run_id, new.key)
    if known is not None and known.status == "done":
        return int(known.result)
    effects.request(connection, run_id, epoch, new, status="started")
    revision = _same(connection, said)
    if revision is None:
        by = _producer(connection, run_id, new)
        made = NewRevision(said.place, said.kind, said.value, by, derived_from=said.derived_from)
        revision = items.put_many(connection, [made])[0]
    effects.finish(connection, run_id, epoch, new.key, result=revision)
    return revision


def record(connection: Connection, run_id: str, epoch: int, new: effects.NewEffect, result: Any) -> Any:
    """Write that a tool only looked, and what it found; what it found the first time.

    Raises:
        StaleEpoch: another engine drives the run.
    """
    known = effects.load(connection, run_id, new.key)
    if known is not None and known.status == "done":
        return known.result
    effects.request(connection, run_id, epoch, new, status="started")
    effects.finish(connection, run_id, epoch, new.key, result=result)
    return result


def _same(connection: Connection, said: Said) -> int | None:
    """The item's newest revision, if it has this very value and counts."""
    newest = lock_newest(connection, said.place)
    if newest is None or (newest.hash, newest.status) != (Encoded.of(said.value).hash, "active"):
        return None
    return newest.id


def _producer(connection: Connection, run_id: str, new: effects.NewEffect) -> Producer:
    """The attempt, and the call whose answer asked for it: the task's last one that was answered."""
    by = Producer(run_id, new.task, new.attempt)
    query = (
        select(Call.id, Call.model, Call.request_hash, Call.cost_nano)
        .where(Call.run_id == run_id, Call.task == new.task, Call.status == "settled")
        .order_by(Call.attempt.desc(), Call.step.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        return by
    return replace(by, call_id=row.id, model=row.model, prompt_hash=row.request_hash, cost_nano=row.cost_nano)
