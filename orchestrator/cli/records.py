"""The records that `--json` prints of runs: what they are, what happened, how they differ.

Money is a decimal string in US dollars, times are ISO 8601 in UTC, durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Usd = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$", description="US dollars, exact")]
RunStatus = Literal["queued", "running", "waiting", "paused", "succeeded", "failed", "cancelled", "stopped"]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorInfo(Record):
    kind: str
    message: str
    #: the one thing to do next
    mend: str = ""
    exit_code: int = 1
    run: str | None = None
    task: str | None = None
    attempt: int | None = None


class ErrorOut(Record):
    """What any verb prints when it fails before it has a result."""

    error: ErrorInfo


class TaskOut(Record):
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


class WaitingOut(Record):
    """A question to a person, and the command that answers it."""

    task: str
    question: str
    command: str


class RunOut(Record):
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


class AlternativeOut(Record):
    model: str
    fits: bool
    est_cost_usd: Usd
    reason: str
    #: expected score 0…1 and its standard deviation; null: the policy does not judge quality
    est_quality: float | None = None
    quality_sd: float | None = None


class CheckOut(Record):
    name: str
    verdict: Literal["pass", "fail", "unknown"]
    score: float
    evidence: str


class ReviewOut(Record):
    """What was found of an answer. `wrong`: probability; `gain`: score that `then`'s answer would bring."""

    checks: list[CheckOut]
    wrong: float | None
    gain: float | None
    #: the model that was asked then; null: the answer was accepted
    then: str | None
    reason: str


class SideOut(Record):
    """One way to make all decisions of a run: what it costs, and the mean expected score, 95 % interval."""

    name: str
    cost_usd: Usd
    quality: float | None
    low: float | None
    high: float | None


class LeadOut(Record):
    """The run beside one model for everything. What was not called is known by estimates only."""

    other: SideOut
    #: below 0 if the run cost more
    saved_usd: Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?$", description="US dollars, exact")]
    #: of the other's cost
    saved_share: float | None
    #: expected score gained, below 0 if given up; 95 % interval
    quality: float | None
    low: float | None
    high: float | None


class SavingsOut(Record):
    actual: SideOut
    best: LeadOut | None
    cheapest: LeadOut | None
    decisions: int
    calls: int
    #: what routes expected that the calls would cost, and what these were billed
    expected_usd: Usd
    billed_usd: Usd


class RouteOut(Record):
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
    est_quality: float | None = None
    quality_sd: float | None = None
    #: with the mode `cascade`: the model behind it, and what both are expected to score and to cost
    then: str | None = None
    way_quality: float | None = None
    way_usd: Usd | None = None
    #: what one point of score was worth
    point_usd: Usd | None = None
    #: the chance with which it was chosen, and whether that was to learn
    propensity: float = 1.0
    explored: bool = False
    #: version of what the router had learned
    state: int | None = None
    verdict: str | None = None
    review: ReviewOut | None = None
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


class AttemptOut(Record):
    number: int
    status: str
    started_at: str
    finished_at: str | None
    error: ErrorInfo | None


class EffectOut(Record):
    """A tool call."""

    key: str
    attempt: int
    step: int
    tool: str
    effect: str
    status: str
    error: str | None


class FailedOut(Record):
    name: str
    error: ErrorInfo | None


class BelowOut(Record):
    """What is below a task: elements of a map, tasks of a sub-workflow, iterations of a loop."""

    #: status → number of its children
    counts: dict[str, int]
    attempts: int
    #: calls and cost of everything below the task and of itself
    calls: int
    cost_usd: Usd
    models: list[str]
    #: tasks below it that failed, and the first of them
    failures: int
    failed: list[FailedOut]


class TaskDetail(TaskOut):
    routes: list[RouteOut]
    attempt_list: list[AttemptOut]
    effects: list[EffectOut]
    #: what is below it, summed up; null with --all, which lists it, and where there is nothing
    below: BelowOut | None = None


class ChainOut(Record):
    """Whether the event chain holds; `first_bad` is the number of the first event that does not fit."""

    ok: bool
    events: int
    first_bad: int | None


