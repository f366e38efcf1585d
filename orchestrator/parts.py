"""What tasks are made of, as data: conditions, retries, budgets, plans, and the types of their fields."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..agents.outputs import OutputType
from ..memory.errors import UsageError
from ..memory.money import parse_usd

Op = Literal["==", "!=", ">", ">=", "<", "<=", "in", "contains"]

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
CALLABLE_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
FIELD_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"

#: the input of every planned workflow that holds its goal's text
GOAL = "goal"
#: a year: longer waits are mistakes
MAX_SECONDS = 31_536_000


def _parse_type(spec: Any) -> OutputType:
    try:
        return OutputType.of(spec)
    except UsageError as error:
        raise wrong(error.message, error.mend) from None


def _check_money(amount: str) -> str:
    try:
        parse_usd(amount)
    except UsageError as error:
        raise wrong(error.message, error.mend) from None
    return amount


def wrong(text: str, mend: str) -> PydanticCustomError:
    return PydanticCustomError("podium", "{text}", {"text": text, "mend": mend})


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


class Data(BaseModel):
    """What all parts of a task share: no unknown keys, no conversions, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class When(Data):
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


class Retry(Data):
    """How often a task is tried, and how long it waits before the next attempt."""

    attempts: int = Field(default=3, ge=1, le=20)
    #: seconds before the second attempt, doubled for each further one
    backoff: float = Field(default=0.5, ge=0, le=3600)
    #: share of the wait that is left to chance, so that tasks that failed together do not come back together
    jitter: float = Field(default=0.25, ge=0, le=1)
    #: seconds that the wait may grow to; a longer `backoff` stands as it is
    max_backoff: float = Field(default=60.0, ge=0, le=3600)

    def pause(self, failures: int, chance: float) -> float:
        """Seconds to wait after the `failures`-th failure (1, 2, …); `chance` in 0..1 is the draw for it."""
        grown = min(self.backoff * 2.0 ** min(failures - 1, 64), max(self.backoff, self.max_backoff))
        return grown * (1 + self.jitter * (2 * chance - 1))


class Cache(Data):
    """An output may be that of an earlier task with the same spec and inputs. In data true, or {ttl}."""

    #: seconds for which an output stays good; None: for ever
    ttl: float | None = Field(default=None, gt=0, le=MAX_SECONDS)


class Budget(Data):
    """What a task and everything below it may use. In data USD alone, or {usd, tokens, seconds}."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    usd: Usd | None = None
    #: tokens of all model calls together, input and output
    tokens: int | None = Field(default=None, ge=1)
    #: wall-clock seconds from the task's first start
    seconds: float | None = Field(default=None, gt=0, le=MAX_SECONDS)

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        if self.usd is None and self.tokens is None and self.seconds is None:
            raise wrong("it limits nothing", 'give usd, tokens or seconds: {usd: "0.05"}')
        return self


class Compensation(Data):
    """What undoes a task that succeeded, when the run fails after it (a saga)."""

    python: CallableRef
    #: may read the task's own output beside what the task may read; no edges come of it
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")


def _as_cache(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, Mapping | Cache):
        return value
    raise wrong(f"{value!r:.60} says nothing of a cache", "write cache: true, or cache: {ttl: 3600}")


def _as_budget(value: Any) -> Any:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return {"usd": _check_money(str(value))}
    if isinstance(value, Mapping | Budget):
        return value
    mend = 'write USD in quotes: budget: "0.05", or budget: {usd: "0.05", tokens: 9000, seconds: 60}'
    raise wrong(f"{value!r:.60} is no budget", mend)


BudgetSpec = Annotated[Budget, BeforeValidator(_as_budget, json_schema_input_type=str | float | Budget)]
CacheSpec = Annotated[Cache | None, BeforeValidator(_as_cache, json_schema_input_type=bool | Cache | None)]


class TaskContext(Data):
    """How much of the task memory a task is shown before its prompt. In data the tokens, or {tokens, ask}."""

    #: most tokens of it, by the model's own tokenizer
    tokens: int = Field(ge=16, le=1_000_000)
    #: what it is asked for; None: the prompt
    ask: str | None = None


def _as_context(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"tokens": value}
    if isinstance(value, Mapping | TaskContext):
        return value
    raise wrong(f"{value!r:.60} is no context", "write tokens: context: 512, or {tokens: 512, ask: …}")


ContextSpec = Annotated[TaskContext, BeforeValidator(_as_context, json_schema_input_type=int | TaskContext)]


class PlanTool(Data):
    """A tool that a planned workflow may use. In data "module:name", or {ref, description}."""

    ref: CallableRef
    #: what it does, for the model that plans; empty: what the tool says of itself
    description: str = ""


def _as_tool(value: Any) -> Any:
    return {"ref": value} if isinstance(value, str) else value


PlanTools = Annotated[
    list[Annotated[PlanTool, BeforeValidator(_as_tool, json_schema_input_type=CallableRef | PlanTool)]],
    BeforeValidator(_as_list),
]


class Plan(Data):
    """What is to be planned, and within which bounds."""

    goal: str = Field(min_length=1)
    #: the only functions that the planned tasks may call
    tools: PlanTools = Field(default_factory=list)
    #: the model that plans; None: the router chooses
    model: str | None = None
    max_tasks: int = Field(default=20, ge=1, le=200)
    #: how often a planned workflow that failed is planned anew
    replans: int = Field(default=1, ge=0, le=5)
    #: False: the output is the planned workflow as data, and nothing of it runs
    run: bool = True
    #: name → type of the values that a workflow which is only planned will get; None: it says what it needs
    inputs: dict[str, str] | None = None

    @model_validator(mode="after")
    def _inputs_are_given(self) -> Plan:
        if self.run and self.inputs is not None:
            raise wrong("a plan that runs gets its inputs by with:", "write with: {name: …} beside plan:")
        return self

    @property
    def refs(self) -> list[str]:
        """ "module:name" of each tool."""
        return [tool.ref for tool in self.tools]
