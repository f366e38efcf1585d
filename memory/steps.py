"""What an engine commits for the tasks of a run that it owns, in lots: start, finish, retry, wait, expand.

`advance` writes a list of steps in one go: one lock of the run, one statement for each kind of row, one piece
of the event chain. A start needs no attempt row: while an attempt runs, the task's own row stands for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from . import effects, graphs
from .content import Encoded, plain_text, put, put_encoded
from .errors import StaleEpoch
from .events import Head, NewEvent, extend, lock
from .graphs import NewEdge, NewTask
from .hot import Row, json_column, run_many
from .remember import Artifact, remember


@dataclass(frozen=True, slots=True)
class Start:
    """Begin attempt number `attempt` of a pending task."""

    task: str
    attempt: int
    #: seconds, UTC
    at: float

    name = "task.start"


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep an output for later runs of the same task on the same input."""

    key: str
    #: seconds; None: it stays good
    ttl: float | None


@dataclass(frozen=True, slots=True)
class Finish:
    """How an attempt ended. Accepted once: the task must still be in the attempt that made it."""

    task: str
    attempt: int
    #: succeeded | failed | skipped
    status: str
    #: seconds, UTC; None: the task is over without an attempt, or without a further one
    started_at: float | None = None
    output: Encoded | None = None
    error: dict[str, Any] | None = None
    #: tasks that can never run now
    skipped: Sequence[str] = ()
    #: open tasks below this one, which it ends with itself
    closed: Sequence[str] = ()
    #: the output is kept as an artifact, made from these tasks' artifacts
    remember: bool = False
    derived_from: Sequence[str] = ()
    #: revisions that were shown to it beside them
    cited: Sequence[int] = ()
    keep: Keep | None = None
    event: Mapping[str, Any] = field(default_factory=dict)

    name = "task.finish"


@dataclass(frozen=True, slots=True)
class Retry:
    """End a failed attempt and let the task try again at `not_before` (seconds, UTC)."""

    task: str
    attempt: int
    started_at: float
    error: dict[str, Any]
    not_before: float
    #: the process that ran it died
    died: bool = False
    #: open tasks below this one, which end with the attempt
    closed: Sequence[str] = ()

    name = "task.retry"


@dataclass(frozen=True, slots=True)
class Wait:
    """The task waits for a person's answer to `question`, at most until `expires_at` (seconds, UTC)."""

    task: str
    attempt: int
    started_at: float
    question: str
    expires_at: float | None = None

    name = "task.wait"


@dataclass(frozen=True, slots=True)
class Expand:
    """A graph patch: the task becomes (or stays) `expanded` and gets children, if the graph is still at
    `graph_version`.
    """

    task: str
    graph_version: int
    #: position of the first child
    position: int
    children: Sequence[NewTask]
    edges: Sequence[NewEdge] = ()
    #: inputs of a sub-workflow
    inputs: Any = None
    #: the workflow that a `plan` task adds
    plan: Any = None
    #: children that are over with: a plan that failed
    closed: Sequence[str] = ()

    name = "task.expand"


@dataclass(frozen=True, slots=True)
class Append:
    """A graph patch of tasks that belong to no other: what compensates a failed run."""

    graph_version: int
    #: position of the first child
    position: int
    children: Sequence[NewTask]
    edges: Sequence[NewEdge] = ()
    #: status and error with which the run ends after them
    then: str = "failed"
    error: Mapping[str, Any] = field(default_factory=dict)

    name = "task.expand"


Step = Start | Finish | Retry | Wait | Expand | Append

