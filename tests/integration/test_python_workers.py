"""User code in processes of its own: what it breaks is an attempt, never the pipe or the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from podium.memory.errors import TaskError
from podium.orchestrator import processes
from podium.orchestrator.processes import PythonWorkers

CODE = """
import os, sys

def big(n: int) -> str:
    return "x" * n

def pid() -> int:
    return os.getpid()

def loud() -> str:
    print("to stdout")
    os.write(1, b"straight to fd 1")
    sys.stdout.flush()
    return "quiet"

def leave() -> None:
    sys.exit(3)

def vanish() -> None:
    os._exit(7)

def wrong() -> object:
    return object()

async def later(x: int) -> int:
    return x + 1
"""


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[PythonWorkers]:
    (tmp_path / "usercode.py").write_text(CODE)
    made = PythonWorkers(1)
    yield made
    await made.close()


async def call(workers: PythonWorkers, root: Path, name: str, **arguments: object) -> object:
    return await workers.call(str(root), f"usercode:{name}", arguments, seconds=20)


async def test_one_process_is_kept(workers: PythonWorkers, tmp_path: Path) -> None:
    first = await call(workers, tmp_path, "pid")
    assert await call(workers, tmp_path, "loud") == "quiet"
    assert await call(workers, tmp_path, "later", x=1) == 2
    with pytest.raises(TaskError, match="SystemExit: 3"):
        await call(workers, tmp_path, "leave")
    assert await call(workers, tmp_path, "pid") == first


async def test_a_process_that_ends_is_replaced(workers: PythonWorkers, tmp_path: Path) -> None:
    first = await call(workers, tmp_path, "pid")
    with pytest.raises(TaskError, match="status 7") as caught:
        await call(workers, tmp_path, "vanish")
    assert caught.value.retryable
    assert await call(workers, tmp_path, "pid") != first


async def test_an_answer_that_is_too_large_spoils_no_later_one(
    workers: PythonWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MAX_ANSWER", 1000)
    with pytest.raises(TaskError, match="larger than") as caught:
        await call(workers, tmp_path, "big", n=500_000)
    assert not caught.value.retryable
    assert await call(workers, tmp_path, "big", n=10) == "x" * 10


async def test_a_result_that_is_no_json_is_told(workers: PythonWorkers, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="JSON cannot hold") as caught:
        await call(workers, tmp_path, "wrong")
    assert not caught.value.retryable


async def test_calls_beyond_the_processes_wait(workers: PythonWorkers, tmp_path: Path) -> None:
    found = await asyncio.gather(*(call(workers, tmp_path, "later", x=n) for n in range(5)))
    assert found == [1, 2, 3, 4, 5]
