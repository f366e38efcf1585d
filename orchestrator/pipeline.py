"""Steps on their way into the database: one commit of a run at a time, with what was written meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..memory.journal import Journal, Outcome
from ..memory.steps import Step, advance

Action = Callable[[], None]


class Pipeline:
    """The steps of one claimed run. Lives on one event loop."""

    def __init__(self, journal: Journal, run_id: str, epoch: int, done: Callable[[Outcome], None]) -> None:
        """`done`: called on the loop when a commit was made or refused, after its actions."""
        self._journal, self._run_id, self._epoch, self._done = journal, run_id, epoch, done
        self._loop = asyncio.get_running_loop()
        self._steps: list[Step] = []
        self._then: list[Action] = []
        self._in_flight = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def is_empty(self) -> bool:
        """Whether everything that was written is durable."""
        return not self._steps and not self._in_flight

    def write(self, step: Step, then: Action | None = None) -> None:
        """Put a step into the next commit, and do `then` when it is durable."""
        self._steps.append(step)
        self._empty.clear()
        if then is not None:
            self._then.append(then)

    def flush(self) -> None:
        """Send off what was written, unless a commit is on its way: then it goes with the next."""
        if self._in_flight or not self._steps:
            return
        steps, then = self._steps, self._then
        self._steps, self._then, self._in_flight = [], [], True
        run_id, epoch = self._run_id, self._epoch
        self._journal.post(
            [step.name for step in steps],
            lambda connection: advance(connection, run_id, epoch, steps),
            lambda outcome: self._loop.call_soon_threadsafe(self._committed, then, outcome),
        )

    def _committed(self, then: list[Action], outcome: Outcome) -> None:
        self._in_flight = False
        if not self._steps:
            self._empty.set()
        if outcome[1] is None:
            for action in then:
                action()
        self._done(outcome)

    async def settled(self) -> None:
        """Wait until everything that was written is durable. Whoever writes also flushes."""
        await self._empty.wait()
