"""Tools: typed Python functions that an agent may call, and what an agent may know of them.

    @tool(effect="read")
    def lookup(city: str, limit: int = 5) -> list[str]:
        '''Streets of a city.'''

A function is imported only in an isolated worker process: there `describe_refs` turns it into a `Tool`, which
is plain data, and `call_tool` runs it. The process that owns the run keeps the `Tool` only, and checks
arguments against its schema before anything is sent (`validate_arguments`).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args, overload

from ..memory.errors import TaskError, UsageError
from .outputs import nearest
from .schemas import fields_text, plain, problems

Effect = Literal["read", "write", "send", "exec"]
Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__podium_tool__"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Tool:
    """What is known of a tool outside the process that runs it. JSON-able: `from_data(t.to_data()) == t`."""

    name: str
    #: where the function is: "module:name"
    ref: str
    #: the function's docstring
    description: str
    #: what a call does to the world; everything but "read" needs a person's approval
    effect: Effect
    #: JSON Schema of the arguments: a closed object, without $ref
    parameters: Mapping[str, Any]

    @property
    def needs_approval(self) -> bool:
        return self.effect != "read"

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Tool:
        return cls(**data)

    def signature(self) -> str:
        """`name(city: string, limit?: integer)`: the schema as a model reads it with the fewest tokens."""
        return f"{self.name}({fields_text(self.parameters)})"


@overload
def tool(function: Function, /) -> Function: ...
@overload
def tool(*, effect: Effect = "exec", name: str | None = None) -> Callable[[Function], Function]: ...
def tool(function: Any = None, /, *, effect: Effect = "exec", name: str | None = None) -> Any:
    """Mark a typed function as a tool; the function itself stays as it is.

    Args:
        effect: "read" looks only; "write" changes data, "send" leaves the machine, "exec" runs code: these
            three need a person's approval before each call. Unsaid it is "exec", the most careful one; so is
            it for a function without this decorator.
        name: how the model calls it; the function's name unless given.

    Raises:
        UsageError: an unknown effect, or a name that is not letters, digits, _ and -.
    """
    if effect not in get_args(Effect):
        raise UsageError(f"no effect {effect!r}", mend=f"use one of {', '.join(get_args(Effect))}")
    if name is not None and not _NAME.match(name):
        raise UsageError(f"{name!r} is no tool name", mend="use letters, digits, _ and -, at most 64")

    def mark(target: Function) -> Function:
        setattr(target, _MARK, (effect, name))
        return target

    return mark if function is None else mark(function)


def describe(function: Callable[..., Any]) -> Tool:
    """The Tool that a function is.

    Raises:
        UsageError: a lambda, a closure, a function of `__main__`, or one whose parameters are not typed, not
            named, or of a type that JSON cannot say.
    """
    ref = _ref(function)
    effect, name = getattr(function, _MARK, ("exec", None))
    return Tool(
        name=name or function.__name__,
        ref=ref,
        description=inspect.cleandoc(function.__doc__ or ""),
        effect=effect,
        parameters=_parameters(function),
    )


def load_function(ref: str) -> Callable[..., Any]:
    """The function at "module:name". This imports the user's module: call it in an isolated process.

    Raises:
        UsageError: no such module or name; the mend names the nearest one.
    """
    module_name, colon, path = ref.partition(":")
    if not (module_name and colon and path):
        raise UsageError(
            f"{ref!r} names no function", mend='write it as "module:name", e.g. "mytools:lookup"'
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"tool {ref}: {error}", mend="start from the folder that holds the module, or install the package"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            hint = nearest(part, (name for name in dir(found) if not name.startswith("_")))
            raise UsageError(
                f"tool {ref}: {module_name} has no {part!r}",
                mend=f"did you mean {hint!r}?" if hint else f"define {part} in {module_name}",
            )
        found = getattr(found, part)
    return found


def describe_refs(refs: Sequence[str]) -> list[dict[str, Any]]:
    """`Tool.to_data()` of the functions at `refs`, in order. Imports the users' modules: run it isolated.

    Raises:
        UsageError: a ref without a function, a function that can be no tool, or two tools of one name.
    """
    tools = [describe(load_function(ref)) for ref in refs]
    check_names(tools)
    return [{**one.to_data(), "ref": ref} for one, ref in zip(tools, refs, strict=True)]


def check_names(tools: Sequence[Tool]) -> None:
    """Raises UsageError when two tools have the same name: the model could not tell them apart."""
    seen: dict[str, Tool] = {}
    for one in tools:
        if one.name in seen:
            raise UsageError(
                f"two tools are named {one.name!r}: {seen[one.name].ref} and {one.ref}",
                mend='rename one with @tool(name="…")',
            )
        seen[one.name] = one


def validate_arguments(tool: Tool, arguments: Any) -> dict[str, Any]:
    """`arguments`, found to satisfy the tool's schema; the function is not imported.

    Raises:
        TaskError: they do not; the message names every wrong field in words that a model can act on.
    """
    wrong = list(problems(tool.parameters, arguments, "arguments"))
    if wrong:
        raise TaskError("; ".join(wrong[:5]), retryable=False, mend=f"call {tool.signature()}")
    return dict(arguments)


async def call_tool(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call `function` with JSON arguments and return its JSON-able result.

    Arguments are converted to the parameters' types (dates, enums, pydantic models …). A coroutine is
    awaited; a plain function runs on the caller's thread. The function's own exceptions pass through.

    Raises:
        TaskError: arguments that the types refuse, or a result that JSON cannot hold. Not retryable.
    """
    from pydantic import ValidationError
    from pydantic_core import ArgsKwargs

    try:
        args, kwargs = _arguments_adapter(function).validate_python(ArgsKwargs((), dict(arguments)))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors(include_url=False)
        )
        raise TaskError(
            wrong, retryable=False, mend=f"call {function.__name__} with arguments of its types"
        ) from error
    result = function(*args, **kwargs)
    if inspect.isawaitable(result):
        result = await result
    return _jsonable(result, function.__name__)


