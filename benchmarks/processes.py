"""Processes under measurement: all that a command starts, detached or not, and the memory that they hold."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    zombie: bool
    #: the command line as shown by ps; Ray's workers set their own
    command: str

    @property
    def pss(self) -> int:
        """Proportional set size in bytes: a page shared by n counts one n-th in each. 0 once it ended."""
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in (PROC / str(self.pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        return 0


class Nursery:
    """Keeps every process that is started in it within reach, however it detaches itself, and ends them all.

    Linux only: orphans are handed to the nearest ancestor that asked for them, which is this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._started: set[int] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Nursery:
        if sys.platform != "linux" or ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError("processes can be followed on Linux only")
        threading.Thread(target=self._reap, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 10
            for process in self.descendants():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)
            while self.descendants() and time.monotonic() < deadline:
                time.sleep(0.1)
        self._over.set()

    def start(
        self, command: Sequence[str], *, cwd: Path | None = None, output: IO[bytes] | int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start a command; its stdout goes to `output`, its stderr to ours."""
        with self._lock:
            started = subprocess.Popen(
                list(command),
                cwd=cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=sys.stderr,
            )
            self._started.add(started.pid)
        return started

    def run(self, command: Sequence[str], *, cwd: Path | None = None, timeout: float = 300) -> float:
        """Run a command to its end, not to that of what it leaves running, and return the seconds that took.

        Raises:
            RuntimeError: it failed, or ran past `timeout` seconds.
        """
        with tempfile.TemporaryFile() as output:
            begin = time.perf_counter()
            process = self.start(command, cwd=cwd, output=output)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise RuntimeError(f"{' '.join(command)}: not done after {timeout} s") from None
            seconds = time.perf_counter() - begin
            if process.returncode != 0:
                output.seek(0)
                told = output.read().decode(errors="replace")[-2000:]
                raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{told}")
        return seconds

    def descendants(self) -> list[Process]:
        """What runs below this process now, in no order."""
        everyone = _processes()
        below, grew = {os.getpid()}, True
        while grew:
            found = {process.pid for process in everyone if process.parent in below} - below
            below |= found
            grew = bool(found)
        return [p for p in everyone if p.pid in below and p.pid != os.getpid() and not p.zombie]

    def _reap(self) -> None:
        """Collect adopted children that ended; our own are waited for by subprocess."""
        while not self._over.wait(0.1):
            with self._lock:
                for process in _processes():
                    if process.zombie and process.parent == os.getpid() and process.pid not in self._started:
                        with suppress(ChildProcessError):
                            os.waitpid(process.pid, os.WNOHANG)


def _processes() -> list[Process]:
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                found.append(Process(int(entry.name), int(fields[1]), fields[0] == "Z", command))
    return found
