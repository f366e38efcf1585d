"""What a driver does later, on its process's clock; and the limits of time that a run is under."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: seconds of one sleep at most: the wall clock may be set meanwhile
NAP = 30.0


class Timers:
    """Actions to come, which end with the run."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handles: set[asyncio.TimerHandle] = set()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after some seconds."""

        def fire() -> None:
            self._handles.discard(handle)
            action()

        handle = self._loop.call_later(max(0.0, seconds), fire)
        self._handles.add(handle)

    def cancel(self) -> None:
        """Nothing of it is to be done any more."""
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()


class TimeLimits:
    """A run's deadline and its seconds of driving. Both are kept on the process's own clock: the wall clock
    may be set while the run is driven.
    """

    def __init__(self, timers: Timers, late: Callable[[str], None]) -> None:
        """`late`: called with `deadline` or `seconds` when that one is passed."""
        self._timers, self._late = timers, late
        self._deadline_at: float | None = None
        self._deadline: float | None = None
        self._seconds: float | None = None
        self._used = 0.0
        self._begun = time.monotonic()
        self._version = 0

    @property
    def driven(self) -> float:
        """Seconds since this engine began."""
        return time.monotonic() - self._begun

    def set(self, deadline_at: float | None, seconds: float | None, used: float) -> None:
        """`deadline_at`: seconds, UTC. `seconds`: of all drives; `used`: of those before this one."""
        if deadline_at != self._deadline_at:
            left = None if deadline_at is None else deadline_at - time.time()
            self._deadline_at, self._deadline = deadline_at, None if left is None else time.monotonic() + left
        self._seconds, self._used = seconds, used
        self._version += 1
        self._watch(self._version)

    def _watch(self, version: int) -> None:
        if version != self._version or (self._deadline is None and self._seconds is None):
            return
        to_deadline = NAP if self._deadline is None else self._deadline - time.monotonic()
        to_seconds = NAP if self._seconds is None else self._seconds - self._used - self.driven
        if to_deadline <= 0:
            self._late("deadline")
        elif to_seconds <= 0:
            self._late("seconds")
        else:
            self._timers.later(min(NAP, to_deadline, to_seconds), lambda: self._watch(version))
