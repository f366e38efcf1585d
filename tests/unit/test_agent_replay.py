"""A killed agent goes on: the loop asks the same again, so that recorded answers serve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from podium.agents.loop import AgentResult, Limits, ToolResult, run_agent
from podium.agents.outputs import OutputType
from podium.agents.testing import FunctionTools, ModelRequest, ScriptedModel
from podium.agents.tools import Tool, tool
from podium.memory.chat import Completion, Message
from podium.memory.errors import ProviderError


@tool(effect="read")
def price(item: str) -> int:
    """Price of an item."""
    return {"tea": 3, "coffee": 4}[item]


@tool(effect="read")
def story(words: int) -> str:
    """A long text."""
    return "word " * words


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"thought": "so", "tool": name, "arguments": arguments}


def answer(value: Any) -> dict[str, Any]:
    return {"answer": value}


async def run(world: Recorded) -> AgentResult:
    return await run_agent(
        "Tea and coffee?",
        model=world,
        tools=world,
        output=OutputType.parse({"total": "int"}),
        limits=Limits(steps=8),
        context_tokens=900,
    )


class Recorded:
    """Model and tools as the engine has them: what is on record is returned, the rest is asked for."""

    def __init__(self, model: ScriptedModel, tools: FunctionTools) -> None:
        self.model, self.tools = model, tools
        self.specs = tools.specs
        self.requests: list[ModelRequest] = []
        self.answers: dict[tuple[int, str], Completion] = {}
        self.results: dict[int, ToolResult] = {}

    def restart(self) -> None:
        self.requests = []

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        request = ModelRequest(tuple(messages), schema, max_tokens, temperature)
        self.requests.append(request)
        key = (len(self.requests), repr(request))
        if key not in self.answers:
            self.answers[key] = await self.model.complete(
                messages, schema=schema, max_tokens=max_tokens, temperature=temperature
            )
        return self.answers[key]

    async def call(self, step: int, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        if step not in self.results:
            self.results[step] = await self.tools.call(step, tool, arguments)
        return self.results[step]


SCRIPT = [
    call("price", item="tea"),
    "nonsense",
    call("story", words=800),
    call("price", item="milk"),
    call("story", words=900),
    call("price", item="tea"),
    call("price", item="tea"),
    answer({"total": "wrong"}),
    answer({"total": 7}),
]


async def test_a_replay_asks_exactly_the_same():
    world = Recorded(ScriptedModel(SCRIPT), FunctionTools([price, story]))
    first = await run(world)
    asked = world.requests
    world.restart()
    assert await run(world) == first
    assert world.requests == asked
    assert len(world.model.requests) == len(asked) == 9
    assert len(world.tools.calls) == 5


@pytest.mark.parametrize("killed_at", range(1, 10))
async def test_a_killed_agent_pays_for_nothing_twice(killed_at: int):
    script = [*SCRIPT[: killed_at - 1], KeyboardInterrupt("killed"), *SCRIPT[killed_at - 1 :]]

    class Killed(ScriptedModel):
        def _answer(self, request: ModelRequest) -> Any:
            answer = script[len(self.requests) - 1]
            if isinstance(answer, KeyboardInterrupt):
                raise ProviderError("killed")
            return answer

    world = Recorded(Killed([]), FunctionTools([price, story]))
    with pytest.raises(ProviderError):
        await run(world)
    world.restart()
    result = await run(world)
    assert result.output == {"total": 7}
    assert len(world.model.requests) == 10
    assert len(world.tools.calls) == 5
