"""Search in task memory on both databases: what is seen, what is new, what has gone."""

from __future__ import annotations

import gc
import time
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest
from podium.memory.database import Database
from podium.memory.errors import ConfigError
from podium.memory.indexing import Indexed, unindex
from podium.memory.items import NewRevision, Place, Producer, indexed_text, put_many, put_revision
from podium.memory.retrieval import search as search_module
from podium.memory.retrieval.search import Searcher, search
from podium.memory.retrieval.vectors import default_embedder
from podium.memory.tables import Branch, Embedding, Erasure, Item, Revision, Term
from sqlalchemy import delete, func, insert, select, update


def put(
    database: Database,
    value: str,
    *,
    tenant: str = "t",
    scope: Any = "tenant",
    scope_id: str = "",
    key: str | None = None,
    kind: Any = "fact",
    **options: Any,
) -> int:
    place = Place(tenant, scope, scope_id, key or f"key of {value}")
    made = {"producer": Producer(), **options}
    return database.transact(lambda c: put_revision(c, place, kind, value, **made))


def ids(searcher: Searcher, query: str, k: int = 10, *, tenant: str = "t", **options: Any) -> list[int]:
    return [hit.revision.id for hit in searcher.search(tenant, query, k, **options)]


def fork(database: Database, run: str, parent: str, at: int) -> None:
    row = {"tenant": "t", "run_id": run, "parent": parent, "revision_id": at}
    database.transact(lambda c: c.execute(insert(Branch).values(row)))


@pytest.fixture
def searcher(database: Database) -> Searcher:
    return Searcher(database)


def test_what_was_put_is_found_with_its_value_and_why(database: Database, searcher: Searcher) -> None:
    put(database, "the train to Rome was late")
    (hit,) = searcher.search("t", "late trains", 1)
    assert hit.revision.value == "the train to Rome was late"
    assert hit.why.startswith("says late, trains")
    assert search(database, "t", "late trains", k=1) == [hit]


def test_new_revisions_are_found_at_once(database: Database, searcher: Searcher) -> None:
    assert ids(searcher, "lighthouse") == []
    first = put(database, "the lighthouse is red")
    assert ids(searcher, "lighthouse") == [first]
    many = [NewRevision(Place("t", "tenant", "", f"n{i}"), "note", f"lighthouse {i}") for i in range(30)]
    more = database.transact(lambda c: put_many(c, many))
    assert sorted(ids(searcher, "lighthouse", 50)) == [first, *more]
    assert len(ids(searcher, "lighthouse", 7)) == 7


def test_only_the_newest_version_is_found(database: Database, searcher: Searcher) -> None:
    old = put(database, "the harbour is closed", key="harbour")
    assert ids(searcher, "harbour") == [old]
    new = put(database, "the harbour is open", key="harbour")
    assert ids(searcher, "harbour") == [new]
    put(database, "", key="harbour", status="retracted")
    assert ids(searcher, "harbour") == []


def test_artifacts_are_found_by_what_they_say(database: Database, searcher: Searcher) -> None:
    place = Place("t", "run", "r", "out")
    value = {"city": "Oslo", "notes": ["harbour walk"]}
    made = database.transact(lambda c: put_revision(c, place, "artifact", value, producer=Producer("r", "a")))
    assert ids(searcher, "harbour in Oslo") == [made]
    assert ids(searcher, "harbour in Oslo", kinds=["fact"]) == []


def test_tenants_do_not_find_each_others(database: Database, searcher: Searcher) -> None:
    mine, theirs = put(database, "a secret garden"), put(database, "a secret garden", tenant="u")
    assert ids(searcher, "secret garden") == [mine]
    assert ids(searcher, "secret garden", tenant="u") == [theirs]
    assert ids(searcher, "secret garden", tenant="v") == []


