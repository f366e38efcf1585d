"""What an engine commits for a run: each write is whole, fenced and accepted once."""

from __future__ import annotations

import pytest
from podium.memory import effects, engines, events, reads, runs
from podium.memory.database import Database
from podium.memory.effects import NewEffect
from podium.memory.errors import NotFound, StaleEpoch, UsageError
from podium.memory.graphs import NewEdge, NewTask
from podium.memory.steps import Expand, Finish, Retry, Wait
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

ERROR = {"kind": "TaskError", "message": "nul \0 and \ud800", "mend": ""}


def finish(database: Database, status: str, epoch: int = 1, **changes: object) -> str | None:
    return database.transact(lambda c: runs.finish_run(c, "r1", epoch, status, **changes))  # type: ignore[arg-type]


def event_kinds(database: Database) -> list[str]:
    with database.read() as connection:
        assert events.verify(connection, "r1") is None
        return [e.kind for e in events.read(connection, "r1")]


def attempt_states(database: Database) -> list[tuple[str, int, str]]:
    with database.read() as connection:
        return [(a.task, a.number, a.status) for a in reads.attempts(connection, "r1")]


def test_create(database: Database) -> None:
    made = new_run(deadline_at=9.5, priority=3, preapproved=["a"], policy={"kind": "cheapest"}, detached=True)
    database.transact(lambda c: runs.create(c, made))
    found = record(database)
    assert (found.status, found.engine, found.epoch, found.detached) == ("queued", None, 0, True)
    assert (found.deadline_at, found.priority, found.preapproved) == (9.5, 3, ["a"])
    assert found.policy == {"kind": "cheapest"}
    assert task_states(database) == {"a": "pending", "b": "pending"}
    with database.read() as connection:
        assert [(e.src, e.dst, e.kind) for e in reads.edges(connection, "r1")] == [("a", "b", "data")]
        assert reads.value(connection, "t", found.inputs_blob) == {"x": 1}
    assert event_kinds(database) == ["run.created"]


def test_a_key_belongs_to_its_tenant(database: Database) -> None:
    make = lambda **o: database.transact(lambda c: runs.create(c, new_run(**o)))  # noqa: E731
    assert make(run_id="r1", idempotency_key="k") == "r1"
    assert make(run_id="r2", idempotency_key="k") == "r1"
    assert make(run_id="r3", idempotency_key="k", tenant="u") == "r3"
    assert make(run_id="r4", idempotency_key="l") == "r4"
    assert make(run_id="r5") == "r5"


def test_claim_closes_what_a_dead_engine_left(database: Database) -> None:
    claimed(database)
    begin(database, "a")
    reserve(database, 100)
    with pytest.raises(StaleEpoch):
        database.transact(lambda c: runs.claim(c, "r1", "h.p.e2", 0))
    assert database.transact(lambda c: runs.claim(c, "r1", "h.p.e2", 1)) == 2
    assert task_states(database)["a"] == "pending"
    assert attempt_states(database) == [("a", 1, "lost")]
    assert record(database).reserved_nano == 0
    assert begin(database, "a", epoch=2) == 2
    assert task_records(database)["a"].failures == 0
    assert event_kinds(database)[3:] == ["run.claimed", "task.lost", "call.refunded", "task.started"]


def test_a_run_that_is_over_is_not_claimed(database: Database) -> None:
    claimed(database)
    assert finish(database, "succeeded", outputs={"x": None}) == "succeeded"
    with pytest.raises(StaleEpoch):
        database.transact(lambda c: runs.claim(c, "r1", "h.p.e2", 1))
    with database.read() as connection:
        assert reads.value(connection, "t", record(database).outputs_blob) == {"x": None}


def test_a_task_starts_once(database: Database) -> None:
    claimed(database)
    begin(database, "a")
    with pytest.raises(Exception, match="not pending"):
        begin(database, "a")
    assert attempt_states(database) == [("a", 1, "running")]


