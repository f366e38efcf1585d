"""What model calls wait for, first come, first served: money that running calls give back, and their turn
where a limit is reached.

A `Line` is what calls of one budget, model or tenant have in common in this engine. Only its first waiter
looks again when something changed; the others stand behind it, so that a thousand waiting calls cost no more
than one. Time in a line is not the attempt's time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from types import TracebackType
from weakref import WeakValueDictionary

#: the limit that the driver put on the attempt that runs in this context; it stands still during waits
ATTEMPT_TIMEOUT: ContextVar[asyncio.Timeout | None] = ContextVar("attempt_timeout", default=None)


class Line:
    """Calls with something in common: those that run, and those that wait."""

    def __init__(self) -> None:
        #: held by the first waiter; an asyncio.Lock is taken in the order of asking
        self.first = asyncio.Lock()
        #: calls that hold something now, or are about to
        self.open = 0
        #: how often something was given back
        self.returns = 0
        self._changed: asyncio.Event = asyncio.Event()

    def changed(self) -> None:
        """Have the first waiter look again."""
        self._changed.set()

    async def change(self, seconds: float | None = None) -> None:
        """Wait for `changed`, but `seconds` at most. For the first waiter only."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


class Lines:
    """Lines by key. One lives as long as somebody is in it or holds a call of it."""

    def __init__(self) -> None:
        self._lines: WeakValueDictionary[str, Line] = WeakValueDictionary()

    def __getitem__(self, key: str) -> Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line()
        return line

    def look_again(self) -> None:
        """Something outside changed: every first waiter tries again."""
        for line in list(self._lines.values()):
            line.returns += 1
            line.changed()


class Hold:
    """A call's place among the open ones of its lines, from before its reservation until it is closed."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        for line in lines:
            line.open += 1

    def release(self, *, returned: bool) -> None:
        """The call holds nothing any more. `returned`: it held something. Twice is once."""
        lines, self._lines = self._lines, ()
        for line in lines:
            line.open -= 1
            line.returns += returned
            line.changed()


class Place:
    """A waiter's place: in one line at a time. `async with Place() as place`."""

    def __init__(self) -> None:
        self._line: Line | None = None

    @property
    def taken(self) -> bool:
        """Whether this waiter is the first of a line."""
        return self._line is not None

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def refund(self, line: Line, seen: int) -> bool:
        """Wait until the line's calls gave something back since it had `seen` returns. False: nothing has
        come, and no call is open that it could come from.
        """
        with uncounted():
            await self._enter(line)
            while line.returns == seen and line.open:
                await line.change()
        return line.returns != seen

    async def turn(self, line: Line, seen: int, seconds: float, *, ends_it: bool) -> None:
        """Wait to be the first of the line. The first waits for `seconds`; with `ends_it` no longer than
        until something has come back since the line had `seen` returns.
        """
        with uncounted():
            if await self._enter(line):
                return
            clock = asyncio.get_running_loop().time
            until = clock() + seconds
            while (left := until - clock()) > 0 and not (ends_it and line.returns != seen):
                await line.change(left)

    async def _enter(self, line: Line) -> bool:
        """Become the line's first; whether others were before."""
        if self._line is line:
            return False
        self._leave()
        waited = line.first.locked()
        await line.first.acquire()
        self._line = line
        return waited

    def _leave(self) -> None:
        if self._line is not None:
            self._line.first.release()
            self._line = None


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """The attempt's time limit stands still inside."""
    timeout = ATTEMPT_TIMEOUT.get()
    ends = timeout.when() if timeout is not None else None
    if timeout is None or ends is None or timeout.expired():
        yield
        return
    clock = asyncio.get_running_loop().time
    since = clock()
    timeout.reschedule(None)
    try:
        yield
    finally:
        timeout.reschedule(ends + clock() - since)
