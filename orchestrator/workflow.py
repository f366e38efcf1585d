"""A workflow as data: a DAG of tasks with typed inputs and outputs, written as YAML or built in Python.

Placeholders are the edges: `{summaries}` in a prompt means that the task needs the output of `summaries`.
`needs` is only for order without data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from ..agents.outputs import OutputType
from .builder import Builder, InputRef, TaskRef
from .placeholders import ITEM, Ref, refs
from .problems import Lines, Problem, WorkflowError
from .tasks import (
    AgentTask,
    ApprovalTask,
    FieldRef,
    LlmTask,
    LoopTask,
    PlanTask,
    PythonTask,
    Retry,
    TaskBase,
    ToolTask,
    TypeSpec,
    When,
    WhenTask,
)

__all__ = [
    "AgentTask", "ApprovalTask", "Edge", "Input", "InputRef", "LlmTask", "LoopTask", "PlanTask", "Problem",
    "PythonTask", "Retry", "Task", "TaskBase", "TaskRef", "ToolTask", "When", "WhenTask", "Workflow",
    "WorkflowError", "WorkflowTask", "task_class",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Edge:
    """`src` comes before `dst`; `data`: its output is read, `order`: it only has to be finished."""

    src: str
    dst: str
    kind: Literal["data", "order"]


class Input(BaseModel):
    """A declared input. In data it is the type alone, or {type, default}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: TypeSpec = Field(default_factory=lambda: OutputType("str"))
    #: meaningful only where `required` is False: null is a default, too
    default: Any = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        declared = isinstance(data, Mapping) and "type" in data and set(data) <= {"type", "default"}
        return data if declared or isinstance(data, Input) else {"type": data}

    @property
    def required(self) -> bool:
        return "default" not in self.model_fields_set

    def to_data(self) -> Any:
        return self.type.spec if self.required else {"type": self.type.spec, "default": self.default}


class WorkflowTask(TaskBase):
    """Another workflow as one task; its output is an object of that workflow's outputs."""

    body_key = "workflow"
    body_kind = "workflow"

    workflow: Workflow
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")

    def templates(self) -> tuple[Any, ...]:
        return (self.with_,)


_CLASSES: tuple[type[TaskBase], ...] = (
    LlmTask, AgentTask, PythonTask, ToolTask, ApprovalTask, WorkflowTask, LoopTask, PlanTask,
)  # fmt: skip
#: body key → class; `when` is the body of a task that has no other
BODIES: dict[str, type[TaskBase]] = {kind.body_key: kind for kind in _CLASSES}


def task_class(data: Mapping[str, Any]) -> type[TaskBase] | None:
    """The class of a task given as data: by its one body key. None: it has none, or more than one."""
    found = [kind for key, kind in BODIES.items() if key in data]
    if not found and "when" in data and "map" not in data:
        return WhenTask
    return found[0] if len(found) == 1 else None


def _tag(value: Any) -> str | None:
    if isinstance(value, TaskBase):
        return value.body_kind
    kind = task_class(value) if isinstance(value, Mapping) else None
    return kind.body_kind if kind else None


Task = Annotated[
    Annotated[LlmTask, Tag("llm")]
    | Annotated[AgentTask, Tag("agent")]
    | Annotated[PythonTask, Tag("python")]
    | Annotated[ToolTask, Tag("tool")]
    | Annotated[ApprovalTask, Tag("approval")]
    | Annotated[WorkflowTask, Tag("workflow")]
    | Annotated[WhenTask, Tag("when")]
    | Annotated[LoopTask, Tag("loop")]
    | Annotated[PlanTask, Tag("plan")],
    Discriminator(_tag),
]


