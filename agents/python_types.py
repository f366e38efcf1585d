"""From Python's types to Podium's: what `OutputType.of` does."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence, Set
from typing import Any, NoReturn

from ..memory.errors import UsageError
from .outputs import ANY, BOOL, MAX_DEPTH, STR, OutputType, enum_of, list_of, optional, record

_BUILTIN: dict[Any, OutputType] = {
    str: STR,
    bool: BOOL,
    int: OutputType("int"),
    float: OutputType("float"),
    dict: OutputType("object"),
    list: list_of(ANY),
    tuple: list_of(ANY),
    set: list_of(ANY),
    object: ANY,
    Any: ANY,
}
_LISTS = (Sequence, Set)


def type_of(python: Any, seen: tuple[Any, ...] = ()) -> OutputType:
    """See OutputType.of. `seen`: the classes being read, so that one that holds itself is found."""
    if isinstance(python, OutputType | str) or (
        isinstance(python, Mapping | list) and not isinstance(python, type)
    ):
        return OutputType.parse(python)
    try:
        if python in _BUILTIN:
            return _BUILTIN[python]
    except TypeError:
        _refuse(python)
    if python in seen or len(seen) > MAX_DEPTH:
        raise UsageError(
            f"the type {_name(python)} holds itself", mend="make it flat: the form must be finite"
        )
    origin = typing.get_origin(python)
    if origin is not None:
        return _generic(python, origin, typing.get_args(python), seen)
    if isinstance(python, type):
        return _class(python, (*seen, python))
    if not isinstance(python, typing.NewType):
        _refuse(python)
    return type_of(python.__supertype__, seen)


def _generic(python: Any, origin: Any, args: tuple[Any, ...], seen: tuple[Any, ...]) -> OutputType:
    if origin is typing.Annotated:
        return type_of(args[0], seen)
    if origin is typing.Literal:
        return enum_of(args)
    if origin in (typing.Union, types.UnionType):
        kinds = [type_of(arg, seen) for arg in args if arg is not type(None)]
        if len(kinds) != 1:
            _refuse(python)
        return kinds[0] if len(kinds) == len(args) else optional(kinds[0])
    if isinstance(origin, type) and issubclass(origin, _LISTS):
        members = [arg for arg in args if arg is not Ellipsis]
        if len(members) != 1:
            _refuse(python)
        return list_of(type_of(members[0], seen))
    if not (isinstance(origin, type) and issubclass(origin, Mapping) and args[0] is str):
        _refuse(python)
    return OutputType("dict", type_of(args[1], seen))


def _class(python: type, seen: tuple[Any, ...]) -> OutputType:
    if issubclass(python, enum.Enum):
        return enum_of([member.value for member in python])
    fields: dict[str, Any] | None = None
    if hasattr(python, "model_fields"):
        model: Any = python
        fields = {
            info.serialization_alias or info.alias or name: info.annotation
            for name, info in model.model_fields.items()
        }
    elif dataclasses.is_dataclass(python):
        hints = typing.get_type_hints(python)
        fields = {field.name: hints[field.name] for field in dataclasses.fields(python) if field.init}
    elif typing.is_typeddict(python):
        fields = typing.get_type_hints(python)
    if fields is None:
        _refuse(python)
    return record((name, type_of(kind, seen)) for name, kind in fields.items())


def _name(python: Any) -> str:
    return getattr(python, "__name__", None) or repr(python)


def _refuse(python: Any) -> NoReturn:
    raise UsageError(
        f"{_name(python)} is no type that can be written as JSON",
        mend="use str, int, float, bool, list, dict, Literal, X | None, a dataclass or a pydantic model",
    )
