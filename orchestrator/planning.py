"""From a goal to a workflow: joins the agents' planner with the real schema and the real validator.

A model's plan is data from a stranger. `check_planned` says what it may hold before any of it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ..agents.model import Model
from ..agents.planner import make_plan
from ..memory.chat import Completion, Message
from .graph import check_inputs, embedded, validate
from .parts import GOAL, Plan
from .problems import Path, Problem, WorkflowError, by_line, problem_at
from .schema import PLAN_TASKS, planning_schema, workflow_from_plan
from .tasks import AgentTask, LlmTask, PlanTask, PythonTask, TaskBase, ToolTask
from .workflow import Workflow

#: plan tasks inside planned workflows: a planned task may plan once more
MAX_PLAN_DEPTH = 2
#: of what failed, so much is told to the model: it must fit a small context
_FAILURES, _FAILURE_CHARS = 6, 300


class ToolLike(Protocol):
    """A tool as the planner needs it: `agents.tools.Tool` and `parts.PlanTool` are such."""

    @property
    def ref(self) -> str: ...
    @property
    def description(self) -> str: ...


async def plan_workflow(
    plan: Plan,
    goal: str,
    model: Model | None,
    values: Mapping[str, Any],
    tools: Sequence[ToolLike] = (),
    *,
    failed: Sequence[str] = (),
) -> dict[str, Any]:
    """A valid workflow for `goal`: {"workflow": data, "source": model | template, "notes", "tries", …}.

    Args:
        plan: the bounds: its tools are the only ones, it has at most `max_tasks` tasks.
        goal: `plan.goal` with its placeholders filled.
        values: what the workflow will get by name. Their types are its inputs.
        tools: what is known of the plan's tools; a description in `plan` goes first.
        failed: why former plans for this goal failed, for the model.

    Raises:
        ConfigError: no template takes these inputs within these bounds, and no model planned.
        BudgetStopped: the ledger refused the planning calls.
    """
    about = {tool.ref: tool.description for tool in tools}
    known = [(tool.ref, tool.description or about.get(tool.ref) or tool.ref) for tool in plan.tools]
    found = await make_plan(
        goal,
        model=_Reminded(model, failed) if model is not None and failed else model,
        schema=planning_schema(plan.refs, min(plan.max_tasks, PLAN_TASKS)),
        build=lambda data: _build(workflow_from_plan, data, plan),
        build_template=lambda data: _build(Workflow.from_data, data, plan),
        tools=known,
        inputs=types_of(values) if plan.run or values else plan.inputs,
    )
    workflow = found.workflow
    assert isinstance(workflow, Workflow)
    return {
        "workflow": workflow.to_data(),
        "source": found.source,
        "template": found.template,
        "notes": list(found.notes),
        "tries": found.tries,
    }


def check_planned(data: Any, plan: Plan, inputs: Mapping[str, Any], *, depth: int = 1) -> Workflow:
    """The planned workflow that `data` describes, found to keep within `plan`.

    It has at most `max_tasks` tasks, embedded ones included; it calls none but the plan's tools, each as a
    tool, so that its permissions hold; what it plans in turn has the same bounds. `inputs` fill its inputs.

    Args:
        depth: plan tasks around the workflow, the one that it was planned for included.

    Raises:
        WorkflowError: it does not; lists every Problem. A replan can be told them.
    """
    try:
        workflow = Workflow.from_data(data)
    except WorkflowError as error:
        raise WorkflowError(error.problems, source="the plan") from None
    problems = planned_problems(workflow, plan, depth=depth)
    if not problems:
        try:
            planned_inputs(workflow, plan.goal, inputs)
        except WorkflowError as error:
            problems = list(error.problems)
    if problems:
        raise WorkflowError(problems, source="the plan")
    return workflow


def planned_inputs(workflow: Workflow, goal: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a planned workflow: those of `values` that it declares, and the goal if it reads it.

    Raises:
        WorkflowError: one that it needs is missing or of another type.
    """
    known = {GOAL: goal, **values}
    return check_inputs(workflow, {name: known[name] for name in workflow.inputs if name in known})


def planned_problems(workflow: Workflow, plan: Plan, *, depth: int = 1) -> list[Problem]:
    """Everything that keeps a planned workflow from running, or that `plan` does not let it do."""
    problems = validate(workflow, max_tasks=plan.max_tasks)
    for at, flow in embedded(workflow):
        for name, task in flow.tasks.items():
            problems += _beyond(task, (*at, "tasks", name), plan, depth)
    return by_line(problems)