def test_a_run_finds_what_it_sees(database: Database, searcher: Searcher) -> None:
    everywhere = put(database, "gate open")
    own = put(database, "gate open", scope="run", scope_id="r")
    other = put(database, "gate open", scope="run", scope_id="other")
    task = put(database, "gate open", scope="task", scope_id="r/a")
    put(database, "gate open", scope="workflow", scope_id="another")
    assert len(ids(searcher, "gate")) == 5
    assert sorted(ids(searcher, "gate", run_id="r")) == [everywhere, own]
    assert sorted(ids(searcher, "gate", run_id="r", task="a")) == [everywhere, own, task]
    assert ids(searcher, "gate", run_id="r", scopes=["run"]) == [own]
    assert ids(searcher, "gate", run_id="other", scopes=["run"]) == [other]
    assert sorted(ids(searcher, "gate", scopes=["run"])) == [own, other]


def test_a_fork_finds_what_its_parent_said_before(database: Database, searcher: Searcher) -> None:
    before = put(database, "gate open", scope="run", scope_id="r", key="gate")
    fork(database, "f", "r", before)
    after = put(database, "gate shut", scope="run", scope_id="r", key="gate")
    put(database, "gate painted", scope="run", scope_id="r", key="paint")
    assert ids(searcher, "gate", run_id="f") == [before]
    assert after in ids(searcher, "gate", run_id="r")
    own = put(database, "gate gone", scope="run", scope_id="f", key="gate")
    assert ids(searcher, "gate", run_id="f") == [own]


def test_the_past_is_found_as_it_was(database: Database, searcher: Searcher) -> None:
    old = put(database, "gate open", key="gate")
    time_of_old = datetime.now(UTC)
    new = put(database, "gate shut", key="gate")
    later = put(database, "gate painted", key="paint")
    assert ids(searcher, "gate", as_of=old) == [old]
    assert ids(searcher, "gate", as_of=new) == [new]
    assert sorted(ids(searcher, "gate", as_of=later)) == [new, later]
    assert ids(searcher, "gate", as_of=time_of_old) == [old]


def test_what_has_expired_or_does_not_hold_is_not_found(database: Database, searcher: Searcher) -> None:
    holds = put(database, "gate one")
    put(database, "gate two", expires_at=time.time() - 1)
    put(database, "gate three", valid_from=time.time() + 1000)
    put(database, "gate four", valid_to=time.time() - 1)
    assert ids(searcher, "gate") == [holds]


def test_hidden_ones_do_not_crowd_out_the_seen(database: Database, searcher: Searcher) -> None:
    expired = [
        NewRevision(Place("t", "tenant", "", f"e{i}"), "note", "gate gate gate", expires_at=time.time() - 1)
        for i in range(200)
    ]
    database.transact(lambda c: put_many(c, expired))
    seen = put(database, "somewhere there is a gate, among many other things that are said here")
    assert ids(searcher, "gate", 3) == [seen]


def erase(database: Database, revision: int, text: str, *, receipt: bool) -> None:
    def work(connection: Any) -> None:
        item = connection.execute(select(Revision.item_id).where(Revision.id == revision)).scalar_one()
        unindex(connection, [Indexed(revision, text)])
        connection.execute(delete(Revision).where(Revision.id == revision))
        connection.execute(delete(Item).where(Item.id == item))
        if receipt:
            row = {"tenant": "t", "subject_hash": "x", "at": time.time(), "counts": {}}
            connection.execute(insert(Erasure).values(row))

    database.transact(work)


@pytest.mark.parametrize("receipt", [True, False])
def test_erased_revisions_leave_the_index(database: Database, searcher: Searcher, receipt: bool) -> None:
    gone = put(database, "the vault code", key="gone")
    stays = put(database, "the vault door", key="stays")
    assert sorted(ids(searcher, "vault")) == [gone, stays]
    erase(database, gone, indexed_text("fact", "gone", "the vault code"), receipt=receipt)
    assert ids(searcher, "vault") == [stays]
    assert ids(searcher, "vault") == [stays]
    assert gone not in held(searcher)


