"""`run`, `resume`, `retry`, `cancel`, `approve`, `runs`: what starts, drives and changes runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, Pool, RunId, client, emit, is_person, note

if TYPE_CHECKING:
    from ..client import Podium

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="An input: text or JSON by its type; @file, @folder/ read.",
    ),
]
Budget = Annotated[str | None, typer.Option(metavar="USD", help="What the run may cost at most.")]
OutFile = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the outputs there.")
]
Local = Annotated[bool, typer.Option("--local", help="Run in this process even when an engine is up.")]

runs_app = typer.Typer(help="List runs, newest first; `prune` deletes old ones.", rich_markup_mode=None)


def run(
    workflow: Annotated[Path | None, typer.Argument(metavar="[WORKFLOW.yaml]", help="The workflow.")] = None,
    inputs: Inputs = None,
    budget: Budget = None,
    approve: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Approve this task beforehand; repeatable.")
    ] = None,
    goal: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Plan a workflow for this, then run it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to podium's own questions.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate and print the plan table only.")
    ] = False,
    output: OutFile = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="S", min=0, help="Seconds the run may take.")
    ] = None,
    priority: Annotated[int, typer.Option(metavar="N", help="Higher goes first.")] = 0,
    policy: Annotated[str | None, typer.Option(metavar="KIND", help="cheapest or fixed.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Use this model for every call.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to the engine of `podium up`.")] = False,
    local: Local = False,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Run a workflow, and print its outputs."""
    from ...memory.errors import UsageError
    from . import drive

    if (workflow is None) == (goal is None):
        raise UsageError(
            "give a workflow or a --goal, one of them", mend="podium run WORKFLOW.yaml, or --goal TEXT"
        )
    if detach and local:
        raise UsageError("--detach and --local exclude each other", mend="leave one of them out")
    routing = drive.routing(policy, model)
    with client(pool, routing) as podium:
        if goal is not None:
            from .plan import plan_to_run

            given = drive.Job.of_goal(plan_to_run(podium, goal, inputs or [], model, yes=yes), inputs or [])
        else:
            assert workflow is not None
            given = drive.Job.of_file(workflow, inputs or [])
        given.budget, given.deadline, given.priority = budget, deadline, priority
        given.approve, given.policy = approve or [], routing
        if dry_run:
            drive.dry_run(podium, given, as_json)
            return
        if detach and not podium.engine_alive():
            from ...memory.errors import ClusterError

            raise ClusterError(
                "no engine is up to take the run", mend="podium up, or run it without --detach"
            )
        drive.run(podium, given, drive.Ways(as_json, output, local, detach))


