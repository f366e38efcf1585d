"""What people do to a run: approve, cancel, retry, reopen, prune."""

from __future__ import annotations

import threading

import pytest
from podium.memory import content, control, effects, reads, runs
from podium.memory.database import Database
from podium.memory.effects import NewEffect
from podium.memory.errors import NotFound, PodiumError, UsageError
from podium.memory.runs import Finish, NewTask
from podium.memory.tables import Blob, Item, Link, Revision, Run
from run_rows import begin, claimed, new_run, record, reserve, succeed, task_records, task_states
from sqlalchemy import func, select, update

ERROR = {"kind": "TaskError", "message": "x", "mend": ""}


def waiting(database: Database) -> None:
    """A run whose task `a` waits for a person."""
    claimed(database)
    begin(database, "a")
    database.transact(lambda c: runs.wait_task(c, "r1", 1, "a", 1, "May I?"))


def failed(database: Database, *tasks: str) -> None:
    for task in tasks:
        attempt = begin(database, task)
        database.transact(
            lambda c, t=task, n=attempt: runs.finish_task(c, "r1", 1, Finish(t, n, "failed", error=ERROR))
        )
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "failed", error=ERROR))


def approve(database: Database, task: str = "a", approved: bool = True, comment: str = "") -> None:
    database.transact(lambda c: control.approve(c, "r1", task, approved=approved, comment=comment))


def test_an_answer_queues_a_waiting_run(database: Database) -> None:
    waiting(database)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "waiting"))
    before = record(database)
    assert (before.status, before.finished_at) == ("waiting", None)
    approve(database, approved=False, comment="no \0")
    after = record(database)
    assert (after.status, after.control_version) == ("queued", before.control_version + 1)
    task = task_records(database)["a"]
    assert (task.status, task.approval, task.approval_comment) == ("pending", "rejected", "no \ufffd")


def test_an_answer_to_nobody_is_refused(database: Database) -> None:
    waiting(database)
    with pytest.raises(NotFound) as caught:
        approve(database, "c")
    assert "tasks that wait: a" in caught.value.mend
    with pytest.raises(UsageError, match="pending"):
        approve(database, "b")
    with pytest.raises(NotFound):
        database.transact(lambda c: control.approve(c, "none", "a", approved=True))


def test_of_racing_answers_one_counts(database: Database) -> None:
    waiting(database)
    gate, said = threading.Barrier(8), []

    def say(number: int) -> None:
        gate.wait()
        try:
            approve(database, approved=number % 2 == 0)
        except UsageError:
            return
        said.append("approved" if number % 2 == 0 else "rejected")

    threads = [threading.Thread(target=say, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [task_records(database)["a"].approval] == said


@pytest.mark.parametrize("approved", [True, False])
def test_an_answer_reaches_the_effects(database: Database, approved: bool) -> None:
    claimed(database)
    begin(database, "a")
    for key in ("asked", "done"):
        new = NewEffect(key, "a", 1, 1, "m:f", "write", {})
        database.transact(lambda c, n=new: effects.request(c, "r1", 1, n, status="requested"))
    database.transact(lambda c: effects.finish(c, "r1", 1, "done", result=1))
    database.transact(lambda c: runs.wait_task(c, "r1", 1, "a", 1, "May I?"))
    approve(database, approved=approved)
    with database.read() as connection:
        found = {e.key: e.status for e in reads.effects(connection, "r1")}
    assert found == {"asked": "approved" if approved else "rejected", "done": "done"}


def test_cancel_without_an_engine_ends_the_run(database: Database) -> None:
    claimed(database)
    succeed(database, "a", "kept")
    begin(database, "b")
    reserve(database, 100, task="b")
    assert database.transact(lambda c: control.cancel(c, "r1", driven=False)) == "cancelled"
    found = record(database)
    assert (found.status, found.engine, found.reserved_nano, found.epoch) == ("cancelled", None, 0, 2)
    assert task_states(database) == {"a": "succeeded", "b": "cancelled"}
    with database.read() as connection:
        assert [a.status for a in reads.attempts(connection, "r1")] == ["succeeded", "cancelled"]
    with pytest.raises(PodiumError, match="epoch"):  # whoever believes to own it is refused
        database.transact(lambda c: runs.finish_task(c, "r1", 1, Finish("b", 1, "succeeded")))
    with pytest.raises(UsageError, match="cancelled already"):
        database.transact(lambda c: control.cancel(c, "r1", driven=False))


def test_cancel_of_a_run_that_was_let_go_meanwhile(database: Database) -> None:
    waiting(database)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "waiting"))
    assert database.transact(lambda c: control.cancel(c, "r1", driven=True)) == "cancelled"


def test_cancel_asks_a_living_engine(database: Database) -> None:
    claimed(database)
    assert database.transact(lambda c: control.cancel(c, "r1", driven=True)) == "running"
    found = record(database)
    assert (found.status, found.cancel_requested, found.control_version) == ("running", True, 1)


def test_retry_keeps_what_is_finished(database: Database) -> None:
    claimed(database, deadline_at=1.0)
    succeed(database, "a", "kept")
    failed(database, "b")
    assert database.transact(lambda c: control.retry(c, "r1")) == ["b"]
    assert task_states(database) == {"a": "succeeded", "b": "pending"}
    found = record(database)
    assert (found.status, found.error, found.finished_at, found.deadline_at) == ("queued", None, None, None)
    assert task_records(database)["b"].failures == 0


