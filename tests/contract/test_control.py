"""What people do to a run: approve, cancel, retry, reopen, prune."""

from __future__ import annotations

import contextlib
import threading

import pytest
from podium.memory import content, control, effects, engines, events, reads, runs
from podium.memory.control import Changes
from podium.memory.database import Database
from podium.memory.effects import NewEffect
from podium.memory.errors import BudgetStopped, NotFound, PodiumError, UsageError
from podium.memory.graphs import NewTask
from podium.memory.steps import Expand, Wait
from podium.memory.tables import Blob, Effect, Item, Link, Revision, Run, Task
from run_rows import (
    BEGUN,
    begin,
    claimed,
    ended,
    new_run,
    record,
    reserve,
    step,
    succeed,
    task_records,
    task_states,
)
from sqlalchemy import func, insert, select, update

ERROR = {"kind": "TaskError", "message": "x", "mend": ""}


def waiting(database: Database, run_id: str = "r1", expires_at: float | None = None) -> None:
    """A run whose task `a` waits for a person."""
    claimed(database, run_id)
    begin(database, "a", run_id)
    step(database, Wait("a", 1, BEGUN, "May I?", expires_at), run_id=run_id)


def failed(database: Database, *tasks: str) -> None:
    for task in tasks:
        step(database, ended(task, begin(database, task), "failed", error=ERROR))
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
    step(database, Wait("a", 1, BEGUN, "May I?"))
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
        step(database, ended("b", 1))
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
    step(database, Expand("a", 0, 2, children))
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
        database.transact(lambda c: control.reopen(c, "r1", Changes(budget_nano=899)))
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "stopped", error=ERROR))
    database.transact(lambda c: control.reopen(c, "r1", Changes(budget_nano=5000)))
    found = record(database)
    assert (found.status, found.budget_nano, found.error, found.finished_at) == ("queued", 5000, None, None)
    with pytest.raises(NotFound):
        database.transact(lambda c: control.reopen(c, "none"))


def test_retry_of_a_run_that_was_undone(database: Database) -> None:
    """Its compensations are tried again if they failed; what they undid is never built upon."""
    claimed(database)
    succeed(database, "a")
    failed(database, "b")
    row = {"run_id": "r1", "name": "undo:a", "tenant": "t", "kind": "python", "position": 2, "attempts": 1}
    database.transact(lambda c: c.execute(insert(Task).values(**row, status="failed")))
    assert database.transact(lambda c: control.retry(c, "r1")) == ["undo:a"]
    assert task_states(database) == {"a": "succeeded", "b": "failed", "undo:a": "pending"}
    values = {"status": "succeeded"}
    database.transact(lambda c: c.execute(update(Task).where(Task.name == "undo:a").values(**values)))
    database.transact(lambda c: c.execute(update(Run).values(status="failed")))
    with pytest.raises(UsageError, match="was undone") as caught:
        database.transact(lambda c: control.retry(c, "r1"))
    assert "podium fork r1" in caught.value.mend


# -- pause and change


def pause(database: Database, *, driven: bool, run_id: str = "r1") -> str:
    return database.transact(lambda c: control.pause(c, run_id, driven=driven))


def unpause(database: Database) -> bool:
    return database.transact(lambda c: control.unpause(c, "r1"))


def kinds(database: Database, run_id: str = "r1") -> list[str]:
    with database.read() as connection:
        assert events.verify(connection, run_id) is None
        return [event.kind for event in events.read(connection, run_id)]


def control_state(database: Database, run_id: str = "r1") -> reads.ControlState:
    with database.read() as connection:
        return reads.control_versions(connection, [run_id, "none"])[run_id]


def open_runs(database: Database) -> list[str]:
    with database.read() as connection:
        return [run.id for run in engines.open_runs(connection, limit=10)]


def test_pause_asks_a_living_engine(database: Database) -> None:
    claimed(database)
    assert pause(database, driven=True) == "running"
    state = control_state(database)
    assert (state.version, state.pause, state.cancel) == (1, True, False)
    assert record(database).pause_requested
    assert pause(database, driven=True) == "running"  # asked already
    assert control_state(database).version == 1
    assert kinds(database)[-1] == "run.pause_requested"
    assert database.transact(lambda c: runs.finish_run(c, "r1", 1, "paused")) == "paused"
    found = record(database)
    assert (found.status, found.engine, found.finished_at) == ("paused", None, None)


def test_pause_of_a_run_that_nobody_drives_is_at_once(database: Database) -> None:
    claimed(database, detached=True)
    begin(database, "a")
    assert open_runs(database) == ["r1"]
    assert pause(database, driven=False) == "paused"
    found = record(database)
    assert (found.status, found.engine, found.epoch, found.pause_requested) == ("paused", None, 2, True)
    assert open_runs(database) == []
    assert kinds(database)[-2:] == ["run.pause_requested", "run.paused"]
    assert pause(database, driven=False) == "paused"
    assert kinds(database)[-1] == "run.paused"
    with pytest.raises(PodiumError, match="epoch"):  # whoever believes to own it is refused
        step(database, ended("a", 1))