def resume(
    run_id: RunId,
    budget: Budget = None,
    output: OutFile = None,
    local: Local = False,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was interrupted, stopped by its budget, or answered."""
    from ...memory.money import format_usd
    from . import drive

    with client(pool) as podium:
        found = podium.get(run_id)
        if found.status == "stopped" or budget is not None:
            podium.reopen(found.id, budget=budget)
            found = podium.get(found.id)
            note(f"the budget is {format_usd(found.record.budget_nano)} USD")
        drive.go_on(podium, found, drive.Ways(as_json, output, local))


def retry(
    run_id: RunId,
    tasks: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="Only these.")] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Only make them pending again.")] = False,
    output: OutFile = None,
    local: Local = False,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Try the failed tasks of a run again. Finished ones keep their results."""
    from . import drive

    with client(pool) as podium:
        found = podium.get(run_id)
        again = podium.retry(found.id, tasks or ())
        note(f"run again: {', '.join(again)}")
        if no_run:
            _told(podium, found.id, again, as_json)
            return
        drive.go_on(podium, podium.get(found.id), drive.Ways(as_json, output, local))


def cancel(run_id: RunId, as_json: Json = False) -> None:
    """Cancel a run. What it has finished stays."""
    with client() as podium:
        found = podium.get(run_id)
        status = podium.cancel(found.id)
        if status not in ("cancelled", "stopped"):
            note("its engine stops it within a second")
        _told(podium, found.id, [], as_json)


def approve(
    run_id: RunId,
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="The task, if several wait.")] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Answer no.")] = False,
    comment: Annotated[str, typer.Option(metavar="TEXT", help="A word to go with it.")] = "",
    go_on: Annotated[bool, typer.Option("--resume", help="Go on with the run at once.")] = False,
    output: OutFile = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Answer a task that waits for a person."""
    from . import drive

    with client(pool) as podium:
        found = podium.get(run_id)
        name = task or _only_waiting([t.name for t in found.waiting], found.id)
        podium.approve(found.id, name, approved=not reject, comment=comment)
        note(f"{'rejected' if reject else 'approved'}: {name}")
        found = podium.get(found.id)
        if go_on:
            drive.go_on(podium, found, drive.Ways(as_json, output, local=False))
            return
        if not found.waiting and not (found.record.detached and podium.engine_alive()):
            note(f"  → podium resume {found.id}")
        _told(podium, found.id, [name], as_json)


def _only_waiting(waiting: list[str], run_id: str) -> str:
    from ...memory.errors import UsageError

    if len(waiting) == 1:
        return waiting[0]
    if not waiting:
        raise UsageError("nothing in this run waits for a person", mend=f"look with `podium show {run_id}`")
    raise UsageError(f"several tasks wait: {', '.join(waiting)}", mend="name the one to answer")


def _told(podium: Podium, run_id: str, tasks: list[str], as_json: bool) -> None:
    """The state of a run that was changed, on stdout."""
    status = podium.get(run_id).record.status
    if as_json:
        from .output import ActionOut

        emit(ActionOut.model_validate({"run_id": run_id, "status": status, "tasks": tasks}))
    else:
        print(f"{run_id} {status}")


@runs_app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    status: Annotated[list[str] | None, typer.Option(help="Only of this status; repeatable.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    as_json: Json = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from .common import iso, table

    with client() as podium:
        found = podium.runs(statuses=_statuses(status or []), limit=limit)
        if as_json:
            from .convert import summary_out
            from .output import RunsOut

            emit(RunsOut(runs=[summary_out(r) for r in found]))
            return
    if not found:
        note("there are no runs yet\n  → podium run WORKFLOW.yaml")
        return
    from ...memory.money import format_usd

    rows = [
        [r.id, r.workflow, r.status, format_usd(r.cost_nano), iso(r.record.created_at) or ""] for r in found
    ]
    table(["run", "workflow", "status", "USD", "created"], rows, right="USD")


def _statuses(given: list[str]) -> list[str]:
    from difflib import get_close_matches

    from ...memory.errors import UsageError

    known = ("queued", "running", "waiting", "succeeded", "failed", "cancelled", "stopped")
    for status in given:
        if status not in known:
            near = get_close_matches(status, known, n=1)
            mend = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(known)}"
            raise UsageError(f"{status!r} is no status of a run", mend=mend)
    return given


@runs_app.command("prune")
def prune(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="30d, 12h, 45m: ended longer ago than that.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete runs that ended a while ago, with all that only they hold."""
    from .common import confirm
    from .output import PruneOut

    seconds = _age(older_than)
    with client() as podium:
        found = podium.prune(older_than_s=seconds, dry_run=True)
        if found and not dry_run and not yes and is_person():
            dry_run = not confirm(f"delete {len(found)} runs?")
        if not dry_run:
            found = podium.prune(older_than_s=seconds)
    if as_json:
        emit(PruneOut(runs=found, dry_run=dry_run))
        return
    for name in found:
        print(name)
    note(f"{len(found)} runs {'would be' if dry_run else 'were'} deleted")


def _age(text: str) -> float:
    from ...memory.errors import UsageError

    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    number, unit = text[:-1], text[-1:]
    try:
        age = float(number) * units[unit]
    except (KeyError, ValueError):
        age = -1.0
    if not 0 <= age < 1e11:
        raise UsageError(f"{text!r} is no age", mend="write a number and s, m, h, d or w: 30d")
    return age
