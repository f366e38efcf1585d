"""What `--json` prints, verb by verb. `python -m podium.orchestrator.cli.output` writes the published schema.

Money is a decimal string in US dollars, times are ISO 8601 in UTC, durations are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .memory_records import (
    CompactOut,
    ContextOut,
    CountsOut,
    ForgetPreviewOut,
    HitsOut,
    LinkOut,
    LinksOut,
    MemoryDiffOut,
    MemoryForkOut,
    ReceiptOut,
    RevisionOut,
    RevisionsOut,
    TransferOut,
    VacuumOut,
)
from .prompts import PromptsOut
from .records import (
    ActionOut,
    ChangedOut,
    DiffOut,
    ErrorOut,
    EventOut,
    ForkOut,
    Record,
    RemovedOut,
    ReplayOut,
    RunOut,
    RunsOut,
    ScheduleOut,
    SchedulesOut,
    ShowOut,
    Usd,
)
from .router_records import (
    FeedbackOut,
    FrontierOut,
    RouterDistillOut,
    RouterEvalOut,
    RouterExplainOut,
    RouterExportOut,
    RouterProfileOut,
    RouterRankOut,
    RouterReplayOut,
    RouterRollbackOut,
    RouterTrainOut,
    RouterVersionsOut,
)


class PruneOut(Record):
    runs: list[str]
    dry_run: bool


class PlanRowOut(Record):
    task: str
    kind: str
    model: str | None
    #: elements of a map, null while they are not known
    count: int | None
    est_cost_usd: Usd
    est_seconds: float | None
    reason: str


class DryRunOut(Record):
    """`run --dry-run`: what would be done. Nothing is stored, nothing is called."""

    workflow: str
    budget_usd: Usd
    est_cost_usd: Usd
    rows: list[PlanRowOut]


class PlanOut(Record):
    """`plan`: a workflow for a goal. `source` is `template` when no model could plan it."""

    goal: str
    source: Literal["model", "template"]
    notes: list[str]
    run_id: str
    cost_usd: Usd
    workflow: dict[str, Any]
    rows: list[PlanRowOut]


class ModelOut(Record):
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


class ModelsOut(Record):
    pool: str
    policy: dict[str, Any]
    models: list[ModelOut]


class PullOut(Record):
    name: str
    path: str
    bytes: int


class AddOut(Record):
    name: str
    pool: str
    input_usd_per_mtok: Usd
    output_usd_per_mtok: Usd
    context: int


class ModelTest(Record):
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


class ModelTestsOut(Record):
    tests: list[ModelTest]


class ClusterOut(Record):
    """`up`, `status`. `token_path` is the file with the token that the dashboard asks for."""

    running: bool
    ready: bool
    address: str | None
    dashboard_url: str | None
    token_path: str | None
    engine_pid: int | None
    models: list[str]
    #: runs that are queued, running, waiting or paused
    open_runs: int


class DownOut(Record):
    engine_stopped: bool
    head_stopped: bool


class DbOut(Record):
    revision: str | None
    newest: str
    differences: list[str]
    ok: bool


class DoctorCheckOut(Record):
    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    mend: str


class DoctorOut(Record):
    ok: bool
    checks: list[DoctorCheckOut]


class SettingOut(Record):
    key: str
    value: str
    source: str


class ConfigOut(Record):
    settings: list[SettingOut]


class InitOut(Record):
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
    "run --at": ScheduleOut,
    "run --every": ScheduleOut,
    "runs": RunsOut,
    "runs prune": PruneOut,
    "show": ShowOut,
    "show --prompt": PromptsOut,
    "watch": EventOut,
    "logs": EventOut,
    "resume": RunOut,
    "retry": RunOut,
    "retry --no-run": ActionOut,
    "cancel": ActionOut,
    "approve": ActionOut,
    "approve --resume": RunOut,
    "pause": ActionOut,
    "change": ChangedOut,
    "fork": RunOut,
    "fork --no-run": ForkOut,
    "fork --detach": ForkOut,
    "replay": ReplayOut,
    "diff": DiffOut,
    "schedules": SchedulesOut,
    "schedules --remove": RemovedOut,
    "memory put": RevisionOut,
    "memory get": RevisionOut,
    "memory history": RevisionsOut,
    "memory search": HitsOut,
    "memory list": RevisionsOut,
    "memory link": LinkOut,
    "memory links": LinksOut,
    "memory context": ContextOut,
    "memory fork": MemoryForkOut,
    "memory diff": MemoryDiffOut,
    "memory rollback": RevisionOut,
    "memory retract": RevisionOut,
    "memory forget": ReceiptOut,
    "memory forget --dry-run": ForgetPreviewOut,
    "memory sweep": CountsOut,
    "memory compact": CompactOut,
    "memory vacuum": VacuumOut,
    "memory export": TransferOut,
    "memory import": TransferOut,
    "models": ModelsOut,
    "models pull": PullOut,
    "models add": AddOut,
    "models test": ModelTestsOut,
    "router eval": RouterEvalOut,
    "router rank": RouterRankOut,
    "router frontier": FrontierOut,
    "router train": RouterTrainOut,
    "router versions": RouterVersionsOut,
    "router rollback": RouterRollbackOut,
    "router profile": RouterProfileOut,
    "router export": RouterExportOut,
    "router distill": RouterDistillOut,
    "router explain": RouterExplainOut,
    "router replay": RouterReplayOut,
    "feedback": FeedbackOut,
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
