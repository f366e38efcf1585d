"""Opens the database: SQLite (WAL, FULL, BEGIN IMMEDIATE) or Postgres, and keeps its schema current."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from .errors import ConfigError
from .gate import Gate
from .outages import Patience, ends_transaction, is_passing, told, trouble
from .writer import Writer

__all__ = ["HEAD", "Connection", "Database", "ends_transaction", "is_conflict", "parse_url"]

T = TypeVar("T")

#: seconds a writer waits for another process's transaction
BUSY_TIMEOUT = 30.0
#: times that a transaction is tried which Postgres gave up for another one
CONFLICT_TRIES = 5
#: seconds an engine's commits wait for a database that is away, locked or full; its reads half of them
PATIENCE = 60.0
#: seconds that a program's write of task memory waits for a database that is away, locked or full
SHORT_PATIENCE = 5.0
#: how Postgres is connected to, where the URL does not say otherwise: a host that is gone is noticed
POSTGRES_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
#: milliseconds after which Postgres ends a transaction whose program was stopped in its middle, so that its
#: locks are free for another engine; and after which a statement that waits for a lock is given up
POSTGRES_SESSION = "SET idle_in_transaction_session_timeout = 10000; SET lock_timeout = 30000"
#: alembic keeps its context in module globals: one upgrade at a time in a process
_UPGRADE = threading.Lock()


def parse_url(url: str) -> URL:
    """A SQLAlchemy URL; `postgres://` and `postgresql://` mean psycopg.

    Raises:
        ConfigError: not a URL, or neither SQLite nor Postgres.
    """
    mend = "use sqlite:///path/to/podium.db or postgresql://user@host/name in PODIUM_DATABASE_URL"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"{url!r} is no database URL", mend=mend) from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(f"Podium does not speak {parsed.get_backend_name()}", mend=mend)
    return parsed


class Database:
    """One database, opened. Reads are snapshots; an engine writes through `commit`, by its Journal.

    What people ask for (`read`, `write`, `transact`) fails at once when the database is away. What an engine
    does (`query`, `commit`) is patient.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE, gate: bool = True) -> None:
        """Args:
        patience: seconds that an engine's commits wait for a database that is away, locked or full.
        gate: SQLite's writers queue (`gate.py`); False: they poll, as they would without Podium.
        """
        self.url = parse_url(url)
        self.patience = patience
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._sqlite() if self.is_sqlite else self._postgres()
        self._hurry = threading.Event()
        self._gate = Gate(Path(str(self.url.database))) if self.is_sqlite and gate else None
        self._writer = Writer(self.engine, self._gate)
        self._keeper = Writer(self.engine, self._gate, busy_timeout=BUSY_TIMEOUT)

    @property
    def place(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string()

    def _sqlite(self) -> Engine:
        if self.url.database in (None, "", ":memory:"):
            raise ConfigError(
                "an in-memory database cannot be durable", mend="give a file: sqlite:///path/to/podium.db"
            )
        path = Path(str(self.url.database))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make the folder {path.parent}: {error.strerror}",
                mend="set PODIUM_HOME to a folder you own",
            ) from error
        # autocommit at the driver: we say BEGIN ourselves, IMMEDIATE for writes
        engine = create_engine(
            self.url,
            poolclass=NullPool,
            connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None, "check_same_thread": False},
        )
        event.listen(engine, "connect", _sqlite_pragmas)
        event.listen(engine, "begin", _sqlite_begin)
        return engine

    def _postgres(self) -> Engine:
        try:
            options = {k: v for k, v in POSTGRES_OPTIONS.items() if k not in self.url.query}
            engine = create_engine(
                self.url, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args=options
            )
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise ConfigError(
                "the Postgres driver is not installed", mend="pip install 'podium[postgres]'"
            ) from error
        event.listen(engine, "connect", _postgres_session)
        return engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot for queries.

        Raises:
            ConfigError: the database cannot be reached, or is damaged.
            PodiumError: it refused a query.
        """
        try:
            with self._connect(write=False) as connection:
                yield connection
        except DBAPIError as error:
            raise told(error, self.place, reading=True) from error

    def query(self, work: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """Do `work`, which only reads, on a snapshot; again while the database is away or locked.

        `patience`: seconds; default: half of the database's.

        Raises:
            PodiumError: as `read`, after that time.
        """
        patient = Patience(self.patience / 2 if patience is None else patience, self._hurry)
        while True:
            try:
                with self._connect(write=False) as connection:
                    return work(connection)
            except DBAPIError as error:
                if not is_passing(error) or not patient.wait():
                    raise told(error, self.place, waited=patient.waited, reading=True) from error

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block and rolls back when it raises.

        SQLAlchemy's errors pass through: see `transact`.
        """
        with self._connect(write=True) as connection:
            yield connection

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction of its own; tried again when Postgres gave it up for another one.

        Raises:
            ConfigError: the database cannot be reached, is locked, full, read-only or damaged.
            PodiumError: it refused the transaction, or `work` raised it; nothing was written.
        """
        tries = 1
        while True:
            try:
                with self.write() as connection:
                    return work(connection)
            except DBAPIError as error:
                if tries < CONFLICT_TRIES and is_conflict(error):
                    tries += 1
                    continue
                raise told(error, self.place) from error

    def commit(self, work: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """Do `work` in a transaction, surely once: tried again while the database is away, locked or full.

        When the connection is cut after COMMIT was sent, Postgres is asked how that ended. `work` may be
        called again from its start, so it does nothing but SQL. An error for which `ends_transaction` holds
        must leave `work`. One thread after the other; the connection is kept.

        Args:
            patience: seconds; default: the database's. After it was in vain once, there is none until a
                commit succeeds.

        Raises:
            ConfigError: the database is still away, locked or full after that time, or it is read-only or
                damaged; nothing was written. `retryable`: it can be tried again.
            PodiumError: it refused the transaction, or `work` raised it, and nothing was written; or it was
                cut off during the commit, and the server does not know any more how that ended.
        """
        return self._writer.commit(work, self.patience if patience is None else patience, self._hurry)

    def keep(self, work: Callable[[Connection], T]) -> T:
        """As `commit`, on a connection of its own, with little patience: for programs that write often.

        Raises:
            ConfigError, PodiumError: as `commit`, after `SHORT_PATIENCE` seconds.
        """
        return self._keeper.commit(work, SHORT_PATIENCE, self._hurry)

    def hurry(self) -> None:
        """Wait for nothing any more: commits and queries that wait fail now. Before closing."""
        self._hurry.set()

    @contextlib.contextmanager
    def _connect(self, *, write: bool) -> Iterator[Connection]:
        connection = self.engine.connect().execution_options(podium_write=write)
        if not write and not self.is_sqlite:
            # else each query of a read would see a state of its own
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        turn = self._gate.hold() if write and self._gate is not None else contextlib.nullcontext()
        with connection, turn, connection.begin():
            yield connection

    def close(self) -> None:
        self._writer.close()
        self._keeper.close()
        if self._gate is not None:
            self._gate.close()
        self.engine.dispose()

    # -- schema

    def upgrade(self, to: str = "head") -> str:
        """Bring the schema to a revision, the newest if none is named; returns it."""
        from alembic import command

        with _UPGRADE:
            self.transact(lambda connection: command.upgrade(_alembic_config(connection), to))
        return self.revision() or ""

    def revision(self) -> str | None:
        """The schema's revision, None for an empty database."""
        from alembic.migration import MigrationContext

        with self.read() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def differences(self) -> list[str]:
        """What the database's schema lacks or has beyond `tables.py`; empty when it is as it should be."""
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        from .tables import Base

        with self.read() as connection:
            options = {"compare_type": True, "include_name": _is_mapped}
            context = MigrationContext.configure(connection, opts=options)
            return [str(d) for d in compare_metadata(context, Base.metadata)]

    def ensure_schema(self) -> None:
        """Upgrade an empty or older database; a current one costs one query.

        A schema that is newer by one is written on: it has nothing that this code must fill in. So engines
        can be replaced one after the other.

        Raises:
            ConfigError: the database was written by a Podium that is newer by more than one schema.
        """
        current = self._quick_revision()
        if current == HEAD:
            return
        if current is not None and int(current) == int(HEAD) + 1:
            return
        if current is not None and current > HEAD:
            self.close()
            raise ConfigError(
                f"the database has schema {current}, this Podium knows {HEAD}",
                mend="install the newer Podium, or point PODIUM_DATABASE_URL at another database",
            )
        self.upgrade()

    def _quick_revision(self) -> str | None:
        """The stored revision without importing alembic, which costs a fifth of a second."""
        table = (
            "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
            if self.is_sqlite
            else "SELECT 1 FROM information_schema.tables WHERE table_name = 'alembic_version'"
            " AND table_schema = current_schema()"
        )
        with self.read() as connection:
            if connection.execute(text(table)).first() is None:
                return None
            row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
            return str(row[0]) if row else None


#: newest schema revision; revisions are numbered, so that they can be compared
HEAD = "0004"


def _is_mapped(name: str | None, kind: str, parents: Any) -> bool:
    """The full-text index differs by dialect, and SQLite keeps it in tables of its own (`search_…`)."""
    return kind != "table" or name is None or not (name == "search" or name.startswith("search_"))


def _alembic_config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option(
        "script_location", os.path.join(os.path.dirname(__file__), "migrations").replace("%", "%%")
    )
    config.attributes["connection"] = connection
    return config


def _sqlite_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    # A deferred read-then-write cannot upgrade a stale snapshot, hence IMMEDIATE for every writer.
    write = connection.get_execution_options().get("podium_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _postgres_session(connection: Any, _record: Any) -> None:
    connection.autocommit = True
    connection.execute(POSTGRES_SESSION)
    connection.autocommit = False


def is_conflict(error: BaseException) -> bool:
    """Whether Postgres gave a transaction up for another one: it may be tried again as it is."""
    return trouble(error) == "conflict"
