"""`router distill`: the approach behind a task's best answers, for prompts of that task."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import Json, Pool, client, emit, note


def distill(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name, as in its workflow.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who writes it; default: as the policy decides.")
    ] = None,
    budget: Annotated[str | None, typer.Option(metavar="USD", help="What it may cost at most.")] = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Have a model write down the general approach behind the best graded answers of a task.

    It is kept as the note `router/template/TASK`, which `podium memory get` and `put` show and change. A
    policy with `templates: true` puts it into prompts of the task where that is learned to help.
    """
    from ...memory.money import format_usd
    from ..templates import distill as written
    from .router_records import RouterDistillOut

    with client(pool) as podium:
        made = written(podium, task, model, budget)
        kept, cost = made.revision, format_usd(made.run.cost_nano)
    if as_json:
        emit(
            RouterDistillOut(
                task=made.task, key=kept.key, version=kept.version, text=kept.value, examples=made.examples,
                model=kept.producer.model, run_id=made.run.id, cost_usd=cost,
            )
        )  # fmt: skip
        return
    print(kept.value)
    note(f"{kept.key}: version {kept.version}, by {kept.producer.model} from {made.examples} good answers")
    note(f"run {made.run.id}: {cost} USD\n  → `templates: true` in the policy lets the router try it")