def test_retry_of_named_tasks(database: Database) -> None:
    claimed(database, tasks=[NewTask("a", "llm"), NewTask("b", "llm"), NewTask("c", "llm")], edges=[])
    failed(database, "a", "b")
    with pytest.raises(NotFound, match="'z'"):
        database.transact(lambda c: control.retry(c, "r1", ["z"]))
    with pytest.raises(UsageError, match="none of these"):
        database.transact(lambda c: control.retry(c, "r1", ["c"]))
    assert database.transact(lambda c: control.retry(c, "r1", ["a"])) == ["a", "c"]
    assert task_states(database) == {"a": "pending", "b": "failed", "c": "pending"}


def test_retry_of_an_element_keeps_its_siblings(database: Database) -> None:
    claimed(database)
    begin(database, "a")
    children = [NewTask(f"a[{n}]", "llm", "a", n) for n in range(3)]
    database.transact(lambda c: runs.expand_task(c, "r1", 1, "a", 0, children, []))
    succeed(database, "a[0]", 0)
    failed(database, "a[1]")
    assert task_states(database)["a"] == "cancelled"
    database.transact(lambda c: control.retry(c, "r1"))
    assert task_states(database) == {
        "a": "expanded", "b": "pending", "a[0]": "succeeded", "a[1]": "pending", "a[2]": "pending",
    }  # fmt: skip


def test_retry_asks_rejected_tools_again(database: Database) -> None:
    claimed(database)
    for key, status in (("f", "failed"), ("r", "rejected"), ("d", "done")):
        new = NewEffect(key, "a", 1, 1, "m:f", "write", {})
        database.transact(lambda c, n=new, s=status: effects.request(c, "r1", 1, n, status=s))
    failed(database, "a")
    database.transact(lambda c: control.retry(c, "r1"))
    with database.read() as connection:
        found = {e.key: e.status for e in reads.effects(connection, "r1")}
    assert found == {"f": "approved", "r": "requested", "d": "done"}


def test_only_ended_runs_are_retried(database: Database) -> None:
    claimed(database)
    with pytest.raises(UsageError, match="running"):
        database.transact(lambda c: control.retry(c, "r1"))
    with pytest.raises(NotFound):
        database.transact(lambda c: control.retry(c, "none"))


def test_reopen(database: Database) -> None:
    claimed(database)
    reserve(database, 900)
    with pytest.raises(UsageError, match="below"):
        database.transact(lambda c: control.reopen(c, "r1", budget_nano=899))
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "stopped", error=ERROR))
    database.transact(lambda c: control.reopen(c, "r1", budget_nano=5000))
    found = record(database)
    assert (found.status, found.budget_nano, found.error, found.finished_at) == ("queued", 5000, None, None)
    with pytest.raises(NotFound):
        database.transact(lambda c: control.reopen(c, "none"))


def count(database: Database, table: type) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_prune_leaves_no_orphans(database: Database) -> None:
    claimed(database, "r1", inputs={"only": "r1"})
    succeed(database, "a", "shared", remember=True)
    succeed(database, "b", "mine", remember=True, derived_from=["a"])
    reserve(database, 10)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "succeeded", outputs={"b": "mine"}))
    claimed(database, "r2", inputs={"only": "r2"})
    succeed(database, "a", "shared", "r2", remember=True)
    other = database.transact(lambda c: content.put(c, "u", "of another tenant"))
    kept = {content.content_hash(v) for v in ("shared",)}

    def prune(**options: object) -> list[str]:
        made = {"before": 4e9, **options}
        return database.transact(lambda c: control.prune(c, "t", **made))  # type: ignore[arg-type]

    assert prune(before=1.0) == []
    assert prune(dry_run=True) == ["r1"]
    assert count(database, Run) == 2
    assert prune() == ["r1"]
    assert prune() == []
    assert (
        count(database, Run),
        count(database, Item),
        count(database, Revision),
        count(database, Link),
    ) == (1, 1, 1, 0)
    with database.read() as connection:
        blobs = set(connection.execute(select(Blob.hash)).scalars())
        run = reads.run(connection, "r2")
        used = {run.spec_blob, run.inputs_blob, content.content_hash("shared"), other}
        assert blobs == used
        assert kept <= blobs
        content.get_many(connection, "t", [run.spec_blob, run.inputs_blob])
        with pytest.raises(NotFound):
            reads.run(connection, "r1")


def test_prune_and_new_runs_of_the_same_content(database: Database) -> None:
    """Runs that are stored while others are pruned never lose content that they share."""
    for number in range(8):
        database.transact(lambda c, n=number: runs.create(c, new_run(f"old{n}", inputs={"n": n})))
    database.transact(lambda c: c.execute(update(Run).values(status="succeeded", finished_at=1.0)))
    gate = threading.Barrier(3)

    def store(first: int) -> None:
        gate.wait()
        for n in range(8):
            database.transact(lambda c, n=n: runs.create(c, new_run(f"new{first}{n}", inputs={"n": n})))

    threads = [threading.Thread(target=store, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    gate.wait()
    pruned = []
    for n in range(8):
        database.transact(
            lambda c, n=n: c.execute(update(Run).where(Run.id == f"old{n}").values(finished_at=-1.0))
        )
        pruned += database.transact(lambda c: control.prune(c, "t", before=0.0))
    for thread in threads:
        thread.join(60)
    assert len(pruned) == 8
    with database.read() as connection:
        for record_ in reads.list_runs(connection, "t"):
            content.get_many(connection, "t", [record_.spec_blob, record_.inputs_blob])
