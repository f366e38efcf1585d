"""A run's picture, rebuilt from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..memory import reads
from ..memory.database import Connection
from ..memory.graphs import NewEdge, NewTask
from ..memory.reads import RunRecord, TaskRecord
from . import saga
from .state import DONE, Node, RunState, Scope, Values
from .tasks import PlanTask, PythonTask
from .workflow import Workflow


@dataclass(frozen=True, slots=True)
class Loaded:
    record: RunRecord
    state: RunState
    #: the inputs; outputs are read when they are needed
    values: Values
    #: status and error with which it ends, if it is undoing what it did
    undoing: tuple[str, dict[str, Any]] | None


def load(connection: Connection, run_id: str) -> Loaded:
    """A run as it stands.

    Raises:
        NotFound: there is no such run.
        PodiumError: its stored content is damaged.
    """
    record = reads.run(connection, run_id)
    state = RunState(Workflow.from_data(reads.value(connection, record.tenant, record.spec_blob)))
    rows = reads.tasks(connection, run_id)
    blobs = {row.plan_blob for row in rows} | {row.inputs_blob for row in rows} | {record.inputs_blob}
    found = reads.values(connection, record.tenant, [blob for blob in blobs if blob is not None])
    values = Values({None: found[record.inputs_blob]})
    for row in rows:
        node = _add(state, row)
        if node is None:
            continue
        if row.plan_blob is not None:
            follow_plan(node, found[row.plan_blob])
            if row.status == "pending":  # that plan failed; what was not told to a model yet, is now
                node.inside = None
                node.lessons += [str(row.error["message"])] if row.error is not None else []
        if row.inputs_blob is not None:
            values.inputs[node.name] = found[row.inputs_blob]
    edges = [NewEdge(e.src, e.dst, e.kind) for e in reads.edges(connection, run_id)]
    state.add([], [e for e in edges if e.src in state.nodes and e.dst in state.nodes])
    _set_statuses(state, rows)
    _tell_history(state, connection, record)
    undoing = any(node.role == "undo" for node in state.nodes.values())
    return Loaded(record, state, values, reads.undoing(connection, run_id) if undoing else None)


def follow_plan(node: Node, plan: dict[str, object]) -> None:
    """The tasks of a planned workflow, {"generation", "workflow"}, are below this node from now on."""
    generation = int(str(plan["generation"]))
    node.plans = generation
    prefix = f"{node.name}/" if generation == 1 else f"{node.name}@{generation}/"
    node.inside = Scope(Workflow.from_data(plan["workflow"]), prefix, node.name)


def _add(state: RunState, row: TaskRecord) -> Node | None:
    """The row's node; None for a task of a plan that was given up."""
    new = NewTask(row.name, row.kind, row.parent, row.element)
    state.position = row.position
    if row.name.startswith(saga.PREFIX):
        return saga.add(state, new)
    if row.parent is not None:
        parent = state.nodes.get(row.parent)
        if parent is None or _is_given_up(parent, row.name):
            state.position = row.position + 1
            return None
    return state.add([new], [])[0]


def _is_given_up(parent: Node, name: str) -> bool:
    """Whether a task was planned by a plan that another has replaced, or will."""
    if not isinstance(parent.spec, PlanTask):
        return False
    return parent.inside is None or not name.startswith(parent.inside.prefix)


def _set_statuses(state: RunState, rows: Sequence[TaskRecord]) -> None:
    for row in rows:
        node = state.nodes.get(row.name)
        if node is None:
            continue
        node.attempts, node.failures, node.deaths = row.attempts, row.failures, row.deaths
        node.not_before, node.started_at, node.finished_at = row.not_before, row.started_at, row.finished_at
        node.approval, node.approval_comment = row.approval, row.approval_comment
        node.output, node.failed = row.output_blob, row.error is not None and row.status in DONE
        state.set_status(node, _status(node, row.status))


def _status(node: Node, status: str) -> str:
    if node.role == "undo" and status == "failed":
        return "skipped"  # what is to be undone after it, is
    if status not in DONE and node.parent is not None and node.parent.status in DONE:
        return "cancelled"  # reopened by `podium retry`, though what it is below of stands
    return status


def _tell_history(state: RunState, connection: Connection, record: RunRecord) -> None:
    """What the attempts so far say: when a limited task began, and what may have killed the engine: functions
    that ran in its process when it died.
    """
    inline = [n for n in state.nodes.values() if isinstance(n.spec, PythonTask) and n.spec.inline]
    timed = [n for n in state.nodes.values() if n.spec.budget is not None and n.spec.budget.seconds]
    open_inline = [n for n in inline if n.attempts and n.status not in DONE]
    open_timed = [n for n in timed if n.attempts and n.status not in DONE]
    if not open_inline and not open_timed:
        return
    since, known = reads.histories(connection, record.id)
    for node in open_inline:
        node.deaths += known.get(node.name, (0, None))[0]
    for node in open_timed:
        starts = (known.get(node.name, (0, None))[1], node.started_at)
        later = [start for start in starts if start is not None and start >= since]
        node.first_start = min(later, default=since if node.status == "expanded" else None)
