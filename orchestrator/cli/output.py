"""What `--json` prints, verb by verb. `python -m podium.orchestrator.cli.output` writes the published schema.

Money is a decimal string in US dollars, times are ISO 8601 in UTC, durations are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

Usd = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$", description="US dollars, exact")]
RunStatus = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled", "stopped"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorInfo(_Record):
    kind: str
    message: str
    #: the one thing to do next
    mend: str = ""
    exit_code: int = 1
    run: str | None = None
    task: str | None = None
    attempt: int | None = None


class ErrorOut(_Record):
    """What any verb prints when it fails before it has a result."""

    error: ErrorInfo


class TaskOut(_Record):
    name: str
    kind: str
    status: str
    parent: str | None
    element: int | None
    attempts: int
    failures: int
    cost_usd: Usd
    calls: int
    models: list[str]
    approval: str | None
    approval_text: str | None
    started_at: str | None
    finished_at: str | None
    error: ErrorInfo | None


class WaitingOut(_Record):
    """A question to a person, and the command that answers it."""

    task: str
    question: str
    command: str


class RunOut(_Record):
    """`run`, `resume`, `ask`: a run as it is when the command ends."""

    run_id: str
    workflow: str
    status: RunStatus
    outputs: dict[str, Any] | None
    cost_usd: Usd
    budget_usd: Usd
    error: ErrorInfo | None
    waiting: list[WaitingOut]
    tasks: list[TaskOut]


class AlternativeOut(_Record):
    model: str
    fits: bool
    est_cost_usd: Usd
    reason: str


class RouteOut(_Record):
    """One model call: what the router decided and why, and what came of it."""

    call_id: str
    attempt: int
    step: int
    model: str
    mode: str
    policy: str
    reason: str
    max_tokens: int | None
    est_cost_usd: Usd
    worst_cost_usd: Usd
    est_seconds: float | None
    alternatives: list[AlternativeOut]
    status: str
    worker: str | None
    cost_usd: Usd | None
    input_tokens: int | None
    output_tokens: int | None
    first_token_s: float | None
    total_s: float | None
    finish_reason: str | None
    error: str | None


class AttemptOut(_Record):
    number: int
    status: str
    started_at: str
    finished_at: str | None
    error: ErrorInfo | None


class EffectOut(_Record):
    """A tool call."""

    key: str
    attempt: int
    step: int
    tool: str
    effect: str
    status: str
    error: str | None


class TaskDetail(TaskOut):
    routes: list[RouteOut]
    attempt_list: list[AttemptOut]
    effects: list[EffectOut]


class ChainOut(_Record):
    """Whether the event chain holds; `first_bad` is the number of the first event that does not fit."""

    ok: bool
    events: int
    first_bad: int | None


class ShowOut(_Record):
    run_id: str
    workflow: str
    status: RunStatus
    inputs: dict[str, Any]
    outputs: dict[str, Any] | None
    cost_usd: Usd
    reserved_usd: Usd
    budget_usd: Usd
    created_at: str
    started_at: str | None
    finished_at: str | None
    detached: bool
    engine: str | None
    error: ErrorInfo | None
    waiting: list[WaitingOut]
    tasks: list[TaskDetail]
    #: only with --verify
    chain: ChainOut | None = None


class EventOut(_Record):
    """A line of `watch --json`; `seq` is the resume token for `--after`."""

    run_id: str
    seq: int
    kind: str
    task: str | None
    data: dict[str, Any]
    at: str
    hash: str


class RunSummary(_Record):
    run_id: str
    workflow: str
    status: RunStatus
    cost_usd: Usd
    budget_usd: Usd
    created_at: str
    finished_at: str | None
    detached: bool


class RunsOut(_Record):
    runs: list[RunSummary]


class PruneOut(_Record):
    runs: list[str]
    dry_run: bool


class PlanRowOut(_Record):
    task: str
    kind: str
    model: str | None
    #: elements of a map, null while they are not known
    count: int | None
    est_cost_usd: Usd
    est_seconds: float | None
    reason: str


class DryRunOut(_Record):
    """`run --dry-run`: what would be done. Nothing is stored, nothing is called."""

    workflow: str
    budget_usd: Usd
    est_cost_usd: Usd
    rows: list[PlanRowOut]


class PlanOut(_Record):
    """`plan`: a workflow for a goal. `source` is `template` when no model could plan it."""

    goal: str
    source: Literal["model", "template"]
    notes: list[str]
    run_id: str
    cost_usd: Usd
    workflow: dict[str, Any]
    rows: list[PlanRowOut]


class ActionOut(_Record):
    """`cancel`, `approve`, `retry`, `run --detach`: what the run is now, and the tasks that were meant."""

    run_id: str
    status: RunStatus
    tasks: list[str] = []


class ModelOut(_Record):
    name: str
    engine: str
    source: str
    input_usd_per_mtok: Usd
    output_usd_per_mtok: Usd
    context: int
    replicas: int
    capabilities: list[str]
    state: Literal["ready", "missing"]
    #: what is missing and how to mend it
    detail: str


class ModelsOut(_Record):
    pool: str
    policy: dict[str, Any]
    models: list[ModelOut]


class PullOut(_Record):
    name: str
    path: str
    bytes: int


class AddOut(_Record):
    name: str
    pool: str
    input_usd_per_mtok: Usd
    output_usd_per_mtok: Usd
    context: int


class ModelTest(_Record):
    name: str
    ok: bool
    device: str
    #: seconds to load the model
    load_s: float | None
    first_token_s: float | None
    tokens_per_s: float | None
    json_ok: bool | None
    cost_usd: Usd | None
    error: str | None


class ModelTestsOut(_Record):
    tests: list[ModelTest]


class ClusterOut(_Record):
    """`up`, `status`. `token_path` is the file with the token that the dashboard asks for."""

    running: bool
    ready: bool
    address: str | None
    dashboard_url: str | None
    token_path: str | None
    engine_pid: int | None
    models: list[str]
    #: runs that are queued, running or waiting
    open_runs: int


class DownOut(_Record):
    engine_stopped: bool
    head_stopped: bool


class DbOut(_Record):
    revision: str | None
    newest: str
    differences: list[str]
    ok: bool


class CheckOut(_Record):
    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    mend: str


class DoctorOut(_Record):
    ok: bool
    checks: list[CheckOut]


class SettingOut(_Record):
    key: str
    value: str
    source: str


class ConfigOut(_Record):
    settings: list[SettingOut]


class InitOut(_Record):
    folder: str
    files: list[str]
    kept: list[str]


#: verb → the record that its --json prints
VERBS: Mapping[str, type[BaseModel]] = {
    "error": ErrorOut,
    "init": InitOut,
    "ask": RunOut,
    "plan": PlanOut,
    "run": RunOut,
    "run --dry-run": DryRunOut,
    "run --detach": ActionOut,
    "runs": RunsOut,
    "runs prune": PruneOut,
    "show": ShowOut,
    "watch": EventOut,
    "resume": RunOut,
    "retry": ActionOut,
    "cancel": ActionOut,
    "approve": ActionOut,
    "approve --resume": RunOut,
    "models": ModelsOut,
    "models pull": PullOut,
    "models add": AddOut,
    "models test": ModelTestsOut,
    "up": ClusterOut,
    "down": DownOut,
    "status": ClusterOut,
    "db": DbOut,
    "doctor": DoctorOut,
    "config": ConfigOut,
}


def published_schema() -> dict[str, Any]:
    """JSON Schema of all records; `verbs` says which verb prints which."""
    kinds = list(dict.fromkeys(VERBS.values()))
    _, schema = models_json_schema(
        [(kind, "serialization") for kind in kinds], title="Output of podium VERB --json"
    )
    verbs = {verb: {"$ref": f"#/$defs/{kind.__name__}"} for verb, kind in VERBS.items()}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": schema["title"], "verbs": verbs, "$defs": schema["$defs"]}


if __name__ == "__main__":
    print(json.dumps(published_schema(), indent=2, sort_keys=True))