def test_a_run_that_was_let_go_meanwhile_is_paused_at_once(database: Database) -> None:
    waiting(database)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "waiting"))
    assert pause(database, driven=True) == "paused"
    approve(database)
    assert record(database).status == "paused"  # an answer does not end a pause
    assert unpause(database)
    assert record(database).status == "queued"


def test_resumed_before_the_engine_paused(database: Database) -> None:
    claimed(database)
    pause(database, driven=True)
    assert unpause(database)
    assert record(database).status == "running"
    assert (control_state(database).version, control_state(database).pause) == (2, False)
    assert database.transact(lambda c: runs.finish_run(c, "r1", 1, "paused")) is None
    assert not unpause(database)
    assert kinds(database).count("run.resumed") == 1


def test_a_paused_run_can_be_cancelled_but_one_that_is_over_not_paused(database: Database) -> None:
    claimed(database)
    pause(database, driven=False)
    assert database.transact(lambda c: control.cancel(c, "r1", driven=False)) == "cancelled"
    with pytest.raises(UsageError, match="cancelled already"):
        pause(database, driven=False)
    with pytest.raises(NotFound):
        pause(database, driven=False, run_id="none")


def test_pause_racing_the_end_leaves_one_of_both(database: Database) -> None:
    for number in range(6):
        run_id = f"r{number}"
        claimed(database, run_id)
        gate, ended_as = threading.Barrier(2), []

        def finish(run_id: str = run_id, gate: threading.Barrier = gate, said: list = ended_as) -> None:
            gate.wait()
            said.append(database.transact(lambda c: runs.finish_run(c, run_id, 1, "succeeded", outputs={})))

        thread = threading.Thread(target=finish)
        thread.start()
        gate.wait()
        with contextlib.suppress(UsageError):  # it is over already
            pause(database, driven=True, run_id=run_id)
        thread.join(30)
        assert ended_as == ["succeeded"]
        assert record(database, run_id).status == "succeeded"


def change(database: Database, **changes: float) -> None:
    database.transact(lambda c: control.change(c, "r1", Changes(**changes)))  # type: ignore[arg-type]


def test_change_reaches_the_engine(database: Database) -> None:
    claimed(database)
    change(database, budget_nano=2_000_000, budget_tokens=50, budget_seconds=9.5, priority=7, deadline_at=8e9)
    state = control_state(database)
    assert state == reads.ControlState(1, False, False, 7, 2_000_000, 50, 9.5, 8e9)
    found = record(database)
    assert (found.budget_tokens, found.budget_seconds, found.priority) == (50, 9.5, 7)
    with database.read() as connection:
        data = events.read(connection, "r1")[-1].data
    assert data == {
        "budget_usd": "0.002", "budget_tokens": 50, "budget_seconds": 9.5, "priority": 7, "deadline_at": 8e9,
    }  # fmt: skip
    change(database, priority=0)
    assert record(database).priority == 0
    assert record(database).budget_nano == 2_000_000


def test_more_money_lets_a_refused_call_through(database: Database) -> None:
    claimed(database)
    reserve(database, 900)
    with pytest.raises(BudgetStopped):
        reserve(database, 200)
    change(database, budget_nano=1100)
    reserve(database, 200)
    assert record(database).reserved_nano == 1100


def test_change_keeps_what_is_spent_and_reserved(database: Database) -> None:
    claimed(database)
    reserve(database, 900)
    with pytest.raises(UsageError, match=r"0\.0000009 USD") as caught:
        change(database, budget_nano=899)
    assert "--budget" in caught.value.mend
    database.transact(lambda c: c.execute(update(Run).values(settled_tokens=70, used_seconds=5.0)))
    with pytest.raises(UsageError, match="70") as caught:
        change(database, budget_tokens=69)
    assert "--tokens" in caught.value.mend
    with pytest.raises(UsageError, match="5"):
        change(database, budget_seconds=4.9)
    assert control_state(database).version == 0
    change(database, budget_nano=900, budget_tokens=70, budget_seconds=5.0)
    assert control_state(database).version == 1


def test_change_of_nothing_or_of_a_run_that_has_succeeded(database: Database) -> None:
    claimed(database)
    with pytest.raises(UsageError, match="nothing"):
        change(database)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "stopped", error=ERROR))
    change(database, budget_nano=5000)
    assert (record(database).status, record(database).budget_nano) == ("stopped", 5000)
    database.transact(lambda c: c.execute(update(Run).values(status="succeeded")))
    with pytest.raises(UsageError, match="succeeded already"):
        change(database, priority=1)


