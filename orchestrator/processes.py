"""Isolated worker processes for user code: a segfault or a hang costs an attempt, not the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents.tools import Tool
from ..memory.errors import TaskError, UsageError

#: bytes of one answer at most
MAX_ANSWER = 64 * 1024 * 1024
#: stands for an answer of which a part is still in the pipe: its process cannot be used again
TOO_LARGE: Mapping[str, Any] = {
    "error": f"the answer is larger than {MAX_ANSWER} bytes",
    "kind": TaskError.__name__,
    "retryable": False,
    "mend": "write large results to a file and return its path",
}


class PythonWorkers:
    """At most `size` child processes a project root, started when needed and kept."""

    def __init__(self, size: int | None = None) -> None:
        self._size = size or max(2, os.cpu_count() or 2)
        self._free: dict[str, list[asyncio.subprocess.Process]] = defaultdict(list)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._all: set[asyncio.subprocess.Process] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._tools: dict[tuple[str, tuple[str, ...]], list[Tool]] = {}

    async def call(self, root: str, ref: str, arguments: Mapping[str, Any], *, seconds: float) -> Any:
        """Call the function at "module:name" with JSON arguments; its JSON-able result.

        Raises:
            TaskError: it raised, crashed, did not end within `seconds`, or gave no JSON.
        """
        request = {"do": "call", "ref": ref, "arguments": dict(arguments)}
        return _value(await self._ask(root, request, ref, seconds), ref)

    async def describe(self, root: str, refs: Sequence[str], *, seconds: float = 60.0) -> list[Tool]:
        """The tools at these references.

        Raises:
            TaskError: one cannot be imported or is no tool.
        """
        key = (root, tuple(refs))
        if key not in self._tools:
            answer = await self._ask(root, {"do": "describe", "refs": list(refs)}, "the tools", seconds)
            self._tools[key] = [Tool.from_data(data) for data in _value(answer, "the tools")]
        return self._tools[key]

    async def close(self) -> None:
        """Kill the children."""
        self._free.clear()
        for process in list(self._all):
            _kill(process)
        await asyncio.gather(*self._ending, *(self._end(process) for process in list(self._all)))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Wait until a killed child is gone, reading what is left in its pipe: else the pipe stays open."""
        self._all.discard(process)
        with contextlib.suppress(ConnectionError):
            await process.communicate()

    async def _ask(
        self, root: str, request: Mapping[str, Any], what: str, seconds: float
    ) -> Mapping[str, Any]:
        slot = self._slots.setdefault(root, asyncio.Semaphore(self._size))
        async with slot:
            process = self._free[root].pop() if self._free[root] else await self._spawn(root)
            healthy = False
            try:
                answer = await asyncio.wait_for(_exchange(process, request), seconds)
                healthy = answer is not None and answer is not TOO_LARGE
            except TimeoutError:
                raise TaskError(
                    f"{what} did not end within {seconds:g} seconds; its process was killed",
                    mend="raise the task's `timeout`, or make the function quicker",
                ) from None
            finally:
                if healthy:
                    self._free[root].append(process)
                else:
                    _kill(process)
                    self._ending.add(ending := asyncio.create_task(self._end(process)))
                    ending.add_done_callback(self._ending.discard)
            if answer is None:
                raise TaskError(
                    f"{what} {await _death(process)}", mend="run the function by itself to see why"
                )
            return answer

    async def _spawn(self, root: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "podium.orchestrator.python_worker",
            root,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_ANSWER,
            cwd=root,
        )
        self._all.add(process)
        return process


async def _exchange(process: asyncio.subprocess.Process, request: Mapping[str, Any]) -> Any:
    """The child's answer; None if it died."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
    except (BrokenPipeError, ConnectionResetError):
        return None
    except ValueError:
        return TOO_LARGE
    return json.loads(line) if line.endswith(b"\n") else None


async def _death(process: asyncio.subprocess.Process) -> str:
    code = await process.wait()
    return (
        f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended its process with status {code}"
    )


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        # not process.kill(): it would take the exit status of a dead child away from asyncio's watcher
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _value(answer: Mapping[str, Any], what: str) -> Any:
    if "error" not in answer:
        return answer["value"]
    if answer["kind"] == UsageError.__name__:
        raise TaskError(answer["error"], retryable=False, mend=answer.get("mend", ""))
    where = f" ({answer['where']})" if answer.get("where") else ""
    raise TaskError(
        f"{what} raised {answer['error']}{where}" if answer["kind"] == "user" else answer["error"],
        retryable=bool(answer.get("retryable")),
        mend=answer.get("mend") or "mend the function; the traceback is in the engine's log",
    )
