"""A full disk and a read-only database: told, waited for, nothing lost, and the run goes on afterwards."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from crash.outage_project import check_accepted_once, in_background, pausing, project
from engine_project import lines, until
from podium import Podium, Run
from podium.memory.database import Database
from podium.memory.errors import ConfigError, PodiumError
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

MakePodium = Callable[..., Podium]
NAMES = ("one", "two", "three")


class Disk(Protocol):
    """Where a database is whose disk can be filled."""

    folder: Path

    def watch(self, database: Database) -> None: ...
    def fill(self) -> None: ...
    def free(self) -> None: ...


class Tmpfs:
    """A real disk of 4 MB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def watch(self, database: Database) -> None:
        assert str(database.url.database).startswith(str(self.folder))

    def fill(self) -> None:
        with open(self._filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096) == 4096:
                continue

    def free(self) -> None:
        self._filler.unlink()


class Pages:
    """SQLite's own limit: no page more than there are. Says SQLITE_FULL, on every machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._full = False

    def watch(self, database: Database) -> None:
        event.listen(database.engine, "begin", self._limit)

    def fill(self) -> None:
        self._full = True

    def free(self) -> None:
        self._full = False

    def _limit(self, connection: Connection) -> None:
        # a limit below the number of pages means that number
        connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if self._full else 1_000_000}")


@pytest.fixture(params=["tmpfs", "pages"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "pages":
        yield Pages(folder)
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"only root can mount a small disk: {mounted.stderr.strip()}")
    try:
        yield Tmpfs(folder)
    finally:
        # lazily: fixtures that are torn down after this one still hold files there
        subprocess.run(["umount", "-l", str(folder)], check=True)


def opened(make_podium: MakePodium, disk: Disk, folder: Path) -> Podium:
    project(folder)
    podium = make_podium(f"sqlite:///{disk.folder}/podium.db")
    disk.watch(podium.database)
    return podium


def test_a_full_disk_is_waited_for(make_podium: MakePodium, disk: Disk, tmp_path: Path) -> None:
    podium = opened(make_podium, disk, tmp_path)
    thread, found = in_background(lambda: podium.run(pausing(0.3)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    disk.fill()
    until(lambda: "two" in lines(tmp_path / "log"))
    thread.join(1.5)  # the task is over, and its result cannot be stored
    assert found == []
    disk.free()
    thread.join(30)
    assert isinstance(found[0], Run), found
    check_accepted_once(podium, found[0], NAMES)
    assert lines(tmp_path / "log") == ["one", "begun", "two", "three"]  # and it was not done again


def test_a_disk_that_stays_full_is_told_and_the_run_is_resumed(
    make_podium: MakePodium, disk: Disk, tmp_path: Path
) -> None:
    podium = opened(make_podium, disk, tmp_path)
    podium.database.patience = 0.5
    thread, found = in_background(lambda: podium.run(pausing(0.3)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    disk.fill()
    thread.join(30)
    assert isinstance(found[0], PodiumError), found
    assert "the disk of the database is full" in found[0].message
    assert "free some space" in found[0].mend
    assert "podium resume" in found[0].mend
    # what was committed can be read on the full disk, and the run is not over
    run = podium.get("last")
    assert {t.record.name: t.record.status for t in run.tasks}["one"] == "succeeded"
    assert run.status in ("running", "queued")
    disk.free()
    run = podium.drive(run.id)
    check_accepted_once(podium, run, NAMES)
    log = lines(tmp_path / "log")
    assert log.count("one") == log.count("three") == 1
    assert log.count("two") <= 2


def test_a_new_run_on_a_full_disk_is_refused(make_podium: MakePodium, disk: Disk, tmp_path: Path) -> None:
    podium = opened(make_podium, disk, tmp_path)
    disk.fill()
    workflow = pausing(0)
    workflow.python("large", "steps:note", with_={"path": "log", "text": "x" * 3_000_000})
    with pytest.raises(ConfigError, match="disk of the database is full"):
        podium.submit(workflow)
    disk.free()
    assert podium.runs() == []
    assert podium.run(pausing(0)).status == "succeeded"


def test_a_full_disk_takes_nothing_of_a_transaction(disk: Disk) -> None:
    """Also when the error is met in a savepoint: what came before it is not committed on its own."""
    database = Database(f"sqlite:///{disk.folder}/podium.db", patience=0)
    disk.watch(database)
    database.ensure_schema()
    database.transact(lambda c: c.execute(text("CREATE TABLE t (x TEXT)")))

    def work(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES ('small')"))
        with connection.begin_nested():
            for _ in range(50):  # more than the page cache holds: SQLite writes before COMMIT
                connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": "x" * 200_000})

    disk.fill()
    with pytest.raises(ConfigError, match="full") as caught:
        database.commit(work)
    assert caught.value.retryable
    disk.free()
    assert database.query(lambda c: c.execute(text("SELECT count(*) FROM t")).scalar()) == 0
    database.commit(lambda c: c.execute(text("INSERT INTO t VALUES ('small')")))
    assert database.query(lambda c: c.execute(text("SELECT count(*) FROM t")).scalar()) == 1
    database.close()


def test_a_transaction_that_sqlite_gave_up_is_not_committed(tmp_path: Path) -> None:
    """Work that hides an error cannot have what follows it committed statement by statement."""
    database = Database(f"sqlite:///{tmp_path}/podium.db", patience=0.2)
    database.transact(lambda c: c.execute(text("CREATE TABLE t (x TEXT)")))
    tries = []

    def work(connection: Connection) -> str:
        tries.append(1)
        connection.execute(text("INSERT INTO t VALUES ('lost')"))
        if len(tries) == 1:
            connection.exec_driver_sql("ROLLBACK")  # as SQLite does it on SQLITE_FULL and SQLITE_IOERR
        return "done"

    assert database.commit(work) == "done"
    assert len(tries) == 2
    assert database.query(lambda c: c.execute(text("SELECT count(*) FROM t")).scalar()) == 1
    database.close()


def test_a_database_that_becomes_read_only(
    make_podium: MakePodium, postgres_url: str, tmp_path: Path
) -> None:
    """As after a failover to a standby. Refused at once, and the run goes on when it is writable again."""
    project(tmp_path)
    podium = make_podium(postgres_url, lease_seconds=2)
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def set_read_only(value: str) -> None:
        with admin.connect() as connection:
            name = connection.execute(text("SELECT current_database()")).scalar()
            connection.execute(text("SET default_transaction_read_only = off"))
            connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}"))
            kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
            connection.execute(text(f"{kill} AND datname = '{name}'"))

    thread, found = in_background(lambda: podium.run(pausing(0.3)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    set_read_only("on")
    thread.join(20)
    assert isinstance(found[0], PodiumError), found
    assert "read-only" in found[0].message
    assert "podium resume" in found[0].mend
    run = podium.get("last")
    assert run.status in ("running", "queued")
    set_read_only("off")
    check_accepted_once(podium, podium.drive(run.id), NAMES)
    assert lines(tmp_path / "log").count("one") == 1
    admin.dispose()


def test_a_read_only_sqlite_file(make_podium: MakePodium, tmp_path: Path) -> None:
    project(tmp_path)
    file = tmp_path / "podium.db"
    run = make_podium(f"sqlite:///{file}").submit(pausing(0), detached=False)
    podium = make_podium(f"sqlite:///file:{file}?mode=ro&uri=true")
    with pytest.raises(ConfigError, match="read-only") as caught:
        podium.drive(run.id)
    assert "writable" in caught.value.mend
    assert podium.get(run.id).status == "queued"
    assert lines(tmp_path / "log") == []
    check_accepted_once(podium, make_podium(f"sqlite:///{file}").drive(run.id), NAMES)
