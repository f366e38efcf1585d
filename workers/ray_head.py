"""Whether the Ray head of a home is there, and the way back to it after it died.

A driver process has one connection to Ray. When the head dies and another one takes its place, the process
has to connect anew, and everything it held of the old head (actors, calls on their way) is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from ..memory.errors import ClusterError
from .answers import WorkerLost
from .cluster import ClusterInfo, cluster_info, connect, disconnect, revive_head
from .host import in_thread

log = logging.getLogger(__name__)

#: seconds that calls wait for a head that died to be replaced; then they fail at once until it is
PATIENCE_S = 15.0
#: seconds between two looks at its processes
LOOK_S = 0.25

T = TypeVar("T")


class RayHead:
    """The head that this process is connected to. Used from one event loop."""

    def __init__(self, home: Path, *, revive: bool = False) -> None:
        """`revive`: start a head that died again, instead of waiting for someone to do it."""
        self._home, self._revive = home, revive
        self._info = cluster_info(home)
        #: rises with each head that was given up: what was made before is gone
        self.number = 0
        self._lock = asyncio.Lock()
        #: set when the head that calls were sent to is given up
        self._replaced = asyncio.Event()
        self._letting_go: asyncio.Future[None] | None = None
        self._away_since: float | None = None

    def is_away(self) -> bool:
        """Whether a core process of the head is dead, as the home's record of it says."""
        return self._info is not None and not self._info.alive()

    async def reach(self) -> None:
        """Wait until the head is there and this process is connected to it.

        Raises:
            ClusterError: it died, and nobody has started another one for a while.
        """
        if self._info is None or self._info.alive():  # None: not a head of ours, Ray itself must tell
            return
        async with self._lock:
            if not self._info.alive():
                await self._go_over()

    async def _go_over(self) -> None:
        """Let go of the dead head, and connect to the one that takes its place."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("The Ray head died.", extra={"action": "head.away"})
        if self._letting_go is None:  # Ray takes its time for it: meanwhile the other one starts
            self._replaced.set()
            self.number += 1
            self._letting_go = asyncio.ensure_future(in_thread(disconnect, "ray-disconnect"))
        while (info := await self._next()) is None:  # noqa: ASYNC110 - someone else starts it
            await asyncio.sleep(LOOK_S)
        await self._letting_go
        await in_thread(lambda: connect(info), "ray-connect")
        self._info, self._away_since, self._letting_go = info, None, None
        self._replaced = asyncio.Event()
        log.warning("Connected to another Ray head.", extra={"action": "head.back"})

    async def _next(self) -> ClusterInfo | None:
        """The head that has taken the place of the dead one, once there is one."""
        found = cluster_info(self._home)
        if found is None and self._revive:
            return await in_thread(lambda: revive_head(self._home), "ray-head")
        if found is None and time.monotonic() - (self._away_since or 0.0) >= PATIENCE_S:
            raise ClusterError(
                "the Ray head died, and nobody has started it again",
                mend="podium down, then podium up; then `podium retry` goes on with the run",
            )
        return found

    async def watch(self, call: Awaitable[T]) -> T:
        """The value of a call on this head.

        Raises:
            WorkerLost: the head was replaced while the call was on its way.
        """
        replaced = asyncio.ensure_future(self._replaced.wait())
        work = asyncio.ensure_future(call)
        try:
            await asyncio.wait({replaced, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise WorkerLost("the Ray head died")
        finally:
            replaced.cancel()
            work.cancel()

    async def unless_away(self, call: Awaitable[T], seconds: float) -> T:
        """The value of a call that needs the head, which is looked at while it takes.

        Raises:
            WorkerLost: the head died.
            TimeoutError: it took longer than `seconds`.
        """
        work = asyncio.ensure_future(call)
        end = time.monotonic() + seconds
        try:
            while not (await asyncio.wait({work}, timeout=LOOK_S))[0]:
                if self.is_away():
                    raise WorkerLost("the Ray head died")
                if time.monotonic() >= end:
                    raise TimeoutError
            return work.result()
        finally:
            work.cancel()
