"""From a job on the command line to a run that is over: submit, drive or follow, ask, print."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...memory.errors import ConfigError, UsageError
from ...memory.money import format_usd, parse_usd
from . import render
from .common import as_text, confirm, emit, is_person, note, prompt
from .live import view

if TYPE_CHECKING:
    from ..client import Podium
    from ..views import Run
    from ..workflow import Workflow

_INTERRUPTED = 130
#: what --policy takes
KINDS = ("cheapest", "fixed", "learned")


@dataclass(slots=True)
class Job:
    """What is to be run."""

    workflow: Workflow
    inputs: dict[str, Any]
    #: where the workflow was read; None: it was planned
    path: Path | None = None
    budget: str | None = None
    deadline: float | None = None
    priority: int = 0
    approve: list[str] = field(default_factory=list)
    policy: Mapping[str, Any] | None = None
    tokens: int | None = None
    #: of driving
    seconds: float | None = None

    @classmethod
    def of_file(cls, path: Path, pairs: Sequence[str]) -> Job:
        """Raises: WorkflowError with every problem of the file, UsageError for inputs that do not fit."""
        from ..loader import load_workflow
        from .inputs import parse_inputs

        workflow = load_workflow(path)
        return cls(workflow, parse_inputs(pairs, workflow), path)

    @classmethod
    def of_goal(cls, workflow: Workflow, pairs: Sequence[str]) -> Job:
        from .inputs import parse_inputs

        return cls(workflow, parse_inputs(pairs, workflow))


@dataclass(frozen=True, slots=True)
class Ways:
    """How a run is driven and where its result goes."""

    as_json: bool = False
    output: Path | None = None
    local: bool = False
    detach: bool = False


def routing(
    policy: str | None, model: str | None, aim: str | None = None, quality: float | None = None
) -> dict[str, Any] | None:
    """The routing that --policy, --model, --aim and --quality ask for; None: the pool file's.

    Raises:
        UsageError: they do not go together, or name none.
    """
    from difflib import get_close_matches

    if policy not in (None, *KINDS):
        near = get_close_matches(str(policy), KINDS, n=1)
        mend = f"did you mean {near[0]}?" if near else f"use --policy {', '.join(KINDS)}, or --model NAME"
        raise UsageError(f"there is no policy {policy!r}", mend=mend)
    if model is not None:
        policy = policy or "fixed"
    elif aim is not None or quality is not None:
        policy = policy or "learned"
    if model is not None and policy != "fixed":
        raise UsageError(f"--policy {policy} takes no --model", mend="leave one of them out")
    if (aim, quality) != (None, None) and policy != "learned":
        raise UsageError(
            "--aim and --quality are for --policy learned",
            mend=f"leave out {'--policy' if model is None else '--model'}",
        )
    if policy == "fixed" and model is None:
        raise UsageError("--policy fixed needs a model", mend="add --model NAME")
    if policy == "learned":
        from ..policies import learned_spec

        return learned_spec(aim, quality)
    return None if policy is None else {"kind": policy} | ({} if model is None else {"model": model})


def dry_run(podium: Podium, job: Job, as_json: bool) -> None:
    """Validate everything, and print the plan table on stdout. Nothing is stored."""
    from ..graph import check_inputs
    from ..loader import load_workflow

    if job.path is not None:
        load_workflow(job.path, check_imports=job.path.absolute().parent)
    inputs = check_inputs(job.workflow, job.inputs)
    budget = job.budget if job.budget is not None else podium.settings.budget
    amount = format_usd(parse_usd(budget))
    rows = podium.plan_table(job.workflow, inputs)
    if not as_json:
        render.plan_table(rows, budget=amount, err=False)
        return
    from .convert import plan_row_out
    from .output import DryRunOut

    total = format_usd(sum(row.est_cost_nano for row in rows))
    records = [plan_row_out(row) for row in rows]
    emit(DryRunOut(workflow=job.workflow.name, budget_usd=amount, est_cost_usd=total, rows=records))


def run(podium: Podium, job: Job, ways: Ways) -> None:
    """Store the run and see it through. The run's id is printed once it is stored, not before.

    Raises:
        typer.Exit: with the run's exit code, if that is not 0.
    """
    from ..graph import check_inputs

    inputs = check_inputs(job.workflow, job.inputs)
    amount = format_usd(parse_usd(job.budget if job.budget is not None else podium.settings.budget))
    render.plan_table(podium.plan_table(job.workflow, inputs), budget=amount, err=True)
    detached = not ways.local and podium.engine_alive()
    found = podium.submit(
        job.path or job.workflow,
        detached=detached,
        budget=job.budget,
        deadline=job.deadline,
        priority=job.priority,
        approve=job.approve,
        policy=job.policy,
        tokens=job.tokens,
        seconds=job.seconds,
        inputs=job.inputs,
    )
    note(f"run {found.id} accepted")
    if ways.detach:
        note(f"  → podium watch {found.id}")
        if ways.as_json:
            from .records import ActionOut

            emit(ActionOut(run_id=found.id, status="queued"))
        else:
            print(found.id)
        return
    go_on(podium, found, ways)


def go_on(podium: Podium, found: Run, ways: Ways) -> None:
    """Drive or follow a run, asking the person at the terminal whenever it waits; then print the result."""
    try:
        found = _once(podium, found, ways)
        while found.status == "waiting" and is_person() and not ways.as_json and _ask(podium, found):
            found = _once(podium, podium.get(found.id), ways)
    except KeyboardInterrupt:
        _interrupted(podium, found)
        raise typer.Exit(_INTERRUPTED) from None
    finish(found, ways)


def _once(podium: Podium, found: Run, ways: Ways) -> Run:
    if found.status not in ("queued", "running"):
        return found
    with view(found) as shown:
        if found.record.detached and not ways.local and podium.engine_alive():
            return podium.follow(found.id, after=_seen(found), on_event=shown.event)
        return podium.drive(found.id, on_event=shown.event)


def _seen(found: Run) -> int:
    """The last event that is part of the run as it was read; a new run's view starts at its first."""
    return found.record.event_seq if found.record.event_seq > 1 else 0


