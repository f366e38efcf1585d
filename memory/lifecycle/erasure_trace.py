"""What was made from what is to be erased: revisions, tasks, runs; by links, by edges, by what was shown.

Derived from an erased revision is, again and again until nothing more is found:

- a revision that is linked to it as `derived_from`, and one whose text shows it;
- a task that a call showed it to, whose inputs, plan or output show it, or whose artifact is derived;
- a task that got the output of such a task by an edge of data, one below it, the one it is below of, and in a
  fork the task that took its output over;
- the artifact of such a task, with all that was remembered from it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

from ..content import get
from ..tables import Blob, Call, Edge, Effect, Item, Link, Revision, Run, Task
from .erasure_scan import Scan, pages
from .erasure_words import is_tombstone

#: contents from which on rows are compared with them here, not in the database
MANY = 1000
#: stored bytes from which on equal contents are one and the same, not two that happen to be equal
SAME = 64


@dataclass(slots=True)
class _Graph:
    """A run's tasks, as far as derivation needs them."""

    outputs: dict[str, str | None] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    below: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    after: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class Trace:
    """All that is to go: of a tenant, from some revisions on."""

    def __init__(self, connection: Connection, scan: Scan) -> None:
        self._connection, self._tenant, self.scan = connection, scan.tenant, scan
        self.revisions: set[int] = set()
        #: run → task → whether its calls, inputs and children go too, or only its output
        self.tasks: defaultdict[str, dict[str, bool]] = defaultdict(dict)
        #: every run with something that goes
        self.runs: set[str] = set(scan.runs)
        #: hashes of derived contents that are too long to be equal by chance
        self.copies: set[str] = set()
        self._graphs: dict[str, _Graph] = {}
        self._new_tasks: list[tuple[str, str]] = []
        self._new_revisions: list[tuple[int, bool]] = []
        self._contents: set[str] = set()

    def follow(self, seeds: Iterable[int]) -> None:
        """Find everything, from the seeds and from what the scan has found."""
        self._add_revisions(seeds, True)
        self._add_revisions(self.scan.revisions, False)
        self._add_shown(self.scan.blobs)
        self._add_readers()
        while True:
            self._drain()
            if not self._add_copies():
                break
        self.runs |= self.tasks.keys()

    def _drain(self) -> None:
        while self._new_revisions or self._new_tasks:
            if self._new_revisions:
                new, self._new_revisions = self._new_revisions, []
                self._follow_links([number for number, _ in new])
                self._follow_artifacts(dict(new))
            else:
                self._follow_task(*self._new_tasks.pop())

    def _add_revisions(self, numbers: Iterable[int], whole: bool) -> None:
        new = set(numbers) - self.revisions
        self.revisions |= new
        self._new_revisions += [(number, whole) for number in new]

    def _add_task(self, run: str, name: str, whole: bool) -> None:
        known = self.tasks[run].get(name)
        if known is None or (whole and not known):
            self.tasks[run][name] = whole
            self._new_tasks.append((run, name))

    def _rows(self, columns: tuple[Any, ...], column: Any, values: Collection[Any]) -> Iterator[Any]:
        mine = column.class_.tenant == self._tenant
        if len(values) > MANY:  # the columns have no index: one look at all rows
            for *row, value in self._connection.execute(select(*columns, column.label("of")).where(mine)):
                if value in values:
                    yield row
        else:
            query = select(*columns).where(mine, column.in_(sorted(values)))
            yield from self._connection.execute(query) if values else ()

    def _add_shown(self, blobs: Collection[str]) -> None:
        """What refers to contents that show it."""
        self._add_revisions([n for (n,) in self._rows((Revision.id,), Revision.content_blob, blobs)], False)
        for column, whole in ((Task.output_blob, False), (Task.inputs_blob, True), (Task.plan_blob, True)):
            for run, name in self._rows((Task.run_id, Task.name), column, blobs):
                self._add_task(run, name, whole)
        for column in (Call.request_blob, Call.response_blob):
            for run, name in self._rows((Call.run_id, Call.task), column, blobs):
                self._add_task(run, name, True)
        for column in (Effect.arguments_blob, Effect.result_blob):
            self.runs |= {run for (run,) in self._rows((Effect.run_id,), column, blobs)}
        for column in (Run.spec_blob, Run.inputs_blob, Run.outputs_blob):
            self.runs |= {run for (run,) in self._rows((Run.id,), column, blobs)}

    def _add_readers(self) -> None:
        """Tasks that read an input of their run that shows it."""
        for run, spec, inputs in self._rows(
            (Run.id, Run.spec_blob, Run.inputs_blob), Run.inputs_blob, self.scan.blobs
        ):
            fields = [n for n, v in self._value(inputs).items() if self.scan.shows(json.dumps(v))]
            for name, task in _tasks_of(self._value(spec)).items():
                if any(_reads(task, field) for field in fields):
                    self._add_task(run, name, True)

    def _value(self, digest: str) -> dict[str, Any]:
        value = get(self._connection, self._tenant, digest)
        return value if isinstance(value, dict) and not is_tombstone(value) else {}

    def _follow_links(self, numbers: list[int]) -> None:
        for some in pages(numbers):
            query = select(Link.src).where(
                Link.tenant == self._tenant, Link.kind == "derived_from", Link.dst.in_(some)
            )
            self._add_revisions(self._connection.execute(query).scalars(), True)

    def _follow_artifacts(self, whole: dict[int, bool]) -> None:
        columns = (Revision.id, Revision.content_blob, Item.kind, Item.scope, Item.scope_id, Item.key)
        for some in pages(sorted(whole)):
            query = select(*columns).join(Item, Item.id == Revision.item_id).where(Revision.id.in_(some))
            for number, content, kind, scope, scope_id, key in self._connection.execute(query):
                self._contents.add(content)
                if kind == "artifact" and scope == "run" and key in self._graph(scope_id).outputs:
                    self._add_task(scope_id, key, whole[number])

    def _follow_task(self, run: str, name: str) -> None:
        graph = self._graph(run)
        output, parent = graph.outputs.get(name), graph.parents.get(name)
        if output is not None:
            self._contents.add(output)
            self._add_forks(run, name, output)
        if parent is not None:
            self._add_task(run, parent, False)
        for following in graph.after[name]:
            self._add_task(run, following, True)
        if self.tasks[run][name]:
            for child in graph.below[name]:
                self._add_task(run, child, True)
        query = (
            select(Revision.id)
            .join(Item, Item.id == Revision.item_id)
            .where(Item.tenant == self._tenant, Item.scope == "run", Item.scope_id == run, Item.key == name)
            .where(Revision.tenant == self._tenant, Item.kind == "artifact")
        )
        self._add_revisions(self._connection.execute(query).scalars(), self.tasks[run][name])

    def _add_forks(self, run: str, name: str, output: str) -> None:
        query = (
            select(Task.run_id)
            .join(Run, Run.id == Task.run_id)
            .where(Run.tenant == self._tenant, Run.forked_from == run)
            .where(Task.name == name, Task.output_blob == output)
        )
        for fork in self._connection.execute(query).scalars().all():
            self._add_task(fork, name, self.tasks[run][name])

    def _add_copies(self) -> bool:
        """Whether a derived content, too long to be equal by chance, was found in another place."""
        before = len(self.revisions), sum(map(len, self.tasks.values()))
        new, self._contents = self._contents, set()
        size = func.length(Blob.data)
        long = {h for h, n in self._rows((Blob.hash, size), Blob.hash, new - self.copies) if n >= SAME}
        self.copies |= long
        self._add_shown(long)
        return before != (len(self.revisions), sum(map(len, self.tasks.values())))

    def _graph(self, run: str) -> _Graph:
        if run not in self._graphs:
            graph = self._graphs[run] = _Graph()
            tasks = select(Task.name, Task.parent, Task.output_blob).where(
                Task.tenant == self._tenant, Task.run_id == run
            )
            for name, parent, output in self._connection.execute(tasks):
                graph.outputs[name], graph.parents[name] = output, parent
                if parent is not None:
                    graph.below[parent].append(name)
            edges = select(Edge.src, Edge.dst).where(
                Edge.tenant == self._tenant, Edge.run_id == run, Edge.kind == "data"
            )
            for src, dst in self._connection.execute(edges):
                graph.after[src].append(dst)
        return self._graphs[run]


def _tasks_of(spec: dict[str, Any]) -> dict[str, Any]:
    tasks = spec.get("tasks", {})
    return tasks if isinstance(tasks, dict) else {}


def _reads(spec: Any, name: str) -> bool:
    """Whether a task, as data, refers to an input: in a placeholder, or as a whole string (`map: docs`)."""
    if isinstance(spec, str):
        return (
            spec == name
            or spec.startswith((f"{name}.", f"{name}["))
            or any(f"{{{name}{end}" in spec for end in ("}", ".", "["))
        )
    inner = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    return any(_reads(one, name) for one in inner)
