"""`run`, `resume`, `retry`, `runs`: what starts, drives and lists runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, Pool, RunId, client, emit, is_person, note, told

if TYPE_CHECKING:
    from ..client import Podium
    from .drive import Job

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
Tokens = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Tokens of all its model calls at most.")
]
Seconds = Annotated[float | None, typer.Option(metavar="S", help="Seconds that it may be driven at most.")]
Deadline = Annotated[float | None, typer.Option(metavar="S", min=0, help="Seconds until it has to be over.")]
Approvals = Annotated[
    list[str] | None, typer.Option(metavar="TASK", help="Approve this task beforehand; repeatable.")
]
OutFile = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the outputs there.")
]
PolicyKind = Annotated[str | None, typer.Option(metavar="KIND", help="cheapest, fixed or learned.")]
Aim = Annotated[str | None, typer.Option(metavar="AIM", help="Of --policy learned: cheap, balanced or best.")]
Quality = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Or the share of the best model's quality to keep: 0.9.")
]
Local = Annotated[bool, typer.Option("--local", help="Run in this process even when an engine is up.")]

runs_app = typer.Typer(help="List runs, newest first; `prune` deletes old ones.", rich_markup_mode=None)


def run(
    workflow: Annotated[Path | None, typer.Argument(metavar="[WORKFLOW.yaml]", help="The workflow.")] = None,
    inputs: Inputs = None,
    budget: Budget = None,
    tokens: Tokens = None,
    seconds: Seconds = None,
    approve: Approvals = None,
    goal: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Plan a workflow for this, then run it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to podium's own questions.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate and print the plan table only.")
    ] = False,
    output: OutFile = None,
    deadline: Deadline = None,
    priority: Annotated[int, typer.Option(metavar="N", help="Higher goes first.")] = 0,
    policy: PolicyKind = None,
    aim: Aim = None,
    quality: Quality = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Use this model for every call.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to the engine of `podium up`.")] = False,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Have it started then: ISO 8601, UTC if it has no zone."),
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="AGE", help="Have it started again and again: 90s, 10m, 2h, 1d.")
    ] = None,
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
    routing = drive.routing(policy, model, aim, quality)
    with client(pool, routing) as podium:
        if goal is not None:
            from .plan import plan_to_run

            given = drive.Job.of_goal(plan_to_run(podium, goal, inputs or [], model, yes=yes), inputs or [])
        else:
            assert workflow is not None
            given = drive.Job.of_file(workflow, inputs or [])
        given.budget, given.deadline, given.priority = budget, deadline, priority
        given.approve, given.policy = approve or [], routing
        given.tokens, given.seconds = tokens, seconds
        if dry_run:
            drive.dry_run(podium, given, as_json)
            return
        if at is not None or every is not None:
            _schedule(podium, given, at, every, as_json)
            return
        if detach and not podium.engine_alive():
            from ...memory.errors import ClusterError

            raise ClusterError(
                "no engine is up to take the run", mend="podium up, or run it without --detach"
            )
        drive.run(podium, given, drive.Ways(as_json, output, local, detach))


def _schedule(podium: Podium, job: Job, at: str | None, every: str | None, as_json: bool) -> None:
    from .schedules import add

    add(podium, job, at, every, as_json)


def resume(
    run_id: RunId,
    budget: Budget = None,
    tokens: Tokens = None,
    seconds: Seconds = None,
    output: OutFile = None,
    local: Local = False,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was interrupted, paused, stopped by its budget, or answered."""
    from ...memory.money import format_usd
    from . import drive

    with client(pool) as podium:
        found = podium.get(run_id)
        if found.status == "stopped" or (budget, tokens, seconds) != (None, None, None):
            podium.reopen(found.id, budget=budget, tokens=tokens, seconds=seconds)
            found = podium.get(found.id)
            note(f"the budget is {format_usd(found.record.budget_nano)} USD")
        if podium.resume(found.id):
            found = podium.get(found.id)
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
            told(podium, found.id, again, as_json)
            return
        drive.go_on(podium, podium.get(found.id), drive.Ways(as_json, output, local))


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
            from .records import RunsOut

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

    known = ("queued", "running", "waiting", "paused", "succeeded", "failed", "cancelled", "stopped")
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
    from ..schedules import parse_duration
    from .common import confirm
    from .output import PruneOut

    seconds = parse_duration(older_than)
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
