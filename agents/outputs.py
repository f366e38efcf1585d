"""The types that tasks hand to one another, as data: `str`, `list[int]`, `{title: str}`, `[low, high]`.

One small language serves YAML, JSON, the database and Python: a type written as a pydantic class and the same
type written as YAML compare equal. It is closed and finite, so every type has an inlined JSON Schema that
constrained decoding takes (llama.cpp grammars, OpenAI's strict mode).

    "str" "int" "float" "bool" "any" "object"       scalars; `object` is a JSON object of unknown fields
    "list[T]" "dict[str, T]"                        [T] is the same as list[T] where T is a mapping
    "T?" "T | null"                                 T or null
    [low, high]                                     one of these strings
    {title: str, points: list[str]}                 exactly these fields
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from ..memory.errors import UsageError

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator

Kind = Literal["str", "int", "float", "bool", "any", "object", "list", "dict", "optional", "enum", "record"]
SCALARS: tuple[Kind, ...] = ("str", "int", "float", "bool", "any", "object")
#: how deep types may nest: deeper ones are a mistake, and grammars for them explode
MAX_DEPTH = 16

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option most like `word`, or None when none is like it."""
    by_lower = {option.lower(): option for option in options}
    found = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


@dataclass(frozen=True, slots=True)
class OutputType:
    """A type of the language. Build with `parse` (data) or `of` (Python types); compare with ==."""

    kind: Kind
    #: the element of a list, the value of a dict, the type beside null
    inner: OutputType | None = None
    #: the strings of an enum
    values: tuple[str, ...] = ()
    #: the fields of a record, in the order in which a model writes them
    fields: tuple[tuple[str, OutputType], ...] = ()

    @classmethod
    def parse(cls, spec: Any) -> OutputType:
        """The type that `spec` (a string, a list or a mapping, as read from YAML or JSON) stands for.

        Raises:
            UsageError: it is no type; the mend names the nearest one.
        """
        from .type_text import parse_type

        return parse_type(spec)

    @classmethod
    def of(cls, python: Any) -> OutputType:
        """The type of a Python type: builtins, list[X], Literal, Enum, X | None, dataclass, pydantic model.

        Data (a string, a list, a mapping) is parsed. Constraints beyond the type (a minimum, a pattern) are
        not kept.

        Raises:
            UsageError: the language cannot say this type.
        """
        from .python_types import type_of

        return type_of(python)

    @property
    def spec(self) -> Any:
        """The canonical, JSON-able form: `parse(t.spec) == t`."""
        if self.kind == "record":
            return {name: kind.spec for name, kind in self.fields}
        return list(self.values) if self.kind == "enum" else str(self)

    def json_schema(self) -> dict[str, Any]:
        """An inlined JSON Schema (no $ref): objects are closed and all their fields required."""
        match self.kind:
            case "list":
                return {"type": "array", "items": self._inner.json_schema()}
            case "dict":
                return {"type": "object", "additionalProperties": self._inner.json_schema()}
            case "optional":
                return {"anyOf": [self._inner.json_schema(), {"type": "null"}]}
            case "enum":
                return {"type": "string", "enum": list(self.values)}
            case "record":
                return {
                    "type": "object",
                    "properties": {name: kind.json_schema() for name, kind in self.fields},
                    "required": [name for name, _ in self.fields],
                    "additionalProperties": False,
                }
        name = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "object": "object"}
        return {"type": name[self.kind]} if self.kind in name else {}

    def validate(self, value: Any) -> Any:
        """`value`, found to be of this type. Strict as JSON is: "3" is no int; an int is a float.

        Raises:
            ValueError: it is not; the message names each field that is wrong.
        """
        from pydantic_core import ValidationError

        try:
            return _validator(self).validate_python(value)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False)
            message = "; ".join(_say_wrong(detail["loc"], detail) for detail in details[:5])
        raise ValueError(message)

    def accepts(self, other: OutputType) -> bool:
        """Whether every value of `other` is a value of this type. `any` fits both ways."""
        if "any" in (self.kind, other.kind) or self == other:
            return True
        if self.kind == "optional":
            return self._inner.accepts(other._inner if other.kind == "optional" else other)
        match self.kind, other.kind:
            case ("float", "int") | ("str", "enum") | ("object", "dict" | "record"):
                return True
            case ("enum", "enum"):
                return set(other.values) <= set(self.values)
            case ("list", "list") | ("dict", "dict"):
                return self._inner.accepts(other._inner)
            case ("dict", "object"):
                return self._inner.kind == "any"
            case ("dict", "record"):
                return all(self._inner.accepts(kind) for _, kind in other.fields)
            case ("record", "record"):
                theirs = dict(other.fields)
                same = theirs.keys() == dict(self.fields).keys()
                return same and all(kind.accepts(theirs[name]) for name, kind in self.fields)
        return False

    def field(self, path: Sequence[str]) -> OutputType | None:
        """The type found by reading the fields of `path` one after another; None: there is no such field."""
        if not path or self.kind == "any":
            return self
        first, rest = path[0], path[1:]
        if self.kind == "optional":
            inner = self._inner.field(path)
            return (
                inner if inner is None or inner.kind in ("any", "optional") else OutputType("optional", inner)
            )
        if self.kind == "record":
            found = dict(self.fields).get(first)
            return None if found is None else found.field(rest)
        if self.kind == "dict":
            return self._inner.field(rest)
        return ANY if self.kind == "object" else None

    def field_names(self) -> tuple[str, ...]:
        """The fields that are known by name; empty for anything but a record (or a record or null)."""
        if self.kind == "optional":
            return self._inner.field_names()
        return tuple(name for name, _ in self.fields)

    def item(self) -> OutputType | None:
        """The type of a list's elements; `any` has elements of any type; None: this is no list."""
        if self.kind == "any":
            return self
        return self._inner if self.kind == "list" else None

    def __str__(self) -> str:
        match self.kind:
            case "list":
                return f"list[{self.inner}]"
            case "dict":
                return f"dict[str, {self.inner}]"
            case "optional":
                return f"{self.inner}?"
            case "enum":
                return "[" + ", ".join(map(_enum_text, self.values)) + "]"
            case "record":
                return "{" + ", ".join(f"{name}: {kind}" for name, kind in self.fields) + "}"
        return self.kind

    @property
    def _inner(self) -> OutputType:
        assert self.inner is not None  # list, dict and optional are only ever built with one
        return self.inner


