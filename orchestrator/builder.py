"""The Python way to write a workflow: each method adds a task and returns a reference."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..memory.errors import UsageError
from .parts import When
from .problems import did_you_mean
from .tasks import AgentTask, ApprovalTask, LlmTask, PlanTask, PythonTask, TaskBase, ToolTask, WhenTask

if TYPE_CHECKING:
    from .workflow import Workflow

_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class _NamedRef:
    """A name in a workflow. `ref["field"]` reads a field; in an f-string it stands as its placeholder."""

    name: str
    path: tuple[str, ...] = ()

    def __getitem__(self, field: str) -> Any:
        return type(self)(self.name, (*self.path, field))

    @property
    def text(self) -> str:
        """ "name.field", as `map`, `when` and `outputs` write it."""
        return ".".join((self.name, *self.path))

    def __str__(self) -> str:
        return f"{{{self.text}}}"


class InputRef(_NamedRef):
    """An input of the workflow being built."""

    __slots__ = ()


class TaskRef(_NamedRef):
    """A task of the workflow being built."""

    __slots__ = ()


RefLike = InputRef | TaskRef | str


class Builder:
    """Adds inputs, tasks and outputs to a Workflow. Each method raises UsageError at the first mistake."""

    if TYPE_CHECKING:
        inputs: dict[str, Any]
        tasks: dict[str, Any]
        outputs: dict[str, str]
        output_classes: dict[str, type]

    def input(self, name: str, type: Any = str, *, default: Any = _MISSING) -> InputRef:
        """Declare an input. `type` is a Python type or a type as data; without `default` it must be given."""
        from .workflow import Input

        self._new_name(name)
        declared = {"type": type} if default is _MISSING else {"type": type, "default": default}
        self.inputs[name] = _make(Input, name, declared)
        return InputRef(name)

    def llm(self, name: str, *, prompt: str, output: Any = None, **options: Any) -> TaskRef:
        """One answer of a model to `prompt`, as text or as the type `output`."""
        return self._add(name, LlmTask, {"prompt": prompt, "output": output, **options})

    def agent(
        self, name: str, *, agent: str, tools: Sequence[str | Callable[..., Any]] = (), **options: Any
    ) -> TaskRef:
        """An agent that works towards the goal `agent` with `tools` (functions, or "module:name")."""
        return self._add(
            name, AgentTask, {"agent": agent, "tools": [callable_ref(t) for t in tools], **options}
        )

    def python(
        self,
        name: str,
        function: str | Callable[..., Any],
        *,
        with_: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TaskRef:
        """A call of an importable function; `with_` names its arguments."""
        body = {"python": callable_ref(function), "with": with_ or {}, **options}
        return self._add(name, PythonTask, body)

    def tool(
        self,
        name: str,
        tool: str | Callable[..., Any],
        *,
        with_: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TaskRef:
        """A call of one tool; `with_` names its arguments."""
        return self._add(name, ToolTask, {"tool": callable_ref(tool), "with": with_ or {}, **options})

    def approval(self, name: str, question: str, **options: Any) -> TaskRef:
        """A question to a person."""
        return self._add(name, ApprovalTask, {"approval": question, **options})

    def when(self, name: str, field: RefLike, op: str, value: Any, **options: Any) -> TaskRef:
        """A gate: what needs it runs only when `field op value` holds."""
        return self._add(name, WhenTask, {"when": (field, op, value), **options})

    def workflow(
        self, name: str, sub: Workflow, *, with_: Mapping[str, Any] | None = None, **options: Any
    ) -> TaskRef:
        """Another workflow as one task; `with_` fills its inputs."""
        from .workflow import WorkflowTask

        return self._add(name, WorkflowTask, {"workflow": sub, "with": with_ or {}, **options})

    def loop(
        self,
        name: str,
        body: Workflow,
        *,
        until: tuple[str, str, Any] | When | Mapping[str, Any],
        max: int = 10,
        on_max: str = "accept",
        with_: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TaskRef:
        """`body`, repeated until (output, op, value) holds; `with_` fills its inputs the first time.

        An output of `body` with the name of an input is that input in the next iteration.
        """
        from .workflow import LoopTask

        loop = {"workflow": body, "until": _condition(until), "max": max, "on_max": on_max}
        return self._add(name, LoopTask, {"loop": loop, "with": with_ or {}, **options})

    def plan(
        self,
        name: str,
        goal: str,
        *,
        tools: Sequence[str | Callable[..., Any] | Mapping[str, str]] = (),
        with_: Mapping[str, Any] | None = None,
        model: str | None = None,
        max_tasks: int = 20,
        replans: int = 1,
        run: bool = True,
        **options: Any,
    ) -> TaskRef:
        """A workflow that a model plans for `goal` and that then runs; `with_` are the values it gets.

        A tool is a function, "module:name", or {"ref", "description"}.
        """
        plan = {
            "goal": goal,
            "tools": [tool if isinstance(tool, Mapping) else callable_ref(tool) for tool in tools],
            "model": model,
            "max_tasks": max_tasks,
            "replans": replans,
            "run": run,
        }
        return self._add(name, PlanTask, {"plan": plan, "with": with_ or {}, **options})

    def map(self, name: str, *, over: RefLike, **body: Any) -> TaskRef:
        """A task run once for each element of the list `over`; `{item}` is the element.

        Give one body: `prompt=`, `agent=`, `python=`, `tool=` or `workflow=`. A function with one required
        parameter and no `with_` gets the element as that parameter.
        """
        from .workflow import task_class

        for key in ("python", "tool"):
            if key in body:
                parameter = _only_parameter(body[key])
                if parameter and not body.get("with_"):
                    body["with_"] = {parameter: "{item}"}
                body[key] = callable_ref(body[key])
        if "tools" in body:
            body["tools"] = [callable_ref(tool) for tool in body["tools"]]
        kind = task_class(body)
        if kind is None or kind is WhenTask or kind is ApprovalTask:
            raise UsageError(
                f"the map {name!r} has no body", mend="give prompt=, agent=, python=, tool= or workflow="
            )
        if "with_" in body:
            body["with"] = body.pop("with_")
        return self._add(name, kind, {"map": over, **body})

    def output(self, name: str, ref: RefLike) -> None:
        """Name a task (or a field of its output) as an output of the workflow."""
        if name in self.outputs:
            raise UsageError(f"the output {name!r} is given twice", mend="use another name")
        self.outputs[name] = _text(ref)

    def _add(self, name: str, kind: type[TaskBase], body: dict[str, Any]) -> TaskRef:
        self._new_name(name)
        output = body.get("output")
        data = {key: value for key, value in body.items() if value is not None}
        if "needs" in data:
            needs = data["needs"]
            data["needs"] = [_text(n) for n in ([needs] if isinstance(needs, RefLike) else needs)]
        if "map" in data:
            data["map"] = _text(data["map"])
        if "when" in data:
            data["when"] = _condition(data["when"])
        if "with" in data:
            data["with"] = _placeholders(data["with"])
        if "compensate" in data:
            data["compensate"] = _compensation(data["compensate"], name)
        self.tasks[name] = _make(kind, name, data)
        may_be_error = data.get("on_failure") == "collect"
        if isinstance(output, type) and hasattr(output, "model_validate") and not may_be_error:
            self.output_classes[name] = output
        return TaskRef(name)

    def _new_name(self, name: str) -> None:
        from .structure import name_problem

        wrong = name_problem(name)
        if wrong:
            raise UsageError(wrong[0], mend=wrong[1])
        if name in self.tasks or name in self.inputs:
            raise UsageError(f"the name {name!r} is taken by another task or input", mend="use another name")


def callable_ref(function: str | Callable[..., Any]) -> str:
    """The importable name "module:name" of a function.

    Raises:
        UsageError: a lambda, a closure, a function of __main__: another process cannot import it.
    """
    if isinstance(function, str):
        return function
    whole = inspect.unwrap(function)
    module, name = getattr(whole, "__module__", None), getattr(whole, "__qualname__", None)
    if not module or not name:
        raise UsageError(f"{function!r} has no importable name", mend="define it with def in a module")
    if "<lambda>" in name or "<locals>" in name:
        what = "a lambda" if "<lambda>" in name else "defined inside another function"
        raise UsageError(
            f"{name} is {what}: a worker cannot import it", mend="define it with def in a module"
        )
    if module == "__main__":
        raise UsageError(
            f"{name} is defined in the script itself: a worker cannot import it",
            mend=f"move it into a module beside the script (tools.py, say): from tools import {name}",
        )
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise UsageError(f"{module} has no {name}", mend="name the function as it is found in its module")
    return f"{module}:{name}"


def _only_parameter(function: Any) -> str | None:
    """The name of a function's only required parameter, if it has exactly one."""
    if not callable(function):
        return None
    required = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    return required[0] if len(required) == 1 else None


