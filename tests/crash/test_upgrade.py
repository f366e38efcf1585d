"""A database of an older Podium, whose engine was killed in mid-run, is upgraded and its run goes on.

`tests/data/rev_0001/*.sql` are dumps of databases that the first Podium (schema 0001) left when SIGKILL met
it: `mid_map` while four python tasks ran, `mid_agent` while a model call was out.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from crash.crash_driver import ROWS
from engine_project import check_books, kinds, lines, replay_spec, statuses, write_steps
from podium import ConfigError, Podium
from podium.memory import learning
from podium.memory.database import HEAD, Database
from podium.workers.local import LocalPool
from sqlalchemy import MetaData, create_engine, insert, inspect, select, text
from sqlalchemy.pool import NullPool

MakePodium = Callable[..., Podium]
DUMPS = Path(__file__).parent.parent / "data" / "rev_0001"
#: columns of a call that schema 0003 has
CALL_0003 = (
    "id, run_id, task, attempt, step, model, status, request_hash, request_blob, response_blob, cost_nano"
)
#: what was finished when the old engine was killed, with its attempts
FINISHED = {
    "mid_map": {"first": 1},
    "mid_agent": {"first": 1, "each": 1, "flaky": 2, "ok": 2, "each[0]": 1, "each[1]": 1, "each[2]": 1},
}


def old_sqlite(file: Path, dump: str, root: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.executescript((DUMPS / f"{dump}.sql").read_text().replace("@ROOT@", str(root)))
    connection.close()


def old_database(url: str, dump: str, root: Path) -> None:
    """The dump as a database at `url`; in Postgres, the old schema with the same rows."""
    target = Database(url)
    if target.is_sqlite:
        old_sqlite(Path(str(target.url.database)), dump, root)
        target.close()
        return
    target.upgrade("0001")
    old_sqlite(root / "old.db", dump, root)
    source = create_engine(f"sqlite:///{root / 'old.db'}", poolclass=NullPool)
    tables = MetaData()
    tables.reflect(source)
    here = MetaData()
    here.reflect(target.engine)
    with source.connect() as old, target.write() as new:
        for table in here.sorted_tables:
            rows = [dict(row) for row in old.execute(select(tables.tables[table.name])).mappings()]
            if rows and table.name != "alembic_version":
                new.execute(insert(table), rows)
        for table in here.sorted_tables:
            for column in table.columns:
                if "nextval" in str(getattr(column.server_default, "arg", "")):
                    sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
                    new.execute(text(f"SELECT setval({sequence}, 1000)"))
    source.dispose()
    target.close()


@pytest.mark.parametrize("dump", ["mid_map", "mid_agent"])
def test_a_run_of_the_first_schema_goes_on(
    make_podium: MakePodium, database_url: str, tmp_path: Path, dump: str
) -> None:
    write_steps(tmp_path)
    (tmp_path / "number").write_text("seven")
    old_database(database_url, dump, tmp_path)
    pool = LocalPool([replay_spec(tmp_path / "answers.jsonl", *ROWS)], tmp_path)
    podium = make_podium(database_url, pool=pool, lease_seconds=1)  # upgrades the database
    assert podium.database.revision() == HEAD
    assert podium.database.differences() == []
    before = podium.get("last")
    assert before.status == "running"
    assert podium.verify(before.id) is None
    events = [(e.seq, e.kind) for e in podium.events(before.id)]

    run = podium.drive(before.id)
    while run.status == "waiting":
        for task in run.waiting:
            podium.approve(run.id, task.record.name)
        run = podium.drive(run.id)

    assert run.status == "succeeded", run.error
    assert run.output == "seven is written"
    assert set(statuses(run).values()) == {"succeeded"}
    assert len(run.tasks) == 9
    attempts = {t.record.name: t.record.attempts for t in run.tasks}
    assert {name: attempts[name] for name in FINISHED[dump]} == FINISHED[dump]
    done = Counter(a.task for a in run.attempts if a.status == "succeeded")
    assert done == dict.fromkeys(attempts, 1)
    assert not [a for a in run.attempts if a.status == "running"]
    # the old chain of events is continued, not begun anew
    assert [(e.seq, e.kind) for e in podium.events(run.id)][: len(events)] == events
    assert kinds(podium, run).count("run.claimed") >= 2
    check_books(podium, run)
    log = lines(tmp_path / "log")
    assert "end" in log
    assert "first" not in log  # it was finished by the old engine
    if dump == "mid_agent":
        # what was paid stays paid, and the call that was out counts at its worst case
        assert Counter(c.status for c in run.calls)["unknown"] == 1
        assert "a" not in log


def test_the_upgrade_of_a_database_is_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """Broken off half-way (here: a table of the new schema is in its way), the old database is as it was."""
    old_database(database_url, "mid_map", tmp_path)
    database = Database(database_url)
    database.transact(lambda c: c.execute(text("CREATE TABLE schedule (x INTEGER)")))
    with pytest.raises(Exception, match="schedule"):
        database.ensure_schema()
    assert database.revision() == "0001"
    columns = {column["name"] for column in inspect(database.engine).get_columns("run")}
    assert "budget_tokens" not in columns
    attempts = database.query(
        lambda c: c.execute(text("SELECT count(*) FROM attempt WHERE status = 'running'")).scalar()
    )
    assert attempts == 5
    database.transact(lambda c: c.execute(text("DROP TABLE schedule")))
    database.ensure_schema()
    assert database.differences() == []
    database.close()


def test_calls_of_the_schema_before_are_examples_after_the_upgrade(
    make_podium: MakePodium, database_url: str, tmp_path: Path
) -> None:
    """A database of schema 0003 with an answered call: nothing of it changes, and it can be graded."""
    old_database(database_url, "mid_agent", tmp_path)
    database = Database(database_url)
    assert database.upgrade("0003") == "0003"
    assert "outcome" not in inspect(database.engine).get_table_names()
    calls = text(f"SELECT {CALL_0003} FROM call ORDER BY id")
    before = database.query(lambda c: c.execute(calls).all())
    database.close()
    podium = make_podium(database_url)
    assert podium.database.revision() == HEAD
    assert podium.database.differences() == []
    assert podium.database.query(lambda c: c.execute(calls).all()) == before
    (settled,) = [row.id for row in before if row.status == "settled"][:1]
    podium.database.transact(lambda c: learning.grade(c, "default", settled, "feedback", 0.7))
    (found,) = podium.database.query(lambda c: learning.examples(c, "default"))
    assert (found.call_id, found.score, found.model, found.propensity) == (settled, 0.7, "replay", 1.0)
    assert found.prompt
    assert found.answer


def test_a_database_of_a_newer_podium_is_refused(make_podium: MakePodium, database_url: str) -> None:
    podium = make_podium(database_url)
    podium.database.transact(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(ConfigError, match="9999") as caught:
        make_podium(database_url)
    assert "newer Podium" in caught.value.mend
    assert caught.value.exit_code == 3
    assert podium.database.revision() == "9999"
