"""The schema and its migrations, and what transactions promise, on both databases."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from podium.memory import tables
from podium.memory.content import insert_missing, put
from podium.memory.database import HEAD, Database, parse_url
from podium.memory.errors import ConfigError, PodiumError
from sqlalchemy import Connection, func, select, text


def test_an_upgrade_from_nothing_gives_the_schema(database_url: str) -> None:
    database = Database(database_url)
    assert database.revision() is None
    assert database.upgrade() == HEAD
    assert database.differences() == []
    database.close()


def test_differences_are_found(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("ALTER TABLE blob ADD COLUMN colour INTEGER"))
    assert ["colour" in difference for difference in database.differences()] == [True]


def test_ensure_schema(database_url: str) -> None:
    for _ in range(2):
        database = Database(database_url)
        database.ensure_schema()
        assert database.revision() == HEAD
        database.close()


def test_a_newer_schema_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="9999") as caught:
        database.ensure_schema()
    assert "newer Podium" in caught.value.mend
    assert database.revision() == "9999"


def test_several_make_the_schema_at_the_same_time(database_url: str) -> None:
    program = "import sys; from podium.memory.database import Database; Database(sys.argv[1]).ensure_schema()"
    others = [subprocess.Popen([sys.executable, "-c", program, database_url]) for _ in range(2)]
    errors = []

    def ensure() -> None:
        database = Database(database_url)
        try:
            database.ensure_schema()
        except PodiumError as error:
            errors.append(error)
        database.close()

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [process.wait(60) for process in others] == [0, 0]
    assert errors == []
    database = Database(database_url)
    assert database.differences() == []
    database.close()


def test_a_read_is_one_snapshot(database: Database) -> None:
    count = select(func.count()).select_from(tables.Blob)
    with database.read() as reader:
        assert reader.execute(count).scalar() == 0
        database.transact(lambda c: put(c, "t", "new"))
        assert reader.execute(count).scalar() == 0
    with database.read() as reader:
        assert reader.execute(count).scalar() == 1


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        put(connection, "t", "x")
        raise KeyError("mine")

    with pytest.raises(KeyError):
        database.transact(work)
    with database.read() as connection:
        assert connection.execute(select(tables.Blob.hash)).all() == []


def test_writers_wait_for_each_other(database: Database) -> None:
    """Read, then write, from many threads: no update is lost and nobody hears `database is locked`."""
    database.transact(lambda c: c.execute(text("CREATE TABLE counter (n INTEGER)")))
    database.transact(lambda c: c.execute(text("INSERT INTO counter VALUES (0)")))
    lock = "" if database.is_sqlite else " FOR UPDATE"

    def step(connection: Connection) -> None:
        n = connection.execute(text(f"SELECT n FROM counter{lock}")).scalar_one()
        connection.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})

    def work() -> None:
        for _ in range(20):
            database.transact(step)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.read() as connection:
        assert connection.execute(text("SELECT n FROM counter")).scalar() == 160


def test_a_deadlock_is_tried_again(database: Database) -> None:
    """Two transactions put the same content in opposite order; Postgres gives one of them up."""
    gate = threading.Barrier(2)
    done = []

    def work(values: list[str]) -> None:
        first = True

        def write(connection: Connection) -> None:
            nonlocal first
            put(connection, "t", values[0])
            if first and not database.is_sqlite:
                first = False
                gate.wait(10)
            put(connection, "t", values[1])

        database.transact(write)
        done.append(values)

    threads = [threading.Thread(target=work, args=(values,)) for values in (["a", "b"], ["b", "a"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 2


def test_errors_of_the_database_are_podium_errors(database: Database) -> None:
    with pytest.raises(PodiumError, match="refused"):
        database.transact(lambda c: c.execute(text("INSERT INTO nowhere VALUES (1)")))
    with pytest.raises(PodiumError, match="cannot be read"), database.read() as connection:
        connection.execute(text("SELECT 1 FROM nowhere"))


def test_none_is_sql_null_and_not_the_word(database: Database) -> None:
    row = {"id": "r", "tenant": "t", "workflow": "w", "spec_blob": "", "inputs_blob": "", "status": "queued",
           "project_root": "", "preapproved": [], "policy": None, "budget_nano": 0,
           "created_at": 0.0}  # fmt: skip
    database.transact(lambda c: insert_missing(c, tables.Run, [row]))
    with database.read() as connection:
        nulls = text("SELECT count(*) FROM run WHERE policy IS NULL AND error IS NULL")
        assert connection.execute(nulls).scalar() == 1


def test_insert_missing_tells_how_many(database: Database) -> None:
    rows = [{"tenant": "t", "hash": name, "data": b"x"} for name in ("a", "b", "a")]
    assert database.transact(lambda c: insert_missing(c, tables.Blob, rows)) == 2
    assert database.transact(lambda c: insert_missing(c, tables.Blob, rows)) == 0


def test_sqlite_is_durable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/made/podium.db")
    with database.write() as connection:
        settings = {p: connection.execute(text(f"PRAGMA {p}")).scalar() for p in
                    ("journal_mode", "synchronous", "foreign_keys", "secure_delete")}  # fmt: skip
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    database.close()


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Database(url)
    assert "sqlite:///path" in caught.value.mend


def test_postgres_urls() -> None:
    for url in ("postgres://u@h/d", "postgresql://u@h/d", "postgresql+psycopg://u@h/d"):
        assert parse_url(url).drivername == "postgresql+psycopg"


@pytest.mark.parametrize("url", ["sqlite:////proc/nowhere/podium.db", "postgresql://u:secret@127.0.0.1:1/d"])
def test_an_unreachable_database_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Database(url).ensure_schema()
    assert "secret" not in str(caught.value)
    assert caught.value.mend
