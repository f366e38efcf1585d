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
        self._queued: set[str] = set()
        self._rest: dict[str, float] = {}
        self.replan()

    def replan(self) -> None:
        """Look at the graph again: it was patched."""
        seconds = {
            name: 0.0 if node.children else self._predicted.get(name, GUESS.get(node.spec.body_kind, 1.0))
            for name, node in self._state.nodes.items()
        }
        self._rest = remaining_seconds(self._state.nodes, seconds)
        waiting, self._heap, self._queued = self._queued, [], set()
        self.push(self._state.nodes[name] for name in waiting)

    def push(self, nodes: Iterable[Node]) -> None:
        """Nodes that are ready now; one that is in line already stays where it is."""
        for node in nodes:
            if node.name in self._queued:
                continue
            self._queued.add(node.name)
            heapq.heappush(self._heap, (-self._rest.get(node.name, 0.0), node.position, node.name))

    def pop(self) -> Node | None:
        """The task to start next, None if none is ready."""
        if not self._heap:
            return None
        name = heapq.heappop(self._heap)[2]
        self._queued.remove(name)
        return self._state.nodes[name]

    def __len__(self) -> int:
        return len(self._heap)