STR = OutputType("str")
BOOL = OutputType("bool")
ANY = OutputType("any")


def list_of(kind: OutputType) -> OutputType:
    return OutputType("list", kind)


def optional(kind: OutputType) -> OutputType:
    """`kind` or null; null beside null or any adds nothing."""
    return kind if kind.kind in ("optional", "any") else OutputType("optional", kind)


def record(fields: Iterable[tuple[str, OutputType]]) -> OutputType:
    """An object of exactly these fields.

    Raises:
        UsageError: no field, or a name that a placeholder could not read.
    """
    made = tuple(fields)
    if not made:
        raise no_type("an object without fields", 'name its fields ({title: str}), or write "object"')
    for name, _ in made:
        if not NAME.match(name):
            mend = "use letters, digits and _ only, so that {task.field} can read it"
            raise UsageError(f"{name!r} is no name of a field", mend=mend)
    return OutputType("record", fields=made)


def enum_of(values: Sequence[Any]) -> OutputType:
    """One of these strings; a null among them makes the type optional.

    Raises:
        UsageError: a value that is no string, one given twice, or none.
    """
    texts = [value for value in values if value is not None]
    for value in texts:
        if not isinstance(value, str):
            raise UsageError(f"the choice {value!r} is no string", mend=f'put it in quotes: "{value}"')
    if not texts or len(set(texts)) != len(texts) or len(values) - len(texts) > 1:
        raise UsageError(
            f"the choices {list(values)!r:.200} are not one or more different strings", mend="list them"
        )
    if len(values) == 1 and texts[0] in SCALARS:
        raise UsageError(f"[{texts[0]}] would be a choice of one word", mend=f"write list[{texts[0]}]")
    made = OutputType("enum", values=tuple(texts))
    return made if len(texts) == len(values) else optional(made)


def no_type(what: str, mend: str) -> UsageError:
    """The error that says so."""
    return UsageError(f"{what} is no type", mend=mend)


def _enum_text(value: str) -> str:
    return value if NAME.match(value) else json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=512)
def _validator(kind: OutputType) -> SchemaValidator:
    from pydantic_core import SchemaValidator

    return SchemaValidator(_core(kind))


def _core(kind: OutputType) -> Any:
    from pydantic_core import core_schema as core

    match kind.kind:
        case "str":
            return core.str_schema(strict=True)
        case "int":
            return core.int_schema(strict=True)
        case "float":
            return core.float_schema(strict=True, allow_inf_nan=False)
        case "bool":
            return core.bool_schema(strict=True)
        case "object":
            return core.dict_schema(core.str_schema(strict=True), strict=True)
        case "list":
            return core.list_schema(_core(kind._inner), strict=True)
        case "dict":
            return core.dict_schema(core.str_schema(strict=True), _core(kind._inner), strict=True)
        case "optional":
            return core.nullable_schema(_core(kind._inner))
        case "enum":
            return core.literal_schema(list(kind.values))
        case "record":
            fields = {name: core.typed_dict_field(_core(inner), required=True) for name, inner in kind.fields}
            return core.typed_dict_schema(fields, strict=True, extra_behavior="forbid")
    return core.any_schema()


def _say_wrong(place: Sequence[int | str], detail: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in place)
    if detail["type"] == "missing":
        return f"field {where} is missing"
    if detail["type"] == "extra_forbidden":
        return f"field {where} is not asked for"
    text = detail["msg"].removeprefix("Input ")
    found = json.dumps(detail["input"], ensure_ascii=False, default=str)
    return f"{where or 'the value'} {text}, is {found if len(found) <= 60 else found[:57] + '...'}"
