"""A fair queue for the processes that write to one SQLite database.

SQLite's own waiting polls with pauses that grow to 100 ms: under load some writer always comes too late. Here
writers queue in the kernel (`flock`), which wakes the next one at once. There are two locks: `turn` is held
by the one who comes next, so that a writer that has just finished cannot pass those who wait. The gate only
orders who asks SQLite for its lock, and nothing depends on it: after `LONGEST` seconds, and on any error
of the file system, writers go on without it. The kernel opens it when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: seconds that a writer queues; then it goes on without the gate
LONGEST = 2.0


class Gate:
    """The gate beside one database file, for all threads of this process."""

    def __init__(self, database: Path) -> None:
        self._path = database
        self._mutex = threading.Lock()
        self._process = 0
        self._locks: _Locks | None = None
        self._helper: _Helper | None = None

    @contextlib.contextmanager
    def hold(self, seconds: float = LONGEST) -> Iterator[bool]:
        """Hold the gate for the block; whether it is held. Waits at most `seconds`, and never fails."""
        until = time.monotonic() + max(0.0, min(seconds, LONGEST))
        if not self._mutex.acquire(timeout=max(0.0, until - time.monotonic())):
            yield False
            return
        try:
            locks = self._enter(until)
            try:
                yield locks is not None
            finally:
                if locks is not None:
                    locks.release()
        finally:
            self._mutex.release()

    def close(self) -> None:
        """Close the files; a later writer opens them again."""
        with self._mutex:
            self._let_go()

    def _enter(self, until: float) -> _Locks | None:
        if self._process != os.getpid():  # open files, and the locks on them, are shared with a forked parent
            if self._locks is not None:
                self._locks.close()
            self._locks, self._helper, self._process = None, None, os.getpid()
        if self._helper is not None and self._helper.busy:
            return None  # its last wait was in vain and goes on: whoever holds the gate is stopped
        if self._locks is None:
            self._locks = _Locks.open(self._path)
        if self._locks is None:
            return None
        if self._locks.take_now():
            return self._locks
        if time.monotonic() >= until:
            return None
        if self._helper is None:
            self._helper = _Helper(self._locks)
        return self._locks if self._helper.wait(until - time.monotonic()) else None

    def _let_go(self) -> None:
        locks, helper = self._locks, self._helper
        self._locks, self._helper = None, None
        if helper is not None and self._process == os.getpid():
            helper.end()
        elif locks is not None:
            locks.close()


class _Locks:
    """The two locks. An error of the file system counts as a lock that is not there."""

    def __init__(self, turn: int, write: int) -> None:
        self._turn, self._write = turn, write

    @classmethod
    def open(cls, database: Path) -> _Locks | None:
        files: list[int] = []
        try:
            for name in ("turn", "gate"):
                files.append(os.open(f"{database}-{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError:
            for file in files:
                os.close(file)
            return None
        return cls(*files)

    def take_now(self) -> bool:
        """Take the gate if nobody has it and nobody waits for it."""
        if not _lock(self._turn, fcntl.LOCK_NB):
            return False
        taken = _lock(self._write, fcntl.LOCK_NB)
        _unlock(self._turn)
        return taken

    def take(self) -> bool:
        """Queue for the gate, however long that takes."""
        if not _lock(self._turn):
            return False
        taken = _lock(self._write)
        _unlock(self._turn)
        return taken

    def release(self) -> None:
        _unlock(self._write)

    def close(self) -> None:
        """Closing a file gives its lock back."""
        for file in (self._turn, self._write):
            with contextlib.suppress(OSError):
                os.close(file)


class _Place:
    """Someone's place in the queue."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.taken = False
        self.given_up = False


class _Helper:
    """A thread that queues for the gate, so that another one can stop waiting for it."""

    def __init__(self, locks: _Locks) -> None:
        self._locks = locks
        self._queue: queue.SimpleQueue[_Place | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        #: it waits, whether anyone waits for it or not
        self.busy = False
        threading.Thread(target=self._loop, name="podium-gate", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether the gate is the caller's now. If not, it is given back as soon as it comes."""
        place = _Place()
        self.busy = True
        self._queue.put(place)
        place.over.wait(max(0.0, seconds))
        with self._mutex:
            place.given_up = not place.taken
            return place.taken

    def end(self) -> None:
        """Close the files when nothing waits for them any more."""
        self._queue.put(None)

    def _loop(self) -> None:
        while (place := self._queue.get()) is not None:
            taken = self._locks.take()
            with self._mutex:
                if taken and place.given_up:
                    self._locks.release()
                place.taken = taken and not place.given_up
                self.busy = False
            place.over.set()
        self._locks.close()


def _lock(file: int, flags: int = 0) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
    except OSError:
        return False
    return True


def _unlock(file: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
