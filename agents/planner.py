"""From a goal to a workflow: a model writes it, validator and judge read it, the library is the way out.

1. The model answers with a plan, its decoding constrained to the plan's JSON Schema.
2. `build` makes the workflow and says what is wrong with it; `plan_check.judge` says whether a valid one is
   any good. Either list is quoted back to the model, at most `repairs` times.
3. When the model cannot do it, or there is none, the template of the library that is nearest to the goal is
   taken, and the notes say so.

Nothing a model wrote is run here: a Plan is shown to a person or given to the engine like any workflow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..memory.chat import Completion, Message
from ..memory.errors import ConfigError, ProviderError
from .model import Model
from .plan_check import judge
from .template_library import GOAL, choose

#: makes a workflow of a plan's data: (workflow or None, what is wrong with it)
Build = Callable[[Mapping[str, Any]], tuple[Any, list[str]]]

#: how many problems are quoted back: a weak model does not read more
_QUOTED = 8

INSTRUCTIONS = """\
You plan work for language models. Answer with a plan as JSON:
{"name": …, "inputs": [{"name": …, "type": …}], "tasks": [{"name": …, "prompt": …}], "outputs": [task names]}
- A task's prompt is all that the model which does the task will see. Say in it what to do and with what.
- {name} in a prompt stands for the value of the input or task of that name: so tasks are connected.
- A task with "map" runs once for each element of that list, which its prompt reads as {item}. Its value is
  the list of the answers.
- A task with "when" runs only if the condition on an earlier value holds.
- A task with "output" answers with those fields; {name.field} reads one of them.
- A task with "approval" in place of a prompt asks a person; tasks with its name in "needs" wait for that.
- Use every input. Use as few tasks as will do, short names in lower case, and no literal braces.
- The outputs name the tasks whose answers are the result.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow for a goal, and where it comes from."""

    #: what `build` made
    workflow: Any
    #: the data it was made of: the model's plan, or the template's workflow with the run's inputs
    data: Mapping[str, Any]
    source: Literal["model", "template"]
    #: name of the template, None for a model's plan
    template: str | None
    #: answers the model gave
    tries: int
    #: sentences for the person who asked: repairs, why a template stands here
    notes: tuple[str, ...]


async def make_plan(
    goal: str,
    *,
    model: Model | None,
    schema: Mapping[str, Any],
    build: Build,
    build_template: Build | None = None,
    tools: Sequence[tuple[str, str]] = (),
    inputs: Mapping[str, str] | None = None,
    repairs: int = 2,
    max_tokens: int = 1024,
) -> Plan:
    """A workflow for `goal`, by `model` or, failing that, by the library of templates.

    `schema` constrains the model's answer; `build` turns that answer into a workflow. `build_template` does
    the same for data in the workflow format (default: `build`). `tools` are (`module:name`, what it does).
    `inputs` are the values the run will have (name → type): the plan's inputs are those, whatever the model
    declared, and it must use each of them. It may always use `goal`, the goal's text. None: the plan declares
    what it needs. `build` must take `inputs` as a mapping name → type, as in the workflow format.

    Raises:
        BudgetStopped: the ledger refused the planning calls.
        ConfigError: the library has no template that can take these inputs.
    """
    failure, tries = "no model was given", 0
    if model is not None:
        planner = _Planner(goal, model, schema, build, tools, inputs, max_tokens)
        plan = await planner.plan(repairs)
        if plan is not None:
            return plan
        failure, tries = planner.failure, planner.tries
    return _from_library(goal, build_template or build, inputs, failure, tries)


class _Planner:
    """One conversation with a model that plans. `failure` says in the end why it came to nothing."""

    def __init__(
        self,
        goal: str,
        model: Model,
        schema: Mapping[str, Any],
        build: Build,
        tools: Sequence[tuple[str, str]],
        inputs: Mapping[str, str] | None,
        max_tokens: int,
    ) -> None:
        self.goal, self.model, self.schema, self.build = goal, model, schema, build
        self.inputs, self.max_tokens = inputs, max_tokens
        self.opening = [
            Message("system", INSTRUCTIONS),
            Message("user", _request(goal, tools, inputs)),
        ]
        self.tries = 0
        self.failure = ""

    async def plan(self, repairs: int) -> Plan | None:
        """The first plan without problems, in at most 1 + `repairs` answers; None: there was none."""
        messages = self.opening
        name = "the model"
        problems: list[str] = []
        before, cut = "", 0
        for _ in range(1 + repairs):
            try:
                answer = await self.model.complete(messages, schema=self.schema, max_tokens=self.max_tokens)
            except (ProviderError, ConfigError) as error:
                self.failure = f"{name} could not plan this ({error.message.splitlines()[0]})"
                return None
            self.tries += 1
            name = f"the model {answer.model}"
            workflow, data, problems = self._read(answer)
            if not problems:
                repaired = (f"{name} needed {self.tries} tries",) if self.tries > 1 else ()
                return Plan(workflow, data, "model", None, self.tries, repaired)
            cut += answer.finish_reason == "length"
            if answer.text == before or cut > 1:
                break  # it does not hear the complaint: a further one costs and changes nothing
            before = answer.text
            # only the last answer is quoted: the conversation must fit a small context
            messages = [*self.opening, Message("assistant", answer.text), _complaint(problems)]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        tries = "1 try" if self.tries == 1 else f"{self.tries} tries"
        self.failure = f"{name} could not plan this (after {tries}: {problems[0]}{more})"
        return None

    def _read(self, answer: Completion) -> tuple[Any, Mapping[str, Any], list[str]]:
        """The workflow in an answer, its data, and what is wrong with it."""
        try:
            data = json.loads(answer.text)
        except ValueError as error:
            cut = f"it was cut after {answer.usage.output_tokens} tokens"
            why = cut if answer.finish_reason == "length" else str(error)
            return None, {}, [f"the plan is not complete JSON: {why}"]
        if not isinstance(data, dict):
            return None, {}, ["the plan is not a JSON object"]
        if self.inputs is not None or isinstance(data.get("inputs", []), list):
            data["inputs"] = self._inputs(data.get("inputs"), "{goal}" in answer.text)
        workflow, problems = self.build(data)
        if not problems:
            problems = judge(
                _as_data(workflow, data), self.goal, given=self.inputs, instructions=INSTRUCTIONS
            )
        return workflow, data, problems

    def _inputs(self, declared: Any, uses_goal: bool) -> dict[str, Any]:
        """The plan's inputs: the given ones, else the `declared` ones; and the goal if it is used."""
        if self.inputs is not None:
            known: dict[str, Any] = dict(self.inputs)
        else:
            entries = [e for e in declared or [] if isinstance(e, dict) and "name" in e]
            known = {str(e["name"]): e.get("type", "str") for e in entries}
        goal = known.pop(GOAL, "str")
        return ({GOAL: goal} if uses_goal else {}) | known


