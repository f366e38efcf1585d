"""Which ready task of a run comes first: the driver's nodes, put in order by `ordering`."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from .state import Node


class Scheduler:
    def __init__(self, predicted: Mapping[str, float] | None = None) -> None:
        self._heap: list = []
        self._queued: dict[str, Node] = {}

    def add(self, nodes: Iterable[Node]) -> None:
        pass

    def ready(self, node: Node) -> None:
        self._queued[node.name] = node
        heapq.heappush(self._heap, (-node.spec.priority, node.position, node.name))

    def done(self, node: Node) -> None:
        pass

    def drop(self, node: Node) -> None:
        self._queued.pop(node.name, None)

    def pick(self) -> Node:
        while True:
            node = self._queued.pop(heapq.heappop(self._heap)[2], None)
            if node is not None:
                return node

    def __len__(self) -> int:
        return len(self._queued)
