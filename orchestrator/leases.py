"""Who drives a run, and whether that engine is alive.

On one host a file lock says it: the kernel frees it when the process dies, so that a resume is immediate.
From elsewhere the run's beat counter says it, judged old on the observer's own monotonic clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import time
import uuid
from pathlib import Path

from ..memory.reads import RunRecord

#: seconds between two beats, and without a beat until an engine counts as dead
BEAT = 2.0
LEASE = 12.0


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

    def __init__(self, home: Path) -> None:
        self._home = home
        self._place = _place(home)
        #: run → (epoch, beat, monotonic seconds when it was first seen so)
        self._seen: dict[str, tuple[int, int, float]] = {}

    def is_driven(self, run: RunRecord) -> bool:
        """Whether a living engine has the run. A remote engine is given `LEASE` seconds to show a beat."""
        if run.engine is None:
            return False
        place, _, number = run.engine.rpartition(".")
        if place == self._place:
            return not _is_free(self._home / "engines" / f"{number}.lock")
        epoch, beat, since = self._seen.get(run.id, (-1, -1, 0.0))
        now = time.monotonic()
        if (epoch, beat) != (run.epoch, run.beat):
            self._seen[run.id] = (run.epoch, run.beat, now)
            return True
        return now - since < LEASE


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
