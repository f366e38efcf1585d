"""Starts, stops and finds the detached engine of a home: one process, its state in `<home>/engine.json`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..memory.errors import ClusterError
from .settings import PREFIX, Settings

#: engines that this process started: it is their parent until it ends, and reaps them
_children: dict[int, subprocess.Popen[bytes]] = {}

STATE_FILE = "engine.json"
LOG_FILE = "engine.log"


def engine_status(home: Path) -> dict[str, Any] | None:
    """The running detached engine: {"pid", "engine", "ready", "models", …}; None if there is none."""
    try:
        found = json.loads((home / STATE_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if found.get("ready") and _is_ours(found["pid"]) else None


def start_engine(settings: Settings, *, seconds: float = 120.0) -> dict[str, Any]:
    """Start the detached engine and wait until its pool is ready; the one that runs already is left as it is.

    Raises:
        ClusterError: it died or was not ready in time; the message has the end of its log.
    """
    if (running := engine_status(settings.home)) is not None:
        return running
    settings.home.mkdir(parents=True, exist_ok=True)
    state, log = settings.home / STATE_FILE, settings.home / LOG_FILE
    state.unlink(missing_ok=True)
    environment = os.environ | _as_variables(settings)
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "podium.orchestrator.daemon"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=environment,
            cwd=settings.home,
        )
    _children[process.pid] = process
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := engine_status(settings.home)) is not None:
            return found
        if process.poll() is not None:
            raise ClusterError(
                f"the engine did not start:\n{_tail(log)}", mend=f"mend that; the whole log is {log}"
            )
        time.sleep(0.1)
    process.kill()
    raise ClusterError(
        f"the engine was not ready after {seconds:g} seconds:\n{_tail(log)}", mend=f"read its log: {log}"
    )


def _as_variables(settings: Settings) -> dict[str, str]:
    """All settings as the engine's environment: it runs in another folder, and no flag reaches it."""
    given = settings.model_dump(exclude_none=True) | {
        "database_url": settings.database,
        "pool": settings.pool_file or "",
    }
    return {f"{PREFIX}{key.upper()}": str(value) for key, value in given.items()}


def stop_engine(home: Path, *, seconds: float = 20.0) -> bool:
    """Stop the detached engine, which lets go of its runs; returns whether there was one."""
    found = engine_status(home)
    if found is None:
        (home / STATE_FILE).unlink(missing_ok=True)
        return False
    pid = int(found["pid"])
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while _is_ours(pid) and time.monotonic() < end:
        time.sleep(0.05)
    if _is_ours(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (home / STATE_FILE).unlink(missing_ok=True)
    return True


def _is_ours(pid: int) -> bool:
    """Whether the process lives and is a Podium engine (a pid may have been given to another program)."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        return False
    try:
        os.kill(pid, 0)
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists():
            text = command.read_bytes()
            return b"podium.orchestrator.daemon" in text
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:
        return True
    return True


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    return ""