class Workflow(Builder, BaseModel):
    """A DAG of tasks as data, with typed inputs and outputs. `Workflow("name")` starts an empty one.

    Two workflows are equal when their data is. `graph.validate` says whether one can run.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    description: str = ""
    inputs: dict[str, Input] = Field(default_factory=dict)
    tasks: dict[str, Task] = Field(default_factory=dict)
    #: output name → "task" or "task.field"; empty: the outputs of all tasks that nothing needs
    outputs: dict[str, FieldRef] = Field(default_factory=dict)

    _output_classes: dict[str, type] = PrivateAttr(default_factory=dict)
    _lines: Lines | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:

        def __init__(self, name: str | None = None, /, **data: Any) -> None:
            super().__init__(**(data if name is None else {"name": name, **data}))

    else:

        def __init__(
            self,
            name: str,
            /,
            *,
            description: str = "",
            inputs: Mapping[str, Any] = ...,
            tasks: Mapping[str, Any] = ...,
            outputs: Mapping[str, str] = ...,
        ) -> None: ...

    @property
    def output_classes(self) -> dict[str, type]:  # type: ignore[override]
        """task → the pydantic class its output was declared with. Lives in this process only."""
        return self._output_classes

    @property
    def lines(self) -> Lines | None:
        """Where each value stands in the file this workflow was read from, if it was."""
        return self._lines

    @classmethod
    def from_data(cls, data: Any, *, lines: Lines | None = None) -> Workflow:
        """The workflow that `data` (as read from YAML or JSON, from anyone) describes.

        Checks the form only; references, types and cycles are `graph.validate`'s.

        Raises:
            WorkflowError: the data is no workflow; every Problem of its form is in it.
        """
        from .structure import check_shape, from_validation

        problems = check_shape(data, lines)
        if not problems:
            try:
                made = cls.model_validate(data)
            except ValidationError as error:
                problems = from_validation(error, data, lines)
            else:
                made._lines = lines
                return made
        raise WorkflowError(problems)

    def to_data(self) -> dict[str, Any]:
        """The canonical, minimal, JSON-able form: defaults are left out. `from_data(w.to_data()) == w`."""
        data: dict[str, Any] = {"name": self.name}
        if self.description:
            data["description"] = self.description
        if self.inputs:
            data["inputs"] = {name: declared.to_data() for name, declared in self.inputs.items()}
        data["tasks"] = {name: _task_data(task) for name, task in self.tasks.items()}
        if self.outputs:
            data["outputs"] = dict(self.outputs)
        return data

    def edges(self) -> list[Edge]:
        """The edges between tasks, in the order in which the tasks name them; each pair once, `data` first.

        Raises:
            TemplateError: a template with a stray brace.
        """
        found: list[Edge] = []
        for name, task in self.tasks.items():
            data = dict.fromkeys(ref.name for ref in task_refs(task) if ref.name in self.tasks)
            found += [Edge(src, name, "data") for src in data]
            order = dict.fromkeys(src for src in task.needs if src in self.tasks and src not in data)
            found += [Edge(src, name, "order") for src in order]
        return found

    def sinks(self) -> list[str]:
        """The tasks that no other task needs."""
        sources = {edge.src for edge in self.edges()}
        return [name for name in self.tasks if name not in sources]

    def output_refs(self) -> dict[str, Ref]:
        """What the outputs are read from; the sinks by their own names when none are declared."""
        if self.outputs:
            return {name: Ref.parse(text) for name, text in self.outputs.items()}
        return {name: Ref(name) for name in self.sinks()}

    def __eq__(self, other: object) -> bool:
        return self.to_data() == other.to_data() if isinstance(other, Workflow) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can be built on

    def _repr_html_(self) -> str:
        from .html import workflow_html

        return workflow_html(self)


def task_refs(task: TaskBase) -> Iterator[Ref]:
    """Everything a task reads: what it maps, what its condition asks, what its templates name.

    `item` is left out where a map fills it.

    Raises:
        TemplateError: a template with a stray brace.
    """
    if task.map is not None:
        yield Ref.parse(task.map)
    if task.when is not None:
        yield from _without_item(task, [Ref.parse(task.when.field)])
    yield from _without_item(task, refs(task.templates()))


def _without_item(task: TaskBase, found: list[Ref]) -> Iterator[Ref]:
    return (ref for ref in found if ref.name != ITEM or task.map is None)


@lru_cache
def _defaults(kind: type[TaskBase]) -> tuple[tuple[str, str, Any], ...]:
    """(field, key in data, default) of a class of tasks."""
    return tuple(
        (name, info.alias or name, info.get_default(call_default_factory=True))
        for name, info in kind.model_fields.items()
    )


def _task_data(task: TaskBase) -> dict[str, Any]:
    return {
        key: _plain(value)
        for name, key, default in _defaults(type(task))
        if (value := getattr(task, name)) != default or name == task.body_key
    }


def _plain(value: Any) -> Any:
    if isinstance(value, OutputType):
        return value.spec
    if isinstance(value, Workflow):
        return value.to_data()
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_defaults=isinstance(value, Retry))
    return value


Workflow.model_rebuild()
