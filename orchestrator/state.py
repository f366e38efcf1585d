"""A run's graph in memory: what is ready, skipped, over. Pure, and rebuilt from SQL at any time.

A Node is a task row with the spec it follows. Elements of a map and iterations of a loop follow the task's
own spec; tasks of a sub-workflow follow that workflow's. `Scope` says where a node's placeholders are looked
up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..memory.errors import PodiumError
from ..memory.graphs import NewEdge, NewTask
from ..memory.money import parse_usd
from .placeholders import ITEM, Ref, read_path
from .tasks import PlanTask, TaskBase
from .workflow import LoopTask, Workflow, WorkflowTask

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
    parent: Node | None = None
    #: number of the map's element or the loop's iteration
    element: int | None = None
    role: Literal["task", "element", "iteration", "undo"] = "task"
    status: str = "pending"
    attempts: int = 0
    failures: int = 0
    deaths: int = 0
    #: seconds, UTC
    started_at: float | None = None
    finished_at: float | None = None
    not_before: float | None = None
    approval: str | None = None
    approval_comment: str | None = None
    #: hash of the output
    output: str | None = None
    #: it failed, and counts as skipped or succeeded
    failed: bool = False
    before: list[Node] = field(default_factory=list)
    after: list[Node] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    #: predecessors and children that have not passed
    open_before: int = 0
    open_children: int = 0
    #: the workflow below it, once it is known
    inside: Scope | None = None
    #: how often it was planned
    plans: int = 0
    #: why its plans came to nothing
    lessons: list[str] = field(default_factory=list)
    #: seconds, UTC: its budget's seconds are counted from here
    first_start: float | None = None
    #: somebody looks when those seconds are over
    watched: bool = False

    @property
    def is_map(self) -> bool:
        """Whether its children are elements."""
        return self.role == "task" and self.spec.map is not None

    @property
    def is_loop(self) -> bool:
        """Whether its children are iterations."""
        return isinstance(self.spec, LoopTask) and self.role != "iteration" and not self.is_map

    @property
    def holds_tasks(self) -> bool:
        """Whether it is not executed itself, but gets children."""
        if self.is_map or isinstance(self.spec, WorkflowTask | LoopTask):
            return True
        return isinstance(self.spec, PlanTask) and self.inside is not None

    @property
    def condition(self) -> Any:
        """The `when` that this node must meet. One about `item` is asked of each element, not of the map."""
        when = self.spec.when
        if when is None or self.role in ("iteration", "undo"):
            return None
        about_item = Ref.parse(when.field).name == ITEM
        return when if about_item == (self.role == "element") or self.spec.map is None else None

    @property
    def begun_at(self) -> float | None:
        """When the attempt that is open began; None: none is."""
        return self.started_at if self.status in ("running", "expanded") else None

    def above(self) -> Iterator[Node]:
        """The node and what it is below of, from the inside out."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def below(self) -> Iterator[Node]:
        """Everything below the node, parents before their children."""
        for child in self.children:
            yield child
            yield from child.below()


