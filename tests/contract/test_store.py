"""`TaskMemory`: versions, time, scopes, forks, links, and what is refused."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from podium.memory import events, items
from podium.memory.database import Database
from podium.memory.errors import ConfigError, NotFound, PodiumError, UsageError
from podium.memory.items import NewRevision, Place, Producer
from podium.memory.lifecycle.erasure import is_receipt_for
from podium.memory.store import TaskMemory
from podium.memory.tables import Branch, Item, Revision, Run, Task
from run_rows import claimed
from sqlalchemy import func, select, update


@pytest.fixture
def memory(database: Database) -> TaskMemory:
    return TaskMemory(database, "t")


def in_run(run: str) -> dict[str, Any]:
    return {"scope": "run", "scope_id": run}


def test_versions(memory: TaskMemory) -> None:
    by = Producer("r", "a", 2, "call", "model", "hash", 7)
    first = memory.put("k", {"b": 1, "a": ["ü"]}, kind="fact", producer=by)
    assert (first.version, first.value, first.producer, first.text) == (
        1, {"b": 1, "a": ["ü"]}, by, "b: 1\na: ü",
    )  # fmt: skip
    second = memory.put("k", 2.5, kind="fact", text="two and a half")
    assert (second.version, second.text) == (2, "two and a half")
    assert memory.get("k") == second
    assert memory.history("k") == [first, second]
    assert memory.revision(first.id) == first
    assert memory.revision(second.id + 100) is None
    assert memory.get("other") is None
    assert memory.history("other") == []


def test_the_same_again_is_no_new_version(memory: TaskMemory) -> None:
    source = memory.put("source", "s")
    first = memory.put("k", {"a": 1}, subject="ada")
    again = memory.put("k", {"a": 1}, subject="bob", ttl=50, derived_from=[source.id])
    assert (again.id, again.version, again.subject) == (first.id, 1, "bob")
    assert again.expires_at is not None
    assert [(link.src, link.dst) for link in memory.links(first.id)] == [(first.id, source.id)]
    assert memory.put("k", {"a": 1}, text="said otherwise").version == 2
    assert memory.put("k", {"a": 1}, valid_to=time.time() + 100).version == 3
    assert memory.put("k", {"a": 1.0}).version == 4
    memory.retract("k")
    assert memory.put("k", {"a": 1.0}).version == 6


def test_two_who_say_the_same_at_once(memory: TaskMemory) -> None:
    memory.put("k", 0)
    threads = [threading.Thread(target=memory.put, args=("k", "same")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [record.value for record in memory.history("k")] == [0, "same"]


def test_scopes_are_who_sees_it(database: Database, memory: TaskMemory) -> None:
    claimed(database)  # the run r1 of a workflow
    with database.read() as connection:
        name = connection.execute(select(Run.workflow).where(Run.id == "r1")).scalar_one()
    memory.put("tenant", 1)
    memory.put("workflow", 1, scope="workflow", scope_id=name)
    memory.put("other workflow", 1, scope="workflow", scope_id="other")
    memory.put("run", 1, **in_run("r1"))
    memory.put("other run", 1, **in_run("r2"))
    memory.put("task", 1, scope="task", scope_id="r1/a")
    memory.put("other task", 1, scope="task", scope_id="r1/b")

    def keys(**who: Any) -> list[str]:
        return [record.key for record in memory.all(**who)]

    assert keys(run_id="r1") == ["tenant", "workflow", "run"]
    assert keys(run_id="r1", task="a") == ["tenant", "workflow", "run", "task"]
    assert keys(run_id="r2") == ["tenant", "other run"]
    assert len(keys()) == 7
    assert keys(run_id="r1", scopes=["run", "tenant"]) == ["tenant", "run"]
    assert keys(kinds=["fact"]) == []
    assert memory.get("task", scope="task", scope_id="r1/a") is not None
    assert memory.get("task", scope="task", scope_id="r1/b") is None


def test_as_of_a_revision_and_a_moment(database: Database, memory: TaskMemory) -> None:
    first, second = memory.put("k", 1), memory.put("k", 2)
    later = memory.put("later", 3)
    with database.write() as connection:  # a minute between them
        for number, record in enumerate((first, second, later)):
            said = 1_000_000.0 + 60 * number
            connection.execute(update(Revision).where(Revision.id == record.id).values(created_at=said))

    def at(seconds: float) -> list[Any]:
        moment = datetime.datetime.fromtimestamp(1_000_000 + seconds, datetime.UTC)
        return [record.value for record in memory.all(as_of=moment)]

    assert (at(-1), at(0), at(59), at(60), at(120)) == ([], [1], [1], [2], [2, 3])
    assert [record.value for record in memory.all(as_of=first.id)] == [1]
    assert [record.value for record in memory.all(as_of=second.id)] == [2]
    got = memory.get("k", as_of=first.id)
    assert got is not None
    assert got.value == 1


def test_validity_and_expiry(database: Database, memory: TaskMemory) -> None:
    now = time.time()
    memory.put("price", 10)
    memory.put("price", 12, valid_from=now + 1000, valid_to=now + 2000)
    seen = memory.get("price")
    assert seen is not None
    assert seen.value == 10  # the next one does not hold yet

    def at(seconds: float) -> Any:
        found = memory.get("price", as_of=datetime.datetime.fromtimestamp(now + seconds, datetime.UTC))
        return None if found is None else found.value

    assert (at(500), at(1500), at(2500)) == (10, 12, None)
    memory.put("short", "lived", ttl=100)
    assert memory.get("short") is not None
    with database.write() as connection:
        connection.execute(update(Item).where(Item.key == "short").values(expires_at=now - 1))
    assert memory.get("short") is None
    assert "short" not in [record.key for record in memory.all()]


def test_rollback_is_reversible(memory: TaskMemory) -> None:
    one = memory.put("k", "one", text="first", valid_to=2e10)
    two = memory.put("k", "two")
    back = memory.rollback("k", 1)
    assert (back.version, back.value, back.text, back.valid_to) == (3, "one", "first", 2e10)
    assert {(link.src, link.dst, link.kind) for link in memory.links(back.id)} == {
        (back.id, one.id, "derived_from"),
        (back.id, two.id, "supersedes"),
    }
    assert memory.rollback("k", 2).value == "two"
    assert memory.rollback("k", 4).version == 4  # it is the newest already
    gone = memory.retract("k")
    assert (gone.status, gone.value, memory.get("k")) == ("retracted", None, None)
    assert memory.rollback("k", 4).value == "two"
    assert memory.rollback("k", gone.version).status == "retracted"
    assert memory.get("k") is None
    assert [record.version for record in memory.history("k")] == list(range(1, 8))


def test_a_fork_sees_what_was_and_writes_its_own(database: Database, memory: TaskMemory) -> None:
    memory.put("a", 1, **in_run("r1"))
    mark = memory.put("b", 1, **in_run("r1"))
    memory.put("b", 2, **in_run("r1"))
    memory.put("t", 0)
    with database.read() as connection:
        before = connection.execute(select(func.count()).select_from(Revision)).scalar()
    memory.fork("r1", "early", at=mark.id)
    memory.fork("r1", "r2")
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(Revision)).scalar() == before
    memory.put("c", 3, **in_run("r1"))

    def seen(run: str) -> dict[str, Any]:
        return {record.key: record.value for record in memory.all(run_id=run, scopes=["run"])}

    assert seen("early") == {"a": 1, "b": 1}
    assert seen("r2") == {"a": 1, "b": 2}
    assert memory.put("b", 5, **in_run("r2")).version == 3
    memory.retract("a", **in_run("r2"))
    assert (seen("r1"), seen("r2")) == ({"a": 1, "b": 2, "c": 3}, {"b": 5})
    assert [record.value for record in memory.history("b", **in_run("r2"))] == [1, 2, 5]
    memory.fork("r2", "r3")
    assert seen("r3") == {"b": 5}
    assert memory.rollback("a", 1, **in_run("r3")).value == 1
    assert seen("r3") == {"a": 1, "b": 5}
    assert memory.rollback("b", 1, **in_run("r3")).version == 4
    found = memory.diff("r1", "r3")
    assert bool(found)
    assert {k: v.value for k, v in found.removed.items()} == {"c": 3}
    assert {k: (x.value, y.value) for k, (x, y) in found.changed.items()} == {"b": (2, 1)}
    assert not found.added
    assert not memory.diff("r1", "r1")
    assert {k: v.value for k, v in memory.diff("r2", "r3").added.items()} == {"a": 1}


def test_versions_of_many_count_on_in_a_fork(memory: TaskMemory) -> None:
    memory.put("a", 1, **in_run("r1"))
    memory.fork("r1", "r2")
    place = Place("t", "run", "r2", "a")
    memory.put_many([NewRevision(place, "note", n) for n in (2, 3, 4)])
    assert [r.version for r in memory.history("a", **in_run("r2"))] == [1, 2, 3, 4]


def test_a_fork_does_not_see_what_it_does_again(database: Database, memory: TaskMemory) -> None:
    """Of a run that goes on from before a task, what that task once said is the past's."""
    claimed(database)
    for task in ("a", "b", "b[3]"):
        by = Producer("r1", task, 1)
        memory.put(task, f"of {task}", kind="artifact", producer=by, **in_run("r1"))
    memory.put("note", "a person's", **in_run("r1"))
    memory.fork("r1", "r2")
    with database.write() as connection:
        row = {"tenant": "t", "kind": "python", "position": 0, "attempts": 0}
        run = dict(connection.execute(select(Run).where(Run.id == "r1")).mappings().one())
        connection.execute(Run.__table__.insert().values(**run | {"id": "r2", "idempotency_key": None}))  # type: ignore[attr-defined]
        for name, status in (("a", "succeeded"), ("b", "pending")):
            values = row | {"run_id": "r2", "name": name, "status": status, "failures": 0, "deaths": 0}
            connection.execute(Task.__table__.insert().values(**values))  # type: ignore[attr-defined]
        assert events.fence(connection, "r2") == "t"
    assert [record.key for record in memory.all(run_id="r2", scopes=["run"])] == ["a", "note"]
    memory.fork("r2", "r3")
    assert [record.key for record in memory.all(run_id="r3", scopes=["run"])] == ["a", "note"]