def _text(ref: Any) -> str:
    return ref.text if isinstance(ref, _NamedRef) else ref


def _condition(given: Any) -> Any:
    """A condition written as (field, op, value), as data; anything else as it is."""
    if not isinstance(given, tuple) or len(given) != 3:
        return given
    field, op, value = given
    return {"field": _text(field), "op": op, "value": value}


def _compensation(given: Any, name: str) -> Any:
    """`compensate` as data. A function alone gets the task's output as its only required parameter."""
    if isinstance(given, Mapping):
        made = dict(given)
        if "with_" in made:
            made["with"] = made.pop("with_")
        if callable(made.get("python")):
            made["python"] = callable_ref(made["python"])
        return made | ({"with": _placeholders(made["with"])} if "with" in made else {})
    parameter = _only_parameter(given)
    made = {"python": callable_ref(given)} if callable(given) else {"python": given}
    return made | ({"with": {parameter: f"{{{name}}}"}} if parameter else {})


def _placeholders(tree: Any) -> Any:
    if isinstance(tree, _NamedRef):
        return str(tree)
    if isinstance(tree, Mapping):
        return {key: _placeholders(value) for key, value in tree.items()}
    return [_placeholders(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _make(kind: type[Any], name: str, data: dict[str, Any]) -> Any:
    """An instance of a pydantic class, its first error said as a UsageError."""
    from pydantic import ValidationError

    from .structure import say

    unknown = [key for key in data if key not in (known := _keys(kind))]
    if unknown:
        raise UsageError(f"{name}: unknown option {unknown[0]!r}", mend=did_you_mean(unknown[0], known))
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        message, mend = say(error.errors(include_url=False)[0])
    raise UsageError(f"{name}: {message}", mend=mend)


def _keys(kind: type[Any]) -> list[str]:
    return [info.alias or name for name, info in kind.model_fields.items()]
