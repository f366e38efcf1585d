"""The tasks of a workflow as data. A task's kind is its one body key: `prompt`, `agent`, `python`, …"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from ..agents.outputs import OutputType
from ..memory.errors import UsageError
from ..memory.money import parse_usd

BodyKind = Literal["llm", "agent", "python", "tool", "approval", "workflow", "when", "loop", "plan"]
Op = Literal["==", "!=", ">", ">=", "<", "<=", "in", "contains"]

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
CALLABLE_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
FIELD_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"


def _parse_type(spec: Any) -> OutputType:
    try:
        return OutputType.of(spec)
    except UsageError as error:
        raise PydanticCustomError("podium", "{text}", {"text": error.message, "mend": error.mend}) from None


def _check_money(amount: str) -> str:
    try:
        parse_usd(amount)
    except UsageError as error:
        raise PydanticCustomError("podium", "{text}", {"text": error.message, "mend": error.mend}) from None
    return amount


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


#: stands for the schema of a type written as data, until `schema` makes it a $ref
TYPE_SCHEMA: dict[str, Any] = {"x-podium": "TypeSpec"}

TypeSpec = Annotated[
    OutputType,
    PlainValidator(_parse_type),
    PlainSerializer(lambda kind: kind.spec),
    WithJsonSchema(TYPE_SCHEMA),
]
Names = Annotated[
    list[str],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]
CallableRef = Annotated[str, Field(pattern=CALLABLE_PATTERN)]
Callables = Annotated[
    list[CallableRef],
    BeforeValidator(_as_list, json_schema_input_type=CallableRef | list[CallableRef]),
]
FieldRef = Annotated[str, Field(pattern=FIELD_PATTERN)]
Usd = Annotated[
    str, BeforeValidator(_as_text, json_schema_input_type=str | float), AfterValidator(_check_money)
]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class When(_Data):
    """A condition on a value: {field, op, literal}. Never code."""

    #: an input, a task, a field of one ("task.field"), or `item` inside a map
    field: FieldRef
    op: Op
    value: Any = None

    def holds(self, found: Any) -> bool:
        """Whether `found`, the value of `field`, meets the condition; what cannot be compared does not."""
        if self.op in ("==", "!="):
            same = found == self.value and isinstance(found, bool) == isinstance(self.value, bool)
            return same if self.op == "==" else not same
        try:
            if self.op == "in":
                return found in self.value
            return (
                self.value in found if self.op == "contains" else bool(_COMPARE[self.op](found, self.value))
            )
        except TypeError:
            return False


class Retry(_Data):
    """How often a task is tried, and the seconds before the second attempt (doubled for each further one)."""

    attempts: int = Field(default=3, ge=1, le=20)
    backoff: float = Field(default=0.5, ge=0, le=3600)


class TaskBase(_Data):
    """What every task can say."""

    #: the key that makes a mapping a task of this class
    body_key: ClassVar[str]
    body_kind: ClassVar[BodyKind]

    description: str = ""
    #: tasks that come before, where no data flows
    needs: Names = Field(default_factory=list)
    #: `any`: run when at least one predecessor was not skipped
    join: Literal["all", "any"] = "all"
    when: When | None = None
    #: the input, task or field whose list is mapped; `{item}` is the element
    map: FieldRef | None = None
    retry: Retry = Field(default_factory=lambda: Retry.model_validate({}))
    #: seconds that one attempt may take
    timeout: float = Field(default=600.0, gt=0, le=604_800)

    @property
    def kind(self) -> BodyKind | Literal["map"]:
        return "map" if self.map is not None else self.body_kind

    @property
    def output_type(self) -> OutputType | None:
        """The declared type of one output (of one element, for a map); None: not declared."""
        return getattr(self, "output", None)

    def templates(self) -> tuple[Any, ...]:
        """Every value of this task that may hold placeholders: strings, or trees of dicts and lists."""
        return ()


class LlmTask(TaskBase):
    """One answer of a model."""

    body_key = "prompt"
    body_kind = "llm"

    prompt: str = Field(min_length=1)
    system: str | None = None
    #: None: text
    output: TypeSpec | None = None
    #: a model of the pool; None: the router chooses
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)

    def templates(self) -> tuple[Any, ...]:
        return (self.prompt, self.system or "")


class AgentTask(TaskBase):
    """A model with tools, in a loop with limits."""

    body_key = "agent"
    body_kind = "agent"

    #: the goal
    agent: str = Field(min_length=1)
    #: the system text: who the agent is
    profile: str = ""
    #: "module:name" each
    tools: Callables = Field(default_factory=list)
    output: TypeSpec | None = None
    model: str | None = None
    max_steps: int = Field(default=8, ge=1, le=1000)
    #: tokens of one answer
    max_tokens: int | None = Field(default=None, ge=1)
    #: tokens of all calls together
    max_total_tokens: int | None = Field(default=None, ge=1)
    #: the first action must be a tool call: small models otherwise answer without looking
    require_tool: bool = False
    #: US dollars of all calls together
    budget: Usd | None = None

    def templates(self) -> tuple[Any, ...]:
        return (self.agent, self.profile)


class PythonTask(TaskBase):
    """A call of an importable Python function, in an isolated worker process."""

    body_key = "python"
    body_kind = "python"

    python: CallableRef
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    output: TypeSpec | None = None
    #: run in the engine's own process: quick, but a crash of the function is a crash of the engine
    inline: bool = False

    def templates(self) -> tuple[Any, ...]:
        return (self.with_,)


class ToolTask(TaskBase):
    """A call of one tool, with its permissions and effects."""

    body_key = "tool"
    body_kind = "tool"

    tool: CallableRef
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    output: TypeSpec | None = None

    def templates(self) -> tuple[Any, ...]:
        return (self.with_,)


class ApprovalTask(TaskBase):
    """A question to a person; the run waits for the answer."""

    body_key = "approval"
    body_kind = "approval"

    approval: str = Field(min_length=1)

    def templates(self) -> tuple[Any, ...]:
        return (self.approval,)


class WhenTask(TaskBase):
    """A gate: only a condition. Its output is true; when the condition is false it is skipped."""

    body_key = "when"
    body_kind = "when"

    when: When  # type: ignore[assignment]  # a gate without a condition is none


class LoopTask(TaskBase):
    """Reserved: repetition until a condition holds comes later."""

    body_key = "loop"
    body_kind = "loop"

    loop: Any


class PlanTask(TaskBase):
    """Reserved: a task that plans further tasks comes later."""

    body_key = "plan"
    body_kind = "plan"

    plan: Any
