"""The two ends of an erasure: alone with the database, and afterwards no byte left of it in its files.

SQLite keeps what was deleted in free pages, in its log and in the full-text index; here it is overwritten.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from ..content import plain_text
from ..database import Database
from ..errors import PodiumError
from ..hot import run_many
from ..items import indexed_text, records, revisions
from ..outages import Patience, is_passing, told
from ..retrieval.terms import LONGEST_TEXT
from ..tables import Erasure, Revision, Term

T = TypeVar("T")

#: seconds that it waits for readers and writers
PATIENCE = 30.0
#: seconds between two tries
_PAUSE = 0.05
#: documents of the full-text index that nothing stands for any more
_STRAYS = """SELECT 1 FROM (SELECT DISTINCT doc FROM temp.search_words)
WHERE doc NOT IN (SELECT revision_id FROM main.term) LIMIT 1"""


def vacuum(database: Database, patience: float = PATIENCE) -> bool | None:
    """Overwrite what erasures left in SQLite's files; the erasures that waited for it are marked.

    The full-text index is merged (a deleted word stays in it until then), the file written anew, the log cut
    to nothing. Writers wait meanwhile; a reader that keeps an old snapshot for longer than `patience` seconds
    keeps its bytes.

    Returns: True: no deleted byte is left. False: somebody was in the way, call it again. None: Postgres,
    whose VACUUM gives the space free but overwrites nothing.

    Raises:
        PodiumError: the database refused it, e.g. its disk is full.
    """
    if not database.is_sqlite:
        return None
    ends = time.monotonic() + patience
    waiting = _waiting(database)
    with closing(database.engine.raw_connection()) as pooled:
        raw: Any = pooled.driver_connection
        steps: tuple[Callable[[], bool], ...] = (
            lambda: _merge(raw),
            lambda: _statement(raw, "VACUUM"),
            lambda: _checkpoint(raw),
        )
        for number, step in enumerate(steps):
            while not _try(raw, step, ends):
                if time.monotonic() >= ends:
                    return False
                time.sleep(_PAUSE)
            if number == 0 and _has_strays(raw):
                database.transact(_rebuild)
    _mark(database, waiting)
    return True


def _try(raw: sqlite3.Connection, step: Callable[[], bool], ends: float) -> bool:
    raw.execute(f"PRAGMA busy_timeout = {max(1, int((ends - time.monotonic()) * 1000))}")
    try:
        return step()
    except sqlite3.OperationalError as error:
        if is_passing(error):
            return False
        raise PodiumError(
            f"the erased bytes could not be overwritten: {error}",
            mend="check the disk's space, then `podium memory vacuum`; the rows are gone already",
        ) from error


def _merge(raw: sqlite3.Connection) -> bool:
    return _statement(raw, "INSERT INTO search (search) VALUES ('optimize')")


def _statement(raw: sqlite3.Connection, sql: str) -> bool:
    raw.execute(sql)
    return True


def _checkpoint(raw: sqlite3.Connection) -> bool:
    """True: the log is empty and cut. SQLite's documentation: a row (busy, frames, checkpointed)."""
    return raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def _has_strays(raw: sqlite3.Connection) -> bool:
    """Whether the full-text index still knows words of what is no longer indexed."""
    raw.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.search_words USING fts5vocab(main, search, instance)"
    )
    found = raw.execute(_STRAYS).fetchone() is not None
    raw.execute("DROP TABLE temp.search_words")
    return found


def _rebuild(connection: Connection) -> None:
    """Write the full-text index anew from the revisions that are indexed."""
    connection.exec_driver_sql("INSERT INTO search (search) VALUES ('delete-all')")
    tenants = connection.execute(select(Term.tenant).distinct()).scalars().all()
    for tenant in tenants:
        after = 0
        while True:
            wanted = select(Term.revision_id).where(Term.tenant == tenant, Term.revision_id > after)
            ids = connection.execute(wanted.order_by(Term.revision_id).limit(500)).scalars().all()
            if not ids:
                break
            after = ids[-1]
            found = records(connection, tenant, revisions().where(Revision.id.in_(ids)))
            texts = [(r.id, indexed_text(r.kind, r.key, r.text)) for r in found]
            rows = [(number, plain_text(text[:LONGEST_TEXT])) for number, text in texts]
            run_many(connection, "INSERT INTO search (rowid, text) VALUES (?, ?)", rows)
    connection.exec_driver_sql("INSERT INTO search (search) VALUES ('optimize')")


def _waiting(database: Database) -> list[int]:
    """Erasures whose bytes are not known to be gone."""
    with database.read() as connection:
        rows = connection.execute(select(Erasure.id, Erasure.counts)).all()
    return [number for number, counts in rows if counts.get("bytes_cleared") is False]


def _mark(database: Database, waiting: list[int]) -> None:
    def mark(connection: Connection) -> None:
        for start in range(0, len(waiting), 500):
            query = select(Erasure.id, Erasure.counts).where(Erasure.id.in_(waiting[start : start + 500]))
            for number, counts in connection.execute(query).all():
                values = counts | {"bytes_cleared": True}
                connection.execute(update(Erasure).where(Erasure.id == number).values(counts=values))

    if waiting:
        database.transact(mark)


def alone(database: Database, work: Callable[[Connection], T], patience: float) -> T:
    """Do `work` in a transaction while nobody else writes runs, items, outcomes or contents.

    On Postgres the tables are locked at its start. Others take these locks in another order, so that this one
    gives up early and tries again, rather than that they are ended as victims of a deadlock.
    """
    patient, wait = Patience(patience), 500
    while True:
        try:
            with database.write() as connection:
                if not database.is_sqlite:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {wait}")
                    connection.exec_driver_sql(
                        "LOCK TABLE run, item, outcome, router_state, blob IN EXCLUSIVE MODE"
                    )
                return work(connection)
        except DBAPIError as error:
            if not is_passing(error) or not patient.wait():
                raise told(error, database.place, waited=patient.waited) from error
            wait = min(wait + 500, 3000)
