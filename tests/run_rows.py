"""Runs as rows, for tests of what is written: made, claimed and looked at without an engine."""

from __future__ import annotations

import uuid
from typing import Any

from podium.memory import ledger, reads, runs
from podium.memory.chat import Completion, Usage
from podium.memory.content import Encoded
from podium.memory.database import Database
from podium.memory.graphs import NewEdge, NewTask
from podium.memory.ledger import NewCall
from podium.memory.reads import RunRecord, TaskRecord
from podium.memory.runs import NewRun
from podium.memory.steps import Finish, Start, Step, advance

#: seconds, UTC: when attempts began
BEGUN = 1_700_000_000.0


def new_run(run_id: str = "r1", **changes: Any) -> NewRun:
    """Two tasks, `b` after `a`."""
    fields: dict[str, Any] = {
        "tenant": "t",
        "workflow": "w",
        "spec": {"name": "w"},
        "inputs": {"x": 1},
        "tasks": [NewTask("a", "llm"), NewTask("b", "llm")],
        "edges": [NewEdge("a", "b", "data")],
        "budget_nano": 1000,
        "project_root": "/",
    }
    return NewRun(id=run_id, **(fields | changes))


def claimed(database: Database, run_id: str = "r1", **changes: Any) -> int:
    """Create and claim a run; its epoch."""
    database.transact(lambda c: runs.create(c, new_run(run_id, **changes)))
    return database.transact(lambda c: runs.claim(c, run_id, "h.p.e1", 0))


def step(database: Database, *made: Step, run_id: str = "r1", epoch: int = 1) -> None:
    """Commit steps in one go."""
    database.transact(lambda c: advance(c, run_id, epoch, made))


def begin(database: Database, task: str, run_id: str = "r1", epoch: int = 1) -> int:
    """Begin the next attempt; its number."""
    number = task_records(database, run_id)[task].attempts + 1
    step(database, Start(task, number, BEGUN), run_id=run_id, epoch=epoch)
    return number


def ended(task: str, attempt: int, status: str = "succeeded", output: Any = None, **changes: Any) -> Finish:
    """The step that ends an attempt; a success has an output."""
    encoded = Encoded.of(output) if status == "succeeded" else None
    return Finish(task, attempt, status, BEGUN, output=encoded, **changes)


def succeed(database: Database, task: str, output: Any = None, run_id: str = "r1", **changes: Any) -> None:
    """Begin and end an attempt."""
    attempt = begin(database, task, run_id)
    step(database, ended(task, attempt, output=output, **changes), run_id=run_id)


def record(database: Database, run_id: str = "r1") -> RunRecord:
    with database.read() as connection:
        return reads.run(connection, run_id)


def task_records(database: Database, run_id: str = "r1") -> dict[str, TaskRecord]:
    with database.read() as connection:
        return {task.name: task for task in reads.tasks(connection, run_id)}


def task_states(database: Database, run_id: str = "r1") -> dict[str, str]:
    return {name: task.status for name, task in task_records(database, run_id).items()}


def new_call(amount: int, call_id: str = "", *, task: str = "a", step: int = 0) -> NewCall:
    return NewCall(
        call_id or uuid.uuid4().hex, task, 1, step, "m", {"model": "m"}, {"ask": step}, f"h{step}", amount
    )


def reserve(database: Database, amount: int, call_id: str = "", run_id: str = "r1", **where: Any) -> str:
    call = new_call(amount, call_id, **where)
    database.transact(lambda c: ledger.reserve(c, run_id, 1, call))
    return call.id


def answer(text: str = "hi") -> Completion:
    return Completion(
        text=text, model="m", usage=Usage(3, 2), finish_reason="stop", worker="m:0", total_s=0.5
    )
