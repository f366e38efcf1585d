"""`LocalTaskHosts`: child processes of this process, at most so many a root, fed from one line a root."""

from __future__ import annotations

import asyncio
from collections import deque

from .child import PATIENCE_S, Child
from .task_host import UNKNOWN, ChildOptions, Costs, Kind, OnEnd, Ticket, resolve

#: seconds that killed children are waited for
CLOSE_S = 5.0
#: how often a child may end before it is ready until calls fail of it
STARTS = 3


class LocalTaskHosts:
    """See `task_host.TaskHosts`."""

    def __init__(self, options: ChildOptions, on_end: OnEnd = resolve) -> None:
        self._options, self._on_end = options, on_end
        self._roots: dict[str, _Root] = {}
        self._closed = False

    def submit(self, ticket: Ticket) -> None:
        if self._closed:
            self._on_end(ticket, "failed", b"the workers were closed", UNKNOWN)
            return
        self._root(ticket.root).submit(ticket)

    def drop(self, ticket: Ticket) -> None:
        ticket.dropped = True
        if isinstance(ticket.place, Child):
            ticket.place.drop(ticket)

    def warm(self, root: str) -> None:
        if not self._closed:
            self._root(root).warm()

    async def close(self) -> None:
        self._closed = True
        ends = [end for root in self._roots.values() for end in root.close()]
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_S)

    def _root(self, root: str) -> _Root:
        if root not in self._roots:
            self._roots[root] = _Root(root, self._options, self._on_end)
        return self._roots[root]


class _Root:
    """The line and the children of one project."""

    def __init__(self, root: str, options: ChildOptions, on_end: OnEnd) -> None:
        self.costs = Costs()
        self._root, self._options = root, options
        self.ended = on_end
        self._line: deque[Ticket] = deque()
        self._children: list[Child] = []
        self._starts: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pumping = False
        self._watching = False
        self._closed = False
        #: children in a row that ended before they were ready
        self._stillborn = 0

    def submit(self, ticket: Ticket) -> None:
        self._line.append(ticket)
        if not self._pumping:
            self.changed()

    def warm(self) -> None:
        if not self._children and not self._starts:
            self._spawn()

    def close(self) -> list[asyncio.Future[None]]:
        """What to wait for until every child is gone."""
        self._closed = True
        for child in self._children:
            child.kill()
        line, self._line = self._line, deque()
        for ticket in line:
            self._fail(ticket, "the workers were closed")
        return [*(child.closed for child in self._children), *self._starts]

    # -- child.Owner ------------------------------------------------------------------------------------

    def returned(self, tickets: list[Ticket]) -> None:
        if self._closed:
            for ticket in tickets:
                self._fail(ticket, "the workers were closed")
        else:
            self._line.extendleft(reversed(tickets))

    def changed(self) -> None:
        """Look at the line once in this turn of the event loop, however much happens in it."""
        if self._line and not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def gone(self, child: Child) -> None:
        if child in self._children:
            self._children.remove(child)
        self._stillborn = 0 if child.ready else self._stillborn + 1
        if self._stillborn >= STARTS and self._line:
            # the next may fare no better: it costs a ticket each time, so that this comes to an end
            self._fail(self._line.popleft(), "its process ended before it was ready")
        self.changed()

    # ---------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        self._pumping = False
        line = self._line
        now = self._loop.time()
        open_ = sorted((child for child in self._children if child.open(now)), key=lambda child: child.load)
        even = -(-len(line) // max(1, len(open_)))
        for child in open_:
            share = even
            while line and share:
                ticket = line[0]
                if ticket.dropped:
                    line.popleft()
                    continue
                cost = self.costs.of(ticket.key)
                if not child.room(cost):
                    break
                child.take(line.popleft(), cost)
                share -= 1
            child.flush()
        if line:
            self._grow()
        if not self._watching and any(len(child.outstanding) > 1 for child in open_):
            self._watching = True
            self._loop.call_later(PATIENCE_S, self._watch)

    def _grow(self) -> None:
        """Start a child for each request that waits and has none starting for it."""
        starting = len(self._starts) + sum(not child.ready for child in self._children)
        alive = len(self._starts) + sum(not child.retiring for child in self._children)
        for _ in range(min(self._options.size - alive, len(self._line) - starting)):
            self._spawn()

    def _spawn(self) -> None:
        task = self._loop.create_task(self._start())
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)

    async def _start(self) -> None:
        child = Child(self, self._root, self._options)
        try:
            await child.start()
        except OSError as error:
            if not self._children:
                line, self._line = self._line, deque()
                for ticket in line:
                    self._fail(ticket, str(error))
            return
        self._children.append(child)
        if self._closed:
            child.kill()
            await child.closed

    def _watch(self) -> None:
        """Give requests that wait behind a slow one to other children."""
        self._watching = False
        now = self._loop.time()
        busy = [child for child in self._children if len(child.outstanding) > 1]
        for child in busy:
            if child.overdue(now):
                child.take_back()
        if busy:
            self._watching = True
            self._loop.call_later(PATIENCE_S, self._watch)

    def _fail(self, ticket: Ticket, why: str, kind: Kind = "failed") -> None:
        if not ticket.dropped:
            self.ended(ticket, kind, why.encode(), UNKNOWN)
