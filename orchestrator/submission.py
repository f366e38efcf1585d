"""From what a user gives to a run that can be stored: checked first, so a wrong one leaves nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..memory import faults, runs
from ..memory.database import Connection, Database
from ..memory.errors import UsageError
from ..memory.money import parse_usd
from .settings import Settings
from .state import first_edges, first_tasks
from .tasks import LlmTask
from .workflow import Workflow, WorkflowError

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
        UsageError: an approval of a task that the workflow does not have, or a budget that is no money.
    """
    from .graph import check_inputs

    if unknown := [task for task in terms.approve if task not in workflow.tasks]:
        raise UsageError(
            f"--approve {unknown[0]}: there is no such task", mend=f"tasks are: {', '.join(workflow.tasks)}"
        )
    return runs.NewRun(
        id=f"r{secrets.token_hex(5)}",
        tenant=settings.tenant,
        workflow=workflow.name,
        spec=workflow.to_data(),
        inputs=check_inputs(workflow, inputs),
        tasks=first_tasks(workflow),
        edges=first_edges(workflow),
        budget_nano=parse_usd(terms.budget if terms.budget is not None else settings.budget),
        project_root=str(root),
        detached=terms.detached,
        priority=terms.priority,
        deadline_at=time.time() + terms.deadline if terms.deadline is not None else None,
        idempotency_key=terms.idempotency_key,
        preapproved=terms.approve,
        policy=terms.policy,
    )


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
