"""The ready tasks of a run, for the driver: its nodes as jobs of the scheduler in `ordering`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..memory.names import in_workflow
from .ordering import Job, Scheduler
from .state import DONE, Node

#: seconds assumed for a task of which nothing is known
GUESS = {"llm": 5.0, "agent": 20.0, "plan": 20.0, "python": 0.01, "tool": 0.5}


class ReadyTasks:
    """Hands out a run's ready tasks in order. Tasks that hold others only lengthen the paths through them."""

    def __init__(self, slots: int, predicted: Mapping[str, float], deadline: float | None = None) -> None:
        """`slots`: of the engine. `predicted`: seconds by task name, from history. `deadline`: on the clock
        that `ready` and `pick` are told.
        """
        self._predicted = predicted
        self._scheduler = Scheduler((slots,), deadline=deadline)
        self._nodes: dict[str, Node] = {}

    def add(self, nodes: Iterable[Node]) -> None:
        """Take in new nodes and their edges."""
        new = [node for node in nodes if node.status not in DONE]
        self._nodes.update((node.name, node) for node in new)
        edges = [(before.name, node.name) for node in new for before in node.before]
        edges += [(node.name, node.parent.name) for node in new if node.parent is not None]
        self._scheduler.add([self._job(node) for node in new], edges)

    def _job(self, node: Node) -> Job:
        kind = in_workflow(node.name)
        seconds = 0.0
        if not node.holds_tasks:
            seconds = self._predicted.get(kind, GUESS.get(node.spec.body_kind, 0.0))
        return Job(node.name, seconds, (1,), node.spec.priority, node.position, kind)

    def ready(self, node: Node, now: float) -> None:
        """The node waits for an attempt: its first, or one more."""
        if node.name not in self._nodes:
            self.add([node])
            self._scheduler.add([], [(node.name, after.name) for after in node.after])
        self._scheduler.again(node.name, now)
        self._scheduler.ready(node.name, now)

    def pick(self, now: float, free: int) -> Node | None:
        """The node to start next on one of the free slots; None: hold them back until something has ended."""
        # where all of them fit there is nothing to think about
        name = self._scheduler.pick(now, (free,), ahead=len(self) > free)
        return None if name is None else self._nodes[str(name)]

    @property
    def ask_again(self) -> float | None:
        """When to ask again although nothing has ended; None: not before something has."""
        return self._scheduler.ask_again

    def done(self, node: Node, now: float) -> None:
        """The node is over, however."""
        if self._nodes.pop(node.name, None) is not None:
            self._scheduler.done(node.name, now)

    def drop(self, node: Node) -> None:
        """The node does not run now: never again, or not until it is `ready` once more."""
        if self._nodes.pop(node.name, None) is not None:
            self._scheduler.drop(node.name)

    def __len__(self) -> int:
        return len(self._scheduler)
