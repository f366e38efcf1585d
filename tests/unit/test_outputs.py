"""The types that tasks hand to one another."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.agents.outputs import ANY, STR, OutputType, list_of, nearest, optional, record
from podium.memory.errors import UsageError
from pydantic import BaseModel, Field

parse = OutputType.parse


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Point(BaseModel):
    text: str
    weight: float = Field(ge=0)


class Brief(BaseModel):
    title: str
    points: list[Point]
    level: Level
    note: str | None = None


@dataclass
class Row:
    name: str
    counts: dict[str, int]


class Pair(TypedDict):
    left: int
    right: bool


class Node(BaseModel):
    children: list[Node]


names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
types = st.recursive(
    st.sampled_from([OutputType(kind) for kind in ("str", "int", "float", "bool", "any", "object")])
    | st.lists(st.text(max_size=5), min_size=2, max_size=3, unique=True).map(OutputType.parse),
    lambda inner: (
        inner.map(list_of)
        | inner.map(optional)
        | inner.map(lambda kind: OutputType("dict", kind))
        | st.dictionaries(names, inner, min_size=1, max_size=3).map(lambda fields: record(fields.items()))
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("str", "str"),
        (" list[ str ] ", "list[str]"),
        ("dict[str,int]", "dict[str, int]"),
        ("str | null", "str?"),
        ("str??", "str?"),
        ("any?", "any"),
        (["low", "high"], ["low", "high"]),
        (["low", None, "high"], "[low, high]?"),
        ("[low, high]", ["low", "high"]),
        ({"a": "str", "b": {"c": "list[int]"}}, {"a": "str", "b": {"c": "list[int]"}}),
        ([{"a": "str"}], "list[{a: str}]"),
        ([["low", "high"]], "list[[low, high]]"),
        ("list[{a: str, b: int?}]", "list[{a: str, b: int?}]"),
        (["a b", 'say "x"'], ["a b", 'say "x"']),
    ],
)
def test_every_way_of_writing_has_one_canonical_form(written: Any, canonical: Any) -> None:
    assert parse(written).spec == canonical
    assert parse(canonical) == parse(written)
    assert parse(str(parse(written))) == parse(written)


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ("strin", "did you mean str?"),
        ("string", "did you mean str?"),
        ("integer", "did you mean int?"),
        ("lst[str]", "did you mean list[...]?"),
        ("list", "did you mean list[any]?"),
        ("list[str", "write a type"),
        ("", "write a type"),
        ("str | int", "only null"),
        ("dict[int, str]", "keys of a dict are str"),
        ("{a: str, a: int}", "each field once"),
        ("xyzzy", "use one of str"),
        (["str"], "write list[str]"),
        ([], "list"),
        (["a", "a"], "list"),
        ([1, 2], 'put it in quotes: "1"'),
        ({}, "name its fields"),
        ({"a-b": "str"}, "letters, digits and _"),
        (None, '"str?" allows null'),
        (7, "write a type"),
        ("list[" * 40 + "str" + "]" * 40, "make it flatter"),
    ],
)
def test_what_is_no_type_is_refused_with_the_mend(written: Any, mend: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(written)
    assert mend in caught.value.mend


def test_a_pydantic_class_and_its_yaml_form_are_the_same_type() -> None:
    written = {
        "title": "str",
        "points": "list[{text: str, weight: float}]",
        "level": ["low", "high"],
        "note": "str?",
    }
    assert OutputType.of(Brief) == parse(written)


@pytest.mark.parametrize(
    ("python", "spec"),
    [
        (str, "str"),
        (dict, "object"),
        (list, "list[any]"),
        (Any, "any"),
        (Sequence[int], "list[int]"),
        (tuple[str, ...], "list[str]"),
        (dict[str, list[float]], "dict[str, list[float]]"),
        (Optional[int], "int?"),  # noqa: UP045
        (int | None, "int?"),
        (Literal["a", "b"], ["a", "b"]),
        (Level, ["low", "high"]),
        (Annotated[int, "unit"], "int"),
        (NewType("Name", str), "str"),
        (Row, {"name": "str", "counts": "dict[str, int]"}),
        (Pair, {"left": "int", "right": "bool"}),
        ("list[str]", "list[str]"),
        ({"a": "int"}, {"a": "int"}),
    ],
)
def test_python_types(python: Any, spec: Any) -> None:
    assert OutputType.of(python).spec == spec


@pytest.mark.parametrize("python", [int | str, dict[int, str], bytes, Node, tuple[int, str], Literal[1], len])
def test_python_types_that_json_cannot_say_are_refused(python: Any) -> None:
    with pytest.raises(UsageError) as caught:
        OutputType.of(python)
    assert caught.value.mend


def test_json_schema_is_inlined_closed_and_complete() -> None:
    schema = OutputType.of(Brief).json_schema()
    assert schema["required"] == ["title", "points", "level", "note"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["level"] == {"type": "string", "enum": ["low", "high"]}
    assert schema["properties"]["points"]["items"]["required"] == ["text", "weight"]
    assert "$ref" not in str(schema)


@pytest.mark.parametrize(
    ("spec", "value", "said"),
    [
        ("int", "3", "valid integer"),
        ("int", True, "valid integer"),
        ("str", 3, "valid string"),
        ("float", float("nan"), "finite"),
        ({"a": "str"}, {}, "field a is missing"),
        ({"a": "str"}, {"a": "x", "b": 1}, "field b is not asked for"),
        ({"a": {"b": "list[int]"}}, {"a": {"b": [1, "x"]}}, "a.b.1"),
        (["low", "high"], "mid", "'low' or 'high'"),
        ("list[str]", "x", "valid list"),
    ],
)
def test_validate_refuses_and_names_the_field(spec: Any, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(spec).validate(value)


def test_validate_takes_what_json_means() -> None:
    assert parse("float").validate(3) == 3.0
    assert parse("str?").validate(None) is None
    assert parse("any").validate({"x": [1]}) == {"x": [1]}
    assert parse({"a": "dict[str, int]"}).validate({"a": {"x": 1}}) == {"a": {"x": 1}}


@pytest.mark.parametrize(
    ("wanted", "given_", "fits"),
    [
        ("float", "int", True),
        ("int", "float", False),
        ("str", ["a", "b"], True),
        (["a", "b"], "str", False),
        (["a", "b", "c"], ["a", "b"], True),
        (["a", "b"], ["a", "b", "c"], False),
        ("list[float]", "list[int]", True),
        ("list[str]", "str", False),
        ("str?", "str", True),
        ("str", "str?", False),
        ("str?", "str?", True),
        ("any", "list[int]", True),
        ("list[int]", "any", True),
        ("object", {"a": "int"}, True),
        ("dict[str, float]", {"a": "int"}, True),
        ("dict[str, int]", {"a": "str"}, False),
        ("dict[str, int]", "object", False),
        ({"a": "float"}, {"a": "int"}, True),
        ({"a": "int"}, {"a": "int", "b": "int"}, False),
    ],
)
def test_accepts(wanted: Any, given_: Any, fits: bool) -> None:
    assert parse(wanted).accepts(parse(given_)) is fits


def test_fields_and_items() -> None:
    kind = parse({"a": {"b": "list[int]"}, "d": "dict[str, bool]", "o": "object", "n": "{x: int}?"})
    assert str(kind.field(["a", "b"])) == "list[int]"
    assert kind.field(["a", "c"]) is None
    assert str(kind.field(["d", "whatever"])) == "bool"
    assert kind.field(["o", "whatever", "deep"]) == ANY
    assert str(kind.field(["n", "x"])) == "int?"
    assert STR.field(["x"]) is None
    assert ANY.field(["x", "y"]) == ANY
    assert parse("list[int]").item() == parse("int")
    assert ANY.item() == ANY
    assert STR.item() is None


def test_nearest() -> None:
    assert nearest("Sumaries", ["summaries", "brief"]) == "summaries"
    assert nearest("xyz", ["summaries"]) is None


@given(types)
@settings(max_examples=80, deadline=None)
def test_spec_text_and_schema_agree(kind: OutputType) -> None:
    assert parse(kind.spec) == kind
    assert parse(str(kind)) == kind
    assert kind.accepts(kind)
    jsonschema.Draft202012Validator.check_schema(kind.json_schema())


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
@settings(max_examples=150, deadline=None)
def test_any_data_is_a_type_or_a_usage_error(data: Any) -> None:
    try:
        made: OutputType | UsageError = parse(data)
    except UsageError as error:
        made = error
    assert made.mend if isinstance(made, UsageError) else parse(made.spec) == made
