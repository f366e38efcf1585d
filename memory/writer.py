"""The connection that an engine commits on: kept open, made again after an outage, and never in doubt."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from .gate import Gate
from .outages import Patience, is_passing, told, unknown_outcome

T = TypeVar("T")
#: what the server said when a connection was made: the same answer means that it has not crashed since
Life = tuple[Any, ...]

# A crash sets the statistics back: without that mark a server would have to be asked for its restarts.
_LIFE = text("SELECT pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_bgwriter)")


class CommitCut(Exception):
    """The connection was lost after COMMIT was sent. `xid`: None where that means that nothing was."""

    def __init__(self, xid: str | None, life: Life, result: Any) -> None:
        super().__init__(xid)
        self.xid, self.life, self.result = xid, life, result


class TransactionLost(Exception):
    """SQLite rolled the transaction back on its own."""


class Writer:
    """Commits one transaction after the other. Safe to use from any thread."""

    def __init__(
        self, engine: Engine, gate: Gate | None = None, *, busy_timeout: float | None = None
    ) -> None:
        """Args:
        gate: where SQLite's writers queue.
        busy_timeout: seconds that SQLite waits for its lock; None: as long as a commit is patient.
        """
        self._busy_timeout = busy_timeout
        self._engine = engine
        self._gate = gate
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._place = engine.url.render_as_string()
        self._connection: Connection | None = None
        self._life: Life = ()
        self._lock = threading.Lock()
        #: patience was in vain, and nothing has been committed since
        self._lost = False

    def commit(self, work: Callable[[Connection], T], patience: float, hurry: threading.Event) -> T:
        """See `Database.commit`."""
        with self._lock:
            patient = Patience(0 if self._lost else patience, hurry)
            while True:
                try:
                    result = self._try(work, patience)
                except CommitCut as cut:
                    self._drop()
                    if self._was_committed(cut, patient):
                        self._lost = False
                        return cut.result
                    failure = cut.__cause__ or cut
                except (DBAPIError, TransactionLost) as error:
                    self._drop()
                    failure = error
                except BaseException:
                    self._roll_back()
                    raise
                else:
                    self._lost = False
                    return result
                passing = isinstance(failure, TransactionLost) or is_passing(failure)
                if not passing or not patient.wait():
                    self._lost = passing
                    raise told(failure, self._place, waited=patient.waited) from failure

    def close(self) -> None:
        """Close the connection. May be called twice."""
        with self._lock:
            self._drop()

    def _try(self, work: Callable[[Connection], T], patience: float) -> T:
        with contextlib.nullcontext() if self._gate is None else self._gate.hold(patience):
            return self._transact(work, self._open(patience))

    def _transact(self, work: Callable[[Connection], T], connection: Connection) -> T:
        transaction = connection.begin()
        # known before COMMIT is sent: only so can its outcome be asked for on another connection
        xid = None if self._is_sqlite else _xid(connection)
        result = work(connection)
        if self._is_sqlite and not _in_transaction(connection):
            raise TransactionLost("SQLite rolled the transaction back; is its disk full?")
        try:
            transaction.commit()
        except DBAPIError as error:
            raise CommitCut(xid, self._life, result) from error
        return result

    def _open(self, patience: float) -> Connection:
        if self._connection is None:
            connection = self._engine.connect().execution_options(podium_write=True)
            if self._is_sqlite:
                raw = connection.connection.driver_connection
                assert raw is not None
                seconds = min(patience, 30) if self._busy_timeout is None else self._busy_timeout
                raw.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
            else:
                with connection.begin():
                    self._life = _life(connection)
            self._connection = connection
        return self._connection

    def _roll_back(self) -> None:
        """After an error of `work`'s own."""
        transaction = self._connection.get_transaction() if self._connection is not None else None
        try:
            if transaction is not None:
                transaction.rollback()
        except DBAPIError:
            self._drop()

    def _drop(self) -> None:
        """Whatever the connection was in the middle of is not committed."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        with contextlib.suppress(DBAPIError):
            connection.invalidate()
        with contextlib.suppress(DBAPIError):
            connection.close()

    def _was_committed(self, cut: CommitCut, patient: Patience) -> bool:
        """How a transaction ended whose connection was cut during COMMIT.

        Raises:
            PodiumError: nobody knows.
        """
        if cut.xid is None:
            return False
        while True:
            try:
                with self._engine.connect() as connection, connection.begin():
                    status, life = _status(connection, cut.xid), _life(connection)
            except DBAPIError as error:
                if not is_passing(error):
                    raise told(error, self._place) from error
                status, life = "in progress", cut.life
            if status == "aborted":
                return False
            # a crash forgets ids that had not reached the disk, and gives them out again
            if status == "committed" and life == cut.life:
                return True
            if status != "in progress" or not patient.wait():
                raise unknown_outcome(self._place) from cut.__cause__


def _in_transaction(connection: Connection) -> bool:
    raw = connection.connection.driver_connection
    return raw is not None and raw.in_transaction


def _xid(connection: Connection) -> str:
    return str(connection.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar_one())


def _life(connection: Connection) -> Life:
    return tuple(connection.execute(_LIFE).one())


def _status(connection: Connection, xid: str) -> str | None:
    """committed, aborted, in progress; None when the server does not remember.

    PostgreSQL's documentation, section 9.27.10: `pg_xact_status`.
    """
    try:
        query = text("SELECT pg_xact_status(CAST(CAST(:xid AS text) AS xid8))")
        with connection.begin_nested():
            return connection.execute(query, {"xid": xid}).scalar()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "22023":  # an id of the future: a crash took it back
            return "aborted"
        raise
