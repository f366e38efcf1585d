"""An agent: a goal, a model, typed tools and limits, in one loop that ends with a typed answer.

    ask the model for ONE action ─┬─ a tool call → check it → run it → show its result → ask again
                                  └─ an answer   → check it → done

Whatever goes wrong in a step (no JSON, wrong arguments, a tool that fails) is shown to the model, which may
mend it in the next one. Before a limit is passed only the answer is left to say: no work is thrown away.

Durability is replay: the engine's `Model` and `Tools` give recorded answers to the calls already made. So the
loop keeps clocks and randomness out of what it says: the same answers always lead to the same requests.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from ..memory.chat import Completion
from ..memory.errors import TaskError, UsageError
from .actions import Actions, Answer, Call
from .history import History, Turn, clip, estimated_tokens, fenced
from .model import Model
from .outputs import STR, OutputType
from .structured import MAX_REPAIRS, complete_json, read_json
from .tools import Tool, check_names

StopReason = Literal["answered", "steps", "tokens", "cost", "seconds"]

#: how often a call is made with the same arguments, before the model is told to do something else
SAME_CALLS = 2
#: tokens that an answer is expected to take when the caller sets no bound
ANSWER_TOKENS = 512
#: an answer that gets fewer tokens than these is not worth asking for
LEAST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an agent must come to its answer. None: no limit of that kind."""

    #: model calls, the answer included
    steps: int = 8
    #: tokens read and written by all calls together
    tokens: int | None = None
    #: nano-dollars of all calls together
    cost_nano: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call came to: a JSON-able value, or why it failed, in words for the model."""

    value: Any = None
    error: str | None = None


class Tools(Protocol):
    """An agent's tools. The engine's one asks for approvals, runs isolated and records each call."""

    @property
    def specs(self) -> Sequence[Tool]: ...

    async def call(self, step: int, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        """Run `tool` in step `step` (from 1, one call a step at most), or return what that step recorded.

        A tool that fails, or that a person refused, is a ToolResult with `error`, not an exception.

        Raises:
            WaitingForPerson: the call needs an approval that is not given yet; the agent stops and can go on.
        """
        ...


@dataclass(frozen=True, slots=True)
class AgentStep:
    """One action of the model and what came of it."""

    number: int
    #: the model's own words
    said: str
    #: the tool call, if it was a valid one
    call: Call | None = None
    #: None: no tool was run
    result: ToolResult | None = None
    #: what the model was told then; empty after the answer
    observation: str = ""


@dataclass(frozen=True, slots=True)
class AgentResult:
    #: of the output's type; text when none was asked for
    output: Any
    steps: tuple[AgentStep, ...]
    #: "answered": by itself; else the limit that made it answer
    stop_reason: StopReason


async def run_agent(
    goal: str,
    *,
    profile: str = "",
    model: Model,
    tools: Tools,
    output: OutputType | None = None,
    limits: Limits | None = None,
    spent: Callable[[], int] = lambda: 0,
    clock: Callable[[], float] = time.monotonic,
    max_tokens: int | None = None,
    temperature: float = 0.0,
    require_tool: bool = False,
    context_tokens: int = 8192,
    result_chars: int = 4000,
) -> AgentResult:
    """Work towards `goal` until the model answers, or a limit makes it answer.

    Args:
        profile: who the agent is; it opens the system text.
        spent: nano-dollars of the calls that this loop has made so far. Replayed calls count; recorded ones
            that are still to be replayed do not, or a replay would stop before the run it repeats.
        clock: seconds; only differences count.
        max_tokens: tokens of one answer of the model.
        require_tool: permit an answer only after a tool has run (or at a limit): weak models answer at once,
            out of their heads.
        context_tokens: bound of a prompt, by estimate; the oldest results are left out of it first.
        result_chars: characters of one tool result that are shown; at most one for each context token.

    Raises:
        TaskError: a limit leaves no room even for an answer.
        StructuredOutputError: no answer of the output's type at the last step, after the repairs.
        WaitingForPerson, ProviderError, BudgetStopped: as `tools` and `model` raise them.
        UsageError: two tools of one name, or limits that permit no step.
    """
    limits = limits or Limits()
    if limits.steps < 1:
        raise UsageError(f"an agent with {limits.steps} steps", mend="allow at least 1 step")
    check_names(tools.specs)
    actions = Actions(tools.specs, output or STR)
    history = History(actions.opening(profile, goal), context_tokens)
    meter = _Meter(limits, spent, clock, max_tokens)
    ask = partial(model.complete, max_tokens=max_tokens, temperature=temperature)
    show = min(result_chars, context_tokens)
    calls: Counter[str] = Counter()
    steps: list[AgentStep] = []

    while not (limit := meter.limit(len(steps) + 1, estimated_tokens(history.messages()))):
        looked = not require_tool or not tools.specs or any(step.result for step in steps)
        form = actions.form if looked else actions.call
        completion = await history.ask(partial(ask, schema=form.schema))
        meter.count(completion)
        action, problem = read_json(completion.text, form.check)
        step = AgentStep(len(steps) + 1, completion.text)
        if isinstance(action, Answer):
            return AgentResult(action.value, (*steps, step), "answered")
        if action is None:
            step = _wrong(step, completion, problem, form.text)
        else:
            step = await _perform(step, action, tools, calls, show)
        steps.append(step)
        history.turns.append(Turn(clip(step.said, show) or "(nothing)", step.observation, _note(step)))

    value, said = await _last_answer(model, actions, history, meter, temperature)
    return AgentResult(value, (*steps, AgentStep(len(steps) + 1, said)), limit)


async def _perform(step: AgentStep, call: Call, tools: Tools, calls: Counter[str], show: int) -> AgentStep:
    """Run the tool, unless the same call was made often enough already."""
    name = call.tool.name
    key = json.dumps([name, call.arguments], sort_keys=True)
    calls[key] += 1
    if calls[key] > SAME_CALLS:
        told = (
            f"You have called {name} with these arguments {calls[key] - 1} times already, and it was not run "
            "again. Use what it returned, try other arguments or another tool, or answer."
        )
        return AgentStep(step.number, step.said, call, None, told)
    result = await tools.call(step.number, call.tool, call.arguments)
    if result.error is not None:
        told = f"{name} failed:\n{fenced(clip(result.error, show))}"
    else:
        text = result.value if isinstance(result.value, str) else json.dumps(result.value, ensure_ascii=False)
        told = f"{name} returned:\n{fenced(clip(text, show))}"
    return AgentStep(step.number, step.said, call, result, told)


def _wrong(step: AgentStep, completion: Completion, problem: str, form: str) -> AgentStep:
    if completion.finish_reason == "length":
        problem = f"it was cut off after {completion.usage.output_tokens} tokens; be much shorter"
    told = f"That was no valid action: {clip(problem, 500)}.\nSay {form}."
    return AgentStep(step.number, step.said, observation=told)


def _note(step: AgentStep) -> str:
    if step.call is None:
        return "(That was no valid action.)"
    return f"({step.call.tool.name} was called; what it returned is left out to save room.)"


async def _last_answer(
    model: Model, actions: Actions, history: History, meter: _Meter, temperature: float
) -> tuple[Any, str]:
    """The typed answer and the text that held it, from a call (and its repairs) that permits nothing else."""
    ending, bound = actions.last_word(), meter.last_prompt()
    max_tokens, repairs = meter.last_call(estimated_tokens(history.messages(ending, bound)))
    value, completion = await history.ask(
        lambda messages: complete_json(
            model, messages, actions.answer, max_tokens=max_tokens, temperature=temperature, repairs=repairs
        ),
        ending=ending,
        bound=bound,
    )
    return value, completion.text


@dataclass(slots=True)
class _Meter:
    """What the limits leave. An action is permitted while it and the answer after it both fit.

    What they will take is judged by the dearest and the slowest step so far, and by the prompt's tokens.
    """

    limits: Limits
    spent: Callable[[], int]
    clock: Callable[[], float]
    max_tokens: int | None
    tokens: int = 0
    dearest: int = 0
    slowest: float = 0.0
    started: float = field(init=False)
    #: money and time when the last step ended
    last: tuple[int, float] = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()
        self.last = (self.spent(), self.started)

    def count(self, completion: Completion) -> None:
        self.tokens += completion.usage.input_tokens + completion.usage.output_tokens

    def limit(self, number: int, prompt_tokens: int) -> StopReason | None:
        """The limit that permits nothing but an answer in step `number`; None: any action may be taken."""
        limits, cost, now = self.limits, self.spent(), self.clock()
        self.dearest = max(self.dearest, cost - self.last[0])
        self.slowest = max(self.slowest, now - self.last[1])
        self.last = (cost, now)
        if number >= limits.steps:
            return "steps"
        if limits.tokens is not None and self.tokens + 2 * (prompt_tokens + self._answer) > limits.tokens:
            return "tokens"
        if limits.cost_nano is not None and cost + 2 * self.dearest >= limits.cost_nano:
            return "cost"
        if limits.seconds is not None and now - self.started + 2 * self.slowest >= limits.seconds:
            return "seconds"
        return None

    def last_prompt(self) -> int | None:
        """Tokens that the prompt of the answer may have; None: no limit on tokens."""
        return None if self.limits.tokens is None else self.limits.tokens - self.tokens - self._answer

    def last_call(self, prompt_tokens: int) -> tuple[int | None, int]:
        """(tokens of the answer at most, repairs that are still within the limits).

        Raises:
            TaskError: there is no room for an answer.
        """
        limits, repairs = self.limits, MAX_REPAIRS
        max_tokens = self.max_tokens
        if limits.cost_nano is not None:
            left = limits.cost_nano - self.spent()
            if left <= 0:
                raise _no_room("money", "raise its `budget`, or give it a cheaper model")
            repairs = min(repairs, left // max(self.dearest, 1))
        if limits.tokens is not None:
            left = limits.tokens - self.tokens - prompt_tokens
            if left < LEAST_TOKENS:
                least = self.tokens + prompt_tokens + self._answer
                raise _no_room("tokens", f"raise `max_total_tokens` to {least} at least, or shorten the goal")
            max_tokens = min(left, max_tokens or left)
            repairs = min(repairs, max(0, left - self._answer) // (prompt_tokens + self._answer))
        return max_tokens, repairs

    @property
    def _answer(self) -> int:
        return self.max_tokens or ANSWER_TOKENS


def _no_room(what: str, mend: str) -> TaskError:
    return TaskError(f"the agent has no {what} left for its answer", retryable=False, mend=mend)
