"""A run's graph in memory: what is ready, skipped, over. Pure, and rebuilt from SQL at any time.

A Node is a task row with the spec it follows. Elements of a map follow the mapped task's spec; tasks of a
sub-workflow follow that workflow's. `Scope` says where a node's placeholders are looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..memory.errors import PodiumError
from ..memory.runs import NewEdge, NewTask
from .placeholders import ITEM, Ref, read_path
from .tasks import TaskBase
from .workflow import Workflow, WorkflowTask

#: states in which a task is over
DONE = frozenset({"succeeded", "failed", "skipped", "cancelled"})
#: those of them after which its successors may go on
PASSED = frozenset({"succeeded", "skipped"})


@dataclass(frozen=True, slots=True)
class Scope:
    """The workflow a node belongs to."""

    workflow: Workflow
    #: what the names of its tasks begin with: "" or "review/"
    prefix: str = ""
    #: the task whose sub-workflow it is
    owner: str | None = None


@dataclass(slots=True)
class Node:
    name: str
    kind: str
    spec: TaskBase
    scope: Scope
    position: int
    parent: str | None = None
    element: int | None = None
    status: str = "pending"
    attempts: int = 0
    failures: int = 0
    #: not before this time (seconds, UTC)
    not_before: float | None = None
    approval: str | None = None
    approval_comment: str | None = None
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    #: children that are not over, or that failed: the node cannot collect them yet
    open_children: int = 0

    @property
    def condition(self) -> Any:
        """The `when` that this node must meet. One about `item` is asked of each element, not of the map."""
        when = self.spec.when
        about_item = when is not None and Ref.parse(when.field).name == ITEM
        return when if when is not None and about_item == (self.element is not None) else None


class RunState:
    """The tasks of a run and their edges."""

    def __init__(self, workflow: Workflow) -> None:
        self.nodes: dict[str, Node] = {}
        self.root = Scope(workflow)

    # -- building

    def add(self, tasks: Iterable[NewTask], edges: Iterable[NewEdge]) -> list[Node]:
        """Add tasks (parents before their children) and edges; returns the new nodes."""
        made = []
        for task in tasks:
            spec, scope = self._follow(task)
            node = Node(
                task.name, task.kind, spec, scope, len(self.nodes), parent=task.parent, element=task.element
            )
            self.nodes[task.name] = node
            if task.parent is not None:
                parent = self.nodes[task.parent]
                parent.children.append(task.name)
                parent.open_children += 1
            made.append(node)
        for edge in edges:
            self.nodes[edge.src].after.append(edge.dst)
            self.nodes[edge.dst].before.append(edge.src)
        return made

    def _follow(self, task: NewTask) -> tuple[TaskBase, Scope]:
        if task.parent is None:
            return self.root.workflow.tasks[task.name], self.root
        parent = self.nodes[task.parent]
        if task.element is not None:
            return parent.spec, parent.scope
        assert isinstance(parent.spec, WorkflowTask)
        scope = Scope(parent.spec.workflow, f"{parent.name}/", parent.name)
        return scope.workflow.tasks[task.name.removeprefix(scope.prefix)], scope

    def set_status(self, name: str, status: str) -> None:
        node = self.nodes[name]
        was_passed, node.status = node.status in PASSED, status
        if node.parent is not None and was_passed != (status in PASSED):
            self.nodes[node.parent].open_children += 1 if was_passed else -1

    # -- questions

    def ready(self) -> Iterator[Node]:
        """Pending nodes whose predecessors have passed, and expanded ones whose children have."""
        for node in self.nodes.values():
            if self.is_ready(node):
                yield node

    def is_ready(self, node: Node) -> bool:
        if node.status == "expanded":
            return node.open_children == 0
        return node.status == "pending" and all(self.nodes[name].status in PASSED for name in node.before)

    def successors(self, name: str) -> list[Node]:
        """Nodes that the end of `name` may have made ready."""
        node = self.nodes[name]
        found = [self.nodes[n] for n in node.after]
        if node.parent is not None:
            found.append(self.nodes[node.parent])
        return [n for n in found if self.is_ready(n)]

    def must_skip(self, node: Node) -> bool:
        """Whether a ready node's predecessors were skipped, so that it cannot run."""
        skipped = [self.nodes[name].status == "skipped" for name in node.before]
        return any(skipped) if node.spec.join == "all" else bool(skipped) and all(skipped)

    def skip_after(self, name: str) -> list[str]:
        """What else is skipped when `name` is: successors, and theirs. Order: predecessors first."""
        was = self.nodes[name].status
        self.nodes[name].status = "skipped"
        found: list[str] = []
        todo = [name]
        while todo:
            for successor in self.nodes[todo.pop()].after:
                node = self.nodes[successor]
                if node.status == "pending" and self.is_ready(node) and self.must_skip(node):
                    node.status = "skipped"
                    found.append(successor)
                    todo.append(successor)
        for skipped in found:
            self.nodes[skipped].status = "pending"
        self.nodes[name].status = was
        return found

    def sources(self, node: Node) -> list[str]:
        """Full names of the tasks whose outputs a node reads."""
        names = [edge for edge in node.before if self.nodes[edge].status == "succeeded"]
        return names if node.element is None or node.parent is None else self.sources(self.nodes[node.parent])

    def needed(self, node: Node, refs: Iterable[Ref]) -> set[str]:
        """Full names of the tasks that must be loaded to look `refs` up from `node`."""
        found: set[str] = set()
        for ref in refs:
            if ref.name == ITEM:
                assert node.spec.map is not None
                ref = Ref.parse(node.spec.map)
            if ref.name not in node.scope.workflow.inputs:
                found.add(node.scope.prefix + ref.name)
        return found


