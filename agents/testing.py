"""Fakes that need no pool and no engine: a model with a script, tools that run in this process.

They satisfy the `Model` and `Tools` contracts, and record what they were asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..memory.chat import Completion, Message, Usage
from ..memory.errors import ProviderError, TaskError, WaitingForPerson
from .history import estimated_tokens
from .loop import ToolResult
from .tools import Tool, call_tool, check_names, describe

#: text, JSON-able data, a whole Completion, or an exception to raise
Answered = str | Mapping[str, Any] | list[Any] | Completion | Exception


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What a model was asked; two requests that are equal have the same hash in the engine's records."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float = 0.0


class ScriptedModel:
    """A Model that gives `answers` one after another, or what a function of the request returns."""

    def __init__(self, answers: Sequence[Answered] | Callable[[ModelRequest], Answered]) -> None:
        self.answers = answers
        #: every request so far
        self.requests: list[ModelRequest] = []
        #: every Completion so far
        self.completions: list[Completion] = []

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        """The next answer; `problem` is not asked: there is no other model.

        Raises:
            ProviderError: the script has no more answers, or the answer is such an error.
        """
        request = ModelRequest(tuple(messages), schema, max_tokens, temperature)
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, Completion):
            text = answer if isinstance(answer, str) else json.dumps(answer)
            usage = Usage(estimated_tokens(messages), max(1, len(text.encode()) // 3))
            answer = Completion(text, "scripted", usage)
        self.completions.append(answer)
        return answer

    def _answer(self, request: ModelRequest) -> Answered:
        if callable(self.answers):
            return self.answers(request)
        position = len(self.requests) - 1
        if position >= len(self.answers):
            raise ProviderError(
                f"the script has {len(self.answers)} answers, this is request {position + 1}",
                retryable=False,
                sent=False,
                mend="add an answer to the script",
            )
        return self.answers[position]


class FunctionTools:
    """Tools that call typed functions in this process. Those that need approval wait unless `approved`."""

    def __init__(self, functions: Sequence[Callable[..., Any]], *, approved: Sequence[str] = ()) -> None:
        self._functions = {describe(function).name: function for function in functions}
        self.specs: Sequence[Tool] = [describe(function) for function in functions]
        check_names(self.specs)
        self.approved = set(approved)
        #: (step, tool, arguments) of each call that ran
        self.calls: list[tuple[int, str, dict[str, Any]]] = []

    async def call(self, step: int, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        """Run the function; whatever it raises becomes the result's error.

        Raises:
            WaitingForPerson: the tool needs an approval that was not given.
        """
        if tool.needs_approval and tool.name not in self.approved:
            raise WaitingForPerson(f"{tool.name} ({tool.effect}) needs approval", key=f"{step}/{tool.name}")
        self.calls.append((step, tool.name, arguments))
        try:
            return ToolResult(await call_tool(self._functions[tool.name], arguments))
        except TaskError as error:
            return ToolResult(error=error.message)
        except Exception as error:  # noqa: BLE001 - a tool is anybody's code, and its failure is a result
            return ToolResult(error=f"{type(error).__name__}: {error}")
