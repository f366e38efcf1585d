"""The database is away for a while, or is cut off during a commit: the run goes on, and nothing twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crash.outage_project import TASKS, chain, check_accepted_once, in_background, pausing, project
from crash.proxy import Cut, Proxy
from engine_project import lines, until
from podium import Podium, Run
from podium.memory.database import Connection, Database
from podium.memory.errors import ConfigError, PodiumError
from sqlalchemy import text

MakePodium = Callable[..., Podium]


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    with Proxy(postgres_url) as opened:
        yield opened


# -- away


def test_postgres_is_away_while_a_run_runs(make_podium: MakePodium, proxy: Proxy, tmp_path: Path) -> None:
    project(tmp_path)
    podium = make_podium(proxy.url)
    thread, found = in_background(lambda: podium.run(pausing(0.5)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    proxy.go()
    until(lambda: "two" in lines(tmp_path / "log"))
    with pytest.raises(PodiumError) as refused:  # a person's question is refused at once
        podium.get("last")
    assert "doctor" in refused.value.mend
    thread.join(2)  # the outage itself
    assert found == []
    proxy.come()
    thread.join(30)
    assert isinstance(found[0], Run), found
    check_accepted_once(podium, found[0], ("one", "two", "three"))
    assert lines(tmp_path / "log") == ["one", "begun", "two", "three"]  # and nothing was done twice


def test_postgres_stalls_while_a_run_runs(make_podium: MakePodium, proxy: Proxy, tmp_path: Path) -> None:
    project(tmp_path)
    podium = make_podium(proxy.url)
    thread, found = in_background(lambda: podium.run(pausing(0.3)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    with proxy.stalled():
        until(lambda: "two" in lines(tmp_path / "log"))
        thread.join(2)  # the outage itself
        assert found == []
    thread.join(30)
    assert isinstance(found[0], Run), found
    check_accepted_once(podium, found[0], ("one", "two", "three"))
    assert lines(tmp_path / "log") == ["one", "begun", "two", "three"]


def test_postgres_stays_away_and_the_run_is_resumed(
    make_podium: MakePodium, proxy: Proxy, tmp_path: Path
) -> None:
    project(tmp_path)
    podium = make_podium(proxy.url, lease_seconds=2)
    podium.database.patience = 1.0
    thread, found = in_background(lambda: podium.run(pausing(0.2)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    proxy.go()
    thread.join(30)
    assert isinstance(found[0], PodiumError), found
    assert found[0].retryable
    assert "resume" in found[0].mend
    proxy.come()
    run = podium.drive(podium.get("last").id)
    check_accepted_once(podium, run, ("one", "two", "three"))
    assert lines(tmp_path / "log").count("one") == 1  # what was committed is not done again


def test_sqlite_is_locked_by_another_process(make_podium: MakePodium, tmp_path: Path) -> None:
    project(tmp_path)
    podium = make_podium(None)
    file = str(podium.database.url.database)
    locker = (
        "import sqlite3, sys, time\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)\n"
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read(); c.execute('ROLLBACK')"
    )
    thread, found = in_background(lambda: podium.run(pausing(0.3)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    with subprocess.Popen(
        [sys.executable, "-c", locker, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        until(lambda: "two" in lines(tmp_path / "log"))
        thread.join(2)  # the outage itself
        assert found == []
        other.communicate()
    thread.join(30)
    assert isinstance(found[0], Run), found
    check_accepted_once(podium, found[0], ("one", "two", "three"))
    assert lines(tmp_path / "log") == ["one", "begun", "two", "three"]


def test_sqlite_that_stays_locked_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/podium.db", patience=0.5)
    database.ensure_schema()
    other = sqlite3.connect(tmp_path / "podium.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(ConfigError, match="locked by another program") as caught:
        database.commit(lambda c: c.execute(text("DELETE FROM blob")))
    assert 0.4 < time.monotonic() - start < 10
    assert caught.value.retryable
    other.execute("ROLLBACK")
    other.close()
    database.commit(lambda c: c.execute(text("DELETE FROM blob")))
    database.close()


# -- cut off in a commit


@pytest.mark.parametrize("how", ["unsent", "unanswered"])
@pytest.mark.parametrize("of", [b"task.started", b"task.succeeded", b"run.succeeded"])
def test_a_connection_cut_at_commit(
    make_podium: MakePodium, proxy: Proxy, tmp_path: Path, of: bytes, how: Cut
) -> None:
    """The COMMIT never reaches the server, or its answer never the engine."""
    project(tmp_path)
    podium = make_podium(proxy.url)
    proxy.cut_at_commit(of, how)
    run = podium.run(chain())
    assert proxy.cuts == 1
    check_accepted_once(podium, run, TASKS)
    assert lines(tmp_path / "log") == list(TASKS)


def counter(url: str) -> Database:
    database = Database(url, patience=20)
    database.transact(lambda c: c.execute(text("CREATE TABLE counter (n INTEGER, note TEXT)")))
    return database


def add(connection: Connection) -> str:
    connection.execute(text("INSERT INTO counter VALUES (1, :note)"), {"note": "counted"})
    return "result"


def count(database: Database) -> int:
    return database.query(lambda c: c.execute(text("SELECT count(*) FROM counter")).scalar_one())


@pytest.mark.parametrize("how", ["unsent", "unanswered"])
def test_a_commit_cut_off_is_made_once(proxy: Proxy, how: Cut) -> None:
    database = counter(proxy.url)
    for n in range(1, 4):
        proxy.cut_at_commit(b"counted", how)
        assert database.commit(add) == "result"
        assert (proxy.cuts, count(database)) == (n, n)
    database.close()


def test_a_commit_that_is_still_under_way_is_waited_for(proxy: Proxy) -> None:
    """Looked up, the transaction is in progress: doing it again now would do it twice."""
    database = counter(proxy.url)
    proxy.cut_at_commit(b"counted", "held")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(database.commit(add)))
    thread.start()
    until(lambda: proxy.cuts == 1)
    assert count(database) == 0
    thread.join(0.3)
    assert found == []
    proxy.release()
    thread.join(20)
    assert found == ["result"]
    assert count(database) == 1
    database.close()


def test_an_outcome_that_nobody_knows_is_told(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash of the server an id of a transaction may be another's: it proves nothing."""
    from podium.memory import writer

    database = counter(proxy.url)
    assert database.commit(add) == "result"
    monkeypatch.setattr(writer, "_life", lambda connection: ("another life",))
    proxy.cut_at_commit(b"counted", "unanswered")
    with pytest.raises(PodiumError, match="how that ended") as caught:
        database.commit(add)
    assert caught.value.retryable
    assert "resume" in caught.value.mend
    assert database.commit(lambda c: "goes on") == "goes on"
    database.close()


def test_errors_of_the_work_itself_are_not_tried_again(database: Database) -> None:
    tries = []

    def wrong(connection: Connection) -> None:
        tries.append(1)
        connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(PodiumError, match="refused the transaction"):
        database.commit(wrong)
    with pytest.raises(KeyError):
        database.commit(lambda c: {}["none"])
    assert tries == [1]
    assert database.commit(lambda c: 7) == 7


def test_hurry_ends_the_waiting(proxy: Proxy) -> None:
    database = counter(proxy.url)
    proxy.go()
    failures: list[BaseException] = []

    def commit() -> None:
        try:
            database.commit(add)
        except PodiumError as error:
            failures.append(error)

    thread = threading.Thread(target=commit)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    database.hurry()
    thread.join(5)
    assert not thread.is_alive()
    assert "cannot reach the database" in str(failures[0])
    proxy.come()
    database.close()
