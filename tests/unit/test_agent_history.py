"""What the model is shown of earlier steps: within a bound, the newest longest, always the same."""

from __future__ import annotations

from typing import Any

import pytest
from podium.agents.history import History, Turn, clip, estimated_tokens, fenced
from podium.agents.loop import Limits, run_agent
from podium.agents.testing import FunctionTools, ModelRequest, ScriptedModel
from podium.agents.tools import tool
from podium.memory.chat import Message
from podium.memory.errors import ContextTooLong


@tool(effect="read")
def price(item: str) -> int:
    """Price of an item."""
    return {"tea": 3, "coffee": 4}[item]


OPENING = (Message("system", "s"), Message("user", "goal"))


def turns(count: int, size: int = 300) -> list[Turn]:
    return [Turn(f"said {n}", f"told {n} " + "x" * size, f"note {n}") for n in range(count)]


def test_the_oldest_results_become_notes_first():
    history = History(OPENING, bound=380, turns=turns(4))
    contents = [message.content for message in history.messages()]
    assert contents[:2] == ["s", "goal"]
    assert contents[3] == "note 0"
    assert contents[-1].startswith("told 3")
    assert estimated_tokens(history.messages()) <= 380
    assert history.messages() == History(OPENING, bound=380, turns=turns(4)).messages()


def test_then_the_oldest_turns_go_and_the_newest_result_goes_last():
    history = History(OPENING, bound=190, turns=turns(8))
    contents = [message.content for message in history.messages("now")]
    assert "earlier steps are left out" in contents[1]
    assert contents[-1].startswith("told 7")
    assert contents[-1].endswith("\n\nnow")
    smallest = [message.content for message in history.messages(bound=0)]
    assert smallest == ["s", "goal\n\n(7 earlier steps are left out to save room)", "said 7", "note 7"]


def test_every_bound_that_can_be_kept_is_kept():
    history = History(OPENING, bound=100_000, turns=turns(6))
    least = estimated_tokens(history.messages(bound=0))
    for bound in range(least, 900, 7):
        assert estimated_tokens(history.messages(bound=bound)) <= bound


async def test_a_prompt_that_is_too_long_after_all_is_cut_further():
    sizes: list[int] = []

    def small_context(request: ModelRequest) -> Any:
        sizes.append(sum(len(message.content) for message in request.messages))
        if sizes[-1] > 1500:
            return ContextTooLong("too long")
        if "anyOf" not in (request.schema or {}):
            return {"answer": "done"}
        return {"thought": "so", "tool": "price", "arguments": {"item": f"item {len(sizes)}"}}

    tools = FunctionTools([price])
    result = await run_agent(
        "Go on.", model=ScriptedModel(small_context), tools=tools, limits=Limits(steps=12)
    )
    assert result.stop_reason == "steps"
    assert max(sizes) > 1500
    assert len(tools.calls) == 11


async def test_a_context_that_is_too_small_for_the_goal_is_an_error():
    with pytest.raises(ContextTooLong):
        await run_agent(
            "Go on.", model=ScriptedModel(lambda _: ContextTooLong("too long")), tools=FunctionTools([price])
        )


def test_clip_keeps_beginning_and_end():
    assert clip("short", 5) == "short"
    text = clip("a" * 100 + "z" * 100, 40)
    assert text.startswith("a" * 30)
    assert text.endswith("z" * 10)
    assert "160 characters left out" in text
    assert fenced("a < b") == "<result>\na < b\n</result>"
