"""Many processes write to one memory: none fails, nothing is lost, whatever happens to one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from podium.memory import learning, reads
from podium.memory.database import HEAD, Database
from podium.memory.gate import LONGEST, Gate
from podium.memory.items import NewRevision, Place
from podium.memory.store import TaskMemory
from sqlalchemy import text

WRITERS, BATCHES, BATCH = 16, 6, 5

WRITE = """
import sys
from podium.memory.database import Database
from podium.memory.items import NewRevision, Place
from podium.memory.store import TaskMemory
url, name, batches, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
database = Database(url)
memory = TaskMemory(database, "t")
print("ready", flush=True)
sys.stdin.readline()
for number in range(batches):
    places = [Place("t", "run", name, f"{number}.{n}") for n in range(batch)]
    memory.put_many([NewRevision(place, "note", f"{name} said {place.key}") for place in places])
    memory.put("shared", f"{name} {number}", scope="workflow", scope_id="w")
database.close()
"""

#: what the code of schema 0002 writes when a task has ended, word for word (its `steps.py`)
OLD = """
import sys, time
from podium.memory.database import Database
from podium.memory.content import Encoded, put_encoded
from podium.memory.hot import run_many
ITEM = '''INSERT INTO item (id, tenant, kind, scope, scope_id, key, created_at)
VALUES (?, ?, 'artifact', 'run', ?, ?, ?) ON CONFLICT DO NOTHING'''
REVISION = '''INSERT INTO revision
(tenant, item_id, version, content_blob, status, run_id, task, attempt, created_at)
SELECT item.tenant, item.id,
1 + COALESCE((SELECT MAX(version) FROM revision WHERE item_id = item.id), 0),
CAST(? AS TEXT), 'active', CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS FLOAT)
FROM item WHERE tenant = ? AND scope = 'run' AND scope_id = ? AND key = ?'''
LINK = '''INSERT INTO link (src, dst, kind, tenant, created_at)
SELECT src.id, dst.id, 'derived_from', src.tenant, CAST(? AS FLOAT) FROM
(SELECT MAX(id) AS id, tenant FROM revision WHERE run_id = ? AND task = ? GROUP BY tenant) AS src,
(SELECT MAX(id) AS id FROM revision WHERE run_id = ? AND task = ?) AS dst WHERE dst.id IS NOT NULL
ON CONFLICT DO NOTHING'''
url, run, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = Database(url)
def remember(connection, number):
    value, task, now = Encoded.of(f"{run} {number}"), f"t{number}", time.time()
    put_encoded(connection, "t", [value])
    run_many(connection, ITEM, [(f"{run}/{task}", "t", run, task, now)])
    run_many(connection, REVISION, [(value.hash, run, task, 1, now, "t", run, task)])
    run_many(connection, LINK, [(now, run, task, run, f"t{number - 1}")])
database.commit(lambda connection: remember(connection, 0))
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, count):
    database.commit(lambda connection: remember(connection, number))