def test_retry_counts_the_failure(database: Database) -> None:
    claimed(database)
    begin(database, "a")
    step(database, Retry("a", 1, BEGUN, ERROR, 5.0))
    found = task_records(database)["a"]
    assert (found.status, found.failures, found.not_before, found.error) == ("pending", 1, 5.0, ERROR)
    with pytest.raises(StaleEpoch):
        step(database, Retry("a", 1, BEGUN, ERROR, 5.0))
    assert begin(database, "a") == 2
    assert task_records(database)["a"].not_before is None
    with pytest.raises(StaleEpoch):  # the answer of the first attempt comes late
        step(database, ended("a", 1, output=1))
    assert event_kinds(database)[2:] == ["task.started", "task.retrying", "task.started"]


@pytest.mark.parametrize(("effect", "status"), [("read", "approved"), ("send", "uncertain")])
def test_an_effect_that_was_cut_off(database: Database, effect: str, status: str) -> None:
    claimed(database)
    begin(database, "a")
    new = NewEffect("k", "a", 1, 1, "m:f", effect, {"x": 1})
    database.transact(lambda c: effects.request(c, "r1", 1, new, status="started"))
    step(database, Retry("a", 1, BEGUN, ERROR, 0.0))
    with database.read() as connection:
        found = effects.load(connection, "r1", "k")
    assert found is not None
    assert found.status == status


def test_effects_keep_what_tools_said(database: Database) -> None:
    claimed(database)
    for key, given in (("ok", {"result": {"n": [1]}}), ("bad", {"error": "nul \0"})):
        new = NewEffect(key, "a", 1, 1, "m:f", "read", {})
        database.transact(lambda c, n=new: effects.request(c, "r1", 1, n, status="approved"))
        database.transact(lambda c, k=key: effects.start(c, "r1", 1, k, 1))
        database.transact(lambda c, k=key, g=given: effects.finish(c, "r1", 1, k, **g))
    with database.read() as connection:
        ok, bad = effects.load(connection, "r1", "ok"), effects.load(connection, "r1", "bad")
        assert effects.load(connection, "r1", "none") is None
    assert ok == effects.EffectState("done", {"n": [1]}, None)
    assert bad == effects.EffectState("failed", None, "nul \ufffd")


def test_expand_is_a_compare_and_swap(database: Database) -> None:
    claimed(database)
    begin(database, "a")
    children = [NewTask(f"a[{n}]", "llm", "a", n) for n in range(3)]
    step(database, Expand("a", 0, 2, children, [NewEdge("a[0]", "a[1]", "order")]))
    found = task_records(database)
    assert found["a"].status == "expanded"
    assert [(found[f"a[{n}]"].position, found[f"a[{n}]"].element) for n in range(3)] == [
        (2, 0),
        (3, 1),
        (4, 2),
    ]
    with pytest.raises(StaleEpoch, match="graph"):
        step(database, Expand("b", 0, 5, []))
    with pytest.raises(StaleEpoch, match="not current"):
        step(database, Expand("b", 1, 5, []))
    assert record(database).graph_version == 1
    assert len(task_records(database)) == 5


def test_a_skip_takes_others_with_it(database: Database) -> None:
    claimed(database)
    step(database, Finish("a", 0, "skipped", skipped=["b"]))
    assert task_states(database) == {"a": "skipped", "b": "skipped"}
    assert event_kinds(database)[2:] == ["task.skipped", "task.skipped"]


def test_waiting_run_with_an_answer_goes_on(database: Database) -> None:
    from podium.memory import control

    claimed(database)
    begin(database, "a")
    step(database, Wait("a", 1, BEGUN, "May I?\0"))
    assert task_records(database)["a"].approval_text == "May I?\ufffd"
    database.transact(lambda c: control.approve(c, "r1", "a", approved=True))
    assert finish(database, "waiting") is None
    assert record(database).status == "running"
    assert begin(database, "a") == 2


