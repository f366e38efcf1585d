"""`plan`: a workflow for a goal, shown before anything of it runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Json, Pool, client, confirm, emit, is_person, note

if TYPE_CHECKING:
    from ..client import GoalPlan, Podium
    from ..workflow import Workflow


def plan(
    goal: Annotated[str, typer.Argument(help="What is to be achieved.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=VALUE", help="A value the workflow will get."),
    ] = None,
    tools: Annotated[
        list[str] | None, typer.Option("--tool", metavar="MODULE:NAME", help="A tool the plan may use.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model that plans.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="USD", help="What planning may cost.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the YAML there.")
    ] = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Plan a workflow for a goal, and print it as YAML. Nothing of it runs."""
    from ...memory.money import format_usd
    from .drive import write

    with client(pool) as podium:
        values = _values(inputs)
        made = _make(podium, goal, values, model, tools or [], budget)
        rows = podium.plan_table(made.workflow, values)
        text = as_yaml(made.workflow)
        if output is not None:
            write(output, text)
            note(f"written to {output}\n  → podium run {output}")
        if as_json:
            from .convert import plan_row_out
            from .output import PlanOut

            emit(
                PlanOut.model_validate(
                    {
                        "goal": goal,
                        "source": made.source,
                        "notes": list(made.notes),
                        "run_id": made.run.id,
                        "cost_usd": format_usd(made.run.cost_nano),
                        "workflow": made.workflow.to_data(),
                        "rows": [plan_row_out(row) for row in rows],
                    }
                )
            )
        elif output is None:
            print(text, end="")
        _explain(podium, made, rows)


def plan_to_run(
    podium: Podium, goal: str, inputs: Sequence[str], model: str | None, *, yes: bool
) -> Workflow:
    """A workflow for a goal that the person has agreed to run.

    Raises:
        UsageError: nobody can be asked and --yes was not given.
        typer.Exit: the person said no.
    """
    from ...memory.errors import UsageError

    values = _values(inputs)
    made = _make(podium, goal, values, model, [], None)
    note(as_yaml(made.workflow))
    for line in made.notes:
        note(f"note: {line}")
    if yes:
        return made.workflow
    if not is_person():
        raise UsageError(
            "nobody is there to agree to the plan", mend="add --yes, or plan first: podium plan GOAL -o FILE"
        )
    if not confirm("run this plan?"):
        note("nothing was run")
        raise typer.Exit(0)
    return made.workflow


def _filled(workflow: Workflow, goal: str) -> Workflow:
    """The plan with the goal as the default of its input `goal`, which every plan may take."""
    from ..workflow import Input

    declared = workflow.inputs.get("goal")
    if declared is not None and declared.required:
        workflow.inputs["goal"] = Input.model_validate({"type": declared.type, "default": goal})
    return workflow


def _make(
    podium: Podium,
    goal: str,
    values: dict[str, Any],
    model: str | None,
    tools: Sequence[str],
    budget: str | None,
) -> GoalPlan:
    from .inputs import types_of

    note("planning …")
    made = podium.plan(
        goal,
        inputs=types_of(values) if values else None,
        model=model,
        tools=[(name, _about(name)) for name in tools],
        budget=budget,
    )
    _filled(made.workflow, goal)
    return made


def _values(inputs: Sequence[str] | None) -> dict[str, Any]:
    from .inputs import parse_inputs

    return parse_inputs(inputs or [], None)


def _about(tool: str) -> str:
    """What a tool does, as far as its name tells: the plan is made without importing it."""
    return re.sub(r"[_.:]+", " ", tool.partition(":")[2]) or tool


def _explain(podium: Podium, made: GoalPlan, rows: Sequence[Any]) -> None:
    from ...memory.money import format_usd
    from . import render

    if made.source == "template":
        note("this plan is a template of the library, not a model's")
    for line in made.notes:
        note(f"note: {line}")
    render.plan_table(rows, budget=podium.settings.budget, err=True)
    note(f"planned in run {made.run.id} for {format_usd(made.run.cost_nano)} USD")


def as_yaml(workflow: Workflow) -> str:
    """A workflow as the YAML a person would write."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump(workflow.to_data(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