database.close()
"""


def started(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ready(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def ended(process: subprocess.Popen[str], seconds: float = 90) -> int:
    process.communicate(timeout=seconds)
    return process.returncode


def test_sixteen_processes_write_and_none_fails(database: Database) -> None:
    url = database.url.render_as_string(hide_password=False)
    writers = [started(WRITE, url, f"r{n}", BATCHES, BATCH) for n in range(WRITERS)]
    ready(writers)
    for writer in writers:
        go(writer)
    assert [ended(writer) for writer in writers] == [0] * WRITERS
    memory = TaskMemory(database, "t")
    for n in range(WRITERS):
        own = memory.all(run_id=f"r{n}", scopes=["run"])
        assert len(own) == BATCHES * BATCH
        assert {record.text for record in own} == {f"r{n} said {record.key}" for record in own}
    shared = memory.history("shared", scope="workflow", scope_id="w")
    assert [record.version for record in shared] == list(range(1, WRITERS * BATCHES + 1))
    assert [record.id for record in shared] == sorted(record.id for record in shared)


def test_writers_that_are_killed_hold_nobody_up(database: Database) -> None:
    """SIGKILL at any moment: the others go on, and what the killed ones wrote is whole or not there."""
    url = database.url.render_as_string(hide_password=False)
    doomed = [started(WRITE, url, f"d{n}", 10_000, BATCH) for n in range(4)]
    others = [started(WRITE, url, f"r{n}", BATCHES, BATCH) for n in range(4)]
    ready([*doomed, *others])
    for writer in (*doomed, *others):
        go(writer)
    memory = TaskMemory(database, "t")
    for n, writer in enumerate(doomed):
        until = time.monotonic() + 60
        while not memory.all(run_id=f"d{n}", scopes=["run"]):
            assert time.monotonic() < until
        writer.kill()
        writer.communicate()
    assert [ended(writer) for writer in others] == [0] * 4
    for n in range(4):
        keys = {record.key for record in memory.all(run_id=f"d{n}", scopes=["run"])}
        batches = {key.partition(".")[0] for key in keys}
        assert keys == {f"{one}.{number}" for one in batches for number in range(BATCH)}
        assert len(memory.all(run_id=f"r{n}", scopes=["run"])) == BATCHES * BATCH


def test_an_upgrade_while_old_code_writes(database_url: str) -> None:
    """Schema 0002 becomes the newest under eight writers of its code; what they wrote is read by the new."""
    database = Database(database_url)
    database.upgrade("0002")
    writers = [started(OLD, database_url, f"r{n}", 40) for n in range(8)]
    ready(writers)
    for writer in writers:
        go(writer)
    assert database.upgrade() == HEAD
    assert [ended(writer) for writer in writers] == [0] * 8
    assert database.differences() == []
    memory = TaskMemory(database, "t")
    for n in range(8):
        records = memory.all(run_id=f"r{n}")
        assert [record.text for record in records] == [f"r{n} {number}" for number in range(40)]
        assert [record.producer.task for record in records] == [f"t{number}" for number in range(40)]
        assert [(link.src, link.dst) for link in memory.links(records[1].id)] == [
            (records[1].id, records[0].id),
            (records[2].id, records[1].id),
        ]
        newer = memory.put("t3", "said anew", kind="artifact", scope="run", scope_id=f"r{n}")
        assert newer.version == 2
    database.close()


#: what the code of schema 0003 writes of a call (its `ledger.py`), as its statements were built
OLD_CALLS = """
import json, sys, time
from podium.memory.database import Database
from podium.memory.content import Encoded, put_encoded
from podium.memory.hot import run_many
RESERVE = '''INSERT INTO call (id, run_id, task, attempt, step, tenant, model, status, route, request_hash,
request_blob, reserved_nano, reserved_tokens, created_at)
VALUES (?, ?, 'a', 1, ?, 't', 'm', 'reserved', ?, 'h', ?, 10, 0, ?)'''
SENT = "UPDATE call SET status = 'sent', worker = 'm:0' WHERE id = ? AND status = 'reserved'"
SETTLE = '''UPDATE call SET status = 'settled', cost_nano = 7, finished_at = ?, response_blob = ?,
finish_reason = 'stop', input_tokens = 3, output_tokens = 2, first_token_s = 0.0, total_s = 0.5,
worker = 'm:0' WHERE id = ?'''
url, run, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = Database(url)
def reserve(connection, number):
    asked = Encoded.of({"messages": [{"role": "user", "content": f"{run} asks {number}"}]})
    put_encoded(connection, "t", [asked])
    row = (f"{run}-{number:04}", run, number, json.dumps({"model": "m"}), asked.hash, time.time())
    run_many(connection, RESERVE, [row])
def settle(connection, number):
    answer = Encoded.of({"text": f"{run} hears {number}"})
    put_encoded(connection, "t", [answer])
    run_many(connection, SETTLE, [(time.time(), answer.hash, f"{run}-{number:04}")])
def call(number):
    database.commit(lambda connection: reserve(connection, number))
    database.commit(lambda connection: run_many(connection, SENT, [(f"{run}-{number:04}",)]))
    database.commit(lambda connection: settle(connection, number))
call(0)
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, count):
    call(number)
