"""Memory as a file: nothing is lost between databases, nothing damaged comes in."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from podium.memory.database import Database
from podium.memory.errors import PodiumError, UsageError
from podium.memory.items import NewRevision, Place, Producer
from podium.memory.store import TaskMemory
from podium.memory.tables import Embedding, Erasure
from sqlalchemy import insert, text

ODD = {"z": [1, 2.5, 1e300, -0.0, None, True], "a": "ü\0\ud800 \U0001f600", "n": 2**70}


@pytest.fixture
def other(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Database]:
    """An empty database of the other dialect."""
    url = request.getfixturevalue("postgres_url") if database.is_sqlite else f"sqlite:///{tmp_path / 'o.db'}"
    opened = Database(url)
    opened.ensure_schema()
    yield opened
    opened.close()


def filled(database: Database, tenant: str = "t") -> TaskMemory:
    """Every kind of row, beside another tenant's."""
    TaskMemory(database, "neighbour").put("k", "not mine")
    memory = TaskMemory(database, tenant)
    memory.put_many([NewRevision(Place(tenant, "run", "r1", f"k{n}"), "fact", n) for n in range(1200)])
    by = Producer("r1", "a[3]", 2, "call", "model", "hash", 12_345)
    first = memory.put("odd", ODD, kind="artifact", scope="run", scope_id="r1", producer=by)
    second = memory.put("odd", "again", kind="artifact", scope="run", scope_id="r1", derived_from=[first.id])
    TaskMemory(database, "neighbour").put("k", "not mine either")
    memory.put("who", "Ada", subject="ada", ttl=1e6, valid_from=1.5, valid_to=1e10, text="said of Ada")
    memory.put("w", "of a workflow", scope="workflow", scope_id="w", kind="summary")
    memory.put("mine", [], scope="task", scope_id="r1/a")
    memory.fork("r1", "r2")
    TaskMemory(database, "neighbour").put("k", "nor this")
    memory.fork("r1", "r3")
    memory.put("odd", {"b": 1}, kind="artifact", scope="run", scope_id="r2")
    memory.link(second.id, first.id, "contradicts")
    memory.retract("k7", scope="run", scope_id="r1")
    with database.write() as connection:
        for model in ("b", "a"):
            vector = {"model": model, "tenant": tenant, "dimensions": 2, "vector": struct.pack("<2f", 1, 2)}
            connection.execute(insert(Embedding).values(revision_id=first.id, **vector))
        receipt = {"tenant": tenant, "subject_hash": "x", "at": 5.0, "counts": {"revision": 1}}
        connection.execute(insert(Erasure).values(**receipt))
    return memory


def body(path: Path) -> list[bytes]:
    """The lines, without the date."""
    lines = path.read_bytes().splitlines()
    header = json.loads(lines[0])
    assert header.pop("exported_at")
    return [json.dumps(header).encode(), *lines[1:]]


def test_a_memory_goes_to_the_other_database_and_back(
    database: Database, other: Database, tmp_path: Path
) -> None:
    memory, copy = filled(database), TaskMemory(other, "t")
    count = memory.export(tmp_path / "one")
    assert copy.import_(tmp_path / "one") == count == 1207
    assert copy.export(tmp_path / "two") == count
    assert body(tmp_path / "one") == body(tmp_path / "two")
    assert copy.all() == memory.all()
    for run in ("r1", "r2", "r3"):
        assert copy.all(run_id=run) == memory.all(run_id=run)
    assert copy.get("odd", scope="run", scope_id="r3") == memory.get("odd", scope="run", scope_id="r3")
    assert copy.history("odd", scope="run", scope_id="r2") == memory.history(
        "odd", scope="run", scope_id="r2"
    )
    # ids go on behind those that came in
    newest = max(record.id for record in memory.all())
    assert copy.put("new", 1).id > newest


def test_importing_twice_changes_nothing(database: Database, other: Database, tmp_path: Path) -> None:
    filled(database).export(tmp_path / "one")
    copy = TaskMemory(other, "t")
    copy.import_(tmp_path / "one")
    assert copy.import_(tmp_path / "one") == 0
    copy.export(tmp_path / "two")
    assert body(tmp_path / "one") == body(tmp_path / "two")


