"""Group commit: one writer thread puts whatever arrived during the last fsync into the next transaction.

No timer: a lone write commits at once, a burst shares its fsync. A write that fails is rolled back to its own
savepoint and does not disturb its neighbours.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from . import faults
from .database import Database
from .errors import PodiumError
from .outages import trouble

T = TypeVar("T")
Work = Callable[[Connection], Any]
#: what a write came to: its result, or the error that refused it
Outcome = tuple[Any, BaseException | None]

#: writes that share one transaction at most
MAX_BATCH = 512


@dataclass(frozen=True, slots=True)
class _Entry:
    #: of `faults.COMMITS`
    names: Sequence[str]
    work: Work
    #: told on the writer's thread
    tell: Callable[[Outcome], object]
    future: Future[Any] | None = None


class Journal:
    """The engine's only way to write. Safe to use from any thread and from any event loop."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="podium-journal", daemon=True)
        self._thread.start()

    def submit(self, name: str, work: Callable[[Connection], T]) -> Future[T]:
        """Queue a write. The future is done when it is durable, or has the error that refused it.

        `name` is one of `faults.COMMITS`.
        """
        future: Future[T] = Future()

        def tell(outcome: Outcome) -> None:
            result, failure = outcome
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

        self._put(_Entry((name,), work, tell, future))
        return future

    def post(self, names: Sequence[str], work: Work, tell: Callable[[Outcome], object]) -> None:
        """Queue a write that stands for several commits; `tell` gets its outcome on the writer's thread."""
        self._put(_Entry(names, work, tell))

    def _put(self, entry: _Entry) -> None:
        with self._lock:
            if self._closed:
                raise PodiumError("the journal is closed", mend="open a new Podium")
            self._queue.put(entry)

    async def commit(self, name: str, work: Callable[[Connection], T]) -> T:
        """Write and wait until it is durable. Cancelling the wait does not take the write back."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(name, work)))

    def close(self) -> None:
        """Write what is queued, then stop."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while len(batch) < MAX_BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    last = True
                    break
                batch.append(following)
            # from here on a caller can no longer cancel its future, only stop waiting for it
            self._commit([e for e in batch if e.future is None or e.future.set_running_or_notify_cancel()])
            if last:
                return

    def _commit(self, batch: list[_Entry]) -> None:
        if not batch:
            return
        try:
            outcomes = self.database.commit(lambda connection: _write(connection, batch))
        except BaseException as error:  # noqa: BLE001 - the thread must live: all later writes need it
            own = isinstance(error, Exception) and not isinstance(error, SQLAlchemyError)
            outcomes = [(None, error if own else _storage_error(error)) for _ in batch]
        for entry, (_, failure) in zip(batch, outcomes, strict=True):
            if failure is None:
                for name in entry.names:
                    faults.hit(name, "after")
        for entry, outcome in zip(batch, outcomes, strict=True):
            entry.tell(outcome)


def _write(connection: Connection, batch: Sequence[_Entry]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    if len(batch) == 1:  # its failure is the transaction's, which needs no savepoint then
        outcomes = [(batch[0].work(connection), None)]
        for name in batch[0].names:
            faults.hit(name, "before")
        return outcomes
    for entry in batch:
        outcomes.append(_attempt(connection, entry.work))
        if outcomes[-1][1] is None:
            for name in entry.names:
                faults.hit(name, "before")
    return outcomes


def _attempt(connection: Connection, work: Work) -> Outcome:
    savepoint = connection.begin_nested()
    try:
        result = work(connection)
    except Exception as failure:
        if trouble(failure) is not None:
            raise  # of the transaction, not of this write: no savepoint helps
        savepoint.rollback()
        return None, _storage_error(failure) if isinstance(failure, SQLAlchemyError) else failure
    savepoint.commit()
    return result, None


def _storage_error(error: BaseException) -> BaseException:
    if isinstance(error, PodiumError):
        return error
    reason = (str(getattr(error, "orig", error)).strip() or type(error).__name__).splitlines()[0]
    failure = PodiumError(
        f"the database refused the transaction: {reason}",
        mend="check its disk space and permissions, then `podium resume` the run; nothing committed is lost",
    )
    failure.retryable = True
    failure.__cause__ = error
    return failure
