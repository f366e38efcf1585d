"""An engine without time, threads or models: the real driver and the real database, under a clock and a
schedule of events that a test decides.

Nothing happens by itself. Commits wait in line until `commit` lets the next one through; attempts wait until
`finish` says how they end; timers wait for `sleep`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from podium import Workflow
from podium.memory import runs
from podium.memory.database import Connection, Database
from podium.memory.errors import PodiumError
from podium.orchestrator import driver as driver_module
from podium.orchestrator import outcomes, timers
from podium.orchestrator.context import RunContext
from podium.orchestrator.driver import RunDriver
from podium.orchestrator.executor import Outcome
from podium.orchestrator.shares import Shares
from podium.orchestrator.state import Node
from podium.router.policy import make_policy
from podium.router.stats import Stats


class Clock:
    """Wall and monotonic time, seconds; the wall may be set."""

    def __init__(self) -> None:
        self.monotonic_now, self.offset = 1000.0, 1_700_000_000.0

    def time(self) -> float:
        return self.monotonic_now + self.offset

    def monotonic(self) -> float:
        return self.monotonic_now


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop on the clock: timers are due when the clock says so."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._sim_clock = clock

    def time(self) -> float:
        return self._sim_clock.monotonic_now

    def settle(self) -> None:
        """Run whatever can run now."""
        for _ in range(10_000):
            if not self._ready and not self._due():  # type: ignore[attr-defined]
                return
            self.call_soon(self.stop)
            self.run_forever()
        raise AssertionError("the loop does not come to rest")

    def _due(self) -> bool:
        timers = [t for t in self._scheduled if not t.cancelled()]  # type: ignore[attr-defined]
        return bool(timers) and min(t.when() for t in timers) <= self.time()

    def next_timer(self) -> float | None:
        timers = [t.when() for t in self._scheduled if not t.cancelled()]  # type: ignore[attr-defined]
        return min(timers, default=None)


@dataclass
class Line:
    """A journal whose commits happen one at a time, when the test says so."""

    database: Database
    waiting: deque[tuple[Callable[[Connection], Any], Callable[[Any], None]]] = field(default_factory=deque)

    def post(self, names: Sequence[str], work: Callable[[Connection], Any], tell: Any) -> None:
        self.waiting.append((work, tell))

    async def commit(self, name: str, work: Callable[[Connection], Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def tell(outcome: Any) -> None:
            result, failure = outcome
            if not future.cancelled():
                future.set_result(result) if failure is None else future.set_exception(failure)

        self.waiting.append((work, tell))
        return await future

    def step(self) -> bool:
        """Let the next commit happen; False: none waits."""
        if not self.waiting:
            return False
        work, tell = self.waiting.popleft()
        try:
            outcome = (self.database.commit(work), None)
        except PodiumError as error:
            outcome = (None, error)
        tell(outcome)
        return True


class Hands:
    """An executor whose attempts end as the test says. Each attempt is (task, number)."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], asyncio.Future[Outcome]] = {}
        self.started: list[tuple[str, int]] = []

    async def run(self, run: RunContext, values: Any, node: Node, attempt: int) -> Outcome:
        key = (node.name, attempt)
        self.started.append(key)
        future = self.open[key] = asyncio.get_running_loop().create_future()
        try:
            return await future
        finally:
            self.open.pop(key, None)

    def warm(self, run: RunContext, workflow: Workflow) -> None:
        """There are no processes."""

    def finish(self, key: tuple[str, int], outcome: Outcome | Exception) -> None:
        future = self.open.pop(key)
        future.set_exception(outcome) if isinstance(outcome, Exception) else future.set_result(outcome)


class SimEngine:
    """One engine that drives one run; several may believe that they do."""

    def __init__(self, loop: SimLoop, database: Database, run_id: str, name: str, slots: int) -> None:
        self.loop, self.database, self.run_id = loop, database, run_id
        self.line, self.hands = Line(database), Hands()
        with database.read() as connection:
            from podium.memory import reads

            record = reads.run(connection, run_id)
        self.epoch = database.commit(lambda c: runs.claim(c, run_id, name, record.epoch))
        services: Any = SimpleNamespace(journal=self.line, read=self._read)
        context = RunContext(
            run_id, "default", self.epoch, "/", frozenset(), make_policy({"kind": "cheapest"}), Stats.of([])
        )
        self.task = loop.create_task(self._drive(services, context, Shares(slots)))
        self.driver: RunDriver
        loop.settle()

    async def _read(self, query: Callable[[Connection], Any]) -> Any:
        with self.database.read() as connection:
            return query(connection)

    async def _drive(self, services: Any, context: RunContext, shares: Shares) -> str:
        hands: Any = self.hands
        self.driver = RunDriver(services, hands, context, shares, lambda run: self.driver.kick())
        return await self.driver.drive()

    def commit(self) -> bool:
        """Let the next commit happen, and what follows from it."""
        done = self.line.step()
        self.loop.settle()
        return done

    def finish(self, key: tuple[str, int], outcome: Outcome | Exception) -> None:
        self.hands.finish(key, outcome)
        self.loop.settle()

    def crash(self) -> None:
        """SIGKILL: nothing that was not committed ever is."""
        self.line.waiting.clear()
        self.task.cancel()
        self.loop.settle()
        self.line.waiting.clear()

    @property
    def result(self) -> str | BaseException | None:
        """The status it ended the run with, or what it died of; None: it still drives."""
        if not self.task.done():
            return None
        if self.task.cancelled():
            return asyncio.CancelledError()
        return self.task.exception() or self.task.result()


def use_clock(clock: Clock, patch: pytest.MonkeyPatch) -> None:
    """Let the driver live by this clock."""
    fake = SimpleNamespace(time=clock.time, monotonic=clock.monotonic)
    patch.setattr(driver_module, "time", fake)
    patch.setattr(outcomes, "time", fake)
    patch.setattr(timers, "time", fake)
