"""From what a user gives to a run that can be stored: checked first, so a wrong one leaves nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..memory import faults, runs
from ..memory.database import Connection, Database
from ..memory.errors import UsageError
from ..memory.money import parse_usd
from ..memory.reads import RunRecord
from .settings import Settings
from .tasks import LlmTask, PlanTask
from .workflow import Workflow, WorkflowError, task_refs, workflow_task

#: said when the person gives none: the default of some chat templates misleads small models
ASK_SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a run runs; `Podium.run` says what each means."""

    budget: Any = None
    #: seconds from now
    deadline: float | None = None
    priority: int = 0
    approve: Sequence[str] = ()
    policy: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    detached: bool = False
    #: tokens of all its calls together
    tokens: int | None = None
    #: seconds that engines may drive it
    seconds: float | None = None


def checked(workflow: Workflow | str | Path) -> tuple[Workflow, Path]:
    """A workflow that can run, and the folder its `module:name` references are imported from.

    Raises:
        WorkflowError: it cannot run; holds every Problem.
    """
    if isinstance(workflow, Workflow):
        from .graph import callables, validate
        from .signatures import folder_of

        root = folder_of(callables(workflow)) or Path.cwd()
        if problems := validate(workflow, check_imports=root):
            raise WorkflowError(problems)
        return workflow, root
    from .loader import load_workflow

    path = Path(workflow)
    root = path.absolute().parent
    return load_workflow(path, check_imports=root), root


def new_run(
    settings: Settings, workflow: Workflow, inputs: Mapping[str, Any], root: Path, terms: Terms
) -> runs.NewRun:
    """A run of a checked workflow, not stored yet.

    Raises:
        WorkflowError: the inputs do not fit.
        UsageError: an approval of a task that the workflow does not have, or a budget that is none.
    """
    from .graph import check_inputs
    from .growth import first_edges, first_tasks

    _check_approvals(workflow, terms.approve)
    _check_limits(terms)
    return runs.NewRun(
        id=f"r{secrets.token_hex(5)}",
        tenant=settings.tenant,
        workflow=workflow.name,
        spec=workflow.to_data(),
        inputs=check_inputs(workflow, inputs),
        tasks=first_tasks(workflow),
        edges=first_edges(workflow),
        budget_nano=parse_usd(terms.budget if terms.budget is not None else settings.budget),
        budget_tokens=terms.tokens,
        budget_seconds=terms.seconds,
        project_root=str(root),
        detached=terms.detached,
        priority=terms.priority,
        deadline_at=time.time() + terms.deadline if terms.deadline is not None else None,
        idempotency_key=terms.idempotency_key,
        preapproved=terms.approve,
        policy=terms.policy,
    )


def forked_run(
    settings: Settings,
    source: RunRecord,
    workflow: Workflow,
    inputs: tuple[Mapping[str, Any], Mapping[str, Any]],
    terms: Terms,
) -> tuple[runs.NewRun, dict[str, list[str]]]:
    """A run like `source`, not stored yet, and which tasks read an input that is another now (task → inputs).

    `inputs`: those of the source, and those that are given anew. Budgets and policy that `terms` leave open
    are as in the source; approvals given beforehand were for that run alone.

    Raises:
        WorkflowError: the inputs do not fit.
        UsageError: as `new_run`.
    """
    old, given = inputs
    made = new_run(settings, workflow, {**old, **given}, Path(source.project_root), terms)
    made = replace(
        made,
        tenant=source.tenant,
        budget_nano=made.budget_nano if terms.budget is not None else source.budget_nano,
        budget_tokens=made.budget_tokens if terms.tokens is not None else source.budget_tokens,
        budget_seconds=made.budget_seconds if terms.seconds is not None else source.budget_seconds,
        policy=terms.policy if terms.policy is not None else source.policy,
    )
    different = {name for name, value in made.inputs.items() if name not in old or old[name] != value}
    changed: dict[str, list[str]] = {}
    for name, task in workflow.tasks.items():
        read = {ref.name for ref in task_refs(task)} & different
        if read:
            changed[name] = sorted(read)
    return made, changed


def task_names(workflow: Workflow, prefix: str = "") -> Iterator[str]:
    """The names of a workflow's tasks and of those in its sub-workflows and loops: `review/publish`."""
    for name, task in workflow.tasks.items():
        yield prefix + name
        if (inner := workflow_task(task)) is not None:
            yield from task_names(inner, f"{prefix}{name}/")


def _check_approvals(workflow: Workflow, approvals: Sequence[str]) -> None:
    known = list(task_names(workflow))
    planned = tuple(f"{name}/" for name, task in workflow.tasks.items() if isinstance(task, PlanTask))
    for task in approvals:
        # what a plan task will add is not known yet
        if task not in known and not (planned and task.startswith(planned)):
            close = get_close_matches(task, known, n=1)
            mend = f"did you mean {close[0]}?" if close else f"tasks are: {', '.join(known)}"
            raise UsageError(f"--approve {task}: there is no such task", mend=mend)


def _check_limits(terms: Terms) -> None:
    if terms.tokens is not None and terms.tokens < 0:
        raise UsageError(f"{terms.tokens} tokens are no budget", mend="give --tokens a number from 0 on")
    if terms.seconds is not None and not 0 < terms.seconds < float("inf"):
        raise UsageError(f"{terms.seconds} seconds are no budget", mend="give --seconds a number above 0")


def store(database: Database, new: runs.NewRun) -> str:
    """Commit a run with its tasks, edges and first event; returns its id, or that of the run with its key."""

    def create(connection: Connection) -> str:
        made = runs.create(connection, new)
        faults.hit("run.create", "before")
        return made

    run_id = database.transact(create)
    faults.hit("run.create", "after")
    return run_id


def ask_workflow(model: str | None, system: str | None, max_tokens: int | None = None) -> Workflow:
    """One question to one model, as a workflow: input `prompt`, task `answer`."""
    task = LlmTask(prompt="{prompt}", system=system or ASK_SYSTEM, model=model, max_tokens=max_tokens)
    return Workflow("ask", inputs={"prompt": "str"}, tasks={"answer": task})
