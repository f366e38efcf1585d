"""Serving engines as processes (`crash/serving_driver.py`), for tests that kill and stop them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The machine's environment without settings of its own, for a program that lies in the tests."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("PODIUM_")}
    return given | {"PYTHONPATH": f"{TESTS}:{folder}", "PYTHONWARNINGS": "error::ResourceWarning"} | variables


@dataclass(frozen=True)
class EngineProcess:
    """A serving engine that is ready."""

    process: subprocess.Popen[str]
    name: str
    log: Path

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has freed its lock."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        """SIGTERM: it stops in good order."""
        self.process.terminate()
        assert self.process.wait(20) == 0, self.log.read_text()


@contextmanager
def serving(home: Path, url: str, *, fault: str = "", lease: float = 12.0) -> Iterator[EngineProcess]:
    """A serving engine of a home, in that home's parent folder; killed afterwards if it still runs."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"engine-{secrets.token_hex(4)}.log"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "crash" / "serving_driver.py"), str(home), url],
            cwd=home.parent,
            env=environment(home.parent, PODIUM_FAULT=fault, PODIUM_LEASE_SECONDS=str(lease)),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert name, log.read_text()
        yield EngineProcess(process, name, log)
    finally:
        process.kill()
        process.communicate(timeout=20)