def _interrupted(podium: Podium, found: Run) -> None:
    if found.record.detached and podium.engine_alive():
        note(f"\ninterrupted; the engine goes on with it\n  → podium watch {found.id}")
    else:
        note(f"\ninterrupted; what is finished is kept\n  → podium resume {found.id}")


def _ask(podium: Podium, found: Run) -> bool:
    """Put every open question of a run to the person. False: they left one open."""
    for task in found.waiting:
        note(f"\n{task.name}: {task.record.approval_text}")
        try:
            approved = confirm("approve?")
            comment = prompt("comment, if any:")
        except EOFError:
            note("")
            return False
        podium.approve(found.id, task.name, approved=approved, comment=comment)
    return True


def finish(found: Run, ways: Ways) -> None:
    """Outputs to stdout or a file, the bill and what to do next to stderr; exits with the run's code."""
    text = _outputs(found)
    if ways.output is not None and text is not None:
        write(ways.output, text)
        note(f"outputs written to {ways.output}")
    if ways.as_json:
        from .convert import run_out

        emit(run_out(found))
    elif text is not None and ways.output is None:
        print(text)
    _bill(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _outputs(found: Run) -> str | None:
    """The only output as it is, several as a JSON object; None while there are none."""
    outputs = found.outputs
    if outputs is None:
        return None
    return as_text(next(iter(outputs.values())) if len(outputs) == 1 else outputs)


def _bill(found: Run) -> None:
    record = found.record
    spent = f"{format_usd(found.cost_nano)} of {format_usd(record.budget_nano)} USD"
    note(f"run {found.id} {found.status}: {spent}, {found.calls_made} calls")
    if found.status == "waiting":
        for line in render.questions(found):
            note(line)
    elif found.status == "paused":
        note(f"it was paused; it goes on with\n  → podium resume {found.id}")
    elif found.status in ("failed", "stopped"):
        note(f"error: {render.error_text(found)}")
        if found.status == "failed":
            note(f"  → podium retry {found.id}")
    note(f"  → podium show {found.id}")


def write(path: Path, text: str) -> None:
    """Write a text file at once or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    path = path.expanduser()
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text if text.endswith("\n") else f"{text}\n")
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", mend="give -o a path you may write to"
        ) from error