class RunState:
    """The tasks of a run and their edges."""

    def __init__(self, workflow: Workflow) -> None:
        self.nodes: dict[str, Node] = {}
        self.root = Scope(workflow)
        #: position that the next task gets
        self.position = 0

    # -- building

    def add(self, tasks: Iterable[NewTask], edges: Iterable[NewEdge]) -> list[Node]:
        """Add tasks (parents before their children) and edges; returns the new nodes."""
        made = []
        for task in tasks:
            parent = self.nodes[task.parent] if task.parent is not None else None
            spec, scope, role = self._follow(task, parent)
            node = Node(task.name, task.kind, spec, scope, self.position, parent, task.element, role)
            self.position += 1
            if isinstance(spec, WorkflowTask) and not node.is_map:
                node.inside = Scope(spec.workflow, f"{node.name}/", node.name)
            elif isinstance(spec, LoopTask) and role == "iteration":
                node.inside = Scope(spec.loop.workflow, f"{node.name}/", node.name)
            self.nodes[task.name] = node
            if parent is not None:
                parent.children.append(node)
                parent.open_children += 1
            made.append(node)
        for edge in edges:
            src, dst = self.nodes[edge.src], self.nodes[edge.dst]
            src.after.append(dst)
            dst.before.append(src)
            dst.open_before += src.status not in PASSED
        return made

    def _follow(self, task: NewTask, parent: Node | None) -> tuple[TaskBase, Scope, Any]:
        if parent is None:
            return self.root.workflow.tasks[task.name], self.root, "task"
        if parent.is_map:
            return parent.spec, parent.scope, "element"
        if parent.is_loop:
            return parent.spec, parent.scope, "iteration"
        scope = parent.inside
        assert scope is not None
        return scope.workflow.tasks[task.name.removeprefix(scope.prefix)], scope, "task"

    def add_undo(self, task: NewTask, spec: TaskBase, undone: Node) -> Node:
        """Add a task that compensates another: it reads what that one may read, and its output."""
        node = Node(task.name, task.kind, spec, undone.scope, self.position, role="undo")
        self.position += 1
        self.nodes[task.name] = node
        return node

    def set_status(self, node: Node, status: str) -> None:
        was_passed, node.status = node.status in PASSED, status
        change = was_passed - (status in PASSED)
        if change:
            for successor in node.after:
                successor.open_before += change
            if node.parent is not None:
                node.parent.open_children += change

    def forget(self, nodes: Sequence[Node]) -> None:
        """Take away what a plan that failed has left: it counts no more."""
        for node in nodes:
            self.nodes.pop(node.name, None)

    # -- questions

    def ready(self) -> Iterator[Node]:
        """Pending nodes whose predecessors have passed, and expanded ones whose children have."""
        return (node for node in self.nodes.values() if self.is_ready(node))

    def is_ready(self, node: Node) -> bool:
        if node.status == "expanded":
            return node.open_children == 0
        return node.status == "pending" and node.open_before == 0

    def left(self) -> set[str]:
        """States of what is not over, with `waiting` if anything waits for a person.

        What is below a task that is over, is over with it.
        """
        own = [n.status for n in self.nodes.values() if n.parent is None and n.role != "undo"]
        found = {status for status in own if status not in PASSED}
        return found | {"waiting"} if any(n.status == "waiting" for n in self.nodes.values()) else found

    def successors(self, node: Node) -> list[Node]:
        """Nodes that the end of this one has made ready."""
        found = [n for n in node.after if self.is_ready(n)]
        if node.parent is not None and self.is_ready(node.parent):
            found.append(node.parent)
        return found

    def must_skip(self, node: Node, also: frozenset[str] | set[str] = frozenset()) -> bool:
        """Whether a ready node's predecessors were skipped (with those of `also`), so that it cannot run."""
        if not node.before or node.role == "undo":
            return False
        skipped = [n.status == "skipped" or n.name in also for n in node.before]
        return any(skipped) if node.spec.join == "all" else all(skipped)

    def skip_after(self, node: Node) -> list[Node]:
        """What else is skipped when this one is: successors, and theirs. Order: predecessors first."""
        gone, found, todo = {node.name}, [], [node]
        while todo:
            for successor in todo.pop().after:
                if successor.name in gone or successor.status != "pending":
                    continue
                over = all(n.status in PASSED or n.name in gone for n in successor.before)
                if over and self.must_skip(successor, gone):
                    gone.add(successor.name)
                    found.append(successor)
                    todo.append(successor)
        return found

    def sources(self, node: Node) -> list[str]:
        """Full names of the tasks whose outputs a node reads."""
        while node.role in ("element", "iteration") and node.parent is not None:
            node = node.parent
        return [edge.name for edge in node.before if edge.status == "succeeded"]

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
            while node.role != "element" and node.parent is not None:
                node = node.parent
            assert node.element is not None
            items = self.lookup(node, Ref.parse(node.spec.map or ITEM))
            return read_path(items[node.element], ref)
        return self.read(node.scope, ref)

    def read(self, scope: Scope, ref: Ref) -> Any:
        """The value of a placeholder in a workflow's scope."""
        if ref.name in scope.workflow.inputs:
            return read_path(self.inputs[scope.owner][ref.name], ref)
        return read_path(self.outputs.get(scope.prefix + ref.name), ref)

    def outcome(self, scope: Scope) -> dict[str, Any]:
        """The outputs of the workflow in a scope."""
        return {name: self.read(scope, ref) for name, ref in scope.workflow.output_refs().items()}


def first_tasks(workflow: Workflow, prefix: str = "", parent: str | None = None) -> list[NewTask]:
    """The tasks of a workflow as they stand before anything ran."""
    return [new_task(prefix + name, task, task.kind, parent) for name, task in workflow.tasks.items()]


def first_edges(workflow: Workflow, prefix: str = "") -> list[NewEdge]:
    return [NewEdge(prefix + e.src, prefix + e.dst, e.kind) for e in workflow.edges()]


def new_task(
    name: str, spec: TaskBase, kind: str, parent: str | None = None, element: int | None = None
) -> NewTask:
    """A task with the budget that its spec gives it. One of a map holds for the map, not for each element."""
    budget = spec.budget if element is None else None
    if budget is None:
        return NewTask(name, kind, parent, element)
    limit = parse_usd(budget.usd) if budget.usd is not None else None
    return NewTask(name, kind, parent, element, limit, budget.tokens)


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
    kind = node.spec.body_kind
    return [NewTask(f"{node.name}[{n}]", kind, node.name, n) for n in range(len(items))]
