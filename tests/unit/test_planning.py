"""What a model may plan: bounds are checked before anything of it runs, and failures are told to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from podium.agents import template_library
from podium.agents.tools import Tool
from podium.memory.chat import Completion, Message, Usage
from podium.memory.errors import ConfigError
from podium.orchestrator import parts
from podium.orchestrator.parts import Plan
from podium.orchestrator.placeholders import render
from podium.orchestrator.planning import (
    check_planned,
    plan_workflow,
    planned_inputs,
    planning_workflow,
    types_of,
)
from podium.orchestrator.tasks import PlanTask
from podium.orchestrator.workflow import Workflow, WorkflowError

GOAL = "Summarise the annual reports of our departments into one page"
REPORTS = {"reports": ["Sales rose.", "Nobody left."]}
ANSWER: dict[str, Any] = {
    "name": "annual",
    "inputs": [{"name": "reports", "type": "list[str]"}],
    "tasks": [
        {"name": "notes", "map": "reports", "prompt": "Note the main results of this report:\n{item}"},
        {"name": "page", "prompt": "Write a one-page summary of the departments from these notes:\n{notes}"},
    ],
    "outputs": ["page"],
}
PLANNED: dict[str, Any] = {
    "name": "annual",
    "inputs": {"goal": "str", "reports": "list[str]"},
    "tasks": {
        "notes": {"map": "reports", "prompt": "Note for {goal}:\n{item}"},
        "page": {"tool": "kit:fetch", "with": {"url": "{notes}"}},
    },
}
PLAN = Plan.model_validate({"goal": GOAL, "tools": ["kit:fetch"], "max_tasks": 4})


class Scripted:
    """A model that answers its script, and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[list[Message]] = []
        self.schemas: list[Any] = []

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        self.asked.append(list(messages))
        self.schemas.append(schema)
        return Completion(json.dumps(self.answers.pop(0)), "scripted", Usage(10, 20), finish_reason="stop")


def planned(tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**PLANNED, "tasks": PLANNED["tasks"] | tasks, **more}


async def test_a_model_plans_within_the_bounds() -> None:
    model = Scripted(ANSWER)
    tool = Tool("fetch", "kit:fetch", "Fetches a page.", "read", {})
    found = await plan_workflow(PLAN, GOAL, model, REPORTS, [tool])
    assert (found["source"], found["tries"], found["notes"]) == ("model", 1, [])
    flow = check_planned(found["workflow"], PLAN, REPORTS)
    assert list(flow.tasks) == ["notes", "page"]
    asked = model.asked[0][1].content
    assert "- reports: list[str]" in asked
    assert "- kit:fetch: Fetches a page." in asked
    assert "failed" not in asked
    assert model.schemas[0]["properties"]["tasks"]["maxItems"] == 4


async def test_what_the_plan_says_of_a_tool_goes_first() -> None:
    model = Scripted(ANSWER)
    plan = Plan.model_validate({"goal": GOAL, "tools": [{"ref": "kit:fetch", "description": "gets pages"}]})
    await plan_workflow(plan, GOAL, model, REPORTS, [Tool("fetch", "kit:fetch", "Fetches.", "read", {})])
    assert "- kit:fetch: gets pages" in model.asked[0][1].content


async def test_what_failed_is_told_in_every_request() -> None:
    bad = {**ANSWER, "outputs": ["pag"]}
    model = Scripted(bad, ANSWER)
    found = await plan_workflow(PLAN, GOAL, model, REPORTS, failed=["page: no such host", "x" * 5000])
    assert found["tries"] == 2
    for asked in model.asked:
        assert "was tried and failed:\n- page: no such host\n- xxx" in asked[1].content
        assert len(asked[1].content) < 1500
    assert "did you mean page?" in model.asked[1][-1].content


async def test_a_plan_beyond_the_bounds_is_quoted_back() -> None:
    tasks = [{"name": f"t{n}", "prompt": f"Write part {n} of the summary of {{reports}}"} for n in range(5)]
    model = Scripted({**ANSWER, "tasks": tasks, "outputs": ["t0"]}, ANSWER)
    found = await plan_workflow(PLAN, GOAL, model, REPORTS)
    assert found["source"] == "model"
    assert "the workflow has 5 tasks, more than 4" in model.asked[1][-1].content


async def test_a_template_keeps_the_bounds_too() -> None:
    found = await plan_workflow(PLAN, GOAL, None, REPORTS)
    assert found["source"] == "template"
    assert check_planned(found["workflow"], PLAN, REPORTS).name
    narrow = Plan.model_validate({"goal": GOAL, "max_tasks": 1})
    with pytest.raises(ConfigError, match="tasks, more than 1"):
        await plan_workflow(narrow, GOAL, None, REPORTS)