def held(searcher: Searcher) -> set[object]:
    """The revisions that the index holds."""
    index = searcher._states["t"].index
    everything = index.mask(None, superseded=True)
    return {match.key for match in index.search("vault code door", 100, everything)}


def test_vectors_are_made_once_and_stored(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = put(database, "the lighthouse is red", key="lamp")
    searcher.search("t", "lighthouse")
    with database.read() as connection:
        row = connection.execute(select(Embedding)).one()
    model, size = default_embedder().name, default_embedder().dimensions
    assert (row.revision_id, row.model, row.tenant, row.dimensions) == (revision, model, "t", size)
    assert row.vector == default_embedder().embed(["lamp\nthe lighthouse is red"])[0].astype("<f4").tobytes()

    made: list[int] = []
    monkeypatch.setattr(Searcher, "_store", lambda self, vectors: made.extend(vectors))
    assert ids(Searcher(database), "lighthouse") == [revision]
    assert made == []


def test_vectors_that_cannot_be_stored_do_not_stop_a_search(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = put(database, "the lighthouse is red")

    def refuse(work: Any) -> None:
        raise ConfigError("read-only", mend="…")

    monkeypatch.setattr(database, "transact", refuse)
    assert ids(searcher, "lighthouse") == [revision]


def test_vectors_of_what_was_erased_meanwhile_are_not_stored(database: Database, searcher: Searcher) -> None:
    revision = put(database, "the lighthouse is red")
    with database.read() as connection:
        made = searcher._make(connection, "t", [revision])
    database.transact(lambda c: c.execute(delete(Term).where(Term.revision_id == revision)))
    searcher._store(made)
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(Embedding)).scalar_one() == 0


def test_a_search_that_is_cut_off_leaves_nothing_out(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = put(database, "the lighthouse is red")
    with monkeypatch.context() as patched:

        def fail(*_: Any) -> None:
            raise ConfigError("away", mend="…")

        patched.setattr(Searcher, "_make", fail)
        with pytest.raises(ConfigError):
            searcher.search("t", "lighthouse")
    assert ids(searcher, "lighthouse") == [revision]


def test_a_database_that_is_closed_is_not_kept(database: Database) -> None:
    put(database, "the lighthouse is red")
    other = Database(database.url.render_as_string(hide_password=False))
    assert len(search(other, "t", "lighthouse", k=1)) == 1
    other.close()
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_the_index_forgets_tenants_that_are_not_asked_for(database: Database) -> None:
    searcher = Searcher(database, tenants=2)
    for tenant in ("a", "b", "c"):
        put(database, "gate", tenant=tenant)
        assert len(ids(searcher, "gate", tenant=tenant)) == 1
    assert list(searcher._states) == ["b", "c"]
    assert len(ids(searcher, "gate", tenant="a")) == 1


def test_revisions_committed_after_later_ones_are_found(postgres_url: str) -> None:
    """On Postgres an id is given before the commit: a slow transaction's come late."""
    database = Database(postgres_url)
    database.ensure_schema()
    try:
        searcher = Searcher(database)
        first = put(database, "gate one")
        with database.write() as slow:
            late = put_revision(
                slow, Place("t", "tenant", "", "late"), "fact", "gate two", producer=Producer()
            )
            fast = put(database, "gate three")
            assert sorted(ids(searcher, "gate")) == [first, fast]
        assert late < fast
        assert sorted(ids(searcher, "gate")) == [first, late, fast]
        assert sorted(ids(searcher, "gate")) == [first, late, fast]
    finally:
        database.close()


def test_old_revisions_are_not_waited_for(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(postgres_url)
    database.ensure_schema()
    try:
        searcher = Searcher(database)
        old, new = put(database, "gate one"), put(database, "gate two")
        past = time.time() - search_module.LATE - 1
        change = update(Revision).where(Revision.id == old).values(created_at=past)
        database.transact(lambda c: c.execute(change))
        assert sorted(ids(searcher, "gate")) == [old, new]
        state = searcher._states["t"]
        assert state.settled == old
        assert set(state.recent) == {new}
    finally:
        database.close()