def _from_library(
    goal: str, build: Build, inputs: Mapping[str, str] | None, failure: str, tries: int
) -> Plan:
    template, similarity = choose(goal, inputs)
    data = dict(template.workflow) if inputs is None else template.bind(inputs)
    workflow, problems = build(data) if data is not None else (None, ["it cannot take these inputs"])
    if data is None or problems:
        raise ConfigError(
            f"{failure}; and the template {template.name!r} cannot run: {problems[0]}",
            mend="name the inputs in letters, digits and _ only, or plan with a larger model: --model NAME",
        )
    note = f"{failure}; using the template {template.name!r} (similarity {similarity:.2f})"
    return Plan(workflow, data, "template", template.name, tries, (note,))


def _request(goal: str, tools: Sequence[tuple[str, str]], inputs: Mapping[str, str] | None) -> str:
    lines = [f"Goal: {goal}", "", "Inputs:", f"- {GOAL}: str (the text of the goal above)"]
    lines += [f"- {name}: {kind}" for name, kind in (inputs or {}).items() if name != GOAL]
    if inputs is None:
        lines.append("- and others that the goal speaks of, if you declare them")
    if tools:
        lines += ["", "Tools that tasks may use:", *(f"- {name}: {what}" for name, what in tools)]
    return "\n".join(lines)


def _complaint(problems: Sequence[str]) -> Message:
    listed = "\n".join(f"- {problem}" for problem in problems[:_QUOTED])
    return Message("user", f"This plan cannot be used:\n{listed}\n\nAnswer with the whole plan, corrected.")


def _as_data(workflow: Any, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan in the workflow format, which the judge reads."""
    return workflow.to_data() if hasattr(workflow, "to_data") else data
