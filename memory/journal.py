"""Group commit: one writer thread puts whatever arrived during the last fsync into the next transaction.

No timer: a lone write commits at once, a burst shares its fsync. A write that fails is rolled back to its own
savepoint and does not disturb its neighbours.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from . import faults
from .database import CONFLICT_TRIES, Database, is_conflict
from .errors import PodiumError

T = TypeVar("T")
Work = Callable[[Connection], Any]
#: name of the commit, what to do, who waits for it
Entry = tuple[str, Work, Future[Any]]

#: writes that share one transaction at most
MAX_BATCH = 512


class Journal:
    """The engine's only way to write. Safe to use from any thread and from any event loop."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="podium-journal", daemon=True)
        self._thread.start()

    def submit(self, name: str, work: Callable[[Connection], T]) -> Future[T]:
        """Queue a write. The future is done when it is durable, or has the error that refused it.

        `name` is one of `faults.COMMITS`.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise PodiumError("the journal is closed", mend="open a new Podium")
            self._queue.put((name, work, future))
        return future

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
            self._commit([entry for entry in batch if entry[2].set_running_or_notify_cancel()])
            if last:
                return

    def _commit(self, batch: list[Entry]) -> None:
        if not batch:
            return
        try:
            outcomes = self._write(batch)
        except BaseException as error:  # noqa: BLE001 - the thread must live: all later writes need it
            for _, _, future in batch:
                future.set_exception(_storage_error(error))
            return
        for (name, _, _), (_, failure) in zip(batch, outcomes, strict=True):
            if failure is None:
                faults.hit(name, "after")
        for (_, _, future), (result, failure) in zip(batch, outcomes, strict=True):
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _write(self, batch: list[Entry]) -> list[tuple[Any, BaseException | None]]:
        """Commit a batch; again from its start when Postgres gave it up for another transaction."""
        tries = 1
        while True:
            outcomes = []
            try:
                with self.database.write() as connection:
                    for name, work, _ in batch:
                        outcomes.append(_attempt(connection, work))
                        if outcomes[-1][1] is None:
                            faults.hit(name, "before")
                return outcomes
            except SQLAlchemyError as error:
                if tries >= CONFLICT_TRIES or not is_conflict(error):
                    raise
                tries += 1


def _attempt(connection: Connection, work: Work) -> tuple[Any, BaseException | None]:
    savepoint = connection.begin_nested()
    try:
        result = work(connection)
    except Exception as failure:
        if is_conflict(failure):
            raise
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
