"""Remembered things: append-only versions, links to what they were made from."""

from __future__ import annotations

import threading

import pytest
from podium.memory import content, control, forks, items, remember
from podium.memory.database import Database
from podium.memory.errors import PodiumError
from podium.memory.items import Place, Producer
from podium.memory.tables import Blob, Link, Revision, Run, Term
from run_rows import claimed, succeed
from sqlalchemy import select, text, update

PLACE = Place("t", "workflow", "w", "fact")


def put(database: Database, value: object, place: Place = PLACE, **options: object) -> int:
    made = {"producer": Producer(), **options}
    return database.transact(lambda c: items.put_revision(c, place, "fact", value, **made))  # type: ignore[arg-type]


def test_versions_are_appended(database: Database) -> None:
    put(database, {"b": 1, "a": [None, "ü"]})
    put(database, "second", producer=Producer("r", "a", 2))
    with database.read() as connection:
        first, second = items.history(connection, PLACE)
        assert items.history(connection, Place("t", "workflow", "w", "other")) == []
    assert (first.version, first.value, first.producer) == (1, {"b": 1, "a": [None, "ü"]}, Producer())
    assert list(first.value) == ["b", "a"]
    assert (second.version, second.value, second.producer.attempt) == (2, "second", 2)


def test_tenants_do_not_see_each_other(database: Database) -> None:
    put(database, "mine")
    put(database, "theirs", Place("u", "workflow", "w", "fact"))
    with database.read() as connection:
        assert [r.value for r in items.history(connection, PLACE)] == ["mine"]


def test_links_are_kept_once(database: Database) -> None:
    first, second = put(database, 1), put(database, 2)
    third = put(database, 3, derived_from=[first, second, first])
    database.transact(lambda c: items.link(c, "t", third, first, "derived_from"))
    with database.read() as connection:
        found = connection.execute(select(Link.src, Link.dst, Link.kind).order_by(Link.dst)).all()
    assert [tuple(row) for row in found] == [(third, first, "derived_from"), (third, second, "derived_from")]


def test_versions_of_many_threads(database: Database) -> None:
    threads = [threading.Thread(target=put, args=(database, n)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.read() as connection:
        found = items.history(connection, PLACE)
    assert [r.version for r in found] == list(range(1, 13))
    assert sorted(r.value for r in found) == list(range(12))


def test_outputs_of_tasks_are_artifacts_with_their_sources(database: Database) -> None:
    claimed(database)
    succeed(database, "a", "one", remember=True)
    succeed(database, "b", "two", remember=True, derived_from=["a"])
    with database.read() as connection:
        (a,) = items.history(connection, Place("t", "run", "r1", "a"))
        (b,) = items.history(connection, Place("t", "run", "r1", "b"))
        assert connection.execute(select(Link.src, Link.dst)).all() == [(b.id, a.id)]
    assert (a.producer, a.kind, a.text, a.digest, a.tokens) == (
        Producer("r1", "a", 1),
        "artifact",
        "one",
        None,
        1,
    )


def test_fields_of_outputs_are_facts_and_all_can_be_found(database: Database) -> None:
    claimed(database)
    succeed(database, "a", {"city": "Bergen", "nights": 3, "story": "fjord " * 80}, remember=True)
    with database.read() as connection:
        (artifact,) = items.history(connection, Place("t", "run", "r1", "a"))
        (city,) = items.history(connection, Place("t", "run", "r1", "a.city"))
        links = connection.execute(select(Link.src, Link.dst)).all()
    assert (city.kind, city.value, city.text, city.producer.task) == ("fact", "Bergen", "Bergen", "a")
    assert (city.id, artifact.id) in links
    assert artifact.digest is not None
    assert 200 < len(artifact.digest) <= 240
    assert found_by_words(database, "bergen") == {artifact.id, city.id}
    assert artifact.id in found_by_words(database, "fjords")  # a stem
    assert found_by_words(database, "oslo") == set()


def found_by_words(database: Database, words: str) -> set[int]:
    query = {
        "sqlite": "SELECT rowid FROM search WHERE search MATCH :words",
        "postgresql": "SELECT revision_id FROM search WHERE words @@ plainto_tsquery('english', :words)",
    }
    with database.read() as connection:
        return set(connection.execute(text(query[connection.dialect.name]), {"words": words}).scalars())


def test_what_a_pruned_run_remembered_is_gone_unless_a_fork_sees_it(database: Database) -> None:
    claimed(database)
    succeed(database, "a", "a walrus", remember=True)
    database.transact(lambda c: forks.branch(c, "t", "r1", "f1"))
    done = {"status": "succeeded", "finished_at": 1.0}
    database.transact(lambda c: c.execute(update(Run).where(Run.id == "r1").values(**done)))
    assert database.transact(lambda c: control.prune(c, "t", before=2.0)) == ["r1"]
    assert len(found_by_words(database, "walrus")) == 1
    database.transact(lambda c: remember.drop_memory(c, "t", "f1"))
    assert found_by_words(database, "walrus") == set()
    with database.read() as connection:
        assert (
            connection.execute(select(Revision.id)).all()
            == connection.execute(select(Term.words)).all()
            == []
        )


def test_content_is_stored_once_and_checked(database: Database) -> None:
    digests = {database.transact(lambda c: content.put(c, "t", {"x": [1, 2]})) for _ in range(3)}
    (digest,) = digests
    with database.read() as connection:
        assert content.get(connection, "t", digest) == {"x": [1, 2]}
        assert len(connection.execute(select(Blob.hash)).all()) == 1
        with pytest.raises(PodiumError, match="missing"):
            content.get(connection, "u", digest)
    database.transact(lambda c: c.execute(update(Blob).values(data=b"{}")))
    with database.read() as connection, pytest.raises(PodiumError, match="corrupt"):
        content.get(connection, "t", digest)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), b"x"])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(PodiumError, match="no JSON"):
        content.encode(value, "the output")


def test_odd_text_is_made_plain() -> None:
    assert content.plain_text("a\0b\ud800c ü \U0001f600") == "a\ufffdb\ufffdc ü \U0001f600"
