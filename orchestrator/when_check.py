"""Whether a condition can be asked of a value of a type: {field, op, literal} against an OutputType."""

from __future__ import annotations

from typing import Any

from ..agents.outputs import STR, OutputType, optional
from .parts import When
from .problems import did_you_mean

_ORDERED = (">", ">=", "<", "<=")


def when_problem(when: When, kind: OutputType) -> tuple[str, str] | None:
    """Why a condition cannot be asked of a value of type `kind`, and the mend; None: it can."""
    bare = kind.inner if kind.kind == "optional" and kind.inner else kind
    if bare.kind == "any":
        return None
    if when.op in _ORDERED:
        if bare.kind not in ("int", "float"):
            return (
                f"{when.field} is {kind}: {when.op} compares numbers only",
                "use == or !=, or make it a number",
            )
        return _literal(when, OutputType("float"), when.value)
    if when.op == "in":
        if not isinstance(when.value, list) or not when.value:
            return "in needs a list of values", "write value: [a, b]"
        return next((wrong for value in when.value if (wrong := _literal(when, kind, value))), None)
    if when.op == "contains":
        if bare.kind in ("str", "enum"):
            return _literal(when, STR, when.value)
        if bare.kind in ("record", "dict", "object"):
            return _literal(when, STR, when.value)
        inner = bare.item()
        if inner is None:
            return f"{when.field} is {kind} and contains nothing", "use =="
        return _literal(when, inner, when.value)
    return _literal(when, optional(kind), when.value)


def _literal(when: When, kind: OutputType, value: Any) -> tuple[str, str] | None:
    try:
        kind.validate(value)
    except ValueError:
        bare = kind.inner if kind.kind == "optional" and kind.inner else kind
        mend = (
            did_you_mean(str(value), bare.values) if bare.values else f"compare with a value of type {bare}"
        )
        return f"{when.field} is never {value!r}: it is {bare}", mend
    return None