class ShowOut(Record):
    run_id: str
    workflow: str
    status: RunStatus
    inputs: dict[str, Any]
    outputs: dict[str, Any] | None
    cost_usd: Usd
    reserved_usd: Usd
    budget_usd: Usd
    tokens: int
    reserved_tokens: int
    #: null: not limited
    budget_tokens: int | None
    #: seconds of driving
    used_seconds: float
    budget_seconds: float | None
    priority: int
    deadline_at: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    detached: bool
    engine: str | None
    pause_requested: bool
    #: the run it was forked from, and how many events that had then
    forked_from: str | None
    forked_seq: int | None
    schedule_id: str | None
    error: ErrorInfo | None
    waiting: list[WaitingOut]
    #: those of the run's own workflow; with --all also everything below them
    tasks: list[TaskDetail]
    #: only with --verify
    chain: ChainOut | None = None
    #: null: no call was routed by a policy that judges quality
    savings: SavingsOut | None = None


class EventOut(Record):
    """A line of `watch --json`; `seq` is the resume token for `--after`."""

    run_id: str
    seq: int
    kind: str
    task: str | None
    data: dict[str, Any]
    at: str
    hash: str


class RunSummary(Record):
    run_id: str
    workflow: str
    status: RunStatus
    cost_usd: Usd
    budget_usd: Usd
    created_at: str
    finished_at: str | None
    detached: bool


class RunsOut(Record):
    runs: list[RunSummary]


class ActionOut(Record):
    """`cancel`, `approve`, `pause`, `retry --no-run`, `run --detach`: the run now, the tasks meant."""

    run_id: str
    status: RunStatus
    tasks: list[str] = []


class ChangedOut(Record):
    """`change`: the terms on which the run runs now."""

    run_id: str
    status: RunStatus
    budget_usd: Usd
    budget_tokens: int | None
    budget_seconds: float | None
    priority: int
    deadline_at: str | None


class ForkOut(Record):
    """`fork --no-run`, `fork --detach`: the new run and what it took over."""

    run_id: str
    status: RunStatus
    forked_from: str
    forked_seq: int
    reused: list[str]
    #: finished tasks before the fork that run again → the changed inputs and compensations that they rest on
    again: dict[str, list[str]]


class ReplayRowOut(Record):
    """A call: what it was, and what the policy would have of it. Null: it finds no model."""

    task: str
    attempt: int
    step: int
    status: str
    model_then: str
    cost_then_usd: Usd
    model_now: str | None
    cost_now_usd: Usd | None
    same: bool
    reason: str


class ReplayOut(Record):
    run_id: str
    policy: dict[str, Any]
    #: of the calls that the policy finds a model for
    cost_then_usd: Usd
    cost_now_usd: Usd
    #: calls that would go to another model, and those that would go to none
    moved: int
    unrouted: int
    rows: list[ReplayRowOut]


class DiffRunOut(Record):
    run_id: str
    workflow: str
    status: RunStatus
    cost_usd: Usd
    #: from its start to its end
    seconds: float | None


class DiffChangeOut(Record):
    """A place (JSONPath) where two values differ. `missing`: the side that has no such place."""

    path: str
    left: Any
    right: Any
    missing: Literal["", "left", "right"]


class DiffSideOut(Record):
    status: str
    models: list[str]
    cost_usd: Usd
    seconds: float | None
    attempts: int


class DiffTaskOut(Record):
    name: str
    #: of status, models, cost, seconds, output
    differs: list[str]
    left: DiffSideOut
    right: DiffSideOut
    #: lines of a unified diff of two texts, else places in the two values
    output: list[str]


class DiffOut(Record):
    """`same`: nothing differs but the seconds."""

    same: bool
    left: DiffRunOut
    right: DiffRunOut
    spec: list[DiffChangeOut]
    inputs: list[DiffChangeOut]
    only_left: list[str]
    only_right: list[str]
    #: tasks that are in both runs, and those of them that differ
    common: int
    tasks: list[DiffTaskOut]
    outputs: list[DiffChangeOut]


class ScheduleOut(Record):
    """`run --at`, `run --every`; null for `next_at`: it is over."""

    schedule_id: str
    workflow: str
    next_at: str | None
    every_s: float | None
    #: runs that it has started
    fired: int
    budget_usd: Usd
    created_at: str


class SchedulesOut(Record):
    schedules: list[ScheduleOut]


class RemovedOut(Record):
    schedule_id: str
