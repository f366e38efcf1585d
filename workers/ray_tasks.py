"""`RayTaskHosts`: user code in child processes of one long-lived Ray actor. No Ray task per call.

The actor keeps the children with the same code as an engine without Ray does, so a crash, a hang or a leak
ends a child and never the actor. One actor call, an exchange, carries all requests that wait and returns all
answers that are there; it stays until there is one, or until the next exchange comes. The actor has as many
requests as its children are expected to do soon (`task_host.Lane`); the others wait here.

An actor that dies takes along what it was doing: those calls end as `lost`, and the next one starts a new
actor. It dies with this process, and its children with it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from ..memory.errors import ClusterError
from .cluster import NAMESPACE
from .host import in_thread
from .local_tasks import LocalTaskHosts
from .task_host import UNKNOWN, ChildOptions, Costs, Kind, Lane, OnEnd, Ticket, resolve

#: seconds an exchange stays when there is nothing to tell, and how much longer it may take
POLL_S = 2.0
GRACE_S = 5.0
#: seconds for Ray to start the actor, and to answer at all
START_S = 60.0
ANSWER_S = 6.0
#: exchanges on their way at a time: one that stays, one that brings
FLYING = 2
#: requests of a root that the actor may have, and seconds of expected work for each of its children
WINDOW = 1024
WINDOW_S = 0.02
#: bytes of answers that one exchange carries, unless the first has more
RETURN_BYTES = 8 << 20

T = TypeVar("T")
#: number, root, verb, key, body, seconds
Request = tuple[int, str, bytes, str, bytes, float]
Answer = tuple[int, Kind, bytes, int]


class PythonTasks:
    """The actor. Its methods run in Ray's threads, its children live on an event loop of their own."""

    def __init__(self, options: ChildOptions) -> None:
        self._changed = threading.Condition()
        self._answers: deque[Answer] = deque()
        self._turn = 0
        self._fresh: list[Answer] = []
        self._tickets: dict[int, Ticket] = {}
        self._hosts = LocalTaskHosts(options, self._ended)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="children", daemon=True).start()

    def exchange(
        self, requests: Sequence[Request], drops: Sequence[int], warm: Sequence[str]
    ) -> list[Answer]:
        """Take requests, give answers. Waits for one, but not beside a later exchange."""
        if requests or drops or warm:
            self._loop.call_soon_threadsafe(self._take, requests, drops, warm)
        with self._changed:
            self._turn += 1
            turn = self._turn
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answers or self._turn != turn, POLL_S)
            found: list[Answer] = []
            size = 0
            while self._answers and size < RETURN_BYTES:
                found.append(self._answers.popleft())
                size += len(found[-1][2])
            return found

    def _take(self, requests: Sequence[Request], drops: Sequence[int], warm: Sequence[str]) -> None:
        for root in warm:
            self._hosts.warm(root)
        for number, root, verb, key, body, seconds in requests:
            ticket = self._tickets[number] = Ticket(root, verb, key, body, seconds, number=number)
            self._hosts.submit(ticket)
        for number in drops:
            if (ticket := self._tickets.pop(number, None)) is not None:
                self._hosts.drop(ticket)

    def _ended(self, ticket: Ticket, kind: Kind, payload: bytes, micros: int) -> None:
        self._tickets.pop(ticket.number, None)
        if not self._fresh:
            self._loop.call_soon(self._publish)
        self._fresh.append((ticket.number, kind, payload, micros))

    def _publish(self) -> None:
        with self._changed:
            self._answers.extend(self._fresh)
            self._fresh.clear()
            self._changed.notify_all()