def test_ids_that_are_taken_are_given_anew(database: Database, tmp_path: Path) -> None:
    """Into another tenant of the same database; forks cannot be there twice, all else can."""
    memory = TaskMemory(database, "t")
    first = memory.put("k", "one", scope="run", scope_id="r1")
    second = memory.put("k", "two", scope="run", scope_id="r1", derived_from=[first.id])
    memory.put("other", {"x": 1})
    memory.export(tmp_path / "one")
    copy = TaskMemory(database, "u")
    assert copy.import_(tmp_path / "one") == 3
    a, b = copy.history("k", scope="run", scope_id="r1")
    assert (a.value, b.value, a.version, b.version) == ("one", "two", 1, 2)
    assert second.id < a.id < b.id
    assert [(link.src, link.dst) for link in copy.links(b.id)] == [(b.id, a.id)]
    assert copy.import_(tmp_path / "one") == 0
    memory.put("k", "three", scope="run", scope_id="r1")
    memory.export(tmp_path / "more")
    assert copy.import_(tmp_path / "more") == 1
    newest = copy.get("k", scope="run", scope_id="r1")
    assert newest is not None
    assert (newest.value, newest.version) == ("three", 3)
    assert memory.all(scopes=["run"])[0].value == "three"


def test_what_came_in_is_found(database: Database, other: Database, tmp_path: Path) -> None:
    TaskMemory(database, "t").put("k", "the harbour of Oslo")
    TaskMemory(database, "t").export(tmp_path / "one")
    TaskMemory(other, "t").import_(tmp_path / "one")
    found = (
        "SELECT COUNT(*) FROM search WHERE search MATCH 'harbour'"
        if other.is_sqlite
        else "SELECT COUNT(*) FROM search WHERE words @@ to_tsquery('english', 'harbour')"
    )
    with other.read() as connection:
        assert connection.execute(text(found)).scalar() == 1
        assert connection.execute(text("SELECT COUNT(*) FROM term")).scalar() == 1


def test_a_contradiction_is_refused(database: Database, other: Database, tmp_path: Path) -> None:
    TaskMemory(database, "t").put("k", "one")
    TaskMemory(database, "t").put("l", "one")
    TaskMemory(database, "t").export(tmp_path / "one")
    copy = TaskMemory(other, "t")
    copy.put("l", "something else")
    before = copy.all()
    with pytest.raises(UsageError, match="contradicts") as caught:
        copy.import_(tmp_path / "one")
    assert "another tenant" in caught.value.mend
    assert copy.all() == before


def _flip(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"k"', b'"j"'), *lines[2:]]


def _value(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"value":"one"', b'"value":"two"') for line in lines]


DAMAGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a changed letter": _flip,
    "a changed value": _value,
    "a lost line": lambda lines: [*lines[:2], *lines[3:]],
    "a lost end": lambda lines: lines[:-1],
    "half a line": lambda lines: [*lines[:-1], lines[-1][:20]],
    "a line behind the end": lambda lines: [*lines, lines[1]],
    "a doubled line": lambda lines: [*lines[:2], lines[1], *lines[2:]],
    "turned lines": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "another kind of file": lambda lines: [b'{"some": "json"}', *lines[1:]],
    "no JSON": lambda lines: [b"\x89PNG", *lines],
    "nothing": lambda lines: [],
    "a newer format": lambda lines: [lines[0].replace(b'"format":1', b'"format":2'), *lines[1:]],
    "a line of another form": lambda lines: [*lines[:-1], b'{"thing":{}}', lines[-1]],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'podium.db'}")
    database.ensure_schema()
    memory = TaskMemory(database, "t")
    memory.put("k", "one")
    memory.put("k", "three")
    path = tmp_path / "file"
    memory.export(path)
    lines = path.read_bytes().splitlines()
    damaged = DAMAGES[damage](lines)
    assert damaged != lines
    ends = b"\n".join(damaged) + (b"" if damage == "half a line" else b"\n")
    path.write_bytes(ends if damaged else b"")
    copy = TaskMemory(database, "u")
    with pytest.raises(UsageError) as caught:
        copy.import_(path)
    assert caught.value.mend
    assert copy.all() == []
    database.close()


def test_what_was_erased_here_stays_erased(database: Database, tmp_path: Path) -> None:
    memory = TaskMemory(database, "t")
    memory.put("k", "Ada was here, she said so herself", subject="ada")
    memory.export(tmp_path / "one")
    memory.forget("ada")
    assert memory.import_(tmp_path / "one") == 0
    assert memory.get("k") is None


def test_a_file_that_cannot_be_written_or_read(database: Database, tmp_path: Path) -> None:
    memory = TaskMemory(database, "t")
    for ask in (memory.export, memory.import_):
        with pytest.raises(UsageError, match="cannot"):
            ask(tmp_path / "none" / "file")
    assert list(tmp_path.glob("*.part")) == []


def test_nothing_is_written_when_the_database_refuses(
    database: Database, other: Database, tmp_path: Path
) -> None:
    filled(database).export(tmp_path / "one")
    with other.write() as connection:
        connection.execute(text("DROP TABLE embedding"))
    with pytest.raises(PodiumError):
        TaskMemory(other, "t").import_(tmp_path / "one")
    with other.read() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM revision")).scalar() == 0
