"""User code and workers for the tests of isolated processes, beside the engine and behind Ray alike."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.orchestrator.processes import CHILD, PythonWorkers
from podium.workers.cluster import ClusterInfo, connect, disconnect, start_head, stop_head
from podium.workers.task_host import ChildOptions

CODE = '''
import asyncio, ctypes, datetime, os, signal, sys, time
from pydantic import BaseModel

class Point(BaseModel):
    x: int

def note(n: int, name: str = "notes") -> int:
    """Leave a line in a file: what ran, and how often."""
    with open(name, "a") as file:
        file.write(f"{n} {os.getpid()}\\n")
    return n

def big(n: int) -> str:
    return "x" * n

def pid() -> int:
    return os.getpid()

def loud() -> str:
    print("to stdout")
    os.write(1, b"straight to fd 1")
    sys.stdout.flush()
    return "quiet"

def curious() -> str:
    return input()

def leave() -> None:
    sys.exit(3)

def vanish() -> None:
    os._exit(7)

def segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)  # what the kernel sends for a bad address

def wrong() -> object:
    return object()

def nan() -> float:
    return float("nan")

async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1

def promised(x: int):
    return later(x)

def own_loop(x: int) -> int:
    return asyncio.run(later(x))

def shift(point: Point, day: datetime.date, by: float = 1) -> dict[str, object]:
    return {"point": Point(x=point.x + int(by)), "day": day + datetime.timedelta(by)}

def sleepy(n: int, nap: float = 60, name: str = "notes") -> int:
    note(n, name)
    time.sleep(nap)
    return n

def fragile(n: int, breaks: int, name: str = "notes") -> int:
    note(n, name)
    if n == breaks:
        segfault()
    return n

def hoard(megabytes: int) -> int:
    return len(bytearray(megabytes << 20))

kept = []

def grow(megabytes: int) -> int:
    kept.append(b"x" * (megabytes << 20))
    return os.getpid()
'''


@contextmanager
def ray_head(home: Path, *, dashboard: bool = False) -> Iterator[ClusterInfo]:
    """A Ray head of this home that this process is a driver of."""
    info = start_head(home, dashboard=dashboard, num_cpus=2)
    try:
        connect(info)
        yield info
    finally:
        disconnect()
        stop_head(home)


def make_workers(kind: str, size: int = 2, **limits: int | None) -> PythonWorkers:
    """Workers of this kind, `local` or `ray`."""
    if kind == "local":
        return PythonWorkers(size, **limits)
    from podium.workers.ray_tasks import RayTaskHosts

    return PythonWorkers(hosts=RayTaskHosts(ChildOptions.of(CHILD, size, **limits)))


async def call(workers: PythonWorkers, root: Path, name: str, /, seconds: float = 30, **arguments: object):
    return await workers.call(str(root), f"usercode:{name}", arguments, seconds=seconds)


def notes(root: Path, name: str = "notes") -> list[int]:
    """What `note` was called with, in order."""
    path = root / name
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


async def until(true, seconds: float = 20) -> None:
    """Wait until `true()` is; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False