_START = """UPDATE task SET status = 'running', attempts = ?, started_at = ?, not_before = NULL
WHERE run_id = ? AND name = ? AND status = 'pending' AND attempts = ?"""
_FINISH = """UPDATE task SET status = ?, output_blob = ?, error = ?, finished_at = ?
WHERE run_id = ? AND name = ? AND attempts = ?
AND (status IN ('running', 'expanded') OR (status = 'pending' AND ? = 1))"""
_RETRY = """UPDATE task SET status = 'pending', failures = failures + 1, deaths = deaths + ?, not_before = ?,
error = ? WHERE run_id = ? AND name = ? AND attempts = ? AND status IN ('running', 'expanded')"""
_WAIT = """UPDATE task SET status = 'waiting', approval = 'requested', approval_text = ?, not_before = ?
WHERE run_id = ? AND name = ? AND attempts = ? AND status = 'running'"""
_EXPAND = """UPDATE task SET status = 'expanded', inputs_blob = COALESCE(?, inputs_blob),
plan_blob = COALESCE(?, plan_blob) WHERE run_id = ? AND name = ? AND status IN ('running', 'expanded')"""
_CLOSE = """UPDATE task SET status = ?, finished_at = ?
WHERE run_id = ? AND name = ? AND status IN ('pending', 'running', 'expanded', 'waiting')"""
_CLOSE_ATTEMPT = """INSERT INTO attempt
(run_id, task, number, tenant, epoch, status, started_at, finished_at)
SELECT run_id, name, attempts, tenant, CAST(? AS BIGINT), CAST(? AS TEXT), started_at, CAST(? AS FLOAT)
FROM task WHERE run_id = ? AND name = ? AND status IN ('running', 'expanded') AND attempts > 0
ON CONFLICT DO NOTHING"""
_ATTEMPT = """INSERT INTO attempt
(run_id, task, number, tenant, epoch, status, started_at, finished_at, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_KEEP = """INSERT INTO cache (tenant, key, output_blob, run_id, task, created_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, key) DO UPDATE SET output_blob = excluded.output_blob,
run_id = excluded.run_id, task = excluded.task, created_at = excluded.created_at,
expires_at = excluded.expires_at"""


def advance(connection: Connection, run_id: str, epoch: int, steps: Sequence[Step]) -> None:
    """Write the steps, all or none, in their order.

    Raises:
        StaleEpoch: another engine has claimed the run, or an attempt is no longer its task's current one.
    """
    head = lock(connection, run_id, epoch)
    lot = _Lot(connection, head, epoch)
    for step in steps:
        lot.add(step)
    lot.flush()
    extend(connection, head, lot.events)


class _Lot:
    """Steps on their way into rows. Starts and finishes are put together, other steps come one by one."""

    def __init__(self, connection: Connection, head: Head, epoch: int) -> None:
        self._connection, self._run, self._tenant = connection, head.run_id, head.tenant
        self._epoch, self._now = epoch, time.time()
        self._starts: dict[str, Start] = {}
        self._finishes: list[Finish] = []
        self.events: list[NewEvent] = []

    def add(self, step: Step) -> None:
        if isinstance(step, Start):
            self._starts[step.task] = step
            self.events.append(NewEvent("task.started", step.task, {"attempt": step.attempt}))
        elif isinstance(step, Finish):
            if not self._starts.keys().isdisjoint((step.task, *step.skipped, *step.closed)):
                self.flush()
            self._finishes.append(step)
            self._tell_finish(step)
        else:
            self.flush()
            self._alone[type(step)](self, step)

    def flush(self) -> None:
        """Write what was put together: ends first, since they cannot be those of these starts."""
        if self._finishes:
            self._write_finishes(self._finishes)
            self._finishes = []
        if self._starts:
            rows = [(s.attempt, s.at, self._run, s.task, s.attempt - 1) for s in self._starts.values()]
            self._swap(_START, rows, "the task is not pending")
            self._starts = {}

    def _swap(self, sql: str, rows: list[Row], problem: str, task: str | None = None) -> None:
        """Compare-and-swap of each row."""
        if run_many(self._connection, sql, rows) != len(rows):
            raise StaleEpoch(problem, run=self._run, task=task)

    def _write_finishes(self, finishes: Sequence[Finish]) -> None:
        run, now, connection = self._run, self._now, self._connection
        put_encoded(connection, self._tenant, [f.output for f in finishes if f.output is not None])
        # a task whose failure counts as something else has failed all the same
        self._end_attempts([(f, f.status if f.error is None else "failed", f.error) for f in finishes])
        rows = [
            (
                f.status,
                f.output and f.output.hash,
                json_column(f.error),
                now,
                run,
                f.task,
                f.attempt,
                int(f.started_at is None),
            )
            for f in finishes
        ]
        self._swap(_FINISH, rows, "the result came too late: the attempt is not current")
        self._close([n for f in finishes for n in f.skipped], "skipped")
        self._close([n for f in finishes for n in f.closed], "cancelled")
        made = [
            Artifact(
                f.task, f.attempt, f.output, f.derived_from, f.cited, "model" in f.event or "steps" in f.event
            )
            for f in finishes
            if f.remember and f.output is not None
        ]
        remember(connection, self._tenant, run, made, now)
        keeps = [
            (
                self._tenant, f.keep.key, f.output.hash, run, f.task, now,
                None if f.keep.ttl is None else now + f.keep.ttl,
            )
            for f in finishes
            if f.keep is not None and f.output is not None
        ]  # fmt: skip
        run_many(connection, _KEEP, keeps)

    def _close(self, names: Sequence[str], status: str) -> None:
        if status == "cancelled":
            rows = [(self._epoch, status, self._now, self._run, name) for name in names]
            run_many(self._connection, _CLOSE_ATTEMPT, rows)
        run_many(self._connection, _CLOSE, [(status, self._now, self._run, name) for name in names])

    def _tell_finish(self, step: Finish) -> None:
        data = {"attempt": step.attempt, **step.event}
        if step.error is not None:
            data["error"] = step.error
        self.events.append(NewEvent(f"task.{step.status}", step.task, data))
        self.events += [NewEvent("task.skipped", name) for name in step.skipped]
        self.events += [NewEvent("task.cancelled", name) for name in step.closed]

    def _end_attempts(self, ends: Sequence[tuple[Finish | Retry | Wait, str, dict[str, Any] | None]]) -> None:
        run, tenant, epoch, now = self._run, self._tenant, self._epoch, self._now
        rows = [
            (run, s.task, s.attempt, tenant, epoch, status, s.started_at, now, json_column(error))
            for s, status, error in ends
            if s.started_at is not None
        ]
        run_many(self._connection, _ATTEMPT, rows)

    def _retry(self, step: Retry) -> None:
        self._end_attempts([(step, "failed", step.error)])
        row = (int(step.died), step.not_before, json_column(step.error), self._run, step.task, step.attempt)
        self._swap(_RETRY, [row], "the attempt is not current", step.task)
        self._close(step.closed, "cancelled")
        effects.recover(self._connection, self._run, step.task)
        data = {"attempt": step.attempt, "error": step.error, "not_before": step.not_before}
        self.events.append(NewEvent("task.retrying", step.task, data))

    def _wait(self, step: Wait) -> None:
        self._end_attempts([(step, "waiting", None)])
        row = (plain_text(step.question), step.expires_at, self._run, step.task, step.attempt)
        self._swap(_WAIT, [row], "the attempt is not current", step.task)
        self.events.append(NewEvent("task.waiting", step.task, {"question": step.question}))

    def _expand(self, step: Expand) -> None:
        self._patch(step.graph_version, step.task)
        inputs = None if step.inputs is None else put(self._connection, self._tenant, step.inputs)
        plan = None if step.plan is None else put(self._connection, self._tenant, step.plan)
        self._swap(_EXPAND, [(inputs, plan, self._run, step.task)], "the attempt is not current", step.task)
        self._close(step.closed, "cancelled")
        self._add(step)
        self.events.append(NewEvent("task.expanded", step.task, {"children": len(step.children)}))

    def _append(self, step: Append) -> None:
        self._patch(step.graph_version, None)
        self._add(step)
        names = [child.name for child in step.children]
        self.events.append(
            NewEvent("run.patched", data={"tasks": names, "then": step.then, "error": dict(step.error)})
        )

    def _patch(self, version: int, task: str | None) -> None:
        sql = "UPDATE run SET graph_version = ? WHERE id = ? AND graph_version = ?"
        if run_many(self._connection, sql, [(version + 1, self._run, version)]) != 1:
            raise StaleEpoch("the graph was changed by someone else", run=self._run, task=task)

    def _add(self, step: Expand | Append) -> None:
        graphs.extend(self._connection, self._run, self._tenant, step.position, step.children, step.edges)

    _alone: Mapping[type, Callable[[Any, Any], None]] = {
        Retry: _retry,
        Wait: _wait,
        Expand: _expand,
        Append: _append,
    }
