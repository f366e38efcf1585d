"""A new run from a point of another one: what was finished before that point is taken over by reference.

No content is copied: the tasks of the new run name the same blobs, and it sees what its parent remembered
(table `branch`). Its ledger starts at zero.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from . import runs
from .content import put
from .errors import NotFound, UsageError
from .events import NewEvent, append, fence
from .graphs import NewEdge
from .runs import NewRun
from .tables import Branch, Revision, Run, Task

#: what the names of tasks begin with that undid others (`orchestrator/saga.py`)
UNDO = "undo:"


@dataclass(frozen=True, slots=True)
class Forked:
    run_id: str
    #: the source's last event that the fork knows of
    seq: int
    #: tasks whose results were taken over
    reused: tuple[str, ...]
    #: finished tasks before the fork that run again all the same → the changed inputs that they rest on, and
    #: the compensations (`undo:…`) by which what they did, or rest on, was undone
    again: Mapping[str, tuple[str, ...]]


def fork(
    connection: Connection, source: str, new: NewRun, at: str, changed: Mapping[str, Sequence[str]]
) -> Forked:
    """Store `new`, a run of the same workflow, with the results that `source` has before the task `at`.

    Taken over is each of the source's own tasks that succeeded or was skipped, is not `at`, does not come
    after it, and neither reads a changed input nor was undone, nor comes after a task of which that is true.
    `changed`: task → the changed inputs that it reads itself. The source is read at one moment, and may be
    running.

    Raises:
        NotFound: no such run, or it has no such task.
        UsageError: `at` is an element of a map or a task of a sub-workflow.
    """
    put(connection, new.tenant, new.inputs)  # before the run is locked: `prune` takes the locks in this order
    fence(connection, source)
    seq = connection.execute(select(Run.event_seq).where(Run.id == source)).scalar_one()
    query = select(Task).where(Task.run_id == source, Task.parent.is_(None)).order_by(Task.position)
    rows = {task["name"]: task for task in connection.execute(query).mappings()}
    tasks = {name: task for name, task in rows.items() if not name.startswith(UNDO)}
    _check_task(source, at, list(tasks))
    marks = {task: set(names) for task, names in changed.items()}
    for name in rows.keys() - tasks.keys():
        if rows[name]["attempts"]:
            marks.setdefault(_top(name.removeprefix(UNDO)), set()).add(name)
    behind, touched = _reach({at: {at}}, new.edges), _reach(marks, new.edges)
    done = [n for n, task in tasks.items() if task["status"] in ("succeeded", "skipped") and n not in behind]
    reused = [name for name in done if name not in touched]
    runs.create(connection, replace(new, forked_from=source, forked_seq=seq))
    for name in reused:
        _take_over(connection, new.id, tasks[name])
    branch(connection, new.tenant, source, new.id)
    data = {"run": source, "seq": seq, "from": at, "reused": len(reused)}
    append(connection, new.id, [NewEvent("run.forked", data=data)])
    again = {name: tuple(sorted(touched[name])) for name in done if name in touched}
    return Forked(new.id, seq, tuple(reused), again)


def branch(connection: Connection, tenant: str, parent: str, run_id: str) -> None:
    """Let `run_id` see what its parent remembers at this moment. One row, however much that is."""
    newest = connection.execute(select(func.max(Revision.id))).scalar() or 0
    row = {"run_id": run_id, "tenant": tenant, "parent": parent, "revision_id": newest}
    connection.execute(insert(Branch).values(**row))


def _check_task(source: str, at: str, own: Sequence[str]) -> None:
    if at in own:
        return
    top = _top(at)
    if top in own:
        raise UsageError(
            f"{at!r} is a part of the task {top!r}; a fork starts from a whole task of the workflow",
            mend=f"fork from it: --from {top}",
            run=source,
        )
    raise NotFound(f"the run has no task {at!r}", mend=f"its tasks: {', '.join(own)}", run=source)


def _top(name: str) -> str:
    """The task of the run's own workflow that a task is below, or is."""
    return name.replace("/", "[").split("[")[0]


def _reach(marks: Mapping[str, Iterable[str]], edges: Sequence[NewEdge]) -> dict[str, set[str]]:
    """Marks carried along the edges: task → all marks of the tasks it comes after, and its own."""
    after: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        after[edge.src].append(edge.dst)
    found = {task: set(mine) for task, mine in marks.items()}
    todo = list(found)
    while todo:
        task = todo.pop()
        for following in after[task]:
            known = found.setdefault(following, set())
            if not found[task] <= known:
                known |= found[task]
                todo.append(following)
    return found


def _take_over(connection: Connection, run_id: str, task: RowMapping) -> None:
    names = ("status", "output_blob", "error", "approval", "approval_text", "approval_comment")
    values = {name: task[name] for name in names}
    connection.execute(
        update(Task)
        .where(Task.run_id == run_id, Task.name == task["name"])
        .values(**values, finished_at=time.time())
    )
