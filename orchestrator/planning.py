"""From a goal to a workflow: joins the agents' planner with the real schema and the real validator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..agents.model import Model
from ..agents.planner import make_plan
from .graph import validate
from .problems import WorkflowError
from .schema import planning_schema, workflow_from_plan
from .workflow import Workflow


async def plan_workflow(
    goal: str, model: Model, inputs: Mapping[str, str] | None, tools: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """A valid workflow for `goal`: {"workflow": data, "source": model | template, "notes", "tries", …}.

    `inputs`: name → type of the values the run will have. `tools`: (`module:name`, what it does).

    Raises:
        ConfigError: no template takes these inputs, and no model planned.
    """
    known = [(ref, about) for ref, about in tools]
    plan = await make_plan(
        goal,
        model=model,
        schema=planning_schema([ref for ref, _ in known]),
        build=lambda data: _build(data, from_plan=True),
        build_template=lambda data: _build(data, from_plan=False),
        tools=known,
        inputs=inputs,
    )
    workflow = plan.workflow
    assert isinstance(workflow, Workflow)
    return {
        "workflow": workflow.to_data(),
        "source": plan.source,
        "template": plan.template,
        "notes": list(plan.notes),
        "tries": plan.tries,
    }


def _build(data: Mapping[str, Any], *, from_plan: bool) -> tuple[Workflow | None, list[str]]:
    try:
        workflow = workflow_from_plan(data) if from_plan else Workflow.from_data(data)
    except WorkflowError as error:
        return None, [str(problem) for problem in error.problems]
    return workflow, [str(problem) for problem in validate(workflow)]