def test_budget_raised_while_calls_reserve(database: Database) -> None:
    """However raises and lowerings race with reservations, none of them passes the budget of its moment."""
    claimed(database)
    gate, done = threading.Barrier(3), []

    def spend() -> None:
        gate.wait()
        for _ in range(10):
            try:
                reserve(database, 100)
                done.append(100)
            except BudgetStopped:
                continue

    threads = [threading.Thread(target=spend) for _ in range(2)]
    for thread in threads:
        thread.start()
    gate.wait()
    for budget in (1500, 700, 1200):
        with contextlib.suppress(UsageError):  # more than that is reserved already
            change(database, budget_nano=budget)
    for thread in threads:
        thread.join(60)
    found = record(database)
    assert found.reserved_nano == sum(done) <= found.budget_nano


# -- approvals that expire


def expire(database: Database, now: float) -> list[str]:
    return database.transact(lambda c: control.expire_approvals(c, now))


def test_an_approval_that_expired_is_a_rejection(database: Database) -> None:
    waiting(database, expires_at=100.0)
    waiting(database, "r2", expires_at=200.0)
    waiting(database, "r3")
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "waiting"))
    asked = {"run_id": "r1", "key": "k", "tenant": "t", "task": "a", "attempt": 1, "step": 0, "tool": "m:f"}
    row = asked | {"effect": "write", "status": "requested", "arguments_blob": "", "created_at": 0.0}
    database.transact(lambda c: c.execute(insert(Effect).values(**row)))
    assert expire(database, 99.9) == []
    assert expire(database, 150.0) == ["r1"]
    task = task_records(database)["a"]
    assert (task.status, task.approval, task.approval_comment) == ("pending", "rejected", "expired")
    assert task.not_before is None  # else it would wait as after a failure
    found = record(database)
    assert (found.status, found.control_version) == ("queued", 1)
    assert kinds(database)[-1] == "task.rejected"
    with database.read() as connection:
        assert [e.status for e in reads.effects(connection, "r1")] == ["rejected"]
    assert expire(database, 150.0) == []
    assert task_states(database, "r2")["a"] == task_states(database, "r3")["a"] == "waiting"


def test_an_answer_in_time_does_not_expire(database: Database) -> None:
    waiting(database, expires_at=100.0)
    approve(database)
    assert task_records(database)["a"].not_before is None
    assert expire(database, 200.0) == []
    assert task_records(database)["a"].approval == "approved"


def test_approvals_of_runs_that_are_over_or_paused(database: Database) -> None:
    waiting(database, expires_at=100.0)
    waiting(database, "r2", expires_at=100.0)
    pause(database, driven=False, run_id="r2")
    database.transact(lambda c: c.execute(update(Run).where(Run.id == "r1").values(status="stopped")))
    assert expire(database, 200.0) == ["r2"]
    assert record(database, "r2").status == "paused"
    assert task_states(database)["a"] == "waiting"


def test_an_approval_racing_its_expiry_is_answered_once(database: Database) -> None:
    for number in range(6):
        run_id = f"r{number}"
        waiting(database, run_id, expires_at=100.0)
        gate, said = threading.Barrier(2), []

        def say(run_id: str = run_id, gate: threading.Barrier = gate, said: list = said) -> None:
            gate.wait()
            try:
                database.transact(lambda c: control.approve(c, run_id, "a", approved=True))
                said.append("approved")
            except UsageError:
                pass

        thread = threading.Thread(target=say)
        thread.start()
        gate.wait()
        said += ["rejected"] if run_id in expire(database, 200.0) else []
        thread.join(30)
        assert [task_records(database, run_id)["a"].approval] == said
        answers = [kind for kind in kinds(database, run_id) if kind in ("task.approved", "task.rejected")]
        assert answers == [f"task.{said[0]}"]


def test_the_open_attempt_of_a_running_task_is_shown(database: Database) -> None:
    claimed(database)
    succeed(database, "a")
    begin(database, "b")
    with database.read() as connection:
        found = [
            (a.task, a.number, a.status, a.epoch, a.started_at) for a in reads.attempts(connection, "r1")
        ]
        assert found == [("a", 1, "succeeded", 1, BEGUN), ("b", 1, "running", 1, BEGUN)]
    step(database, Expand("b", 0, 2, [NewTask("b[0]", "llm", "b", 0)]))
    begin(database, "b[0]")
    with database.read() as connection:
        names = [a.task for a in reads.attempts(connection, "r1")]
        assert names == ["a", "b", "b[0]"]
        assert [a.task for a in reads.attempts(connection, "r1", own=True)] == ["a", "b"]


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
