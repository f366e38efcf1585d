"""Typed answers: extraction from what models really write, validation, bounded repair."""

from __future__ import annotations

import json

import jsonschema
import pytest
from podium.agents.outputs import OutputType
from podium.agents.structured import (
    JsonForm,
    closed_object,
    complete_json,
    complete_structured,
    json_candidates,
    read_json,
    shortened,
)
from podium.agents.testing import ScriptedModel
from podium.memory.chat import Completion, Message, Usage
from podium.memory.errors import ContextTooLong, ProviderError, StructuredOutputError, UsageError

BRIEF = OutputType.parse({"title": "str", "points": "list[str]"})
GOOD = {"title": "t", "points": ["a"]}
ASK = [Message("system", "s"), Message("user", "Write it.")]


def cut(text: str) -> Completion:
    return Completion(text, "m", Usage(10, 64), finish_reason="length")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        f"\n  {json.dumps(GOOD, indent=2)}\n",
        f"Sure! Here it is:\n```json\n{json.dumps(GOOD)}\n```\nAnything else?",
        f"```\n{json.dumps(GOOD)}\n```",
        f"As [1] says, the answer is {json.dumps(GOOD)} {{really}}.",
        f"<think>or {json.dumps({'title': 'x', 'points': []})}?</think>{json.dumps(GOOD)}",
        f"{{oops {json.dumps(GOOD)}",
    ],
)
async def test_json_is_found_in_what_models_write(text: str):
    model = ScriptedModel([text])
    value, completion = await complete_structured(model, ASK, BRIEF)
    assert value == GOOD
    assert completion.text == text
    assert len(model.requests) == 1


async def test_the_decoder_gets_the_schema_and_the_prompt_names_the_form():
    model = ScriptedModel([GOOD])
    await complete_structured(model, ASK, BRIEF, max_tokens=99, temperature=0.5)
    request = model.requests[0]
    assert request.schema == BRIEF.json_schema()
    assert (request.max_tokens, request.temperature) == (99, 0.5)
    assert request.messages[0] == ASK[0]
    assert request.messages[1].content.startswith("Write it.\n\n")
    assert str(BRIEF) in request.messages[1].content


@pytest.mark.parametrize(("text", "value"), [('{"value": ["a"]}', ["a"]), ('["a", "b"]', ["a", "b"])])
async def test_a_type_that_is_no_object_is_wrapped_for_the_decoder(text: str, value: list[str]):
    model = ScriptedModel([text])
    assert (await complete_structured(model, ASK, OutputType.parse("list[str]")))[0] == value
    schema = model.requests[0].schema
    assert schema is not None
    assert schema["type"] == "object"
    assert schema["properties"]["value"] == OutputType.parse("list[str]").json_schema()


async def test_an_enum_and_any_are_wrapped():
    level = OutputType.parse(["low", "high"])
    assert (await complete_structured(ScriptedModel(['{"value": "low"}']), ASK, level))[0] == "low"
    anything = OutputType.parse("any")
    assert (await complete_structured(ScriptedModel(['{"value": null}']), ASK, anything))[0] is None


async def test_text_needs_no_json():
    model = ScriptedModel([" Just text. \n"])
    assert (await complete_structured(model, ASK, OutputType.parse("str")))[0] == "Just text."
    assert model.requests[0].schema is None
    assert list(model.requests[0].messages) == ASK


async def test_a_repair_quotes_the_validators_own_error():
    wrong = {"title": 3, "points": ["a"]}
    model = ScriptedModel([wrong, GOOD])
    value, completion = await complete_structured(model, ASK, BRIEF)
    assert value == GOOD
    assert completion is model.completions[1]
    with pytest.raises(ValueError, match="title") as caught:
        BRIEF.validate(wrong)
    *before, answer, repair = model.requests[1].messages
    assert tuple(before) == model.requests[0].messages
    assert answer == Message("assistant", json.dumps(wrong))
    assert str(caught.value) in repair.content
    assert model.requests[1].schema == model.requests[0].schema


async def test_after_two_repairs_it_gives_up():
    model = ScriptedModel(["no json", "{}", '{"title": "t"}', GOOD])
    with pytest.raises(StructuredOutputError, match="points") as caught:
        await complete_structured(model, ASK, BRIEF)
    assert len(model.requests) == 3
    assert not caught.value.retryable
    assert "stronger model" in caught.value.mend
    # only the latest wrong answer is shown, so that the prompt stays bounded
    assert len(model.requests[2].messages) == len(ASK) + 2


