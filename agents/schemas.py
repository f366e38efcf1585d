"""The part of JSON Schema (2020-12) that tools need: made plain, checked against, and said in few words.

Plain means: no $ref, and no keyword that the grammars of constrained decoding stumble over. The checker is
our own, since its messages are written for a model to act on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..memory.errors import UsageError
from .outputs import nearest

#: parts of a JSON Schema that hold schemas as lists, or alone
_LISTS, _ALONE = ("anyOf", "allOf", "prefixItems"), ("items", "additionalProperties")


def plain(schema: Any, definitions: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """`schema` with its $refs put in place, and without what grammars for decoding do not know."""
    if not isinstance(schema, Mapping):
        return schema
    if reference := schema.get("$ref"):
        name = str(reference).rsplit("/", 1)[-1]
        if name in inside:
            raise UsageError(f"the type {name} contains itself", mend="give the tool a type of finite depth")
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return plain({**definitions[name], **rest}, definitions, (*inside, name))
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("title", "$defs", "discriminator", "pattern"):
            continue
        if key == "properties":
            made[key] = {name: plain(one, definitions, inside) for name, one in value.items()}
        elif key in _LISTS or key == "oneOf":
            made["anyOf" if key == "oneOf" else key] = [plain(one, definitions, inside) for one in value]
        else:
            made[key] = plain(value, definitions, inside) if key in _ALONE else value
    return made


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: math.isfinite(v) if isinstance(v, float) else type(v) is int,
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "array": lambda v: isinstance(v, list | tuple),
    "object": lambda v: isinstance(v, Mapping),
}
#: keyword → (measure of the value, whether it is kept, words)
_BOUNDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda v: v, lambda v, b: v >= b, "must be at least"),
    "maximum": (lambda v: v, lambda v, b: v <= b, "must be at most"),
    "exclusiveMinimum": (lambda v: v, lambda v, b: v > b, "must be greater than"),
    "exclusiveMaximum": (lambda v: v, lambda v, b: v < b, "must be less than"),
    "minLength": (len, lambda v, b: v >= b, "has too few characters, at least"),
    "maxLength": (len, lambda v, b: v <= b, "has too many characters, at most"),
    "minItems": (len, lambda v, b: v >= b, "has too few items, at least"),
    "maxItems": (len, lambda v, b: v <= b, "has too many items, at most"),
}


def problems(schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
    """What is wrong with `value` by the part of JSON Schema (2020-12) that `describe` writes."""
    if branches := schema.get("anyOf"):
        found = [list(problems(branch, value, where)) for branch in branches]
        if all(found):
            yield min(found, key=len)[0] if len(found) == 1 else f"{where} must be {schema_text(schema)}"
        return
    kind = schema.get("type")
    if kind in _TYPES and not _TYPES[kind](value):
        yield f"{where} must be {schema_text(schema)}, not {_short(value)}"
        return
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices is not None and value not in choices:
        yield f"{where} must be one of {', '.join(map(json.dumps, choices))}, not {_short(value)}"
    for keyword, (measure, keeps, words) in _BOUNDS.items():
        if keyword in schema and kind in _TYPES and not keeps(measure(value), schema[keyword]):
            yield f"{where} {words} {schema[keyword]}"
    if isinstance(value, Mapping):
        yield from _object_problems(schema, value, where)
    elif isinstance(value, list | tuple):
        heads = schema.get("prefixItems", [])
        for position, one in enumerate(value):
            part = heads[position] if position < len(heads) else schema.get("items")
            if isinstance(part, Mapping):
                yield from problems(part, one, f"{where}[{position}]")


def _object_problems(schema: Mapping[str, Any], value: Mapping[str, Any], where: str) -> Iterator[str]:
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            yield f"{where}.{name} is missing"
    for name, one in value.items():
        part = known.get(name, others)
        if part is False:
            hint = nearest(name, known)
            yield f"{where}.{name} is unknown" + (f", did you mean {hint!r}?" if hint else "")
        elif isinstance(part, Mapping):
            yield from problems(part, one, f"{where}.{name}")


def schema_text(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in few tokens: `string`, `integer[]`, `"a"|"b"`, `{city: string, limit?: integer}`."""
    if "anyOf" in schema:
        text = "|".join(schema_text(one) for one in schema["anyOf"])
    elif "enum" in schema or "const" in schema:
        text = "|".join(map(json.dumps, schema.get("enum", [schema.get("const")])))
    elif schema.get("type") == "array":
        inner = schema_text(schema.get("items") or {})
        text = f"{inner}[]" if inner.isalpha() else f"({inner})[]"
    elif schema.get("properties"):
        text = f"{{{fields_text(schema)}}}"
    else:
        text = str(schema.get("type", "any"))
        text += f" ({schema['format']})" if "format" in schema else ""
    return text


def fields_text(schema: Mapping[str, Any]) -> str:
    """The properties of an object's schema: `city: string, limit?: integer (how many)`."""
    required = schema.get("required", [])
    parts = []
    for name, one in schema.get("properties", {}).items():
        note = f" ({one['description']})" if "description" in one else ""
        parts.append(f"{name}{'' if name in required else '?'}: {schema_text(one)}{note}")
    return ", ".join(parts)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}…"
