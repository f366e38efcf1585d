"""Functions for tasks that tests run in the engine's own process, and an engine that goes away."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_project import until
from podium import Podium, Run

TESTS = Path(__file__).parent


def add(a: int, b: int = 1) -> int:
    return a + b


def double(x: int) -> int:
    return 2 * x


def same(value: Any = None) -> Any:
    return value


def round_of(n: int, step: int) -> dict[str, Any]:
    return {"n": n + step, "grade": {"score": (n + step) * 10}}


def note(path: str, text: str = "x") -> str:
    with open(path, "a") as file:
        file.write(text + "\n")
    return text


def fail(text: str = "it fails") -> str:
    raise ValueError(text)


def fail_for(value: Any, bad: list[Any], text: str = "bad") -> Any:
    if value in bad:
        raise ValueError(f"{text} {value}")
    return value


def fail_unless(path: str, value: Any = None) -> Any:
    """Fails until the file is there."""
    if not Path(path).exists():
        raise ValueError(f"no {Path(path).name}")
    return value


async def gate(path: str, value: Any = None) -> Any:
    """Says in `path`.at that it has begun, and waits for the file."""
    note(f"{path}.at")
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.005)
    return value


def drive_elsewhere(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Drive the newest run in a process of its own; see `crash/inline_driver.py`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PODIUM_")}
    environment |= {"PYTHONPATH": f"{folder}{os.pathsep}{TESTS}"}
    return subprocess.run(
        [sys.executable, str(TESTS / "crash" / "inline_driver.py"), str(folder / "home"), url, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def in_background(work: Callable[[], Run]) -> Callable[[], Run]:
    """Start `work` in a thread; the result waits for it."""
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()

    def wait() -> Run:
        thread.join(30)
        assert found, "it did not end in time"
        return found[0]

    return wait


def break_off(podium: Podium, run: Run, when: Callable[[], Any]) -> None:
    """Drive a run until `when`, then let it go in the middle, as an engine that stops."""

    async def drive() -> None:
        driving = asyncio.create_task(podium.adrive(run.id))
        await asyncio.to_thread(until, when)
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving

    asyncio.run(drive())
    until(lambda: podium.get(run.id).status == "queued")
