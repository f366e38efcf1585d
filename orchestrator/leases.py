"""Who drives a run, and whether that engine is alive.

On one host a file lock says at once that an engine is dead: the kernel frees it when the process dies. What
holds its lock, or is elsewhere, has to show beats: counters in the database, judged old on the observer's own
monotonic clock. So an engine that was stopped (SIGSTOP), or that cannot write any more, counts as dead too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

#: seconds between two beats at most, and without a beat until an engine counts as dead
BEAT = 2.0
LEASE = 12.0
#: beats that fit into a lease at least
BEATS = 6


class Driven(Protocol):
    """What a run's row says of its engine."""

    @property
    def id(self) -> str: ...
    @property
    def engine(self) -> str | None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def beat(self) -> int: ...


class EngineLock:
    """This engine's name, `host.home.number`, and the lock that proves it alive."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "engines"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        number = uuid.uuid4().hex[:12]
        self.engine = f"{_place(home)}.{number}"
        self._path = self._folder / f"{number}.lock"
        # Locked before it has its name: another engine's sweep never sees it free.
        temporary = self._folder / f"{number}.new"
        self._file = open(temporary, "w")  # noqa: SIM115 - held for the engine's life
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.write(str(os.getpid()))
        self._file.flush()
        temporary.rename(self._path)

    def close(self) -> None:
        """Give the lock back. May be called twice."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def _sweep(self) -> None:
        """Remove the locks of dead engines."""
        for path in self._folder.glob("*.lock"):
            if _is_free(path):
                path.unlink(missing_ok=True)


class Watch:
    """Judges other engines. Keep one for as long as you observe: beats are compared between looks."""

    def __init__(self, home: Path, lease: float | None = None) -> None:
        """`lease`: seconds without a beat until an engine counts as dead; None: `LEASE`."""
        self._home, self._lease = home, lease
        self._place = _place(home)
        #: run or engine → (epoch, beat), and monotonic seconds: first seen so, last looked at
        self._seen: dict[str, tuple[tuple[int, int], float, float]] = {}

    @property
    def lease(self) -> float:
        return LEASE if self._lease is None else self._lease

    def is_driven(self, run: Driven) -> bool:
        """Whether a living engine has the run. Any engine is given a lease's time to show a beat."""
        return run.engine is not None and self._lives(run.id, run.engine, (run.epoch, run.beat))

    def is_alive(self, engine: str, beat: int) -> bool:
        """Whether an engine lives whose row has this beat."""
        return self._lives(engine, engine, (0, beat))

    def keep(self, known: Collection[str]) -> None:
        """Forget all runs and engines but these."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in known}

    def _lives(self, key: str, engine: str, shown: tuple[int, int]) -> bool:
        place, _, number = engine.rpartition(".")
        if place == self._place and _is_free(self._home / "engines" / f"{number}.lock"):
            return False
        now = time.monotonic()
        before, since, looked = self._seen.get(key, ((-1, -1), now, now))
        # Who has not looked for a while (stopped itself, or without a database) has missed beats.
        if before != shown or now - looked > self.lease / 2:
            since = now
        self._seen[key] = (shown, since, now)
        return now - since < self.lease


class Heart:
    """Beats in a thread of its own, so that nothing on the event loop can hold a beat up."""

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        """`beat` is called every `seconds`; what it raises is logged."""
        self._beat, self._seconds = beat, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="podium-beats", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 - a heart that stopped would give all runs away
                log.warning("A beat was not written: %s", error, extra={"action": "run.beat"})

    def close(self) -> None:
        """End the thread; at most one beat is awaited."""
        self._stop.set()
        self._thread.join()


def beat_seconds(lease: float) -> float:
    """Seconds between two beats of an engine with this lease."""
    return min(BEAT, lease / BEATS)


def _is_free(path: Path) -> bool:
    """Whether nobody holds the lock: its process is gone."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: other observers are no owners
            return True
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False


def _place(home: Path) -> str:
    with contextlib.suppress(OSError):
        home = home.resolve()
    return f"{socket.gethostname()}.{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
