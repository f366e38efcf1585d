"""What the router's pacer is told of a run: how much money and how many calls are left, and how much each
task's answers matter.

A task that many others build on deserves more: its weight grows with the logarithm of what comes after it in
its workflow, and with the weight of the task that holds the workflow. An element of a map is one part among
many. Weights are 1 on average over the model tasks of a workflow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import log2
from typing import TYPE_CHECKING

from .estimate import AGENT_CALLS
from .state import DONE, Node, RunState
from .tasks import AgentTask, LlmTask, PlanTask
from .workflow import Workflow

if TYPE_CHECKING:
    from ..memory.reads import RunRecord
    from ..router.decision.pacing import Left, Pacer
    from ..router.types import Route

#: seconds for which a count of what is left stands
_STANDS = 0.25
#: elements that a map is taken to have while nothing is known of any
UNKNOWN_MAP = 8.0
_CALLS = LlmTask | AgentTask | PlanTask


def raw(after: float) -> float:
    """The weight of a task with so many tasks after it, before it is set against the others'."""
    return 1 + log2(1 + after)


def _downstream(workflow: Workflow) -> dict[str, int]:
    """How many tasks build on each task, at any distance."""
    following: dict[str, set[str]] = {name: set() for name in workflow.tasks}
    for edge in workflow.edges():
        following[edge.src].add(edge.dst)
    found: dict[str, set[str]] = {}
    for name in workflow.tasks:
        seen: set[str] = set()
        todo = [name]
        while todo:
            for one in following[todo.pop()] - seen:
                seen.add(one)
                todo.append(one)
        found[name] = seen
    return {name: len(seen) for name, seen in found.items()}


class Remaining:
    """How much money is left of a run, and how many calls are to come."""

    def __init__(self) -> None:
        self._state: RunState | None = None
        self._nano: int | None = None
        self._calls, self._at = 0.0, -1.0

    def follow(self, state: RunState) -> None:
        """The run's tasks are these from now on."""
        self._state = state

    def budget(self, record: RunRecord) -> None:
        """The run's budget as the database has it now."""
        self._nano = record.budget_nano - record.settled_nano

    def paid(self, nano: int) -> None:
        """A call was settled."""
        if self._nano is not None:
            self._nano -= nano

    def __call__(self) -> Left:
        """What is left; tasks are counted anew a few times a second."""
        from ..router.decision.pacing import Left

        now = time.monotonic()
        if self._state is not None and now - self._at > _STANDS:
            self._calls, self._at = _calls_left(self._state), now
        return Left(self._nano, self._calls or None)


class Pacing:
    """What the calls of a run tell its pacer, and ask of it."""

    def __init__(self, pacer: Pacer, left: Remaining, judge: str | None = None) -> None:
        """`judge`: the model that is asked about answers in doubt."""
        self.pacer, self.left, self.judge = pacer, left, judge
        self._after: dict[int, tuple[Workflow, Mapping[str, int], float]] = {}

    def begin(self, route: Route) -> None:
        """A call has its reservation."""
        self.pacer.begin(route.expected_nano, route.extra_nano)

    def end(self, route: Route, paid_nano: int) -> None:
        """It is over."""
        self.pacer.end(route.expected_nano, paid_nano)
        self.left.paid(paid_nano)

    def weight(self, node: Node) -> float:
        """How much an answer of this node matters; 1: as usual."""
        weight, parts = 1.0, 1
        for above in node.above():
            if above.role == "element" and above.parent is not None:
                parts *= max(1, len(above.parent.children))
            if above.role == "task":
                weight *= self._within(above, parts)
                parts = 1
        return min(4.0, max(0.25, weight))

    def _within(self, node: Node, parts: int) -> float:
        workflow = node.scope.workflow
        if id(workflow) not in self._after:
            after = _downstream(workflow)
            models = [raw(after[name]) for name, task in workflow.tasks.items() if isinstance(task, _CALLS)]
            self._after[id(workflow)] = workflow, after, sum(models) / len(models) if models else 1.0
        _, after, mean = self._after[id(workflow)]
        return raw(after.get(node.name.removeprefix(node.scope.prefix), 0) / parts) / mean


def _calls_left(state: RunState) -> float:
    """Calls that a run is still expected to make. A map whose elements are not known yet is taken to be as
    large as the run's others are on average."""
    nodes = state.nodes.values()
    sizes = [len(node.children) for node in nodes if node.is_map and node.children]
    size = sum(sizes) / len(sizes) if sizes else UNKNOWN_MAP
    return sum(_calls_of(node) * (size if node.is_map else 1.0) for node in nodes if node.status not in DONE)


def _calls_of(node: Node) -> float:
    """Calls that a node is still expected to make; a map that has its elements makes none itself."""
    if not isinstance(node.spec, _CALLS) or (node.holds_tasks and node.children):
        return 0.0
    return float(AGENT_CALLS if isinstance(node.spec, AgentTask) else 1)
