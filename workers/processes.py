"""Processes of this host, as /proc shows them. Linux only, like the pool's Ray head."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    #: start time in clock ticks since boot
    started: int

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in ("Z", "X")


def in_session(session: int) -> list[Process]:
    """Living processes of a POSIX session, oldest first. A session's id is not reused while it has one."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        fields = _stat(int(entry))
        if fields is not None and int(fields[3]) == session and fields[0] not in ("Z", "X"):
            found.append(Process(int(entry), int(fields[19])))
    return sorted(found, key=lambda p: (p.started, p.pid))


def pss_bytes(processes: Iterable[Process]) -> int:
    """Memory of the processes together; a page that several share counts once."""
    total = 0
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def end(processes: Iterable[Process], grace_s: float) -> list[Process]:
    """SIGTERM, then SIGKILL for what is left after `grace_s`; gives back those that survived even that."""
    left = [p for p in processes if p.alive()]
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        deadline = time.monotonic() + wait_s
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = [p for p in left if p.alive()]
    return left


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on: [0] state, [3] session, [19] start time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
