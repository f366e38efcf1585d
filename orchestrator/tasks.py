"""The tasks of a workflow as data. A task's kind is its one body key: `prompt`, `agent`, `python`, …"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..agents.outputs import OutputType
from .parts import (
    MAX_SECONDS,
    BudgetSpec,
    CacheSpec,
    CallableRef,
    Callables,
    Compensation,
    ContextSpec,
    Data,
    FieldRef,
    Names,
    Plan,
    Retry,
    TypeSpec,
    When,
    wrong,
)

BodyKind = Literal["llm", "agent", "python", "tool", "approval", "workflow", "when", "loop", "plan"]
OnFailure = Literal["fail", "skip", "collect"]

#: kinds whose task can be run once for each element
MAPPABLE = ("llm", "agent", "python", "tool", "workflow")
#: kinds whose output may be taken from the cache: the others act on the world, ask a person, or hold tasks
CACHEABLE = ("llm", "agent", "python")
#: kinds that may say how what they did is undone; loops and plans say it in their own tasks
UNDOABLE = ("llm", "agent", "python", "tool", "approval", "workflow")


class TaskBase(Data):
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
    #: `fail`: the run fails. `skip`: the task counts as skipped; a map leaves the element out of its list.
    #: `collect`: the task counts as succeeded with the output {"error": {"code", "message", …}}
    on_failure: OnFailure = "fail"
    #: None: the task always runs
    cache: CacheSpec = None
    #: of the run's ready tasks those with a higher one start first
    priority: int = Field(default=0, ge=-100, le=100)
    #: for all attempts of the task and all tasks below it; the run's own budget holds besides
    budget: BudgetSpec | None = None
    compensate: Compensation | None = None

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


class ModelTask(TaskBase):
    """What tasks share whose prompt may hold a part of the task memory."""

    #: task memory before the prompt; None: what the workflow says
    context: ContextSpec | None = None
    #: its prompts go to models that run here, and to no other
    private: bool = False

    @property
    def asked(self) -> str:
        """The template of what the memory is asked for; "": the prompt itself."""
        return (self.context.ask if self.context is not None else None) or ""

    @model_validator(mode="after")
    def _one_of_both(self) -> ModelTask:
        if self.context is not None and self.cache is not None:
            raise wrong("a cached output cannot rest on what is remembered", "leave out cache, or context")
        return self


class LlmTask(ModelTask):
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
    #: "module:name" of a function of (prompt, answer) that the answer must pass: it returns true or false,
    #: a score 0…1 (0.5 passes), or {score, evidence}
    check: CallableRef | None = None

    def templates(self) -> tuple[Any, ...]:
        return (self.prompt, self.system or "", self.asked)


class AgentTask(ModelTask):
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
    #: it has the tools remember, recall and note
    memory: bool = False

    @model_validator(mode="after")
    def _no_cached_memory(self) -> AgentTask:
        if self.memory and self.cache is not None:
            raise wrong(
                "an agent with a memory acts on it: its output cannot be cached", "leave out cache, or memory"
            )
        return self

    def templates(self) -> tuple[Any, ...]:
        return (self.agent, self.profile, self.asked)


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
    #: seconds after which no answer counts as a rejection; None: it waits for ever
    expires: float | None = Field(default=None, gt=0, le=MAX_SECONDS)

    def templates(self) -> tuple[Any, ...]:
        return (self.approval,)


class WhenTask(TaskBase):
    """A gate: only a condition. Its output is true; when the condition is false it is skipped."""

    body_key = "when"
    body_kind = "when"

    when: When  # type: ignore[assignment]  # a gate without a condition is none


class PlanTask(TaskBase):
    """A task that a model plans: a workflow for a goal, whose tasks then run below it.

    Its output is that of the planned workflow: the value if it has one output, else the object of them.
    """

    body_key = "plan"
    body_kind = "plan"

    plan: Plan
    #: the values that the planned workflow gets as its inputs
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")

    def templates(self) -> tuple[Any, ...]:
        return (self.plan.goal, self.with_)


def callable_name(task: PythonTask | ToolTask) -> str:
    """The "module:name" that a task calls."""
    return task.python if isinstance(task, PythonTask) else task.tool
