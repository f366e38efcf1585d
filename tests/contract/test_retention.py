"""Sweeps of what has expired or is too old, and old runs made into summaries."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from podium.memory import content, events, items, reads, runs
from podium.memory.damage import damage
from podium.memory.database import Database
from podium.memory.errors import NotFound, PodiumError, UsageError
from podium.memory.forks import fork
from podium.memory.items import Place, Producer, RevisionRecord
from podium.memory.lifecycle.compaction import CHUNK, MOST_CALLS, compact, compactable, digest_with, summarise
from podium.memory.lifecycle.erasure import forget
from podium.memory.lifecycle.retention import Retention, sweep
from podium.memory.tables import Blob, Revision, Term
from run_rows import claimed, new_run, succeed
from sqlalchemy import func, select, update

NOW = 1_800_000_000.0


def put(database: Database, key: str, value: Any, tenant: str = "t", **options: Any) -> int:
    place = Place(tenant, "tenant", "", key)
    kind: Any = options.pop("kind", "note")
    return database.transact(
        lambda c: items.put_revision(c, place, kind, value, producer=Producer(), **options)
    )


def history(database: Database, key: str, tenant: str = "t") -> list[RevisionRecord]:
    with database.read() as connection:
        return items.history(connection, Place(tenant, "tenant", "", key))


def states(database: Database, key: str, tenant: str = "t") -> list[str]:
    return [r.status for r in history(database, key, tenant)]


def blobs(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(Blob)).scalar_one()


def indexed(database: Database) -> set[int]:
    with database.read() as connection:
        return set(connection.execute(select(Term.revision_id)).scalars())


def test_expired_items_go_of_one_tenant_or_all(database: Database) -> None:
    put(database, "old", "first words", expires_at=NOW)
    put(database, "old", "second words")
    later = put(database, "later", "other words", expires_at=NOW + 1)
    forever = put(database, "forever", "more words")
    put(database, "old", "first words", "u", expires_at=NOW - 5)
    swept = sweep(database, "t", NOW)
    assert (swept.items, swept.revisions, swept.blobs) == (1, 2, 2)
    assert states(database, "old") == ["erased", "erased"]
    assert [r.value for r in history(database, "old")] == [{"erased": True, "reason": "expired"}] * 2
    assert states(database, "later") == states(database, "forever") == ["active"]
    assert states(database, "old", "u") == ["active"]
    assert {later, forever} < indexed(database)
    swept = sweep(database, None, NOW)
    assert (swept.items, swept.revisions) == (1, 1)
    assert indexed(database) == {later, forever}
    assert sweep(database, None, NOW).revisions == 0
    assert damage(database) == []


def test_what_is_put_again_does_not_expire_by_the_old_time(database: Database) -> None:
    put(database, "key", "first words", expires_at=NOW)
    sweep(database, "t", NOW)
    put(database, "key", "second words")
    assert sweep(database, "t", NOW).revisions == 0
    assert states(database, "key") == ["erased", "active"]


def test_batches(database: Database) -> None:
    for number in range(7):
        put(database, f"k{number}", f"words {number}", expires_at=NOW - number)
    assert sweep(database, "t", NOW, batch=3).revisions == 7
    assert indexed(database) == set()


def test_rules(database: Database) -> None:
    for text in ("one", "two", "three", "four"):
        put(database, "versions", f"version {text}")
        put(database, "fact", f"version {text}", kind="fact")
    put(database, "aged", "an old thing")
    old = update(Revision).where(Revision.id == history(database, "aged")[0].id).values(created_at=NOW - 100)
    database.transact(lambda c: c.execute(old))
    database.transact(
        lambda c: c.execute(update(Revision).where(Revision.created_at != NOW - 100).values(created_at=NOW))
    )
    rules = [Retention(kind="note", keep_versions=2), Retention(scope="tenant", max_age_s=50)]
    assert sweep(database, "t", NOW, rules=rules).revisions == 3
    assert states(database, "versions") == ["erased", "erased", "active", "active"]
    assert states(database, "fact") == ["active"] * 4
    assert states(database, "aged") == ["erased"]
    assert sweep(database, "t", NOW, rules=[Retention(kind="summary", max_age_s=0)]).revisions == 0


@pytest.mark.parametrize("options", [{}, {"kind": "note"}, {"keep_versions": 0}])
def test_rules_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Retention(**options)


def test_contents_that_others_use_stay(database: Database) -> None:
    put(database, "mine", "the same words", expires_at=NOW)
    put(database, "other", "the same words")
    before = blobs(database)
    assert sweep(database, "t", NOW).blobs == 0
    assert blobs(database) == before + 1  # the tombstone
    assert history(database, "other")[0].value == "the same words"


def test_a_sweep_takes_nothing_that_was_made_from_it(database: Database) -> None:
    first = put(database, "scratch", "a note for an hour", expires_at=NOW)
    put(database, "result", "made from a note for an hour", derived_from=[first])
    sweep(database, "t", NOW)
    assert states(database, "result") == ["active"]
    # nor does an erasure of somebody else take it later
    put(database, "someone", "another thing", subject="s")
    forget(database, "t", "s")
    assert states(database, "result") == ["active"]


def test_a_killed_sweep_is_finished(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    put(database, "key", "words that expire", expires_at=NOW)
    before = blobs(database)

    def die(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("podium.memory.lifecycle.retention.bury", die)
        with pytest.raises(KeyboardInterrupt):
            sweep(database, "t", NOW)
    assert states(database, "key") == ["erased"]
    assert history(database, "key")[0].value == "words that expire"
    assert sweep(database, "t", NOW).blobs == 1
    assert history(database, "key")[0].value == {"erased": True, "reason": "expired"}
    assert blobs(database) == before


def test_writers_go_on_meanwhile(database: Database) -> None:
    for number in range(60):
        put(database, f"k{number}", f"words {number}", expires_at=NOW)
    failures: list[Exception] = []

    def write() -> None:
        try:
            for number in range(30):
                put(database, f"new{number}", f"words {number}")
        except Exception as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=write)
    thread.start()
    swept = sweep(database, "t", NOW, batch=5)
    thread.join(60)
    assert failures == []
    assert swept.revisions == 60
    assert {states(database, f"new{n}")[0] for n in range(30)} == {"active"}
    assert history(database, "new7")[0].value == "words 7"
    assert damage(database) == []


# -- compaction


def finished(database: Database, run: str = "r1") -> None:
    claimed(database, run)
    succeed(database, "a", "Found in " + "the old archive " * 30, run, remember=True)
    succeed(database, "b", {"city": "Ghent", "year": 1432}, run, remember=True, derived_from=["a"])
    place = Place("t", "run", run, "guide")
    database.transact(
        lambda c: items.put_revision(c, place, "note", "ask for Hubert", producer=Producer(run, "a"))
    )
    outputs = {"b": {"city": "Ghent", "year": 1432}}
    database.transact(lambda c: runs.finish_run(c, run, 1, "succeeded", outputs=outputs))


def summaries(database: Database, run: str = "r1") -> list[RevisionRecord]:
    with database.read() as connection:
        return items.history(connection, Place("t", "workflow", "w", f"run/{run}"))


def test_a_run_becomes_one_summary(database: Database) -> None:
    finished(database)
    with database.read() as connection:
        hashes = {
            k: items.history(connection, Place("t", "run", "r1", k))[0].hash for k in ("a", "b", "guide")
        }
    done = compact(database, "t", "r1")
    assert done.originals >= 3
    assert done.blobs >= 1
    (summary,) = summaries(database)
    assert (summary.id, summary.kind, summary.status) == (done.revision, "summary", "active")
    assert (summary.value["run"], summary.value["workflow"]) == ("r1", "w")
    assert hashes.items() <= summary.value["hashes"].items()
    assert "Ghent" in summary.text
    assert "Hubert" in summary.text
    with database.read() as connection:
        for key in ("a", "b", "guide"):
            (original,) = items.history(connection, Place("t", "run", "r1", key))
            assert (original.status, original.value) == ("erased", {"erased": True, "reason": "compacted"})
        assert reads.value(connection, "t", reads.run(connection, "r1").outputs_blob)["b"]["city"] == "Ghent"
        outputs = {t.name: reads.value(connection, "t", t.output_blob) for t in reads.tasks(connection, "r1")}
        assert outputs["b"] == {"city": "Ghent", "year": 1432}
        assert outputs["a"].startswith("Found in")
        assert events.verify(connection, "r1") is None
        assert events.read(connection, "r1")[-1].kind == "memory.compacted"
        with pytest.raises(PodiumError):
            content.get(connection, "t", hashes["guide"])
    assert indexed(database) == {summary.id}
    assert damage(database) == []


def test_compacting_again_changes_nothing(database: Database) -> None:
    finished(database)
    first = compact(database, "t", "r1")
    again = compact(database, "t", "r1")
    assert (again.revision, again.originals, again.blobs) == (first.revision, 0, 0)
    assert len(summaries(database)) == 1


def test_only_what_is_over_is_compacted(database: Database) -> None:
    claimed(database)
    with pytest.raises(UsageError, match="running"):
        compact(database, "t", "r1")
    with pytest.raises(NotFound):
        compact(database, "u", "r1")
    finished(database, "r2")
    database.transact(lambda c: fork(c, "r2", new_run("r3"), "b", {}))
    with pytest.raises(UsageError, match="r3"):
        compact(database, "t", "r2")
    with database.read() as connection:
        assert compactable(connection, "t", NOW * 2) == []
    database.transact(
        lambda c: c.execute(update(runs.Run).where(runs.Run.id == "r3").values(status="failed"))
    )
    with database.read() as connection:
        assert compactable(connection, "t", NOW * 2) == ["r2"]
        assert compactable(connection, "t", 1.0) == compactable(connection, "u", NOW * 2) == []
    compact(database, "t", "r2")
    with database.read() as connection:
        assert compactable(connection, "t", NOW * 2) == []


def test_a_forgotten_subject_is_in_no_summary(database: Database) -> None:
    source = put(database, "who", "Hubert van Eyck, the elder", subject="hubert")
    claimed(database)
    place = Place("t", "run", "r1", "guide")
    database.transact(
        lambda c: items.put_revision(
            c, place, "note", "an old painter", producer=Producer(), derived_from=[source]
        )
    )
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "succeeded", outputs={}))
    compact(database, "t", "r1")
    assert "old painter" in summaries(database)[0].text
    forget(database, "t", "hubert")
    assert summaries(database)[0].status == "erased"


async def test_a_models_digest_is_one_more_version(database: Database) -> None:
    finished(database)
    first = compact(database, "t", "r1").revision
    asked: list[str] = []

    async def complete(prompt: str) -> str:
        asked.append(prompt)
        return " A digest about Ghent. \n"

    made = await digest_with(database, "t", "r1", complete, model="m")
    old, new = summaries(database)
    assert (old.id, new.id, new.text, new.producer.model) == (first, made, "A digest about Ghent.", "m")
    assert new.value == old.value
    assert len(asked) == 1
    assert "Hubert" in asked[0]
    finished(database, "r2")
    with pytest.raises(NotFound):
        await digest_with(database, "t", "r2", complete)


async def test_long_texts_are_digested_in_parts() -> None:
    asked: list[str] = []

    async def complete(prompt: str) -> str:
        asked.append(prompt)
        return f"part {len(asked)} </notes>"

    assert await summarise(["x" * CHUNK, "y" * CHUNK], complete) == "part 4 </notes>"
    assert len(asked) == 4
    assert asked[-1].count("</notes>") == 1
    assert "part 1" in asked[-1]
    asked.clear()
    await summarise(["z" * CHUNK * 100], complete)
    assert len(asked) == MOST_CALLS
    assert max(map(len, asked)) < CHUNK * 2


@pytest.mark.parametrize("texts", [[], [" ", ""], ["something"]])
async def test_a_model_that_says_nothing(texts: list[str]) -> None:
    async def silent(_: str) -> str:
        return "  "

    with pytest.raises(PodiumError):
        await summarise(texts, silent)