def test_a_planned_workflow_within_its_bounds_is_taken() -> None:
    more = {
        "more": {"plan": {"goal": "{page}", "tools": ["kit:fetch"], "max_tasks": 3}},
        "look": {"agent": "Look at {page}", "tools": ["kit:fetch"]},
    }
    assert len(check_planned(planned(more), PLAN, REPORTS).tasks) == 4


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"x": {"python": "kit:fetch"}}, "task x: a planned task is no python task → use a tool: kit:fetch"),
        ({"x": {"tool": "os:system"}}, "task x: os:system is no tool of the plan → its tools: kit:fetch"),
        ({"x": {"agent": "x", "tools": ["os:remove"]}}, "task x: os:remove is no tool of the plan"),
        (
            {"x": {"prompt": "x", "compensate": {"python": "kit:fetch"}}},
            "task x: a planned task has no compensate",
        ),
        (
            {"x": {"workflow": {"name": "in", "tasks": {"y": {"tool": "os:system"}}}}},
            "task x.y: os:system is no tool of the plan",
        ),
        (
            {
                "x": {
                    "loop": {
                        "workflow": {"name": "in", "tasks": {"y": {"python": "os:system"}}},
                        "until": {"field": "y", "op": "==", "value": 0},
                    }
                }
            },
            "task x.y: a planned task is no python task",
        ),
        ({"x": {"plan": {"goal": "x", "tools": ["os:system"], "max_tasks": 2}}}, "os:system is no tool"),
        ({"x": {"plan": {"goal": "x"}}}, "plan.max_tasks is 20, and the plan around it has 4"),
        ({f"t{n}": {"prompt": "x"} for n in range(3)}, "the workflow has 5 tasks, more than 4"),
        ({"x": {"prompt": "{notse}"}}, "nothing fills {notse}"),
        ({"x": {"prompt": "{x}"}}, "the task x needs itself"),
        ({"x": {"promt": "x"}}, "unknown kind of task 'promt'"),
    ],
)
def test_a_planned_workflow_beyond_its_bounds_is_refused(tasks: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        check_planned(planned(tasks), PLAN, REPORTS)
    (problem,) = caught.value.problems
    assert said in str(problem)
    assert str(caught.value).startswith("the plan cannot run:")


def test_plans_inside_plans_end() -> None:
    data = planned({"more": {"plan": {"goal": "x", "max_tasks": 2}}})
    assert check_planned(data, PLAN, REPORTS, depth=1)
    with pytest.raises(WorkflowError, match="plans inside plans deeper than 2"):
        check_planned(data, PLAN, REPORTS, depth=2)


@pytest.mark.parametrize("data", [None, [], "x", 3, {}, {"name": "x"}])
def test_what_is_no_workflow_is_refused(data: Any) -> None:
    with pytest.raises(WorkflowError):
        check_planned(data, PLAN, REPORTS)


def test_its_inputs_are_the_given_values_and_the_goal() -> None:
    flow = check_planned(PLANNED, PLAN, REPORTS | {"unused": 3})
    assert planned_inputs(flow, GOAL, REPORTS | {"unused": 3}) == {"goal": GOAL, **REPORTS}
    for values, said in (
        ({}, "the input reports (list[str]) is missing"),
        ({"reports": "one text"}, "the input reports: the value should be a valid list"),
        ({"reports": []}, "map over an empty list"),
    ):
        with pytest.raises(WorkflowError) as caught:
            check_planned(PLANNED, PLAN, values)
        assert said in str(caught.value)
    assert parts.GOAL == template_library.GOAL


def test_types_of_values() -> None:
    values = {
        "a": "x",
        "b": 1,
        "c": True,
        "d": 1.5,
        "e": {"x": 1},
        "f": None,
        "g": ["x"],
        "h": [],
        "i": [1, "x"],
    }
    assert types_of(values) == {
        "a": "str", "b": "int", "c": "bool", "d": "float", "e": "object", "f": "any", "g": "list[str]",
        "h": "list[any]", "i": "list[any]",
    }  # fmt: skip


async def test_a_goal_alone_is_planned_as_it_stands() -> None:
    goal = 'Answer with {"name": …} and {docs}'
    wf = planning_workflow(goal, inputs={"docs": "list[str]"}, model="m", tools=[("kit:fetch", "gets pages")])
    assert Workflow.from_data(wf.to_data()) == wf
    task = wf.tasks["plan"]
    assert isinstance(task, PlanTask)
    assert render(task.plan.goal, lambda ref: "") == goal
    assert (task.plan.run, task.plan.model, task.plan.inputs) == (False, "m", {"docs": "list[str]"})
    assert [(tool.ref, tool.description) for tool in task.plan.tools] == [("kit:fetch", "gets pages")]
    found = await plan_workflow(task.plan, goal, None, {})
    assert found["workflow"]["inputs"].get("docs") == "list[str]"
    for wrong in (lambda: planning_workflow(""), lambda: planning_workflow("x", tools=[("fetch", "")])):
        with pytest.raises(WorkflowError):
            wrong()
