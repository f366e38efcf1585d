"""Tools: what a function may be, what its schema says, which arguments and results pass."""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from podium.agents.schemas import schema_text
from podium.agents.tools import (
    Tool,
    call_tool,
    check_names,
    describe,
    describe_refs,
    load_function,
    tool,
    validate_arguments,
)
from podium.memory.errors import TaskError, UsageError
from pydantic import BaseModel, Field


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    city: str
    kind: Literal["home", "work"] = "home"


class Tree(BaseModel):
    children: list[Tree] = []


@dataclass
class Found:
    name: str
    day: date


@tool(effect="read")
def lookup(
    place: Place,
    limit: Annotated[int, Field(ge=1, le=10, description="how many")] = 3,
    *,
    color: Color | None = None,
    schema: str = "s",
) -> Found:
    """Streets of a place.

    Sorted by name.
    """
    return Found(f"{place.city}/{limit}/{color}/{schema}", date(2024, 2, 29))


@tool
def bare(day: date) -> str:
    return day.isoformat()


@tool(effect="write", name="save-file")
async def save(name: str) -> dict[str, Any]:
    return {"saved": name}


def undecorated(a: int, b: float) -> float:
    return a * b


def untyped(a, b: int) -> int:
    return b


def starred(*names: str) -> int:
    return len(names)


def positional(a: int, /) -> int:
    return a


def takes_object(a: Iterator[Any], b: "type[Unheard]") -> int:  # type: ignore[name-defined]  # noqa: F821, UP037
    return 1


def recursive(tree: Tree) -> int:
    return len(tree.children)


def gives_object() -> object:
    return object()


def gives_nan() -> float:
    return float("nan")


def gives_endless() -> Iterator[int]:
    yield 1


def fails(a: int) -> int:
    raise KeyError(f"no {a}")


def test_a_tool_is_described_by_its_signature_and_docstring():
    made = describe(lookup)
    assert made.name == "lookup"
    assert made.ref == f"{__name__}:lookup"
    assert made.description == "Streets of a place.\n\nSorted by name."
    assert made.effect == "read"
    assert not made.needs_approval
    assert made.parameters["required"] == ["place"]
    assert made.parameters["properties"]["limit"] == {
        "default": 3,
        "description": "how many",
        "maximum": 10,
        "minimum": 1,
        "type": "integer",
    }
    assert "$ref" not in json.dumps(made.parameters)
    jsonschema.Draft202012Validator.check_schema(dict(made.parameters))


def test_the_signature_says_the_schema_in_few_words():
    assert describe(lookup).signature() == (
        'lookup(place: {city: string, kind?: "home"|"work"}, limit?: integer (how many), '
        'color?: "red"|"blue"|null, schema?: string)'
    )
    assert schema_text({"type": "array", "items": {"type": "string"}}) == "string[]"
    assert schema_text({"type": "array", "items": {"enum": ["a", 1]}}) == '("a"|1)[]'


def test_effects_default_to_the_most_careful_one():
    assert [describe(f).effect for f in (lookup, bare, save, undecorated)] == [
        "read",
        "exec",
        "write",
        "exec",
    ]
    assert [describe(f).needs_approval for f in (lookup, bare, save, undecorated)] == [
        False,
        True,
        True,
        True,
    ]
    assert describe(save).name == "save-file"


def test_a_tool_is_json_and_back():
    made = describe(lookup)
    assert Tool.from_data(json.loads(json.dumps(made.to_data()))) == made


def test_the_decorator_leaves_the_function_as_it_is():
    assert bare(date(2024, 1, 2)) == "2024-01-02"
    assert tool(effect="send")(undecorated) is undecorated
    del undecorated.__podium_tool__  # type: ignore[attr-defined]


@pytest.mark.parametrize(("options", "word"), [({"effect": "reads"}, "effect"), ({"name": "a b"}, "name")])
def test_the_decorator_refuses_what_it_does_not_know(options: dict[str, Any], word: str):
    with pytest.raises(UsageError, match=word):
        tool(**options)