@dataclass(slots=True)
class Values:
    """Outputs and inputs that are loaded; what `Ref`s are looked up in."""

    inputs: dict[str | None, Mapping[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    def lookup(self, node: Node, ref: Ref) -> Any:
        """The value of a placeholder as seen from `node`; None for a skipped task.

        Raises:
            TemplateError: the value has no such field.
        """
        if ref.name == ITEM:
            assert node.spec.map is not None
            assert node.element is not None
            items = self.lookup(node, Ref.parse(node.spec.map))
            return read_path(items[node.element], ref)
        if ref.name in node.scope.workflow.inputs:
            return read_path(self.inputs[node.scope.owner][ref.name], ref)
        return read_path(self.outputs.get(node.scope.prefix + ref.name), ref)


def first_tasks(workflow: Workflow, prefix: str = "", parent: str | None = None) -> list[NewTask]:
    """The tasks of a workflow as they stand before anything ran."""
    return [NewTask(prefix + name, task.kind, parent) for name, task in workflow.tasks.items()]


def first_edges(workflow: Workflow, prefix: str = "") -> list[NewEdge]:
    return [NewEdge(prefix + e.src, prefix + e.dst, e.kind) for e in workflow.edges()]


def elements(node: Node, items: Any) -> list[NewTask]:
    """One task for each element of a mapped list.

    Raises:
        PodiumError: the value is no list, or an empty one.
    """
    if not isinstance(items, list):
        raise PodiumError(
            f"`map: {node.spec.map}` got {type(items).__name__}, not a list",
            mend="map over an input or an output of type list",
            task=node.name,
        )
    if not items:
        raise PodiumError(
            f"`map: {node.spec.map}` got an empty list",
            mend="give at least one element, or put a `when` before the map",
            task=node.name,
        )
    return [NewTask(f"{node.name}[{n}]", node.spec.body_kind, node.name, n) for n in range(len(items))]


def remaining_seconds(nodes: Mapping[str, Node], seconds: Mapping[str, float]) -> dict[str, float]:
    """Predicted seconds from the start of each task to the end of the longest path behind it."""
    rest: dict[str, float] = {}
    for name in reversed(_order(nodes)):
        node = nodes[name]
        behind: Sequence[str] = node.after or ([node.parent] if node.parent else [])
        rest[name] = seconds.get(name, 0.0) + max((rest.get(n, 0.0) for n in behind), default=0.0)
    return rest


def _order(nodes: Mapping[str, Node]) -> list[str]:
    """Topological, by Kahn's algorithm; a child comes before its parent."""
    missing = {name: len(node.before) + len(node.children) for name, node in nodes.items()}
    todo = [name for name, count in missing.items() if count == 0]
    order = []
    while todo:
        name = todo.pop()
        order.append(name)
        node = nodes[name]
        for following in (*node.after, *([node.parent] if node.parent else [])):
            missing[following] -= 1
            if missing[following] == 0:
                todo.append(following)
    return order