def test_waiting_run_that_is_to_be_cancelled_is(database: Database) -> None:
    from podium.memory import control

    claimed(database)
    begin(database, "a")
    step(database, Wait("a", 1, BEGUN, "May I?"))
    assert database.transact(lambda c: control.cancel(c, "r1", driven=True)) == "running"
    assert finish(database, "waiting") == "cancelled"
    assert (record(database).status, record(database).engine) == ("cancelled", None)
    assert task_states(database) == {"a": "cancelled", "b": "cancelled"}


@pytest.mark.parametrize(
    ("status", "left"), [("failed", ["cancelled", "cancelled"]), ("stopped", ["pending", "pending"])]
)
def test_what_an_ended_run_leaves(database: Database, status: str, left: list[str]) -> None:
    claimed(database)
    begin(database, "a")
    reserve(database, 100)
    assert finish(database, status, error=ERROR) == status
    found = record(database)
    assert (found.status, found.engine, found.reserved_nano, found.error) == (status, None, 0, ERROR)
    assert found.finished_at is not None
    assert list(task_states(database).values()) == left
    assert attempt_states(database) == [("a", 1, "cancelled")]


def test_release_and_claim_again(database: Database) -> None:
    claimed(database)
    begin(database, "a")
    database.transact(lambda c: runs.release(c, "r1", 1))
    assert (record(database).status, record(database).engine) == ("queued", None)
    database.transact(lambda c: runs.release(c, "r1", 1))
    assert event_kinds(database).count("run.released") == 1
    assert database.transact(lambda c: runs.claim(c, "r1", "h.p.e2", 1)) == 2
    assert task_states(database)["a"] == "pending"


def test_beats_go_to_the_engine_s_own_runs(database: Database) -> None:
    claimed(database, "r1")
    claimed(database, "r2")
    database.transact(lambda c: runs.claim(c, "r2", "h.p.e2", 1))
    assert database.transact(lambda c: runs.beat(c, ["r1", "r2"], "h.p.e1")) == ["r1"]
    assert [record(database, r).beat for r in ("r1", "r2")] == [1, 0]


def test_finding_runs(database: Database) -> None:
    for number in range(3):
        database.transact(lambda c, n=number: runs.create(c, new_run(f"r{n}x", detached=n > 0, priority=n)))
    claimed(database, "r_y", tenant="u")
    with database.read() as connection:
        assert reads.resolve(connection, "t", "r1") == "r1x"
        assert reads.resolve(connection, "t", "last") == "r2x"
        with pytest.raises(UsageError, match="several"):
            reads.resolve(connection, "t", "r")
        for wrong in ("zz", "r_", "r_y", "%"):
            with pytest.raises(NotFound):
                reads.resolve(connection, "t", wrong)
        # by priority; one that an engine drives is open, too, and a queued one that is not detached is not
        assert [r.id for r in engines.open_runs(connection, limit=9)] == ["r2x", "r1x", "r_y"]
        assert [r.id for r in reads.list_runs(connection, "t", limit=2)] == ["r2x", "r1x"]
        assert [r.id for r in reads.list_runs(connection, "u", statuses=["running"])] == ["r_y"]
        (asked,) = reads.control_versions(connection, ["r1x", "none"]).values()
        assert (asked.version, asked.cancel, asked.pause, asked.priority) == (0, False, False, 1)


def test_figures_of_settled_calls(database: Database) -> None:
    from podium.memory import ledger
    from run_rows import answer

    claimed(database)
    succeed(database, "a")
    call = reserve(database, 100)
    reserve(database, 50, task="b")
    database.transact(lambda c: ledger.settle(c, "r1", 1, call, answer(), 30))
    with database.read() as connection:
        (row,) = reads.latencies(connection, "t")
        assert (row.model, row.task, row.total_s) == ("m", "a", 0.5)
        assert reads.cost_by_task(connection, "r1") == {"a": (30, 1), "b": (0, 1)}
        assert reads.latencies(connection, "u") == []
