"""Sums of a run that the database makes: what is below a task, its calls, its routes."""

from __future__ import annotations

from typing import Any

from podium.memory import reads, totals
from podium.memory.database import Database
from podium.memory.graphs import NewTask
from podium.memory.tables import Call, Effect, Task
from podium.memory.totals import CallTotal, ChildCount
from run_rows import claimed
from sqlalchemy import insert, update

TASKS = [
    NewTask("a", "map"), NewTask("ab", "llm"), NewTask("s", "workflow"),
    NewTask("a[0]", "workflow", "a", 0), NewTask("a[1]", "workflow", "a", 1),
    NewTask("a[0]/x", "llm", "a[0]"), NewTask("a[1]/x", "llm", "a[1]"), NewTask("s/y", "llm", "s"),
]  # fmt: skip


def call(number: int, task: str, **values: Any) -> dict[str, Any]:
    made = {
        "id": f"c{number}", "run_id": "r1", "task": task, "attempt": 1, "step": 0, "tenant": "t",
        "model": "m", "status": "settled", "route": {"reason": "cheap"}, "request_hash": "",
        "request_blob": "", "input_tokens": 3, "output_tokens": 2, "reserved_nano": 9, "cost_nano": 5,
        "total_s": 0.5, "created_at": float(number), "error": None,
    }  # fmt: skip
    return made | values


def store(database: Database, *calls: dict[str, Any]) -> None:
    claimed(database, tasks=TASKS, edges=[])
    if calls:
        database.transact(lambda c: c.execute(insert(Call), list(calls)))


def set_tasks(database: Database, **statuses: tuple[str, ...]) -> None:
    for status, names in statuses.items():
        values = {
            "status": status,
            "attempts": 1,
            "error": {"message": status} if status == "failed" else None,
        }
        database.transact(
            lambda c, n=names, v=values: c.execute(update(Task).where(Task.name.in_(n)).values(**v))
        )


def test_children_are_counted_by_the_task_above_all(database: Database) -> None:
    store(database)
    set_tasks(database, succeeded=("a[0]", "a[0]/x", "ab"), failed=("a[1]", "a[1]/x"))
    with database.read() as connection:
        assert totals.child_counts(connection, "r1") == [
            ChildCount("a", False, "failed", 1, 1),
            ChildCount("a", False, "succeeded", 1, 1),
            ChildCount("a", True, "failed", 1, 1),
            ChildCount("a", True, "succeeded", 1, 1),
            ChildCount("s", True, "pending", 1, 0),
        ]
        assert totals.child_counts(connection, "none") == []
        failed = totals.failed_below(connection, "r1", limit=5)
        assert [(t.name, t.error) for t in failed] == [
            ("a[1]", {"message": "failed"}), ("a[1]/x", {"message": "failed"}),
        ]  # fmt: skip
        assert [t.name for t in totals.failed_below(connection, "r1", limit=1)] == ["a[1]"]


def test_calls_by_task_and_by_the_task_above_all(database: Database) -> None:
    store(
        database,
        call(1, "s/y", model="n"),
        call(2, "a[0]/x"),
        call(3, "a[1]/x", cost_nano=7),
        call(4, "ab", cost_nano=None, status="reserved"),
    )
    with database.read() as connection:
        by_task = totals.call_totals(connection, "r1")
        by_top = totals.call_totals(connection, "r1", top=True)
        assert [c.task for c in reads.calls(connection, "r1", own=True)] == ["ab"]
    assert by_task == [
        CallTotal("s/y", "n", 1, 5), CallTotal("a[0]/x", "m", 1, 5), CallTotal("a[1]/x", "m", 1, 7),
        CallTotal("ab", "m", 1, 0),
    ]  # fmt: skip
    assert by_top == [CallTotal("s", "n", 1, 5), CallTotal("a", "m", 2, 12), CallTotal("ab", "m", 1, 0)]


def test_routes_are_summed_up_with_one_of_their_reasons(database: Database) -> None:
    store(
        database,
        call(1, "a[0]/x"),
        call(2, "a[1]/x", route={"reason": "other"}),
        call(
            3, "a[1]/x", status="unknown", error="died", input_tokens=None, output_tokens=None, total_s=None
        ),
        call(4, "ab", route={}),
    )
    with database.read() as connection:
        both, unknown, bare = totals.route_totals(connection, "r1")
    assert (both.top, both.calls, both.input_tokens, both.output_tokens) == ("a", 2, 6, 4)
    assert (both.cost_nano, both.total_s, both.reason, both.reasons) == (10, 1.0, "cheap", 2)
    assert (unknown.status, unknown.calls, unknown.input_tokens, unknown.error) == ("unknown", 1, 0, "died")
    assert (bare.top, bare.reason, bare.reasons) == ("ab", "", 0)


def test_tool_calls_are_summed_up(database: Database) -> None:
    store(database)
    row = {
        "run_id": "r1", "tenant": "t", "attempt": 1, "step": 0, "tool": "m:f", "effect": "read",
        "arguments_blob": "", "created_at": 0.0,
    }  # fmt: skip
    made = [("1", "a[0]/x", "done"), ("2", "a[1]/x", "done"), ("3", "a[1]/x", "failed"), ("4", "ab", "done")]
    rows = [row | {"key": key, "task": task, "status": status} for key, task, status in made]
    database.transact(lambda c: c.execute(insert(Effect), rows))
    with database.read() as connection:
        found = [(e.top, e.status, e.calls) for e in totals.effect_totals(connection, "r1")]
        assert [e.key for e in reads.effects(connection, "r1", own=True)] == ["4"]
    assert found == [("a", "done", 2), ("a", "failed", 1), ("ab", "done", 1)]


def test_tasks_by_status_and_of_the_run_alone(database: Database) -> None:
    store(database)
    set_tasks(database, waiting=("ab", "a[1]"))
    with database.read() as connection:
        assert [t.name for t in reads.tasks(connection, "r1", own=True)] == ["a", "ab", "s"]
        assert [t.name for t in reads.tasks(connection, "r1", statuses=("waiting",))] == ["ab", "a[1]"]
        assert len(reads.tasks(connection, "r1", limit=4)) == 4
