"""Contents and texts encrypted by a key that is kept elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from podium.memory import content, items, reads, runs, sealing
from podium.memory.damage import damage
from podium.memory.database import Database
from podium.memory.errors import ConfigError, PodiumError
from podium.memory.items import Place, Producer, RevisionRecord
from podium.memory.lifecycle.erasure import forget
from podium.memory.lifecycle.retention import sweep
from podium.memory.sealing import Sealer, open_bytes, open_text, read_key, seal_bytes, seal_text, use
from podium.memory.store import TaskMemory
from podium.memory.tables import Blob, Embedding, Revision, Term
from run_rows import claimed, record, succeed, task_records
from sqlalchemy import func, select, update

KEY, OTHER = bytes(range(32)), bytes(32)
SECRET = "Zwölfbrunn Querstrasse, xylophagous marmalade"
LONG = "The quixotic zugzwang of the flummoxed wombat. " * 40
PLACE = Place("t", "tenant", "", "note")

Open = Callable[[bytes | None], Database]


@pytest.fixture
def opened(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the test's database with a key, or without one."""
    made: list[Database] = []

    def make(key: bytes | None) -> Database:
        made.append(Database(database_url))
        made[-1].ensure_schema()
        if key is not None:
            monkeypatch.setenv("MEMORY_KEY", key.hex())
        use(made[-1], None if key is None else "env:MEMORY_KEY")
        return made[-1]

    yield make
    for database in made:
        database.close()


def put(database: Database, value: Any, **options: Any) -> int:
    made = {"producer": Producer(), **options}
    return database.transact(lambda c: items.put_revision(c, PLACE, "note", value, **made))


def history(database: Database) -> list[RevisionRecord]:
    with database.read() as connection:
        return items.history(connection, PLACE)


def scene(database: Database) -> None:
    claimed(database, inputs={"who": SECRET})
    succeed(database, "a", {"found": [SECRET, LONG]}, remember=True)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "succeeded", outputs={"a": LONG}))
    put(database, {"address": SECRET}, subject="s")
    put(database, LONG)


def test_what_is_sealed_is_read_with_its_key(opened: Open) -> None:
    database = opened(KEY)
    scene(database)
    with database.read() as connection:
        assert reads.value(connection, "t", record(database).inputs_blob) == {"who": SECRET}
        assert reads.value(connection, "t", task_records(database)["a"].output_blob)["found"] == [
            SECRET,
            LONG,
        ]
        stored = list(connection.execute(select(Blob.data)).scalars())
    assert all(bytes(data).startswith(sealing.MARK) for data in stored)
    first, second = history(database)
    assert (first.value, first.text) == ({"address": SECRET}, f"address: {SECRET}")
    assert (second.value, second.text) == (LONG, LONG)
    assert second.digest is not None
    assert second.digest.startswith("The quixotic zugzwang")
    assert damage(database) == []


def test_nothing_of_it_is_in_the_rows(opened: Open) -> None:
    database = opened(KEY)
    scene(database)
    with database.read() as connection:
        rows = [
            repr(tuple(row))
            for table in Blob.metadata.sorted_tables
            for row in connection.execute(select(table))
        ]
        assert connection.execute(select(Term.revision_id)).all() == []
        search = "search" if not database.is_sqlite else "search_docsize"
        assert connection.exec_driver_sql(f"SELECT * FROM {search}").all() == []
    found = "\n".join(rows).lower()
    assert "r1" in found
    for word in ("zwölf", "zw\\xc3", "querstrasse", "xylophag", "marmalad", "quixot", "zugzwang", "wombat"):
        assert word not in found, word


def test_nothing_of_it_is_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_KEY", KEY.hex())
    database = Database(f"sqlite:///{tmp_path / 'db' / 'podium.db'}")
    database.ensure_schema()
    use(database, "env:MEMORY_KEY")
    scene(database)
    try:
        data = b"".join(path.read_bytes() for path in (tmp_path / "db").iterdir()).lower()
    finally:
        database.close()
    assert b"run.created" in data
    for word in ("Zwölfbrunn".encode(), b"querstrass", b"xylophag", b"marmalad", b"quixot", b"zugzwang"):
        assert word not in data
    compressed = content.Encoded.of(LONG).stored
    assert compressed[:1] == b"x"
    assert compressed[4:60].lower() not in data
    for key in (KEY, KEY.hex().encode(), base64.b64encode(KEY).lower()):
        assert key not in data


@pytest.mark.parametrize("key", [OTHER, None], ids=["another", "none"])
def test_a_wrong_key_is_told(opened: Open, key: bytes | None) -> None:
    scene(opened(KEY))
    database = opened(key)
    with pytest.raises(ConfigError, match="sealed with the key") as caught:
        history(database)
    assert "memory_key" in caught.value.mend
    assert Sealer(KEY).key_id.hex() in caught.value.message
    with pytest.raises(ConfigError, match="sealed with the key"):
        damage(database)


