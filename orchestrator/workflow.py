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
from .parts import (
    Budget,
    Cache,
    Compensation,
    Data,
    FieldRef,
    Plan,
    PlanTool,
    Retry,
    TaskContext,
    TypeSpec,
    When,
)
from .placeholders import ITEM, Ref, TemplateError, refs
from .problems import Lines, Problem, WorkflowError
from .tasks import (
    AgentTask,
    ApprovalTask,
    LlmTask,
    PlanTask,
    PythonTask,
    TaskBase,
    ToolTask,
    WhenTask,
)

__all__ = [
    "AgentTask", "ApprovalTask", "Budget", "Cache", "Compensation", "Edge", "Input", "InputRef", "LlmTask",
    "Loop", "LoopTask", "Plan", "PlanTask", "Problem", "PythonTask", "Retry", "Task", "TaskBase", "TaskRef",
    "ToolTask", "When", "WhenTask", "Workflow", "WorkflowError", "WorkflowTask", "task_class",
    "workflow_task",
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


class Loop(Data):
    """A workflow that is repeated until a condition on its outputs holds."""

    #: an output with the name of an input is that input in the next iteration; the other inputs stay
    workflow: Workflow
    #: `field` is an output of the iteration that ended, or a field of one
    until: When
    #: iterations
    max: int = Field(default=10, ge=1, le=1000)
    #: when the last iteration still does not meet it: take its outputs, or fail
    on_max: Literal["accept", "fail"] = "accept"


class LoopTask(TaskBase):
    """Repetition until a condition holds; its output is the object of the last iteration's outputs."""

    body_key = "loop"
    body_kind = "loop"

    loop: Loop
    #: inputs of the first iteration
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


def workflow_task(task: TaskBase) -> Workflow | None:
    """The workflow that a task of kind workflow or loop holds; None: it is another kind."""
    if isinstance(task, WorkflowTask):
        return task.workflow
    return task.loop.workflow if isinstance(task, LoopTask) else None


def workflow_path(task: TaskBase) -> tuple[str, ...]:
    """Where `workflow_task(task)` stands in the task's data."""
    return ("loop", "workflow") if isinstance(task, LoopTask) else ("workflow",)


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
    #: tokens of task memory that its llm and agent tasks see before their prompts, where they say nothing
    context: int | None = Field(default=None, ge=16, le=1_000_000)
    #: its prompts, and those of all tasks below, go to models that run here, and to no other
    private: bool = False
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
            context: int | None = None,
            private: bool = False,
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
        if self.context is not None:
            data["context"] = self.context
        if self.private:
            data["private"] = True
        if self.inputs:
            data["inputs"] = {name: declared.to_data() for name, declared in self.inputs.items()}
        data["tasks"] = {name: _fields_data(task) for name, task in self.tasks.items()}
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


def task_sources(task: TaskBase) -> set[str]:
    """The names a task reads or needs; what its broken templates hide is left out."""
    found = set(task.needs)
    try:
        found.update(ref.name for ref in task_refs(task))
    except TemplateError:
        if task.map is not None:
            found.add(task.map.split(".")[0])
    return found


def _without_item(task: TaskBase, found: list[Ref]) -> Iterator[Ref]:
    return (ref for ref in found if ref.name != ITEM or task.map is None)


@lru_cache
def _defaults(kind: type[BaseModel]) -> tuple[tuple[str, str, Any], ...]:
    """(field, key in data, default) of a class of tasks, or of a part of them."""
    return tuple(
        (name, info.alias or name, info.get_default(call_default_factory=True))
        for name, info in kind.model_fields.items()
    )


#: parts of a task that stand as one field's value where no other is given
_SHORT = {Budget: "usd", PlanTool: "ref", TaskContext: "tokens"}


def _fields_data(model: BaseModel) -> dict[str, Any]:
    """The fields of a task or of a part of one that are not at their defaults."""
    return {
        key: _plain(value)
        for name, key, default in _defaults(type(model))
        if (value := getattr(model, name)) != default
    }


def _plain(value: Any) -> Any:
    if isinstance(value, OutputType):
        return value.spec
    if isinstance(value, Workflow):
        return value.to_data()
    if isinstance(value, When):
        return value.model_dump()
    if isinstance(value, BaseModel):
        data = _fields_data(value)
        if isinstance(value, Cache):
            return data or True
        short = _SHORT.get(type(value), "")
        return data[short] if list(data) == [short] else data
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return value


Workflow.model_rebuild()
Loop.model_rebuild()
LoopTask.model_rebuild()
