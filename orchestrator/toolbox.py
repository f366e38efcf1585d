"""Durable tool calls: approved where they change something, recorded, done once as far as can be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..agents.loop import ToolResult
from ..agents.tools import Tool, validate_arguments
from ..memory import effects
from ..memory.content import content_hash
from ..memory.database import Connection
from ..memory.errors import TaskError, WaitingForPerson
from ..memory.names import in_workflow
from .caller import RunContext, Services
from .placeholders import as_text
from .processes import PythonWorkers, WorkerDied


def effect_key(task: str, step: int, tool: Tool, arguments: dict[str, Any]) -> str:
    """By which a tool call is known: the same in every attempt of the task."""
    return f"{task}:{step}:{content_hash([tool.ref, arguments])[:16]}"


class TaskTools:
    """The tools of one attempt of one task: `agents.loop.Tools`."""

    def __init__(
        self,
        services: Services,
        workers: PythonWorkers,
        run: RunContext,
        task: str,
        attempt: int,
        specs: Sequence[Tool],
        seconds: float,
    ) -> None:
        self._services, self._workers, self._run = services, workers, run
        self._task, self._attempt, self._seconds = task, attempt, seconds
        self._specs = tuple(specs)

    @property
    def specs(self) -> Sequence[Tool]:
        return self._specs

    async def call(self, step: int, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        """See `agents.loop.Tools.call`. The key is the same in every attempt: task, step, tool, arguments."""
        arguments = validate_arguments(tool, arguments)
        key = effect_key(self._task, step, tool, arguments)
        run_id = self._run.run_id

        def find(connection: Connection) -> effects.EffectState | None:
            return effects.load(connection, run_id, key)

        known = await self._services.read(find)
        if known is not None and known.status == "done":
            return ToolResult(value=known.result)
        if known is not None and known.status in ("failed", "rejected"):
            return ToolResult(error=known.error or "a person refused this call")
        if known is None:
            await self._request(key, step, tool, arguments)
        elif known.status in ("requested", "uncertain"):
            raise self._question(key, tool, arguments, uncertain=known.status == "uncertain")
        else:
            await self._services.journal.commit(
                "effect.start", lambda c: effects.start(c, run_id, self._run.epoch, key, self._attempt)
            )
        return await self._run_tool(key, tool, arguments)

    async def _request(self, key: str, step: int, tool: Tool, arguments: dict[str, Any]) -> None:
        new = effects.NewEffect(key, self._task, self._attempt, step, tool.ref, tool.effect, arguments)
        asks = tool.needs_approval and in_workflow(self._task) not in self._run.preapproved
        status = "requested" if asks else "started"
        await self._services.journal.commit(
            "effect.request",
            lambda c: effects.request(c, self._run.run_id, self._run.epoch, new, status=status),
        )
        if asks:
            raise self._question(key, tool, arguments, uncertain=False)

    async def _run_tool(self, key: str, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        result, error = None, None
        try:
            result = await self._workers.call(
                self._run.project_root,
                tool.ref,
                arguments,
                seconds=self._seconds,
                label=f"run/{self._run.run_id}",
            )
        except WorkerDied as death:
            if tool.effect != "read":
                raise  # nobody knows whether it was done: it stays begun, and becomes `uncertain`
            error = death.message
        except TaskError as failure:
            error = failure.message
        await self._services.journal.commit(
            "effect.finish",
            lambda c: effects.finish(c, self._run.run_id, self._run.epoch, key, result=result, error=error),
        )
        return ToolResult(value=result, error=error)

    def _question(
        self, key: str, tool: Tool, arguments: dict[str, Any], *, uncertain: bool
    ) -> WaitingForPerson:
        call = f"{tool.name}({', '.join(f'{k}={as_text(v)[:200]}' for k, v in arguments.items())})"
        text = (
            f"It is not known whether {call} was done before a crash. Do it (again)?"
            if uncertain
            else f"May {call} be called? Effect: {tool.effect}."
        )
        return WaitingForPerson(text, key=key, run=self._run.run_id, task=self._task)