database.close()
"""
#: a run as the code of schema 0003 makes it
OLD_RUN = """INSERT INTO run (id, tenant, workflow, spec_blob, inputs_blob, status, project_root, priority,
preapproved, budget_nano, reserved_nano, settled_nano, reserved_tokens, settled_tokens, used_seconds, epoch,
beat, detached, cancel_requested, pause_requested, control_version, graph_version, event_seq, event_head,
created_at) VALUES (:id, 't', 'w', '', '', 'running', '/', 0, '[]', 1000, 0, 0, 0, 0, 0, 1, 0, FALSE, FALSE,
FALSE, 0, 0, 0, '', 0)"""


def test_an_upgrade_while_the_code_before_makes_calls(database_url: str) -> None:
    """Schema 0003 becomes 0004 under eight engines of the old code; their calls can be graded by the new."""
    database = Database(database_url)
    database.upgrade("0003")
    runs = [f"r{n}" for n in range(8)]
    for run in runs:
        database.transact(lambda c, run=run: c.execute(text(OLD_RUN), {"id": run}))
    writers = [started(OLD_CALLS, database_url, run, 20) for run in runs]
    ready(writers)
    for writer in writers:
        go(writer)
    assert database.upgrade() == HEAD
    assert [ended(writer) for writer in writers] == [0] * 8
    assert database.differences() == []
    for run in runs:
        with database.read() as connection:
            calls = reads.calls(connection, run)
        assert [(call.verdict, call.review) for call in calls] == [(None, None)] * 20
        database.transact(lambda c, one=calls[3].id: learning.grade(c, "t", one, "feedback", 1))
    with database.read() as connection:
        found = learning.examples(connection, "t")
    assert [(e.prompt, e.answer) for e in found] == [(f"{run} asks 3", f"{run} hears 3") for run in runs]
    database.close()


# -- the gate of SQLite's writers

HOLD = """
import sys
from pathlib import Path
from podium.memory.gate import Gate
gate = Gate(Path(sys.argv[1]))
with gate.hold() as held:
    print("ready" if held else "not held", flush=True)
    sys.stdin.readline()
print("out", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holding(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the gate, until it is told to let go."""
    process = started(HOLD, file)
    ready([process])
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_gate_is_held_by_one(tmp_path: Path) -> None:
    gate, order = Gate(tmp_path / "db"), []

    def enter(number: int) -> None:
        with gate.hold() as held:
            assert held
            order.append(number)
            assert len(order) % 2 == 1
            order.append(number)

    threads = [threading.Thread(target=enter, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(order[::2]) == list(range(8))
    gate.close()


def test_who_waits_gets_the_gate_when_it_is_free(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "db")
    with holding(tmp_path / "db") as other:
        timer = threading.Timer(0.1, go, [other])
        timer.start()
        with gate.hold() as held:
            assert held
        timer.join()
    with gate.hold() as held:
        assert held
    gate.close()


def test_a_killed_holder_frees_the_gate(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "db")
    with holding(tmp_path / "db") as other:
        timer = threading.Timer(0.1, other.kill)
        timer.start()
        begin = time.monotonic()
        with gate.hold() as held:
            assert held
        assert time.monotonic() - begin < LONGEST
        timer.join()
    gate.close()


def test_a_stopped_holder_holds_nobody_up(tmp_path: Path) -> None:
    """After a while a writer goes on without the gate, the next ones at once; later it is there again."""
    gate = Gate(tmp_path / "db")
    with holding(tmp_path / "db") as other:
        os.kill(other.pid, signal.SIGSTOP)
        with gate.hold(0.2) as held:
            assert not held
        begin = time.monotonic()
        with gate.hold() as held:
            assert not held
        assert time.monotonic() - begin < LONGEST
        os.kill(other.pid, signal.SIGCONT)
        go(other)
        until = time.monotonic() + 20
        while not came_back(gate):
            assert time.monotonic() < until
    gate.close()


def came_back(gate: Gate) -> bool:
    with gate.hold() as held:
        return held


def test_the_gate_is_let_go_when_a_write_fails(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "db")

    def fail() -> None:
        with gate.hold() as held:
            assert held
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
    gate.close()


def test_a_forked_process_has_a_gate_of_its_own(tmp_path: Path) -> None:
    """It shares its parent's open files, and must not take the gate to be its own with them."""
    gate = Gate(tmp_path / "db")
    with gate.hold() as held:
        assert held
    with gate.hold():
        child = os.fork()
        if child == 0:
            gate._mutex = threading.Lock()
            with gate.hold(0.1) as mine:
                os._exit(1 if mine else 0)
        assert os.waitpid(child, 0)[1] == 0
    gate.close()


def test_without_a_place_for_its_files_there_is_no_gate(tmp_path: Path) -> None:
    with Gate(tmp_path / "none" / "db").hold() as held:
        assert not held


def test_writers_go_on_while_the_holder_of_the_gate_is_stopped(tmp_path: Path) -> None:
    """Of two databases' worth of writers none fails, and none waits for SQLite's lock, which is free."""
    file = tmp_path / "podium.db"
    database = Database(f"sqlite:///{file}")
    database.ensure_schema()
    memory = TaskMemory(database, "t")
    with holding(file) as other:
        os.kill(other.pid, signal.SIGSTOP)
        for number in range(5):
            memory.put_many([NewRevision(Place("t", "tenant", "", f"k{number}"), "note", number)])
        database.transact(lambda c: c.execute(text("UPDATE item SET subject = 'x'")))
    assert len(memory.all()) == 5
    database.close()
