"""Which request leaves when, and to which replica: the part that both pools share.

A `Slots` owns the waiting line of one model. A replica has `spec.concurrency` slots (its credit); requests
that wait while slots are free leave together as one batch. Nothing here knows threads or Ray: a `Link`
carries a batch to its replica.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..memory.chat import ChatRequest, Chunk, Completion
from ..memory.errors import PodiumError, ProviderError
from ..router.types import ModelSpec
from .answers import Stopwatch, WorkerLost, as_podium, batch_label, closed_error, lost_error
from .contract import OnDispatch, WorkerStatus

#: seconds an `on_dispatch` may take; it is one database commit
DISPATCH_TIMEOUT_S = 60.0
#: seconds that running calls get to finish when the pool is closed
CLOSE_GRACE_S = 3.0
#: seconds until a replica that failed to start is tried again while another one serves
RETRY_START_S = 5.0


class Link(Protocol):
    """The way to one replica."""

    #: `<model>:<replica>`
    worker: str

    @property
    def device(self) -> str:
        """As `ModelEngine.device`; empty until the replica is ready."""
        ...

    @property
    def pid(self) -> int | None:
        """Process of the replica, once known."""
        ...

    async def prepare(self) -> None:
        """Make the replica ready; harmless when it already is.

        Raises:
            ConfigError: the model cannot be loaded.
            ClusterError: the worker does not come up in time.
        """

    async def generate(self, requests: Sequence[ChatRequest], label: str) -> Sequence[Completion | Exception]:
        """Send one batch. Raises `WorkerLost` when its fate is unknown."""
        ...

    async def stream(self, request: ChatRequest, label: str, emit: Callable[[str], None]) -> Completion:
        """Send one request; `emit` is called on the event loop. Raises `WorkerLost` or `ProviderError`."""
        ...


@dataclass(eq=False, slots=True)
class _Ticket:
    """One request on its way: granted a slot → cleared by its caller → done."""

    request: ChatRequest
    label: str
    emit: Callable[[str], None] | None
    granted: asyncio.Future[str]
    cleared: asyncio.Future[None]
    done: asyncio.Future[Completion]
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False, slots=True)
class _Replica:
    link: Link
    state: Literal["starting", "ready", "failed", "stopped"] = "stopped"
    failure: Exception | None = None
    starting: asyncio.Task[None] | None = None
    #: slots taken
    running: int = 0
    calls: int = 0
    retry_at: float = 0.0


class Slots:
    """The waiting line and the replicas of one model. Used from one event loop."""

    def __init__(self, spec: ModelSpec, links: Iterable[Link]) -> None:
        self.spec = spec
        self._replicas = [_Replica(link) for link in links]
        self._waiting: deque[_Ticket] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._closed = False
        #: when a slot was last given back
        self._progress = time.monotonic()

    async def submit(
        self,
        request: ChatRequest,
        label: str,
        on_dispatch: OnDispatch | None = None,
        emit: Callable[[str], None] | None = None,
    ) -> Completion:
        """Wait for a slot, run `on_dispatch` in the caller's own task, send, return the answer.

        A cancelled caller gives its place or slot back if its request has not left yet; if it has, the
        replica finishes, the answer is dropped, and only then is the slot free.
        """
        if self._closed:
            raise closed_error(sent=False)
        loop = asyncio.get_running_loop()
        ticket = _Ticket(
            request, label, emit, loop.create_future(), loop.create_future(), loop.create_future()
        )
        self._waiting.append(ticket)
        self._pump_soon()
        try:
            worker = await self._slot(ticket)
            if on_dispatch is not None:
                await _clear(on_dispatch, worker)
            ticket.cleared.set_result(None)
            return await self._answer(ticket)
        finally:
            self._drop(ticket)

    async def stream(
        self, request: ChatRequest, label: str, on_dispatch: OnDispatch | None = None
    ) -> AsyncIterator[Chunk]:
        """`submit`, piece by piece; the last Chunk holds the Completion."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.create_task(self.submit(request, label, on_dispatch, pieces.put_nowait))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield Chunk(text=piece)
            yield Chunk(completion=await task)
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, PodiumError):
                    await task

    def status(self) -> list[WorkerStatus]:
        """One row a replica; the waiting line is counted on the first."""
        return [
            WorkerStatus(
                model=self.spec.name,
                worker=replica.link.worker,
                state="stopped" if self._closed else replica.state,
                device=replica.link.device,
                running=replica.running,
                waiting=0 if index else len(self._waiting),
                calls=replica.calls,
                pid=replica.link.pid,
                error="" if replica.failure is None else str(replica.failure),
            )
            for index, replica in enumerate(self._replicas)
        ]

    def queue(self) -> float:
        """How many calls come before a new one in each slot; 0 where a slot is free."""
        slots = self.spec.concurrency * len(self._replicas)
        held = sum(replica.running for replica in self._replicas) + len(self._waiting)
        return 0.0 if held < slots else (held - slots + 1) / slots

    async def start(self) -> None:
        """Make every replica ready now. Raises the first failure, after all have settled."""
        starts = [self._start(r) for r in self._replicas if r.state != "ready"]
        if starts:
            await asyncio.wait(starts)
        for replica in self._replicas:
            if replica.failure is not None:
                raise replica.failure

    async def close(self) -> None:
        """Refuse what waits, give what runs a few seconds, then let go of it."""
        self._closed = True
        self._refuse_waiting(closed_error(sent=False))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_GRACE_S)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    async def _slot(self, ticket: _Ticket) -> str:
        """The worker's name, once a slot is granted. Gives up when no slot moves for too long."""
        limit = self._limit() + DISPATCH_TIMEOUT_S
        while True:
            quiet = time.monotonic() - max(self._progress, ticket.since)
            if quiet >= limit and not any(r.state == "starting" for r in self._replicas):
                raise ProviderError(
                    f"no slot of model {self.spec.name} became free for {limit:.0f} s: its workers hang",
                    mend="podium status shows the workers; raise `timeout` or `replicas` in the pool file",
                    sent=False,
                )
            await asyncio.wait({ticket.granted}, timeout=max(limit - quiet, 1.0))
            if ticket.granted.done():
                return ticket.granted.result()

    async def _answer(self, ticket: _Ticket) -> Completion:
        limit = self._limit()
        await asyncio.wait({ticket.done}, timeout=limit)
        if ticket.done.done():
            return ticket.done.result()
        raise ProviderError(
            f"model {self.spec.name} gave no answer in {limit:.0f} s",
            mend="raise `timeout` of the model in the pool file, or ask for fewer tokens",
        )

    def _limit(self) -> float:
        """Seconds from dispatch until a call is given up; the engine's own timeout comes first."""
        return self.spec.timeout + min(5.0, self.spec.timeout)

    def _drop(self, ticket: _Ticket) -> None:
        with suppress(ValueError):
            self._waiting.remove(ticket)
        if ticket.granted.done() and not ticket.granted.cancelled():
            ticket.granted.exception()  # marks it as retrieved
        for future in (ticket.granted, ticket.cleared, ticket.done):
            future.cancel()

    def _pump_soon(self) -> None:
        """In the loop's next turn, so that requests submitted in this one leave together."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._closed:
            return
        while self._waiting:
            free = [r for r in self._replicas if r.state == "ready" and self._free(r)]
            if not free:
                break
            free.sort(key=lambda r: r.running)
            for index, replica in enumerate(free):
                if self._waiting:
                    self._launch(replica, self._take(replica, len(free) - index))
        self._start_wanted()

    def _free(self, replica: _Replica) -> int:
        if self.spec.engine == "torch" and replica.running:
            return 0  # the engine runs one batch at a time: who waits meanwhile is the next batch
        return self.spec.concurrency - replica.running

    def _take(self, replica: _Replica, sharing: int) -> list[_Ticket]:
        """The next batch: an even share of what waits, at most the replica's free slots."""
        first = self._waiting.popleft()
        batch = [first]
        # An endpoint batches by itself, and one slow answer would hold back the others of our batch.
        if first.emit is not None or self.spec.engine == "openai":
            return batch
        size = min(self._free(replica), -(-(len(self._waiting) + 1) // sharing))
        while self._waiting and len(batch) < size and self._waiting[0].emit is None:
            batch.append(self._waiting.popleft())
        return batch

    def _launch(self, replica: _Replica, batch: list[_Ticket]) -> None:
        replica.running += len(batch)
        for ticket in batch:
            ticket.granted.set_result(replica.link.worker)
        self._spawn(self._run(replica, batch))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start_wanted(self) -> None:
        """Start as many replicas as the waiting line needs."""
        wanted = len(self._waiting)
        serving = any(r.state == "ready" for r in self._replicas)
        for replica in self._replicas:
            if wanted <= 0:
                return
            if replica.state == "ready":
                continue
            if replica.state == "failed" and serving and time.monotonic() < replica.retry_at:
                continue
            self._start(replica)
            wanted -= self.spec.concurrency

    def _start(self, replica: _Replica) -> asyncio.Task[None]:
        if replica.starting is None:
            replica.state, replica.failure = "starting", None
            replica.starting = self._spawn(self._prepare(replica))
        return replica.starting

    async def _prepare(self, replica: _Replica) -> None:
        try:
            await replica.link.prepare()
        except Exception as error:  # noqa: BLE001 - whatever a start raises goes to the callers who wait for it
            replica.state, replica.failure = "failed", as_podium(error, self.spec.name)
            replica.retry_at = time.monotonic() + RETRY_START_S
            if all(r.state == "failed" for r in self._replicas if r.state != "stopped"):
                self._refuse_waiting(replica.failure)
        else:
            replica.state = "ready"
            self._progress = time.monotonic()
        finally:
            replica.starting = None
            self._pump_soon()

    def _refuse_waiting(self, error: Exception) -> None:
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.granted.done():
                ticket.granted.set_exception(error)

    async def _run(self, replica: _Replica, batch: list[_Ticket]) -> None:
        held = len(batch)
        try:
            await asyncio.wait([t.cleared for t in batch])  # bounded by each caller's DISPATCH_TIMEOUT_S
            leaving = [t for t in batch if not t.cleared.cancelled()]
            replica.running -= held - len(leaving)
            held = len(leaving)
            if leaving:
                await self._send(replica, leaving)
        finally:
            replica.running -= held
            for ticket in batch:
                if not ticket.done.done():
                    ticket.done.set_exception(closed_error(sent=True))
            self._progress = time.monotonic()
            self._pump_soon()

    async def _send(self, replica: _Replica, batch: list[_Ticket]) -> None:
        watch = Stopwatch(batch[0].emit)
        label = batch_label([t.label for t in batch], self.spec.name)
        results: Sequence[Completion | Exception]
        try:
            if batch[0].emit is not None:
                results = [await replica.link.stream(batch[0].request, label, watch.emit)]
            else:
                results = await replica.link.generate([t.request for t in batch], label)
            if len(results) != len(batch):
                raise ProviderError(
                    f"the engine gave {len(results)} answers to {len(batch)} requests",
                    mend="report this with the engine's name",
                    retryable=False,
                )
        except WorkerLost as lost:
            replica.state, replica.failure = "stopped", lost
            results = [lost_error(replica.link.worker, lost) for _ in batch]
        except Exception as error:  # noqa: BLE001 - whatever an engine raises goes to its callers
            results = [error for _ in batch]
        replica.calls += len(batch)
        for ticket, result in zip(batch, results, strict=True):
            if ticket.done.done():
                continue
            if isinstance(result, Completion):
                ticket.done.set_result(watch.stamp(result, replica.link.worker, len(batch)))
            else:
                ticket.done.set_exception(as_podium(result, self.spec.name))


async def _clear(on_dispatch: OnDispatch, worker: str) -> None:
    limit = asyncio.timeout(DISPATCH_TIMEOUT_S)
    try:
        async with limit:
            await on_dispatch(worker)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise ProviderError(
            f"the call could not be recorded within {DISPATCH_TIMEOUT_S:.0f} s and was not sent",
            mend="check that the database answers: podium doctor",
            sent=False,
        ) from error
