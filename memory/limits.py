"""How many calls may run at the same time, and begin in a minute, by model and by tenant: for all engines of
a database together.

A limit is tested inside the transaction that reserves the call. Calls at the same time are counted in the
`call` rows themselves, so that no crash can leave a counter wrong; calls a minute follow the generic cell
rate algorithm (ITU-T I.371 (2004), annex A; in its virtual-scheduling form one timestamp is all its state).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from .content import insert_missing
from .errors import PodiumError
from .tables import Call, Rate, Run

#: the row that all tests lock. One for all keys: an engine's batch that locked model after model could meet
#: another's that locks them in another order
GATE = "gate"
#: seconds by which a clock may step back before the stored time counts as one of another clock
STEP = 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What is allowed for one model or tenant."""

    #: "model:<name>" or "tenant:<name>"
    key: str
    #: calls that hold a reservation at the same time; None: not limited
    max_concurrent: int | None = None
    #: calls that begin in any 60 seconds; None: not limited
    calls_per_minute: float | None = None

    @property
    def burst(self) -> int:
        """Calls that may begin at once after a pause: a tenth of a minute's, at least one."""
        return max(1, int((self.calls_per_minute or 0) / 10))

    @property
    def interval(self) -> float:
        """Seconds between two calls in the long run. The burst is taken off the rate, so that no minute has
        more than `calls_per_minute`.
        """
        assert self.calls_per_minute is not None
        return 60.0 / (self.calls_per_minute - self.burst + 1)


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that holds calls of a key, and what its row says of its engine."""

    #: the run's
    id: str
    engine: str | None
    epoch: int
    beat: int


class Throttled(PodiumError):
    """A limit is reached: the call is to wait and to try again. Nothing was written, no money is held."""

    retryable = True

    def __init__(
        self, key: str, seconds: float | None, holders: tuple[Holder, ...] = (), **where: Any
    ) -> None:
        what = "calls at the same time" if seconds is None else "calls a minute"
        super().__init__(f"{key} has reached its limit of {what}", mend="wait and try again", **where)
        self.key = key
        #: after which the rate allows a call; None: when a call ends
        self.seconds = seconds
        #: who holds the calls that are counted
        self.holders = holders


def admit(
    connection: Connection,
    limits: Sequence[Limit],
    *,
    dead: AbstractSet[Holder] = frozenset(),
    now: float | None = None,
) -> None:
    """Let one call begin, or refuse it. To be called before the call's row is inserted, in its transaction.

    `dead`: holders that were seen dead; their calls do not count until their run is claimed again, which
    closes them, or beats. `now`: seconds, UTC; by default the clock all engines share: Postgres's, or the
    host's on SQLite.

    Raises:
        Throttled: a limit is reached.
    """
    limits = [x for x in limits if x.max_concurrent is not None or x.calls_per_minute is not None]
    if not limits:
        return
    _lock(connection)
    for limit in limits:
        if limit.max_concurrent is not None:
            _check_running(connection, limit, dead)
    rated = {limit.key: limit for limit in limits if limit.calls_per_minute is not None}
    if not rated:
        return
    moment = _clock(connection) if now is None else now
    rows = connection.execute(select(Rate.key, Rate.next_at).where(Rate.key.in_(rated)))
    found = {row.key: row.next_at for row in rows}
    following = {key: _following(limit, found.get(key), moment) for key, limit in rated.items()}
    for key, next_at in following.items():
        write = update(Rate).where(Rate.key == key) if key in found else insert(Rate)
        connection.execute(write.values(key=key, next_at=next_at))


def _check_running(connection: Connection, limit: Limit, dead: AbstractSet[Holder]) -> None:
    query = (
        select(Run.id, Run.engine, Run.epoch, Run.beat, func.count().label("calls"))
        .join(Call, Call.run_id == Run.id)
        .where(Call.status.in_(("reserved", "sent")), _of(limit.key))
        .group_by(Run.id, Run.engine, Run.epoch, Run.beat)
    )
    rows = connection.execute(query)
    running = {Holder(row.id, row.engine, row.epoch, row.beat): row.calls for row in rows}
    assert limit.max_concurrent is not None
    if sum(count for holder, count in running.items() if holder not in dead) >= limit.max_concurrent:
        raise Throttled(limit.key, None, tuple(running))


def _following(limit: Limit, next_at: float | None, now: float) -> float:
    """The theoretical arrival time after a call that begins now.

    A stored time that no call before `now` can have left is from a clock that was ahead: the burst counts
    as used up, and the call begins.
    """
    interval = limit.interval
    tolerance = (limit.burst - 1) * interval
    due = now if next_at is None else max(next_at, now)
    if due > now + tolerance + interval + STEP:
        due = now + tolerance
    if due - tolerance > now:
        raise Throttled(limit.key, due - tolerance - now)
    return due + interval


def _of(key: str) -> ColumnElement[bool]:
    kind, _, name = key.partition(":")
    return Call.model == name if kind == "model" else Call.tenant == name


def _lock(connection: Connection) -> None:
    """One test at a time until this transaction ends, in all engines of the database."""
    query = select(Rate.next_at).where(Rate.key == GATE).with_for_update()
    if connection.execute(query).first() is None:
        insert_missing(connection, Rate, [{"key": GATE, "next_at": 0.0}])
        connection.execute(query)


def _clock(connection: Connection) -> float:
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