def test_a_fork_is_one_row_however_much_it_sees(memory: TaskMemory, database: Database) -> None:
    memory.put_many([NewRevision(Place("t", "run", "r", f"k{n}"), "fact", n) for n in range(1000)])
    with database.read() as connection:
        before = [connection.execute(select(func.count()).select_from(t)).scalar() for t in (Item, Revision)]
    memory.fork("r", "f")
    with database.read() as connection:
        assert [
            connection.execute(select(func.count()).select_from(t)).scalar() for t in (Item, Revision)
        ] == before
        assert connection.execute(select(func.count()).select_from(Branch)).scalar() == 1
    assert memory.get("k999", **in_run("f")) is not None


FOREIGN = Place("u", "tenant", "", "k")
REFUSED: list[tuple[str, type[PodiumError], Callable[[TaskMemory, int, int], Any]]] = [
    ("no id", UsageError, lambda m, one, two: m.put("k", 1, scope="run")),
    ("no id", UsageError, lambda m, one, two: m.put("k", 1, scope="task", scope_id="r1")),
    ("no scope id", UsageError, lambda m, one, two: m.put("k", 1, scope_id="r1")),
    ("no scope 'world'", UsageError, lambda m, one, two: m.put("k", 1, scope="world")),  # type: ignore[arg-type]
    ("no kind", UsageError, lambda m, one, two: m.put("k", 1, kind="idea")),  # type: ignore[arg-type]
    ("no key", UsageError, lambda m, one, two: m.put(" ", 1)),
    ("no key", UsageError, lambda m, one, two: m.get("a\0b")),
    ("no key", UsageError, lambda m, one, two: m.put("k" * 2000, 1)),
    ("no JSON", PodiumError, lambda m, one, two: m.put("k", {1, 2})),
    ("no JSON", PodiumError, lambda m, one, two: m.put("k", float("nan"))),
    ("of the kind note", UsageError, lambda m, one, two: m.put("there", 1, kind="fact")),
    ("over already", UsageError, lambda m, one, two: m.put("k", 1, ttl=0)),
    ("begins", UsageError, lambda m, one, two: m.put("k", 1, valid_from=2, valid_to=1)),
    ("no subject", UsageError, lambda m, one, two: m.put("k", 1, subject="")),
    ("no text", UsageError, lambda m, one, two: m.put("k", 1, text=7)),  # type: ignore[arg-type]
    ("no revision 999", NotFound, lambda m, one, two: m.put("k", 1, derived_from=[999])),
    ("no revision 999", NotFound, lambda m, one, two: m.link(one, 999, "relates")),
    ("no revision 999", NotFound, lambda m, one, two: m.links(999)),
    ("no link", UsageError, lambda m, one, two: m.link(one, two, "likes")),  # type: ignore[arg-type]
    ("itself", UsageError, lambda m, one, two: m.link(one, one, "relates")),
    ("itself", UsageError, lambda m, one, two: m.link(one, two, "supersedes")),
    ("no version 9", NotFound, lambda m, one, two: m.rollback("there", 9)),
    ("no item", NotFound, lambda m, one, two: m.rollback("none", 1)),
    ("no item", NotFound, lambda m, one, two: m.retract("none")),
    ("no run none", NotFound, lambda m, one, two: m.fork("none", "new")),
    ("memory of its own", UsageError, lambda m, one, two: m.fork("r1", "r1")),
    ("memory of its own", UsageError, lambda m, one, two: m.fork("r1", "r2")),
    ("no id of a run", UsageError, lambda m, one, two: m.fork("r1", "a/b")),
    (
        "tenant 'u'",
        UsageError,
        lambda m, one, two: m.put_many([NewRevision(Place("u", "tenant", "", "k"), "note", 1)]),
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_refused_says_why_and_leaves_nothing(database: Database, number: int) -> None:
    memory = TaskMemory(database, "t")
    first, second = memory.put("there", 1), memory.put("there", 2)
    memory.link(second.id, first.id, "supersedes")
    for run in ("r1", "r2"):
        memory.put("k", 1, **in_run(run))
    before = memory.all()
    match, kind, ask = REFUSED[number]
    with pytest.raises(kind, match=match) as caught:
        ask(memory, first.id, second.id)
    assert caught.value.mend
    assert memory.all() == before


def test_one_bad_value_of_many_leaves_nothing(memory: TaskMemory) -> None:
    place = Place("t", "tenant", "", "k")
    with pytest.raises(PodiumError, match="no JSON"):
        memory.put_many([NewRevision(place, "note", 1), NewRevision(place, "note", object())])
    with pytest.raises(UsageError, match="of the kind note"):
        memory.put_many([NewRevision(place, "note", 1), NewRevision(place, "fact", 1)])
    assert memory.history("k") == []
    with pytest.raises(UsageError, match="tenant"):
        TaskMemory(memory.database, "")


def test_contexts_keep_up_with_the_run(database: Database, memory: TaskMemory) -> None:
    """What is added, changed, retracted, corrected or forgotten shows in the next context."""
    claimed(database)

    def said(task: str, value: Any, **options: Any) -> items.RevisionRecord:
        by = Producer("r1", task, 1)
        return memory.put(task, value, kind="artifact", producer=by, **in_run("r1"), **options)

    def context() -> str:
        return memory.context("r1", "b", 400, ask="Which hotel in which city, at what price?").text

    said("a", {"hotel": "Grand", "city": "Oslo"})
    assert "Oslo" in context()
    said("a", {"hotel": "Grand", "city": "Bergen"})
    assert "Bergen" in context()
    assert "Oslo" not in context()
    memory.put("a.city", "Tromsø", kind="fact", **in_run("r1"))
    assert "Tromsø" in context()
    memory.put("rules", "Every hotel price in Narvik includes the tax", kind="note")
    assert "Narvik" in context()
    with pytest.raises(NotFound):
        memory.context("none", "b", 400)
    assert memory.context("r1", "b", 0).text == ""
    cited = memory.context("r1", "b", 400, ask="hotel").citations
    assert cited
    assert [c.step for c in cited if c.revision is None] in ([], ["inputs"])


def test_receipts_are_made_with_the_key_that_is_referred_to(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = TaskMemory(database, "t", receipt_key="env:RECEIPTS")
    memory.put("deadline", "3 May", subject="harbour")
    monkeypatch.delenv("RECEIPTS", raising=False)
    with pytest.raises(ConfigError, match="RECEIPTS"):
        memory.forget("harbour")
    assert memory.get("deadline") is not None
    monkeypatch.setenv("RECEIPTS", "07" * 32)
    receipt = memory.forget("harbour")
    assert receipt.salt is None
    assert is_receipt_for(receipt.subject_hash, "t", "harbour", bytes.fromhex("07" * 32))
    assert memory.get("deadline") is None
