"""Which ready task comes first. Pure: no clock, no I/O.

Longest remaining path first (critical path), so that the run ends early; then the workflow's own order.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from .state import Node, RunState, remaining_seconds

#: seconds assumed for a task kind of which nothing is known
GUESS = {"llm": 5.0, "agent": 20.0, "python": 0.2, "tool": 0.5, "approval": 0.0, "when": 0.0, "workflow": 0.0}


class Scheduler:
    """Hands out the ready tasks of one run in order, each one once until it is pushed again."""

    def __init__(self, state: RunState, predicted: Mapping[str, float] | None = None) -> None:
        """`predicted`: seconds by task name, from history."""
        self._state = state
        self._predicted = dict(predicted or {})
        self._heap: list[tuple[float, int, str]] = []
        self._rest: dict[str, float] = {}
        self.replan()

    def replan(self) -> None:
        """Look at the graph again: it was patched."""
        seconds = {
            name: 0.0 if node.children else self._predicted.get(name, GUESS.get(node.spec.body_kind, 1.0))
            for name, node in self._state.nodes.items()
        }
        self._rest = remaining_seconds(self._state.nodes, seconds)
        waiting = {name for _, _, name in self._heap}
        self._heap = []
        self.push(self._state.nodes[name] for name in waiting)

    def push(self, nodes: Iterable[Node]) -> None:
        """Nodes that are ready now."""
        for node in nodes:
            heapq.heappush(self._heap, (-self._rest.get(node.name, 0.0), node.position, node.name))

    def pop(self) -> Node | None:
        """The task to start next, None if none is ready."""
        return self._state.nodes[heapq.heappop(self._heap)[2]] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
