"""What `--json` prints, verb by verb. `python -m podium.orchestrator.cli.output` writes the published schema.

Money is a decimal string in US dollars, times are ISO 8601 in UTC, durations are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from ...memory.money import format_usd
from .common import iso

if TYPE_CHECKING:
    from ...memory.events import EventRecord
    from ...memory.reads import CallRecord
    from ..estimate import PlanRow
    from ..views import Run, TaskView

T = TypeVar("T")
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


# -- from the client's nouns


def error_info(data: Mapping[str, Any] | None) -> ErrorInfo | None:
    """An error as it is stored, with what a reader needs of it."""
    if data is None:
        return None
    return ErrorInfo(**{name: data[name] for name in ErrorInfo.model_fields if data.get(name) is not None})


def waiting_of(run: Run) -> list[WaitingOut]:
    return [
        WaitingOut(
            task=task.name,
            question=task.approval_text or "",
            command=f"podium approve {run.id} {_quoted(task.name)}",
        )
        for task in run.waiting
    ]


def _quoted(name: str) -> str:
    return f"'{name}'" if "[" in name else name


def run_out(run: Run) -> RunOut:
    return RunOut(
        run_id=run.id,
        workflow=run.workflow,
        status=run.record.status,  # type: ignore[arg-type]  # checked by pydantic
        outputs=run.outputs,
        cost_usd=format_usd(run.cost_nano),
        budget_usd=format_usd(run.record.budget_nano),
        error=error_info(run.error),
        waiting=waiting_of(run),
        tasks=[TaskOut(**_task_fields(task)) for task in run.tasks],
    )


def _task_fields(task: TaskView) -> dict[str, Any]:
    record = task.record
    names = (
        "name", "kind", "status", "parent", "element", "attempts", "failures", "approval", "approval_text",
    )  # fmt: skip
    return {name: getattr(record, name) for name in names} | {
        "cost_usd": format_usd(task.cost_nano),
        "calls": task.calls,
        "models": list(task.models),
        "started_at": iso(record.started_at),
        "finished_at": iso(record.finished_at),
        "error": error_info(record.error),
    }


def route_out(call: CallRecord) -> RouteOut:
    route = call.route
    return RouteOut(
        call_id=call.id,
        **{name: getattr(call, name) for name in (
            "attempt", "step", "model", "status", "worker", "input_tokens", "output_tokens", "first_token_s",
            "total_s", "finish_reason", "error",
        )},
        mode=route.get("mode", "direct"),
        policy=route.get("policy", ""),
        reason=route.get("reason", ""),
        max_tokens=route.get("max_tokens"),
        est_cost_usd=route.get("est_cost_usd", "0"),
        worst_cost_usd=route.get("worst_cost_usd", format_usd(call.reserved_nano)),
        est_seconds=route.get("est_seconds"),
        alternatives=[AlternativeOut(**other) for other in route.get("alternatives", [])],
        cost_usd=None if call.cost_nano is None else format_usd(call.cost_nano),
    )  # fmt: skip


def show_out(run: Run, chain: ChainOut | None = None) -> ShowOut:
    """Everything about a run."""
    routes = _by_task((call.task, route_out(call)) for call in run.calls)
    attempts = _by_task(
        (
            a.task,
            AttemptOut(
                number=a.number,
                status=a.status,
                started_at=iso(a.started_at) or "",
                finished_at=iso(a.finished_at),
                error=error_info(a.error),
            ),
        )
        for a in run.attempts
    )
    effects = _by_task(
        (e.task, EffectOut(**{name: getattr(e, name) for name in EffectOut.model_fields})) for e in run.effects
    )
    record = run.record
    return ShowOut(
        **run_out(run).model_dump(exclude={"tasks"}),
        inputs=run.inputs,
        reserved_usd=format_usd(record.reserved_nano),
        created_at=iso(record.created_at) or "",
        started_at=iso(record.started_at),
        finished_at=iso(record.finished_at),
        detached=record.detached,
        engine=record.engine,
        tasks=[
            TaskDetail(
                **_task_fields(task),
                routes=routes.get(task.name, []),
                attempt_list=attempts.get(task.name, []),
                effects=effects.get(task.name, []),
            )
            for task in run.tasks
        ],
        chain=chain,
    )


def _by_task(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for task, record in pairs:
        found.setdefault(task, []).append(record)
    return found


def event_out(event: EventRecord) -> EventOut:
    return EventOut(
        run_id=event.run_id,
        seq=event.seq,
        kind=event.kind,
        task=event.task,
        data=event.data,
        at=iso(event.at) or "",
        hash=event.hash,
    )


def summary_out(run: Run) -> RunSummary:
    record = run.record
    return RunSummary(
        run_id=run.id,
        workflow=run.workflow,
        status=record.status,  # type: ignore[arg-type]  # checked by pydantic
        cost_usd=format_usd(run.cost_nano),
        budget_usd=format_usd(record.budget_nano),
        created_at=iso(record.created_at) or "",
        finished_at=iso(record.finished_at),
        detached=record.detached,
    )


def plan_row_out(row: PlanRow) -> PlanRowOut:
    return PlanRowOut(
        task=row.task,
        kind=row.kind,
        model=row.model,
        count=row.count,
        est_cost_usd=format_usd(row.est_cost_nano),
        est_seconds=row.est_seconds,
        reason=row.reason,
    )


if __name__ == "__main__":
    print(json.dumps(published_schema(), indent=2, sort_keys=True))