def _closure() -> Any:
    outer = 1

    def inner(a: int) -> int:
        return a + outer

    return inner


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a: a, "a lambda cannot be a tool"),
        (_closure(), "inside another function"),
        (print, "cannot be given by name"),
        (Place, "is no plain function"),
        (untyped, "'a' has no type"),
        (starred, "'names' cannot be given by name"),
        (positional, "'a' cannot be given by name"),
        (takes_object, "takes_object"),
        (recursive, "contains itself"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_the_mend(function: Any, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        describe(function)
    assert caught.value.mend


def test_a_function_of_the_main_script_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(undecorated, "__module__", "__main__")
    with pytest.raises(UsageError, match="script that runs"):
        describe(undecorated)


def test_refs_are_imported_and_described(tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "podium_mytools.py").write_text(
        "from podium.agents.tools import tool\n"
        "@tool(effect='read')\ndef add(a: int, b: int = 1) -> int:\n    'Adds.'\n    return a + b\n"
        "class Group:\n    @staticmethod\n    def minus(a: int) -> int:\n        return -a\n"
        "@tool(name='add')\ndef other(a: int) -> int:\n    return a\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = describe_refs(["podium_mytools:add", "podium_mytools:Group.minus"])
    assert [Tool.from_data(one).name for one in json.loads(json.dumps(data))] == ["add", "minus"]
    assert data[1]["ref"] == "podium_mytools:Group.minus"
    assert load_function("podium_mytools:Group.minus")(3) == -3
    with pytest.raises(UsageError, match="two tools are named 'add'"):
        describe_refs(["podium_mytools:add", "podium_mytools:other"])
    with pytest.raises(UsageError) as caught:
        describe_refs(["podium_mytools:ad"])
    assert "did you mean 'add'" in caught.value.mend


@pytest.mark.parametrize("ref", ["podium_no_such_module:f", "nocolon", "json:", ":f", "json:nothing_like_it"])
def test_a_ref_without_a_function_is_a_usage_error(ref: str):
    with pytest.raises(UsageError) as caught:
        load_function(ref)
    assert caught.value.mend


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(UsageError, match="two tools"):
        check_names([describe(lookup), describe(lookup)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "arguments.place is missing"),
        ([], "arguments must be {place"),
        ({"place": {"city": 1}}, "arguments.place.city must be string, not 1"),
        ({"place": {"city": "x", "kind": "hom"}}, 'arguments.place.kind must be one of "home", "work"'),
        ({"place": {"city": "x"}, "limit": 11}, "arguments.limit must be at most 10"),
        ({"place": {"city": "x"}, "limit": True}, "arguments.limit must be integer"),
        ({"place": {"city": "x"}, "limit": 2.5}, "arguments.limit must be integer"),
        ({"place": {"city": "x"}, "color": "green"}, 'arguments.color must be "red"|"blue"|null'),
        ({"place": {"city": "x"}, "limits": 1}, "arguments.limits is unknown, did you mean 'limit'?"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, message: str):
    made = describe(lookup)
    with pytest.raises(TaskError) as caught:
        validate_arguments(made, arguments)
    assert message in caught.value.message
    assert not caught.value.retryable
    assert made.signature() in caught.value.mend
    assert not jsonschema.Draft202012Validator(dict(made.parameters)).is_valid(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"place": {"city": "x"}},
        {"place": {"city": "x", "kind": "work"}, "limit": 10, "color": None, "schema": ""},
        {"place": {"city": "x"}, "color": "red"},
    ],
)
async def test_right_arguments_pass_and_are_converted(arguments: dict[str, Any]):
    made = describe(lookup)
    assert validate_arguments(made, arguments) == arguments
    assert jsonschema.Draft202012Validator(dict(made.parameters)).is_valid(arguments)
    result = await call_tool(lookup, arguments)
    assert result["day"] == "2024-02-29"
    assert result["name"].startswith("x/")


def test_lists_and_numbers_are_checked():
    schema = {
        "type": "object",
        "properties": {
            "xs": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "maxItems": 2},
            "m": {"type": "object", "additionalProperties": {"type": "string", "minLength": 2}},
        },
        "required": [],
        "additionalProperties": False,
    }
    made = Tool("t", "m:t", "", "read", schema)
    assert validate_arguments(made, {"xs": [1, 2.5], "m": {"k": "ab"}})
    for wrong in ({"xs": [0]}, {"xs": [1, 1, 1]}, {"xs": [float("inf")]}, {"m": {"k": "a"}}, {"m": {"k": 1}}):
        with pytest.raises(TaskError):
            validate_arguments(made, wrong)


async def test_plain_and_async_functions_are_called():
    assert await call_tool(undecorated, {"a": 2, "b": 1.5}) == 3.0
    assert await call_tool(save, {"name": "f"}) == {"saved": "f"}
    assert await call_tool(bare, {"day": "2024-02-29"}) == "2024-02-29"


@pytest.mark.parametrize("arguments", [{"day": "no day"}, {}, {"day": "2024-01-01", "x": 1}])
async def test_arguments_that_the_types_refuse_do_not_reach_the_function(arguments: dict[str, Any]):
    with pytest.raises(TaskError) as caught:
        await call_tool(bare, arguments)
    assert not caught.value.retryable
    assert "day" in caught.value.message or "x" in caught.value.message


async def test_the_functions_own_error_passes_through():
    with pytest.raises(KeyError, match="no 7"):
        await call_tool(fails, {"a": 7})


@pytest.mark.parametrize("function", [gives_object, gives_nan, gives_endless])
async def test_a_result_that_json_cannot_hold_is_refused(function: Any):
    with pytest.raises(TaskError, match="JSON cannot hold") as caught:
        await call_tool(function, {})
    assert not caught.value.retryable
    assert caught.value.mend


class Old(typing.TypedDict):
    text: str


def takes_old(old: Old) -> str:
    """Takes the TypedDict of typing, which pydantic refuses before Python 3.12."""
    return old["text"]


async def test_a_type_that_pydantic_cannot_check_is_refused_with_the_mend() -> None:
    if sys.version_info >= (3, 12):
        assert await call_tool(takes_old, {"old": {"text": "x"}}) == "x"
    else:
        with pytest.raises(UsageError, match="cannot be checked"):
            await call_tool(takes_old, {"old": {"text": "x"}})
