"""The agent loop and typed answers with a real model. It is small: form is asserted, never wisdom."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from podium.agents.loop import Limits, run_agent
from podium.agents.outputs import OutputType
from podium.agents.structured import complete_structured
from podium.agents.testing import FunctionTools
from podium.agents.tools import tool
from podium.memory.chat import ChatRequest, Completion, Message
from podium.memory.errors import ConfigError
from podium.router.types import ModelSpec, Price
from podium.workers.engines.llamacpp import LlamaCppEngine
from podium.workers.models import pull

HOME = Path(os.environ.get("PODIUM_TEST_MODELS") or Path.home() / ".cache" / "podium-tests")
PEOPLE = {"Oslo": 709_000, "Bergen": 291_000, "Trondheim": 214_000}
CITY = OutputType.parse({"city": "str", "people": "int"})


@tool(effect="read")
def population(city: str) -> int:
    """How many people live in a city."""
    return PEOPLE[city]


@tool(effect="read")
def cities(order: Literal["name", "people"] = "name") -> list[str]:
    """The cities that are known."""
    return sorted(PEOPLE, key=None if order == "name" else lambda city: PEOPLE[city])


class EngineModel:
    """One llama.cpp replica as a Model; the podium engine has its own, with router and ledger."""

    def __init__(self, engine: LlamaCppEngine) -> None:
        self.engine = engine

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        request = ChatRequest(tuple(messages), max_tokens or 128, schema, temperature)
        (answer,) = await asyncio.to_thread(self.engine.generate, [request])
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(scope="module")
def model() -> Iterator[EngineModel]:
    try:
        path = pull("smollm2-135m", HOME)
    except ConfigError as error:
        if os.environ.get("CI", "").lower() == "true":
            raise
        pytest.skip(f"SmolLM2 is missing: {error}")
    price = Price(input=Decimal("0.01"), output=Decimal("0.02"))
    spec = ModelSpec(name="smollm2-135m", engine="llamacpp", source=str(path), price=price, context=2048)
    engine = LlamaCppEngine(spec, HOME)
    engine.load()
    yield EngineModel(engine)
    engine.close()


async def test_an_agent_calls_typed_tools_and_gives_a_typed_answer(model: EngineModel):
    tools = FunctionTools([population, cities])
    result = await run_agent(
        "How many people live in Oslo?",
        profile="You answer questions about cities.",
        model=model,
        tools=tools,
        output=CITY,
        limits=Limits(steps=4),
        max_tokens=128,
        require_tool=True,
        context_tokens=1500,
    )
    assert CITY.validate(result.output) == result.output
    assert 2 <= len(result.steps) <= 4
    assert result.stop_reason in ("answered", "steps")
    assert tools.calls, "the schema lets it do nothing else at first"
    for step in result.steps[:-1]:
        assert step.call is not None, "decoding was constrained to valid calls"
        assert step.observation


async def test_an_agent_without_tools_answers_at_once(model: EngineModel):
    result = await run_agent(
        "Name a color.",
        model=model,
        tools=FunctionTools([]),
        output=OutputType.parse({"color": ["red", "green", "blue"]}),
        limits=Limits(steps=2),
        max_tokens=64,
    )
    assert result.output["color"] in ("red", "green", "blue")


@pytest.mark.parametrize(
    "spec", [["bug", "question"], "bool", {"subject": "str", "urgent": "bool"}, "list[bool]"]
)
async def test_a_typed_answer_is_of_its_type(model: EngineModel, spec: Any):
    output = OutputType.parse(spec)
    ask = [Message("user", "The program crashes when I open a file. What is this about?")]
    value, completion = await complete_structured(model, ask, output, max_tokens=64)
    assert output.validate(value) == value
    assert completion.usage.output_tokens <= 64
