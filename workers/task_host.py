"""What hosts of user code have in common: the ticket of each call, and how long calls are expected to take.

User code runs in child processes. A `TaskHosts` keeps them, on this host (`local_tasks.LocalTaskHosts`) or
inside a Ray actor (`ray_tasks.RayTaskHosts`). `tests/integration/test_python_workers.py` and
`test_ray_tasks.py` hold both to one contract. Nothing here knows what a request means: only the child does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

#: How a call ended, and what its payload is: `value` and `error` JSON from the child; `died` how the child
#: that ran it ended; `late` nothing: it passed its limit and its child was killed; `failed` why no child
#: could be started; `lost` what is wrong with the cluster.
Kind = Literal["value", "error", "died", "late", "failed", "lost"]
#: microseconds that a call took which did not end by itself, or was its function's first in that child
UNKNOWN = -1

#: seconds of expected work that a child may have before it, beyond which requests wait for an idle one
WINDOW_S = 0.002
#: requests that a child may have at most, and bytes of them
WINDOW = 32
WINDOW_BYTES = 256 * 1024
#: what a request costs beside its function, in seconds
OVERHEAD_S = 20e-6


@dataclass(eq=False, slots=True)
class Ticket:
    """One call on its way."""

    #: the project's folder: its modules are imported, and paths are relative to it
    root: str
    #: what the child is to do: one word of `python_worker`'s protocol
    verb: bytes
    #: calls of one key are expected to take as long as each other
    key: str
    #: JSON without line breaks
    body: bytes
    #: limit of the function's own time; waiting is free
    seconds: float
    #: names the call in Ray's dashboard, e.g. `run/<id>`
    label: str = ""
    #: set by `resolve`
    done: asyncio.Future[tuple[Kind, bytes]] | None = None
    #: in the owner's count, 0 where it has none
    number: int = 0
    #: nobody waits for it any more
    dropped: bool = False
    #: where it is, and as what
    place: Any = None
    seq: int = 0
    #: how often it was sent again because a child died before beginning it
    resent: int = 0


#: told of every ticket that ends, except dropped ones: (ticket, kind, payload, microseconds)
OnEnd = Callable[[Ticket, Kind, bytes, int], None]


def resolve(ticket: Ticket, kind: Kind, payload: bytes, micros: int) -> None:
    """The OnEnd that sets `ticket.done`."""
    if ticket.done is not None and not ticket.done.done():
        ticket.done.set_result((kind, payload))


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """What every child is started with."""

    #: the module that is run as the child
    module: str
    #: children a root at most
    size: int
    #: bytes of address space a child may have; None: as many as there are
    memory_bytes: int | None = None
    #: bytes by which a child may grow before it is replaced
    grown_bytes: int = 1 << 30
    #: bytes of one answer at most
    max_answer: int = 64 << 20

    @classmethod
    def of(cls, module: str, size: int | None, **limits: int | None) -> ChildOptions:
        """With one child a core, at least two, unless `size` says otherwise."""
        given: Mapping[str, Any] = {name: value for name, value in limits.items() if value is not None}
        return cls(module, size or max(2, os.cpu_count() or 2), **given)


class TaskHosts(Protocol):
    """Where calls run. Used from one event loop."""

    def submit(self, ticket: Ticket) -> None:
        """Have it run; the OnEnd hears how it ended. Tickets of one root begin in this order."""

    def drop(self, ticket: Ticket) -> None:
        """Nobody waits for it any more: it does not begin, or is killed with the child that runs it."""

    def warm(self, root: str) -> None:
        """Start a child for this root now, if it has none."""

    async def close(self) -> None:
        """Kill the children, and end what runs in them as `died`. May be called twice."""


class Costs:
    """Seconds that calls of a key are expected to take. Quick to rise, slow to fall: waiting behind a call
    that was thought quick costs more than an idle child."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def of(self, key: str) -> float:
        """Expected seconds; infinitely many (1000) for a key not seen yet."""
        return self._known.get(key, 1000.0)

    def learn(self, key: str, micros: int) -> None:
        if micros == UNKNOWN:
            return
        seconds = micros * 1e-6 + OVERHEAD_S
        known = self._known.get(key)
        if known is None:
            self._known[key] = seconds
        else:
            self._known[key] = known + (seconds - known) * (0.5 if seconds > known else 0.2)


class Lane:
    """Requests that one child, or one actor with `width` children, has before it."""

    def __init__(self, width: int = 1, window: int = WINDOW, window_s: float = WINDOW_S) -> None:
        self.outstanding: dict[int, Ticket] = {}
        #: expected seconds of what is outstanding
        self.load = 0.0
        self._bytes = 0
        self._width, self._window, self._window_s = width, window, window_s
        self._costs: dict[int, float] = {}

    def room(self, cost: float) -> bool:
        """Whether a request of this cost would begin at once, or soon enough."""
        count = len(self.outstanding)
        if count < self._width:
            return True
        return (
            count < self._window
            and self._bytes < WINDOW_BYTES
            and self.load + cost <= self._window_s * self._width
        )

    def put(self, seq: int, ticket: Ticket, cost: float) -> None:
        self.outstanding[seq] = ticket
        self._costs[seq] = cost
        self.load += cost
        self._bytes += len(ticket.body)

    def pop(self, seq: int) -> Ticket | None:
        ticket = self.outstanding.pop(seq, None)
        if ticket is None:
            return None
        cost = self._costs.pop(seq)
        self._bytes -= len(ticket.body)
        self.load = self.load - cost if self.outstanding else 0.0
        return ticket

    def clear(self) -> list[Ticket]:
        """Everything that was outstanding, oldest first."""
        return [ticket for seq in list(self.outstanding) if (ticket := self.pop(seq)) is not None]