class RayTaskHosts:
    """See `task_host.TaskHosts`. This process must be a driver already: `cluster.connect(info)`."""

    def __init__(self, options: ChildOptions, on_end: OnEnd = resolve) -> None:
        """Raises ClusterError when this process is not connected to a Ray cluster."""
        if not ray.is_initialized():
            raise ClusterError("not connected to a Ray cluster", mend="podium up")
        self._options, self._on_end = options, on_end
        self._actor: Any = None
        #: the socket of this host's raylet, once known
        self._node: str | None = None
        self._starting: asyncio.Task[Any] | None = None
        self._lines: dict[str, _Line] = {}
        #: tickets that the actor has, or that the next exchange brings there
        self._there: dict[int, Ticket] = {}
        self._outbox: dict[int, Ticket] = {}
        self._drops: list[int] = []
        self._warm: list[str] = []
        self._count = 0
        self._exchanges: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._closed = False

    def submit(self, ticket: Ticket) -> None:
        if self._closed:
            self._on_end(ticket, "failed", b"the workers were closed", UNKNOWN)
            return
        self._count += 1
        ticket.number = self._count
        self._line(ticket.root).waiting.append(ticket)
        self._changed()

    def drop(self, ticket: Ticket) -> None:
        ticket.dropped = True
        if self._there.pop(ticket.number, None) is not None:
            self._line(ticket.root).pop(ticket.number)
            if self._outbox.pop(ticket.number, None) is None:
                self._drops.append(ticket.number)
            self._changed()

    def warm(self, root: str) -> None:
        self._warm.append(root)
        self._changed()

    async def close(self) -> None:
        self._closed = True
        for exchange in list(self._exchanges):
            exchange.cancel()
        if self._starting is not None:
            self._starting.cancel()
        waiting = [self._starting] if self._starting is not None else []
        await asyncio.gather(*self._exchanges, *waiting, return_exceptions=True)
        self._fail(everything=True, kind="failed", why="the workers were closed")
        actor, self._actor = self._actor, None
        if actor is not None and ray.is_initialized():
            await _ray_call(lambda: ray.kill(actor, no_restart=True))

    def _line(self, root: str) -> _Line:
        if root not in self._lines:
            self._lines[root] = _Line(self._options.size)
        return self._lines[root]

    def _changed(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Fill the outbox as far as the actor has room, and send it unless enough is on its way."""
        self._pumping = False
        if self._closed:
            return
        for line in self._lines.values():
            while line.waiting:
                ticket = line.waiting[0]
                if not ticket.dropped:
                    cost = line.costs.of(ticket.key)
                    if not line.room(cost):
                        break
                    line.put(ticket.number, ticket, cost)
                    self._there[ticket.number] = self._outbox[ticket.number] = ticket
                line.waiting.popleft()
        news = bool(self._outbox or self._drops or self._warm)
        if (news and len(self._exchanges) < FLYING) or (self._there and not self._exchanges):
            exchange = asyncio.create_task(self._exchange())
            self._exchanges.add(exchange)
            exchange.add_done_callback(self._landed)

    def _landed(self, exchange: asyncio.Task[None]) -> None:
        self._exchanges.discard(exchange)
        if not self._closed:
            self._changed()

    async def _exchange(self) -> None:
        actor = None
        tickets: list[Ticket] = []
        try:
            actor = await self._reach()
            tickets, drops, warm = list(self._outbox.values()), self._drops, self._warm
            self._outbox, self._drops, self._warm = {}, [], []
            requests = [(t.number, t.root, t.verb, t.key, t.body, t.seconds) for t in tickets]
            named = actor.exchange.options(name=_name(tickets))
            answers = await asyncio.wait_for(named.remote(requests, drops, warm), POLL_S + GRACE_S)
        except RayActorError as error:
            self._lose(actor, _short(error))
        except RayTaskError as error:
            self._lose(actor, _short(error.cause), everything=True)
        except (RayError, ConnectionError, RuntimeError) as error:
            self._lose(actor, _short(error), everything=True)
        except TimeoutError:
            self._lose(actor, "Ray does not answer", everything=True)
        except ClusterError as error:
            self._lose(actor, error.message, everything=True)
        else:
            for number, kind, payload, micros in answers:
                self._answered(number, kind, payload, micros)

    def _answered(self, number: int, kind: Kind, payload: bytes, micros: int) -> None:
        ticket = self._there.pop(number, None)
        if ticket is not None:
            line = self._line(ticket.root)
            line.pop(number)
            line.costs.learn(ticket.key, micros)
            self._on_end(ticket, kind, payload, micros)

    def _lose(self, actor: Any, why: str, *, everything: bool = False) -> None:
        """The actor is gone: what it had is lost, and with `everything` what waits cannot be done either."""
        if actor is not self._actor:
            return  # the other exchange has told it already
        self._actor = None
        self._fail(everything=everything, kind="lost", why=why)
        if actor is not None:
            threading.Thread(target=_end, args=(actor,), name="ray", daemon=True).start()

    def _fail(self, *, everything: bool, kind: Kind, why: str) -> None:
        tickets = [t for t in self._there.values() if everything or t.number not in self._outbox]
        for ticket in tickets:
            del self._there[ticket.number]
            self._line(ticket.root).pop(ticket.number)
        if everything:
            self._outbox.clear()
            for line in self._lines.values():
                tickets += line.waiting
                line.waiting.clear()
        for ticket in tickets:
            if not ticket.dropped:
                self._on_end(ticket, kind, why.encode(), UNKNOWN)

    async def _reach(self) -> Any:
        """The actor, started if there is none. Raises ClusterError."""
        if self._actor is None:
            if self._starting is None:
                self._starting = asyncio.create_task(self._start())
            try:
                await asyncio.shield(self._starting)
            finally:
                if self._starting is not None and self._starting.done():
                    self._starting = None
        return self._actor

    async def _start(self) -> None:
        name = f"tasks:{os.getpid()}:{secrets.token_hex(4)}"
        remote: Any = ray.remote
        made = remote(PythonTasks).options(
            name=name, namespace=NAMESPACE, num_cpus=0, max_concurrency=2 * FLYING, max_restarts=0
        )
        await self._check_node()
        actor = await _ray_call(lambda: made.remote(self._options))
        ready = asyncio.ensure_future(_awaited(actor.__ray_ready__.remote()))
        deadline = asyncio.get_running_loop().time() + START_S
        try:
            while not ready.done() and asyncio.get_running_loop().time() < deadline:
                await asyncio.wait({ready}, timeout=POLL_S)
                if not ready.done():
                    await self._check_node()
            if not ready.done():
                raise ClusterError(f"the actor {name} did not start in time", mend="podium status")
            ready.result()
        except (RayError, ValueError) as error:
            raise ClusterError(
                f"the actor {name} did not start: {_short(error)}", mend="podium status"
            ) from error
        finally:
            ready.cancel()
        self._actor = actor

    async def _check_node(self) -> None:
        """Raises ClusterError when this host's raylet is gone, which Ray itself may notice much later."""
        if self._node is None:
            mine = ray.get_runtime_context().get_node_id()
            nodes = await _ray_call(ray.nodes)
            self._node = next((n["RayletSocketName"] for n in nodes if n["NodeID"] == mine), "")
        if self._node and not _answers(self._node):
            raise ClusterError("this host's raylet is gone", mend="podium down, then podium up")


class _Line(Lane):
    """What waits of one root, and what the actor has of it."""

    def __init__(self, children: int) -> None:
        super().__init__(children, WINDOW, WINDOW_S)
        self.waiting: deque[Ticket] = deque()
        self.costs = Costs()


def _name(tickets: Sequence[Ticket]) -> str:
    """Shown in the dashboard: `run/<id> 17 tasks`."""
    labels = {ticket.label for ticket in tickets}
    run = f"{labels.pop()} " if len(labels) == 1 else ""
    return f"{run}{len(tickets)} task{'' if len(tickets) == 1 else 's'}".lstrip()


def _short(error: BaseException) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder="…")


def _end(actor: Any) -> None:
    """Ray may be gone for good: nobody waits for this."""
    try:
        ray.kill(actor, no_restart=True)
    except (RayError, ValueError, RuntimeError, ConnectionError):
        return


def _answers(path: str) -> bool:
    """Whether somebody listens on this unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(path) == 0


async def _awaited(reference: Any) -> Any:
    return await reference


async def _ray_call(work: Callable[[], T]) -> T:
    """A blocking call of Ray's API, off the event loop and bounded."""
    try:
        return await asyncio.wait_for(in_thread(work, "ray"), ANSWER_S)
    except TimeoutError as error:
        raise ClusterError("Ray does not answer", mend="podium down, then podium up") from error
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"Ray refused: {_short(error)}", mend="podium down, then podium up") from error
