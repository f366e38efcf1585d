"""Two runs side by side: what is different about their workflows, inputs, tasks and outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from ..memory import reads, totals
from ..memory.database import Connection
from ..memory.reads import RunRecord, TaskRecord

#: tasks whose outputs are looked into; of further ones it is only said that they differ
DETAILED = 100
#: lines of one difference between two values
LINES = 20
#: characters of one value in such a line
WIDTH = 120


@dataclass(frozen=True, slots=True)
class Change:
    """A place in a value: `$.title`, `$[3]`; None stands for "is not there" where `missing` says so."""

    path: str
    left: Any
    right: Any
    #: "" | "left" | "right": the side that has no such place
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """What a task came to in one of the runs."""

    status: str
    models: tuple[str, ...]
    cost_nano: int
    #: from the start of the last attempt to the end; None: it did not run here, or still does
    seconds: float | None
    attempts: int
    output_blob: str | None


@dataclass(frozen=True, slots=True)
class TaskDifference:
    name: str
    left: Side
    right: Side
    #: of status, models, cost, seconds, output: what is different
    fields: tuple[str, ...]
    #: how the outputs differ: lines of a unified diff of two texts, else places in the two values
    output: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    left: RunRecord
    right: RunRecord
    spec: Sequence[Change]
    inputs: Sequence[Change]
    only_left: Sequence[str]
    only_right: Sequence[str]
    tasks: Sequence[TaskDifference]
    outputs: Sequence[Change]
    #: tasks that are in both runs
    common: int

    @property
    def same(self) -> bool:
        """Whether the runs came to the same in the same way. How long they took does not count."""
        told = [task for task in self.tasks if set(task.fields) - {"seconds"}]
        parts = (self.spec, self.inputs, self.only_left, self.only_right, told, self.outputs)
        return not any(parts) and self.left.status == self.right.status


def compare(connection: Connection, left_id: str, right_id: str) -> Difference:
    """What is different between two runs, of one snapshot.

    Outputs are compared by their hashes; only those that differ are loaded.

    Raises:
        NotFound: there is no such run.
    """
    left, right = reads.run(connection, left_id), reads.run(connection, right_id)
    sides = [_sides(connection, left_id), _sides(connection, right_id)]
    both = [name for name in sides[0] if name in sides[1]]
    found = []
    for name in both:
        fields = _fields(sides[0][name], sides[1][name])
        if fields:
            found.append(TaskDifference(name, sides[0][name], sides[1][name], fields, ()))
    return Difference(
        left=left,
        right=right,
        spec=_changes(connection, left, right, "spec_blob"),
        inputs=_changes(connection, left, right, "inputs_blob"),
        only_left=[name for name in sides[0] if name not in sides[1]],
        only_right=[name for name in sides[1] if name not in sides[0]],
        tasks=_with_outputs(connection, left.tenant, found),
        outputs=_changes(connection, left, right, "outputs_blob"),
        common=len(both),
    )


def changes(left: Any, right: Any, path: str = "$") -> Iterator[Change]:
    """The places in which two JSON values differ, in order; as JSONPath from `$`."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in dict.fromkeys([*left, *right]):
            place = f"{path}.{key}" if str(key).isidentifier() else f"{path}[{json.dumps(key)}]"
            yield from _at(left, right, key, place, key in left, key in right)
    elif isinstance(left, list) and isinstance(right, list):
        for n in range(max(len(left), len(right))):
            yield from _at(left, right, n, f"{path}[{n}]", n < len(left), n < len(right))
    elif left != right or isinstance(left, bool) != isinstance(right, bool):
        yield Change(path, left, right)


def _at(left: Any, right: Any, key: Any, path: str, in_left: bool, in_right: bool) -> Iterator[Change]:
    if in_left and in_right:
        yield from changes(left[key], right[key], path)
    elif in_left:
        yield Change(path, left[key], None, "right")
    else:
        yield Change(path, None, right[key], "left")


def text_lines(found: Sequence[Change]) -> list[str]:
    """Changes as lines: `$.title: "Tides" → "Moon"`; long values and long lists are cut."""
    lines = [
        f"{c.path}: {_short(c.left, c.missing == 'left')} → {_short(c.right, c.missing == 'right')}"
        for c in found[:LINES]
    ]
    return lines + ([f"… and {len(found) - LINES} more"] if len(found) > LINES else [])


def _short(value: Any, missing: bool) -> str:
    if missing:
        return "(none)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"


def _sides(connection: Connection, run_id: str) -> dict[str, Side]:
    calls: dict[str, tuple[tuple[str, ...], int]] = {}
    for total in totals.call_totals(connection, run_id):
        models, cost = calls.get(total.task, ((), 0))
        calls[total.task] = (*models, total.model), cost + total.cost_nano
    return {
        task.name: _side(task, *calls.get(task.name, ((), 0))) for task in reads.tasks(connection, run_id)
    }


def _side(task: TaskRecord, models: tuple[str, ...], cost: int) -> Side:
    known = task.started_at is not None and task.finished_at is not None
    seconds = task.finished_at - task.started_at if known else None  # type: ignore[operator]
    return Side(task.status, tuple(sorted(models)), cost, seconds, task.attempts, task.output_blob)


def _fields(left: Side, right: Side) -> tuple[str, ...]:
    """What differs. Seconds count to a tenth, and where both runs have them."""
    times = [None if s.seconds is None else round(s.seconds, 1) for s in (left, right)]
    found = {
        "status": left.status != right.status,
        "models": left.models != right.models,
        "cost": left.cost_nano != right.cost_nano,
        "seconds": None not in times and times[0] != times[1],
        "output": left.output_blob != right.output_blob,
    }
    return tuple(name for name, differs in found.items() if differs)


def _with_outputs(
    connection: Connection, tenant: str, found: Sequence[TaskDifference]
) -> list[TaskDifference]:
    looked_into = [t for t in found if t.left.output_blob and t.right.output_blob and "output" in t.fields]
    looked_into = looked_into[:DETAILED]
    blobs = [blob for t in looked_into for blob in (t.left.output_blob, t.right.output_blob) if blob]
    values = reads.values(connection, tenant, blobs)
    lines = {
        t.name: _output_lines(values[t.left.output_blob or ""], values[t.right.output_blob or ""])
        for t in looked_into
    }
    return [kept for t in found if (kept := _explained(t, lines.get(t.name))) is not None]


def _explained(task: TaskDifference, lines: tuple[str, ...] | None) -> TaskDifference | None:
    """The task with its outputs' difference; None: they differ in the order of their keys alone."""
    if lines is None:
        return task
    fields = task.fields if lines else tuple(name for name in task.fields if name != "output")
    return TaskDifference(task.name, task.left, task.right, fields, lines) if fields else None


def _output_lines(left: Any, right: Any) -> tuple[str, ...]:
    if isinstance(left, str) and isinstance(right, str):
        whole = list(unified_diff(left.splitlines(), right.splitlines(), lineterm="", n=1))[2:]
        shown = [line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in whole[:LINES]]
        return (*shown, *([f"… and {len(whole) - LINES} more lines"] if len(whole) > LINES else []))
    return tuple(text_lines(list(changes(left, right))))


def _changes(connection: Connection, left: RunRecord, right: RunRecord, blob: str) -> list[Change]:
    ours, theirs = getattr(left, blob), getattr(right, blob)
    if ours == theirs:
        return []
    return list(
        changes(reads.value(connection, left.tenant, ours), reads.value(connection, right.tenant, theirs))
    )