def _ref(function: Any) -> str:
    if not (inspect.isfunction(function) or inspect.isbuiltin(function)):
        raise UsageError(
            f"{function!r} is no plain function", mend="write a function at the top of a module that calls it"
        )
    name = function.__qualname__
    if "<lambda>" in name or "<locals>" in name:
        what = "a lambda" if "<lambda>" in name else f"{name}, defined inside another function,"
        raise UsageError(
            f"{what} cannot be a tool: the process that runs it could not import it",
            mend="define it with `def` at the top of a module, and pass what it closes over as an argument",
        )
    if function.__module__ == "__main__":
        raise UsageError(
            f"{name} is defined in the script that runs, which no other process can import",
            mend="move it to a module of its own, e.g. mytools.py, and import it from there",
        )
    return f"{function.__module__}:{name}"


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
    from pydantic.json_schema import GenerateJsonSchema

    class Quiet(GenerateJsonSchema):
        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's form

    where = f"{function.__module__}:{function.__qualname__}"
    for parameter in _signature(function, where).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UsageError(
                f"tool {where}: the parameter {parameter.name!r} cannot be given by name",
                mend="give the tool plain named parameters, without *args, **kwargs and /",
            )
        if parameter.annotation is parameter.empty:
            raise UsageError(
                f"tool {where}: the parameter {parameter.name!r} has no type",
                mend=f"annotate it, e.g. {parameter.name}: str",
            )
    try:
        schema = _arguments_adapter(function).json_schema(schema_generator=Quiet)
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, NameError) as error:
        raise UsageError(
            f"tool {where}: {str(error).splitlines()[0]}",
            mend="use types that JSON can say: str, int, float, bool, list, dict, Literal, pydantic models",
        ) from error
    made = plain(schema, schema.get("$defs", {}))
    return {"type": "object", "properties": {}, "required": [], **made, "additionalProperties": False}


def _signature(function: Callable[..., Any], where: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError as error:
        raise UsageError(f"tool {where} has no signature", mend="wrap it in a typed function") from error


@functools.lru_cache(maxsize=256)
def _arguments_adapter(function: Callable[..., Any]) -> Any:
    """Validates ArgsKwargs for `function` without calling it."""
    from pydantic import PydanticUserError, TypeAdapter

    @functools.wraps(function)
    def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    signature: Any = collect  # a callable is a type to pydantic, not to the type checker
    try:
        return TypeAdapter(signature)
    except PydanticUserError as error:
        raise UsageError(
            f"{function.__name__}: a parameter's type cannot be checked: {error.message}",
            mend="use str, int, float, bool, list, dict, a dataclass or a pydantic model",
        ) from error


def _jsonable(result: Any, name: str) -> Any:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        if isinstance(result, Iterator):
            raise ValueError("a generator may never end")
        value = to_jsonable_python(result)
        json.dumps(value, allow_nan=False)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise TaskError(
            f"{name} returned a {type(result).__name__} that JSON cannot hold: {error}",
            retryable=False,
            mend=f"let {name} return strings, numbers, lists, dicts, dataclasses or pydantic models",
        ) from error
    return value
