"""A fork takes over what was finished before its point, by reference, whatever state its source is in."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from podium.memory import content, control, events, forks, items, reads, runs
from podium.memory.database import Database
from podium.memory.errors import NotFound, UsageError
from podium.memory.forks import Forked
from podium.memory.graphs import NewEdge, NewTask
from podium.memory.items import Place, Producer
from podium.memory.tables import Blob, Branch, Run, Task
from run_rows import new_run, record, task_records, task_states
from sqlalchemy import func, insert, select, update

#: a → b → d, c → d, d → e
TASKS = [NewTask(name, "llm") for name in "abcde"]
EDGES = [NewEdge("a", "b", "data"), NewEdge("b", "d", "data"), NewEdge("c", "d", "data")]
EDGES += [NewEdge("d", "e", "order")]


def source(database: Database, states: Mapping[str, str], run_id: str = "r1") -> None:
    """A run whose tasks stand so; each that succeeded has its name as its output."""
    database.transact(lambda c: runs.create(c, new_run(run_id, tasks=TASKS, edges=EDGES)))
    for name, status in states.items():
        set_state(database, name, status, run_id)


def set_state(database: Database, name: str, status: str, run_id: str = "r1") -> None:
    def change(connection: Any) -> None:
        values: dict[str, Any] = {"status": status, "attempts": 2}
        if status == "succeeded":
            values["output_blob"] = content.put(connection, "t", f"output of {name}")
        connection.execute(update(Task).where(Task.run_id == run_id, Task.name == name).values(**values))

    database.transact(change)


def fork(
    database: Database,
    at: str,
    new_id: str = "f1",
    of: str = "r1",
    changed: Mapping[str, Sequence[str]] | None = None,
    **fields: Any,
) -> Forked:
    new = new_run(new_id, tasks=TASKS, edges=EDGES, **fields)
    return database.transact(lambda c: forks.fork(c, of, new, at, changed or {}))


def blobs(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(Blob)).scalar_one()


ALL = dict.fromkeys("abcde", "succeeded")


def test_what_is_not_behind_the_fork_is_taken_over_by_reference(database: Database) -> None:
    source(database, ALL)
    before = blobs(database)
    found = fork(database, "b", budget_nano=77)
    assert found.reused == ("a", "c")
    assert found.again == {}
    assert blobs(database) == before  # nothing was copied
    old, new = task_records(database), task_records(database, "f1")
    assert {n: t.status for n, t in new.items()} == {
        "a": "succeeded", "b": "pending", "c": "succeeded", "d": "pending", "e": "pending",
    }  # fmt: skip
    assert [new[n].output_blob for n in "ac"] == [old[n].output_blob for n in "ac"]
    assert [t.attempts for t in new.values()] == [0] * 5
    made, origin = record(database, "f1"), record(database)
    assert (made.forked_from, made.forked_seq) == ("r1", origin.event_seq)
    assert (made.status, made.budget_nano, made.settled_nano, made.reserved_nano) == ("queued", 77, 0, 0)
    with database.read() as connection:
        chain = events.read(connection, "f1")
        assert [e.kind for e in chain] == ["run.created", "run.forked"]
        assert chain[1].data == {"run": "r1", "seq": origin.event_seq, "from": "b", "reused": 2}
        assert events.verify(connection, "f1") is None
        assert {(e.src, e.dst) for e in reads.edges(connection, "f1")} == {(e.src, e.dst) for e in EDGES}


def test_skipped_tasks_are_taken_over_and_unfinished_ones_are_not(database: Database) -> None:
    source(database, {"a": "succeeded", "b": "skipped", "c": "failed", "d": "pending"})
    assert fork(database, "e").reused == ("a", "b")
    assert task_states(database, "f1") == {
        "a": "succeeded", "b": "skipped", "c": "pending", "d": "pending", "e": "pending",
    }  # fmt: skip


def test_a_task_that_rests_on_a_changed_input_runs_again(database: Database) -> None:
    source(database, ALL)
    found = fork(database, "e", changed={"a": ["x"], "c": ["y"]}, inputs={"x": 2, "y": 2})
    assert found.reused == ()
    assert found.again == {"a": ("x",), "b": ("x",), "c": ("y",), "d": ("x", "y")}
    assert set(task_states(database, "f1").values()) == {"pending"}
    found = fork(database, "d", "f2", changed={"c": ["x"]})
    assert (found.reused, found.again) == (("a", "b"), {"c": ("x",)})


@pytest.mark.parametrize(
    "status", ["queued", "running", "waiting", "paused", "failed", "stopped", "cancelled"]
)
def test_the_source_may_be_in_any_state(database: Database, status: str) -> None:
    source(database, {"a": "succeeded", "b": "running"})
    database.transact(lambda c: c.execute(update(Run).values(status=status)))
    assert fork(database, "b").reused == ("a",)
    assert record(database).status == status
    assert task_states(database)["b"] == "running"


def test_what_was_undone_runs_again_with_what_rests_on_it(database: Database) -> None:
    source(database, ALL)
    undo = {"run_id": "r1", "tenant": "t", "kind": "python", "position": 9, "status": "succeeded"}
    rows = [{**undo, "name": "undo:b", "attempts": 1}, {**undo, "name": "undo:c", "status": "cancelled"}]
    rows[1]["attempts"] = 0
    database.transact(lambda c: c.execute(insert(Task), rows))
    found = fork(database, "e")
    assert found.reused == ("a", "c")  # what undoes c was never begun
    assert found.again == {"b": ("undo:b",), "d": ("undo:b",)}
    assert sorted(task_states(database, "f1")) == list("abcde")


def test_a_fork_of_a_fork(database: Database) -> None:
    source(database, ALL)
    fork(database, "d")
    set_state(database, "d", "succeeded", "f1")
    assert fork(database, "e", "f2", of="f1").reused == ("a", "b", "c", "d")
    old, new = task_records(database), task_records(database, "f2")
    assert new["a"].output_blob == old["a"].output_blob
    assert record(database, "f2").forked_from == "f1"


def test_children_of_a_finished_task_stay_behind(database: Database) -> None:
    source(database, {"a": "succeeded"})
    child = {"run_id": "r1", "tenant": "t", "kind": "llm", "parent": "a", "element": 0, "position": 9}
    row = {**child, "name": "a[0]", "status": "succeeded"}
    database.transact(lambda c: c.execute(insert(Task).values(**row)))
    assert fork(database, "b").reused == ("a",)
    assert sorted(task_states(database, "f1")) == list("abcde")
    for part in ("a[0]", "a/x", "a[0]/x"):
        with pytest.raises(UsageError, match="part of the task 'a'") as caught:
            fork(database, part, "f2")
        assert "--from a" in caught.value.mend


def test_a_task_or_run_that_is_not_there(database: Database) -> None:
    source(database, {})
    with pytest.raises(NotFound) as caught:
        fork(database, "z")
    assert "a, b, c, d, e" in caught.value.mend
    with pytest.raises(NotFound):
        fork(database, "a", of="none")
    with database.read() as connection:
        assert len(reads.list_runs(connection, "t")) == 1  # nothing was stored


def test_a_persons_answer_is_taken_over(database: Database) -> None:
    source(database, {"a": "succeeded"})
    said = {"approval": "approved", "approval_text": "May I?", "approval_comment": "go"}
    database.transact(lambda c: c.execute(update(Task).where(Task.name == "a").values(**said)))
    fork(database, "b")
    task = task_records(database, "f1")["a"]
    assert (task.approval, task.approval_text, task.approval_comment) == ("approved", "May I?", "go")


def test_a_fork_sees_what_its_source_remembered_until_then(database: Database) -> None:
    source(database, ALL)

    def remember(connection: Any) -> list[int]:
        return [
            items.put_revision(
                connection, Place("t", "run", "r1", "a"), "artifact", value, producer=Producer("r1", "a", n)
            )
            for n, value in enumerate(["first", "output of a"])
        ]

    _, newest = database.transact(remember)
    fork(database, "b")
    later = database.transact(remember)[-1]
    with database.read() as connection:
        assert items.history(connection, Place("t", "run", "f1", "a")) == []  # nothing was copied
        (pointer,) = connection.execute(select(Branch.parent, Branch.revision_id)).all()
    assert tuple(pointer) == ("r1", newest)
    assert later > newest


def test_a_fork_outlives_its_source(database: Database) -> None:
    source(database, ALL)
    fork(database, "b")
    database.transact(
        lambda c: c.execute(update(Run).where(Run.id == "r1").values(status="failed", finished_at=1.0))
    )
    assert database.transact(lambda c: control.prune(c, "t", before=2.0)) == ["r1"]
    with database.read() as connection:
        blob = task_records(database, "f1")["a"].output_blob
        assert reads.value(connection, "t", blob) == "output of a"


def test_forks_while_the_source_moves_on_see_one_moment(database: Database) -> None:
    """b is never finished in a fork without a being finished, whatever is committed meanwhile."""
    source(database, {})
    gate = threading.Barrier(2)

    def advance() -> None:
        gate.wait()
        for name in "abc":
            set_state(database, name, "succeeded")

    thread = threading.Thread(target=advance)
    thread.start()
    gate.wait()
    for number in range(6):
        reused = fork(database, "e", f"f{number}").reused
        assert reused in [(), ("a",), ("a", "b"), ("a", "b", "c")]
    thread.join(30)
    assert fork(database, "e", "last").reused == ("a", "b", "c")
