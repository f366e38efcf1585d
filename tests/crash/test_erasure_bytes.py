"""What was forgotten is in none of the database's files: not as text, not compressed, not as a stem; whoever
reads or writes meanwhile, and wherever the process is killed.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from podium.memory import content, events, items, runs
from podium.memory.damage import damage
from podium.memory.database import Database
from podium.memory.items import Place, Producer
from podium.memory.lifecycle.erasure import forget, receipts, vacuum
from podium.memory.retrieval.terms import pack, stem, words
from run_rows import claimed, succeed

KEY = b"k" * 32
#: words that nothing else in the files says
SECRET = "Zwölfbrunn Querstrasse, xylophagous marmalade wizardry"
LONG = "The quixotic zugzwang of the flummoxed wombat. " * 40
STAYS = "What others said of pelicans stays where it is."


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'db' / 'podium.db'}"


def fill(database: Database) -> None:
    """Items of the subject among others, superseded versions, a run that was shown them."""
    database.ensure_schema()

    def put(connection: Any, key: str, value: Any, subject: str | None) -> int:
        place = Place("t", "tenant", "", key)
        return items.put_revision(connection, place, "note", value, producer=Producer(), subject=subject)

    for number in range(120):
        database.transact(lambda c, n=number: put(c, f"other{n}", f"{STAYS} {n}", None))
        if number % 30 == 7:
            database.transact(lambda c, n=number: put(c, f"mine{n}", {"address": SECRET, "n": n}, "subject"))
            database.transact(lambda c, n=number: put(c, f"mine{n}", LONG, "subject"))
    claimed(database, inputs={"who": SECRET})
    succeed(database, "a", [LONG, SECRET], remember=True)
    succeed(database, "b", {"of": LONG + SECRET, "all": list(range(400))}, remember=True, derived_from=["a"])
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "succeeded", outputs={"b": LONG}))


def needles() -> list[bytes]:
    """What must be in no file: texts and words, stems as the full-text index stores them, packed terms,
    compressed contents.
    """
    said = {SECRET, "Zwölfbrunn", "Zw\\u00f6lfbrunn", "xylophagous", "marmalade", "quixotic", "zugzwang"}
    stems = {stem(word) for word in words(f"{SECRET} quixotic zugzwang flummoxed wombat") if len(word) > 5}
    found = [text.encode() for text in said | stems]
    found += [pack(word) for word in ("xylophagous marmalade wizardry", "quixotic zugzwang of the flummoxed")]
    for value in (LONG, [LONG, SECRET], {"of": LONG + SECRET, "all": list(range(400))}):
        stored = content.Encoded.of(value).stored
        assert stored[:1] == b"x"
        found.append(stored[10:60])
    return found


def left(tmp_path: Path) -> list[tuple[str, bytes]]:
    """Which of the needles stand in which file, deflated streams opened as well."""
    found = []
    for path in sorted((tmp_path / "db").iterdir()):
        data = path.read_bytes()
        for match in re.finditer(rb"x\x01", data):
            try:
                data += zlib.decompressobj().decompress(data[match.start() : match.start() + 100_000])
            except zlib.error:
                continue
        lower = data.lower()
        found += [(path.name, needle) for needle in needles() if needle in data or needle in lower]
    return found


def check(database: Database) -> None:
    """The others' rows are whole, the run can be shown."""
    assert damage(database) == []
    with database.read() as connection:
        kept = items.history(connection, Place("t", "tenant", "", "other5"))
        assert events.verify(connection, "r1") is None
        query = "SELECT rowid FROM search WHERE search MATCH 'pelicans'"
        assert len(connection.exec_driver_sql(query).all()) == 120
        lost = "SELECT rowid FROM search WHERE search MATCH 'marmalade OR quixotic'"
        assert connection.exec_driver_sql(lost).all() == []
    assert kept[0].value == f"{STAYS} 5"


@pytest.fixture
def filled(tmp_path: Path) -> Any:
    database = Database(url(tmp_path))
    fill(database)
    yield database
    database.close()