def planning_workflow(
    goal: str,
    *,
    inputs: Mapping[str, str] | None = None,
    model: str | None = None,
    tools: Sequence[tuple[str, str]] = (),
) -> Workflow:
    """The workflow of `podium plan`: its one task `plan` plans and runs nothing of it.

    Args:
        goal: a text, not a template.
        inputs: name → type of what the planned workflow will get; None: it says what it needs.
        tools: (`module:name`, what it does) that it may use.

    Raises:
        WorkflowError: an empty goal, or a tool that is no "module:name".
    """
    body: dict[str, Any] = {
        "goal": goal.replace("{", "{{").replace("}", "}}"),
        "tools": [{"ref": ref, "description": about} for ref, about in tools],
        "model": model,
        "run": False,
        "inputs": None if inputs is None else dict(inputs),
    }
    return Workflow.from_data({"name": "plan", "tasks": {"plan": {"plan": body}}})


def types_of(values: Mapping[str, Any]) -> dict[str, str]:
    """name → a type, as data, for each JSON value."""
    return {name: _type_of(value) for name, value in values.items()}


def _type_of(value: Any) -> str:
    simple = {str: "str", bool: "bool", int: "int", float: "float", dict: "object"}
    if isinstance(value, list):
        kinds = {_type_of(element) for element in value}
        return f"list[{kinds.pop()}]" if len(kinds) == 1 else "list[any]"
    return simple.get(type(value), "any")


def _build(
    read: Callable[[Any], Workflow], data: Mapping[str, Any], plan: Plan
) -> tuple[Workflow | None, list[str]]:
    try:
        workflow = read(data)
    except WorkflowError as error:
        return None, [str(problem) for problem in error.problems]
    return workflow, [str(problem) for problem in planned_problems(workflow, plan)]


def _beyond(task: TaskBase, at: Path, plan: Plan, depth: int) -> Iterator[Problem]:
    """What a task of a planned workflow does beyond `plan`."""
    listed = ", ".join(plan.refs) or "it has none: use a prompt"
    if isinstance(task, PythonTask):
        yield problem_at((*at, "python"), None, "a planned task is no python task", f"use a tool: {listed}")
    if task.compensate is not None:
        mend = "remove it: only a person's workflow undoes what it did"
        yield problem_at((*at, "compensate"), None, "a planned task has no compensate", mend)
    used: list[str] = []
    if isinstance(task, ToolTask):
        used = [task.tool]
    elif isinstance(task, LlmTask):
        used = [task.check] if task.check is not None else []
    elif isinstance(task, AgentTask):
        used = task.tools
    elif isinstance(task, PlanTask):
        used = task.plan.refs
    for ref in used:
        if ref not in plan.refs:
            yield problem_at(at, None, f"{ref} is no tool of the plan", f"its tools: {listed}")
    if isinstance(task, PlanTask):
        if depth >= MAX_PLAN_DEPTH:
            message = f"plans inside plans deeper than {MAX_PLAN_DEPTH}"
            yield problem_at((*at, "plan"), None, message, "write the tasks out")
        if task.plan.max_tasks > plan.max_tasks:
            message = f"plan.max_tasks is {task.plan.max_tasks}, and the plan around it has {plan.max_tasks}"
            yield problem_at((*at, "plan"), None, message, f"write max_tasks: {plan.max_tasks} or less")


class _Reminded:
    """A Model that is told beside the request what came of former plans."""

    def __init__(self, model: Model, failed: Sequence[str]) -> None:
        self._model = model
        told = "\n".join(f"- {reason[:_FAILURE_CHARS]}" for reason in failed[-_FAILURES:])
        self._text = f"\n\nA former plan for this goal was tried and failed:\n{told}\nPlan it another way."

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        """As `Model.complete`; the reminder stands at the end of the first user message."""
        first = next(index for index, message in enumerate(messages) if message.role == "user")
        asked = messages[first]
        told = [*messages[:first], Message("user", asked.content + self._text), *messages[first + 1 :]]
        return await self._model.complete(
            told, schema=schema, max_tokens=max_tokens, temperature=temperature, problem=problem
        )