def test_what_was_written_before_stays_readable(opened: Open) -> None:
    put(opened(None), "written in the open")
    database = opened(KEY)
    put(database, SECRET)
    assert [r.value for r in history(database)] == ["written in the open", SECRET]
    assert [r.text for r in history(database)] == ["written in the open", SECRET]
    assert damage(database) == []


def test_damage_is_found_behind_the_seal(opened: Open) -> None:
    database = opened(KEY)
    put(database, SECRET)
    with database.read() as connection:
        data = bytearray(connection.execute(select(Blob.data)).scalar_one())
    data[-1] ^= 1
    database.transact(lambda c: c.execute(update(Blob).values(data=bytes(data))))
    assert "corrupt" in "".join(damage(database))
    with pytest.raises(PodiumError, match="corrupt"):
        history(database)


def test_a_content_cannot_be_put_in_anothers_place(opened: Open) -> None:
    database = opened(KEY)
    one, other = (database.transact(lambda c, v=v: content.put(c, "t", v)) for v in ("one", "other"))
    with database.read() as connection:
        data = connection.execute(select(Blob.data).where(Blob.hash == one)).scalar_one()
    database.transact(lambda c: c.execute(update(Blob).where(Blob.hash == other).values(data=data)))
    with database.read() as connection, pytest.raises(PodiumError, match="corrupt"):
        content.get(connection, "t", other)


def test_a_sealed_subject_is_forgotten_with_all_copies(opened: Open) -> None:
    database = opened(KEY)
    scene(database)
    receipt = forget(database, "t", "s")
    assert receipt.runs == ("r1",)
    with database.read() as connection:
        texts = [
            json.dumps(content.get(connection, "t", h))
            for h in connection.execute(select(Blob.hash)).scalars()
        ]
        assert not any("Querstrasse" in text or "wombat" in text for text in texts)
        assert connection.execute(select(Revision.text).where(Revision.text.is_not(None))).all() == []
    assert damage(database) == []


def test_sealed_items_are_swept(opened: Open) -> None:
    database = opened(KEY)
    put(database, SECRET, expires_at=5.0)
    assert sweep(database, "t", 6.0).blobs == 1
    assert history(database)[0].value == {"erased": True, "reason": "expired"}


def test_texts(opened: Open) -> None:
    for key in (KEY, None):
        with opened(key).read() as connection:
            for text in ("", "plain", "sealed:", "sealed:plain:x", "ü\ud800"):
                stored = seal_text(connection, text)
                assert stored is not None
                assert open_text(connection, stored) == text
                assert (text == stored) is (key is None and not text.startswith("sealed:"))
            assert seal_text(connection, None) is open_text(connection, None) is None
            assert open_bytes(connection, seal_bytes(connection, b"abc", "about"), "about") == b"abc"
    with opened(KEY).read() as connection:
        stored = seal_text(connection, "something")
        assert stored is not None
        assert seal_text(connection, "something") != stored
        with pytest.raises(ConfigError, match="damaged"):
            open_text(connection, stored[:-8])
        with pytest.raises(ValueError, match="damaged"):
            open_bytes(connection, seal_bytes(connection, b"abc", "about"), "other")


@pytest.mark.parametrize("form", ["hex", "base64", "file"])
def test_keys_are_given_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    written = {"hex": KEY.hex().upper(), "base64": base64.b64encode(KEY).decode(), "file": KEY.hex() + "\n"}[
        form
    ]
    monkeypatch.setenv("MEMORY_KEY", written)
    path = tmp_path / "key"
    path.write_text(written)
    assert read_key(f"file:{path}" if form == "file" else "env:MEMORY_KEY") == KEY


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("env:MEMORY_KEY", None),
        ("env:MEMORY_KEY", "short"),
        ("env:MEMORY_KEY", "00" * 31),
        ("env:MEMORY_KEY", ""),
        ("file:/nowhere/at/all", None),
        ("env:", None),
        ("00" * 32, None),
    ],
)
def test_keys_that_are_none(monkeypatch: pytest.MonkeyPatch, reference: str, value: str | None) -> None:
    monkeypatch.delenv("MEMORY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MEMORY_KEY", value)
    with pytest.raises(ConfigError) as caught:
        read_key(reference)
    assert caught.value.mend
    assert "00" * 31 not in str(caught.value)
    with pytest.raises(ConfigError, match="32"):
        Sealer(b"short")


def test_sealed_memory_is_searched_and_leaves_no_words(opened: Open) -> None:
    database = opened(KEY)
    memory = TaskMemory(database, "t")
    memory.put("boiler", "Halvorsen made the boiler in the cellar", kind="fact")
    memory.put("roof", "slate, laid in 1911", kind="fact")
    gone = memory.put("boiler cover", "the boiler is insured", kind="fact")
    memory.retract("boiler cover")
    assert next(hit.revision.key for hit in memory.search("who built boilers?")) == "boiler"
    assert gone.id not in [hit.revision.id for hit in memory.search("boiler insured")]
    with database.read() as connection:
        for table in (Term, Embedding):
            assert connection.execute(select(func.count()).select_from(table)).scalar() == 0
    database.close()
    again = TaskMemory(opened(KEY), "t")
    assert next(hit.revision.key for hit in again.search("slate")) == "roof"