def test_no_byte_is_left(tmp_path: Path, filled: Database) -> None:
    assert {needle for _, needle in left(tmp_path)} >= {SECRET.encode(), b"quixot", b"marmalad"}
    receipt = forget(filled, "t", "subject", key=KEY)
    assert receipt.bytes_cleared is True
    assert receipt.note == ""
    assert left(tmp_path) == []
    check(filled)


def test_a_reader_in_the_way_is_told_and_mended(tmp_path: Path, filled: Database) -> None:
    with filled.read() as connection:
        connection.exec_driver_sql("SELECT COUNT(*) FROM blob").all()
        receipt = forget(filled, "t", "subject", key=KEY, patience=0.3)
        assert receipt.bytes_cleared is False
        assert "podium memory vacuum" in receipt.note
        assert left(tmp_path) != []
        with filled.read() as second:
            assert [r.bytes_cleared for r in receipts(second, "t")] == [False]
    assert vacuum(filled) is True
    assert left(tmp_path) == []
    with filled.read() as connection:
        assert [r.bytes_cleared for r in receipts(connection, "t")] == [True]
    check(filled)


def test_an_index_that_lost_its_text_is_written_anew(tmp_path: Path, filled: Database) -> None:
    """Words of a revision whose index row does not fit its text: only a rebuilt index is without them."""
    filled.transact(
        lambda c: c.exec_driver_sql(
            "INSERT INTO search (rowid, text) VALUES (999999, 'xylophagous leftovers')"
        )
    )
    assert forget(filled, "t", "subject", key=KEY).bytes_cleared is True
    assert left(tmp_path) == []
    check(filled)


def test_writers_and_readers_meanwhile(tmp_path: Path, filled: Database) -> None:
    stop, failures = threading.Event(), []

    def work(number: int) -> None:
        own, count = Database(url(tmp_path)), 0
        try:
            while not stop.is_set():
                place = Place("t", "tenant", "", f"w{number}.{count}")
                own.transact(
                    lambda c, p=place: items.put_revision(c, p, "note", "of herons", producer=Producer())
                )
                with own.read() as connection:
                    items.history(connection, place)
                count += 1
        except Exception as error:
            failures.append(error)
            raise
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        receipt = forget(filled, "t", "subject", key=KEY)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert receipt.bytes_cleared is True
    assert left(tmp_path) == []
    check(filled)


#: where the process that forgets is killed: before a function of the room is called
POINTS = [
    "erasure_apply.Apply.free",
    "erasure_bytes._merge",
    "erasure_bytes._checkpoint",
    "erasure_bytes._mark",
]

DRIVER = """
    import os, signal, sys
    from podium.memory.lifecycle import erasure, erasure_apply, erasure_bytes
    from podium.memory.database import Database

    module, *names = sys.argv[2].split(".")
    owner = {"erasure_apply": erasure_apply, "erasure_bytes": erasure_bytes}[module]
    for name in names[:-1]:
        owner = getattr(owner, name)
    setattr(owner, names[-1], lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL))
    erasure.forget(Database(sys.argv[1]), "t", "subject", key=b"k" * 32)
"""


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_the_middle(tmp_path: Path, filled: Database, point: str) -> None:
    arguments = [sys.executable, "-c", textwrap.dedent(DRIVER), url(tmp_path), point]
    died = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died.stderr
    with filled.read() as connection:
        gone = not items.history(connection, Place("t", "tenant", "", "mine7"))[0].value.get("address")
        known = receipts(connection, "t")
    if point == POINTS[0]:  # in the transaction: nothing happened
        assert (gone, known) == (False, [])
    else:
        assert gone
        assert [r.bytes_cleared for r in known] == [False]
    assert forget(filled, "t", "subject", key=KEY).bytes_cleared is True
    assert left(tmp_path) == []
    check(filled)
    with filled.read() as connection:
        assert {r.bytes_cleared for r in receipts(connection, "t")} == {True}