@pytest.mark.parametrize("repairs", [0, 1])
async def test_fewer_repairs_can_be_asked_for(repairs: int):
    model = ScriptedModel(lambda _: "nothing")
    with pytest.raises(StructuredOutputError, match="no complete JSON"):
        await complete_structured(model, ASK, BRIEF, repairs=repairs)
    assert len(model.requests) == repairs + 1


@pytest.mark.parametrize("repairs", [-1, 3])
async def test_repairs_are_bounded(repairs: int):
    with pytest.raises(UsageError):
        await complete_structured(ScriptedModel([]), ASK, BRIEF, repairs=repairs)


async def test_an_answer_that_was_cut_off_is_asked_for_shorter():
    model = ScriptedModel([cut('{"title": "t", "points": ["a'), GOOD])
    assert (await complete_structured(model, ASK, BRIEF))[0] == GOOD
    assert "cut off after 64 tokens" in model.requests[1].messages[-1].content
    assert "shorter" in model.requests[1].messages[-1].content


async def test_after_a_cut_the_schema_bounds_lists_and_texts():
    model = ScriptedModel([cut('{"title": "t", "points": ["a'), cut('{"title": "t'), GOOD])
    assert (await complete_structured(model, ASK, BRIEF))[0] == GOOD
    schemas = [request.schema or {} for request in model.requests]
    assert schemas[0] == BRIEF.json_schema()
    assert schemas[1]["properties"] == {
        "title": {"type": "string", "maxLength": 25},
        "points": {"type": "array", "items": {"type": "string", "maxLength": 25}, "maxItems": 4},
    }
    assert schemas[2]["properties"]["points"]["maxItems"] == 2
    for schema in schemas[1:]:
        assert jsonschema.Draft202012Validator(schema).is_valid(GOOD)


def test_shortening_keeps_enums_and_narrower_bounds():
    kept = {"anyOf": [{"type": "string", "enum": ["a" * 99]}, {"type": "null"}]}
    assert shortened(kept, 10, 2) == kept
    narrow = {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 1, "minItems": 1}
    assert shortened(narrow, 100, 4) == narrow
    least = {"type": "array", "items": {}, "minItems": 6}
    assert shortened(least, 10, 2) == {**least, "maxItems": 6}
    named = closed_object(maxLength={"type": "boolean"}, type={"type": "string"})
    assert shortened(named, 100, 2)["properties"]["maxLength"] == {"type": "boolean"}


async def test_an_answer_that_stays_cut_off_names_max_tokens():
    with pytest.raises(StructuredOutputError, match="cut off") as caught:
        await complete_structured(ScriptedModel(lambda _: cut('{"title": "')), ASK, BRIEF)
    assert "max_tokens" in caught.value.mend


async def test_a_whole_value_in_an_answer_that_was_cut_off_is_good():
    model = ScriptedModel([cut(f"{json.dumps(GOOD)} and then I would like to add that")])
    assert (await complete_structured(model, ASK, BRIEF))[0] == GOOD


async def test_long_wrong_answers_and_errors_are_quoted_in_part():
    model = ScriptedModel(["x" * 50_000, {f"k{n}": "v" * 5000 for n in range(40)}, GOOD])
    await complete_structured(model, ASK, BRIEF)
    assert all(len(m.content) < 2000 for request in model.requests for m in request.messages)


async def test_no_room_for_a_repair_keeps_the_reason():
    with pytest.raises(StructuredOutputError, match="no complete JSON") as caught:
        await complete_structured(ScriptedModel(["words", ContextTooLong("full")]), ASK, BRIEF)
    assert isinstance(caught.value.__cause__, ContextTooLong)
    with pytest.raises(ContextTooLong):
        await complete_structured(ScriptedModel([ContextTooLong("full")]), ASK, BRIEF)


async def test_the_models_own_errors_pass_through():
    with pytest.raises(ProviderError, match="down"):
        await complete_structured(ScriptedModel([ProviderError("down")]), ASK, BRIEF)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "{" * 9000 + "}" * 9000, '{"a": NaN}', ""])
def test_hostile_text_is_no_json_and_no_crash(text: str):
    assert not [value for value in json_candidates(text) if value]


def test_the_first_valid_value_is_read():
    form = JsonForm.of(BRIEF)
    assert read_json(f'{{"title": 1}} {json.dumps(GOOD)}', form.check) == (GOOD, "")
    value, problem = read_json("", form.check)
    assert (value, problem) == (None, "it is empty")


async def test_any_form_can_be_asked_for():
    def even(value: object) -> int:
        if not isinstance(value, int) or value % 2:
            raise ValueError("must be even")
        return value

    form = JsonForm({"type": "integer"}, "an even number", even)
    model = ScriptedModel(["3", "4"])
    assert (await complete_json(model, ASK, form))[0] == 4
    assert "must be even" in model.requests[1].messages[-1].content
