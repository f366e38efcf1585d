"""What a run tells of itself besides its contents: errors, questions, answers, events. Its chain still holds.

An event that says what is erased loses it, and the chain is hashed anew from there on: the old hash would
confirm a guess of what was said. The event `memory.erased` at its end names the changed events and holds a
keyed hash of the chain's end before: who has the key and noted that end can tell that it is the same chain.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from .. import control, events
from ..events import NewEvent
from ..hot import json_column, run_many
from ..runs import ENDED
from ..tables import Attempt, Call, Effect, Run, Task
from .erasure_words import ERASED, redacted

#: fields in which errors and events repeat what a task was given or said
SAYS = ("message", "mend", "question", "comment", "text", "error")
#: those in which the review of an answer repeats it
REVIEWED = (*SAYS, "evidence", "reason")
#: changed events that `memory.erased` names
MOST_NAMED = 1000

#: table, its key beyond the run, the column that names the task, what it says
_ROWS: tuple[tuple[Any, tuple[Any, ...], Any, tuple[Any, ...]], ...] = (
    (Task, (Task.name,), Task.name, (Task.approval_text, Task.approval_comment, Task.error)),
    (Attempt, (Attempt.task, Attempt.number), Attempt.task, (Attempt.error,)),
    (Call, (Call.id,), Call.task, (Call.error, Call.route, Call.review)),
    (Effect, (Effect.key,), Effect.task, (Effect.error,)),
)

Hit = Callable[[str], bool]


def silence(connection: Connection, run: str, derived: Mapping[str, bool], hit: Hit) -> int:
    """Take what is hit out of a run's rows, and what derived tasks said there; returns how many changed."""
    changed = 0
    for table, key, task, columns in _ROWS:
        where_run = table.run_id == run
        for row in (
            connection.execute(select(task.label("of"), *key, *columns).where(where_run)).mappings().all()
        ):
            values = {}
            for column in columns:
                old = row[column.key]
                says = REVIEWED if column is Call.review else SAYS
                new = _said_by(old, hit, derived=row["of"] in derived and column is not Call.route, says=says)
                if new != old:
                    values[column.key] = new
            if values:
                mine = [k == row[k.key] for k in key]
                connection.execute(update(table).where(where_run, *mine).values(values))
                changed += 1
    return changed + _silence_run(connection, run, derived, hit)


def _silence_run(connection: Connection, run: str, derived: Mapping[str, bool], hit: Hit) -> int:
    row = connection.execute(select(Run.error, Run.idempotency_key).where(Run.id == run)).one()
    values: dict[str, Any] = {}
    error = _said_by(row.error, hit, derived=bool(derived))
    if error != row.error:
        values["error"] = error
    if row.idempotency_key is not None and hit(row.idempotency_key):
        values["idempotency_key"] = None
    if values:
        connection.execute(update(Run).where(Run.id == run).values(values))
    return int(bool(values))


def _said_by(value: Any, hit: Hit, *, derived: bool, says: Collection[str] = SAYS) -> Any:
    if value is None:
        return None
    if not derived:
        return redacted(value, hit)
    return ERASED if isinstance(value, str) else _unsaid(redacted(value, hit), says)


def _unsaid(value: Any, says: Collection[str] = SAYS) -> Any:
    """Without what the fields in `says` say."""
    if isinstance(value, Mapping):
        return {
            k: ERASED if k in says and isinstance(v, str) and v else _unsaid(v, says)
            for k, v in value.items()
        }
    return [_unsaid(inner, says) for inner in value] if isinstance(value, list) else value


def seal_chain(
    connection: Connection, run: str, derived: Mapping[str, bool], hit: Hit, receipt: int, key: bytes
) -> int:
    """Take what is hit out of a run's events, hash the chain anew and say so at its end; returns how many
    events changed.
    """
    before = events.lock(connection, run)
    changed = _rewrite(connection, run, derived, hit)
    data: dict[str, Any] = {"receipt": receipt}
    if changed:
        data["events"] = changed[:MOST_NAMED]
        data["before"] = hmac.new(key, before.hash.encode(), hashlib.sha256).hexdigest()
    events.append(connection, run, [NewEvent("memory.erased", data=data)])
    return len(changed)


def _rewrite(connection: Connection, run: str, derived: Mapping[str, bool], hit: Hit) -> list[int]:
    changed: list[int] = []
    head, after = "", 0
    while page := events.read(connection, run, after=after):
        rows = []
        for event in page:
            data = event.data
            if event.kind != "memory.erased":
                data = redacted(data, hit)
                # the end of a run repeats the error of the task that ended it
                if event.task in derived or (event.task is None and derived and "error" in data):
                    data = _unsaid(data)
            if data != event.data:
                changed.append(event.seq)
            if changed:
                body = NewEvent(event.kind, event.task, data)
                head = events.event_hash(head, run, event.seq, body, event.at)
                rows.append((json_column(data), head, run, event.seq))
            else:
                head = event.hash
            after = event.seq
        run_many(connection, "UPDATE event SET data = ?, hash = ? WHERE run_id = ? AND seq = ?", rows)
    if changed:
        connection.execute(update(Run).where(Run.id == run).values(event_head=head))
    return changed


def pause_open(connection: Connection, run: str) -> bool:
    """Pause a run that is not over: its engine, which still knows what is erased, is refused from now on."""
    status = connection.execute(select(Run.status).where(Run.id == run)).scalar_one()
    if status in ENDED or status == "paused":
        return False
    control.pause(connection, run, driven=False)
    return True
