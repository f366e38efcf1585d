"""User code in processes of its own: a segfault or a hang costs an attempt, not the engine.

`PythonWorkers` says what a call is and what became of it; where the processes are is a `TaskHosts`' matter:
beside the engine, or with a RayPool inside a Ray actor.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents.tools import Tool
from ..memory.errors import ClusterError, TaskError, UsageError
from ..workers.contract import Pool
from ..workers.local_tasks import LocalTaskHosts
from ..workers.task_host import ChildOptions, Kind, TaskHosts, Ticket

#: the module that is run as the child
CHILD = "podium.orchestrator.python_worker"


class WorkerDied(TaskError):
    """The process in which the function ran died of it, or of what the system thought of it: a crash, an
    exit, memory run out, or no end within its time. Retryable; a task that does so again is poison."""


class PythonWorkers:
    """Calls functions of projects in child processes, which are started when needed and kept."""

    def __init__(
        self,
        size: int | None = None,
        *,
        hosts: TaskHosts | None = None,
        memory_bytes: int | None = None,
        grown_bytes: int | None = None,
        max_answer: int | None = None,
    ) -> None:
        """At most `size` children a root, one a core by default, in `hosts`, else in this process.

        `memory_bytes` is the address space that a child may have, `grown_bytes` how much it may grow until
        it is replaced, `max_answer` the bytes of an answer.
        """
        limits = {"memory_bytes": memory_bytes, "grown_bytes": grown_bytes, "max_answer": max_answer}
        self._hosts = hosts or LocalTaskHosts(ChildOptions.of(CHILD, size, **limits))
        self._tools: dict[tuple[str, tuple[str, ...]], list[Tool]] = {}

    async def call(
        self, root: str, ref: str, arguments: Mapping[str, Any], *, seconds: float, label: str = ""
    ) -> Any:
        """Call the function at "module:name" with JSON arguments; its JSON-able result.

        Cancelled, the call does not begin, or ends with the process that runs it. `seconds` are the
        function's own: waiting is free. `label` (`run/<id>`) names it in Ray's dashboard.

        Raises:
            WorkerDied: it crashed, or did not end within `seconds`.
            TaskError: it raised, or gave no JSON.
            ClusterError: Ray lost the process that keeps the children.
        """
        body = json.dumps([ref, arguments]).encode()
        return await self._ask(Ticket(root, b"call", ref, body, seconds, label), ref)

    async def describe(self, root: str, refs: Sequence[str], *, seconds: float = 60.0) -> list[Tool]:
        """The tools at these references.

        Raises:
            TaskError: one cannot be imported or is no tool.
            ClusterError: as `call`.
        """
        key = (root, tuple(refs))
        if key not in self._tools:
            body = json.dumps(list(refs)).encode()
            found = await self._ask(Ticket(root, b"describe", "", body, seconds), "the tools")
            self._tools[key] = [Tool.from_data(data) for data in found]
        return self._tools[key]

    def warm(self, root: str) -> None:
        """Start a child for this root now, if it has none: the first call need not wait for it."""
        self._hosts.warm(root)

    async def close(self) -> None:
        """Kill the children. May be called twice."""
        await self._hosts.close()

    async def _ask(self, ticket: Ticket, what: str) -> Any:
        ticket.done = done = asyncio.get_running_loop().create_future()
        self._hosts.submit(ticket)
        try:
            kind, payload = await done
        except asyncio.CancelledError:
            self._hosts.drop(ticket)
            raise
        if kind == "value":
            return json.loads(payload)
        raise _error(kind, payload, what, ticket.seconds)


def python_workers(pool: Pool, size: int | None = None, *, memory_bytes: int | None = None) -> PythonWorkers:
    """Workers where the pool's are: in a Ray actor for a RayPool, else beside the engine."""
    if pool.kind != "ray":
        return PythonWorkers(size, memory_bytes=memory_bytes)
    from ..workers.ray_tasks import RayTaskHosts

    return PythonWorkers(hosts=RayTaskHosts(ChildOptions.of(CHILD, size, memory_bytes=memory_bytes)))


def _error(kind: Kind, payload: bytes, what: str, seconds: float) -> TaskError | ClusterError:
    if kind == "error":
        return _raised(json.loads(payload), what)
    if kind == "late":
        return WorkerDied(
            f"{what} did not end within {seconds:g} seconds; its process was killed",
            mend="raise the task's `timeout`, or make the function quicker",
        )
    why = payload.decode()
    if kind == "died":
        return WorkerDied(f"{what} {why}", mend="run the function by itself to see why")
    if kind == "lost":
        return ClusterError(f"{what} was lost: {why}", mend="podium status; podium down, then podium up")
    return TaskError(f"{what} was not run: {why}", mend="check that the project's folder is there")


def _raised(told: Mapping[str, Any], what: str) -> TaskError:
    if told["kind"] == UsageError.__name__:
        return TaskError(told["error"], retryable=False, mend=told.get("mend", ""))
    where = f" ({told['where']})" if told.get("where") else ""
    return TaskError(
        f"{what} raised {told['error']}{where}" if told["kind"] == "user" else told["error"],
        retryable=bool(told.get("retryable")),
        mend=told.get("mend") or "mend the function; the traceback is in the engine's log",
    )
