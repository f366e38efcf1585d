"""From the client's nouns to the records that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ...memory.money import format_usd
from .common import iso
from .output import PlanRowOut
from .records import (
    AlternativeOut,
    AttemptOut,
    BelowOut,
    ChainOut,
    ChangedOut,
    EffectOut,
    ErrorInfo,
    EventOut,
    FailedOut,
    ForkOut,
    LeadOut,
    Record,
    ReviewOut,
    RouteOut,
    RunOut,
    RunSummary,
    SavingsOut,
    ScheduleOut,
    ShowOut,
    SideOut,
    TaskDetail,
    TaskOut,
    WaitingOut,
)

if TYPE_CHECKING:
    from ...memory.events import EventRecord
    from ...memory.reads import AttemptRecord, CallRecord, RunRecord
    from ...memory.schedules import ScheduleRecord
    from ...router.evaluation.savings import Lead, Savings, Side
    from ..controls import Fork
    from ..estimate import PlanRow
    from ..views import Below, Run, TaskView

T = TypeVar("T")


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
    return RunOut(**_run_fields(run), tasks=[TaskOut(**_task_fields(task)) for task in run.tasks])


def _run_fields(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.id,
        "workflow": run.workflow,
        "status": run.status,
        "outputs": run.outputs,
        "cost_usd": format_usd(run.cost_nano),
        "budget_usd": format_usd(run.record.budget_nano),
        "error": error_info(run.error),
        "waiting": waiting_of(run),
    }


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


#: what a route says besides when its policy judges quality
_JUDGED = (
    "est_quality", "quality_sd", "then", "way_quality", "way_usd", "point_usd", "propensity", "explored",
    "state",
)  # fmt: skip


def _known(kind: type[Record], data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in kind.model_fields if name in data}


def savings_out(found: Savings) -> SavingsOut:
    return SavingsOut(
        actual=_side_out(found.actual),
        best=None if found.best is None else _lead_out(found.best),
        cheapest=None if found.cheapest is None else _lead_out(found.cheapest),
        decisions=found.decisions,
        calls=found.calls,
        expected_usd=format_usd(found.expected_nano),
        billed_usd=format_usd(found.billed_nano),
    )


def _side_out(side: Side) -> SideOut:
    return SideOut(
        name=side.name,
        cost_usd=format_usd(side.cost_nano),
        quality=side.quality,
        low=side.low,
        high=side.high,
    )


def _lead_out(lead: Lead) -> LeadOut:
    return LeadOut(
        other=_side_out(lead.other),
        saved_usd=format_usd(lead.saved_nano),
        saved_share=lead.saved_share,
        quality=lead.quality,
        low=lead.low,
        high=lead.high,
    )


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
        **{name: route[name] for name in _JUDGED if route.get(name) is not None},
        verdict=call.verdict,
        review=None if call.review is None else ReviewOut(**_known(ReviewOut, call.review)),
        alternatives=[AlternativeOut(**other) for other in route.get("alternatives", [])],
        cost_usd=None if call.cost_nano is None else format_usd(call.cost_nano),
    )  # fmt: skip


def show_out(run: Run, chain: ChainOut | None = None, *, everything: bool = False) -> ShowOut:
    """A run; with `everything` also each task below those of its own workflow, else their sums."""
    calls, attempts, effects = (run.calls, run.attempts, run.effects) if everything else run.own
    tasks = run.tasks if everything else run.outline
    routes = _by_task((call.task, route_out(call)) for call in calls)
    tries = _by_task((a.task, _attempt_out(a)) for a in attempts)
    tools = _by_task(
        (e.task, EffectOut(**{name: getattr(e, name) for name in EffectOut.model_fields})) for e in effects
    )
    return ShowOut(
        **_run_fields(run),
        **_terms_of(run.record),
        inputs=run.inputs,
        tasks=[
            TaskDetail(
                **_task_fields(task),
                routes=routes.get(task.name, []),
                attempt_list=tries.get(task.name, []),
                effects=tools.get(task.name, []),
                below=_below_out(task.below),
            )
            for task in tasks
        ],
        chain=chain,
        savings=None if run.savings is None else savings_out(run.savings),
    )


def _terms_of(record: RunRecord) -> dict[str, Any]:
    same = (
        "reserved_tokens", "budget_tokens", "used_seconds", "budget_seconds", "priority", "detached",
        "engine", "pause_requested", "forked_from", "forked_seq", "schedule_id",
    )  # fmt: skip
    return {name: getattr(record, name) for name in same} | {
        "reserved_usd": format_usd(record.reserved_nano),
        "tokens": record.settled_tokens,
        "deadline_at": iso(record.deadline_at),
        "created_at": iso(record.created_at) or "",
        "started_at": iso(record.started_at),
        "finished_at": iso(record.finished_at),
    }


def _attempt_out(attempt: AttemptRecord) -> AttemptOut:
    return AttemptOut(
        number=attempt.number,
        status=attempt.status,
        started_at=iso(attempt.started_at) or "",
        finished_at=iso(attempt.finished_at),
        error=error_info(attempt.error),
    )


def _below_out(below: Below | None) -> BelowOut | None:
    if below is None:
        return None
    return BelowOut(
        counts=dict(below.counts),
        attempts=below.attempts,
        calls=below.calls,
        cost_usd=format_usd(below.cost_nano),
        models=list(below.models),
        failures=below.failures,
        failed=[FailedOut(name=task.name, error=error_info(task.error)) for task in below.failed],
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


def changed_out(run: Run) -> ChangedOut:
    same = ("budget_tokens", "budget_seconds", "priority")
    return ChangedOut(
        run_id=run.id,
        status=run.record.status,  # type: ignore[arg-type]  # checked by pydantic
        budget_usd=format_usd(run.record.budget_nano),
        deadline_at=iso(run.record.deadline_at),
        **{name: getattr(run.record, name) for name in same},
    )


def fork_out(made: Fork) -> ForkOut:
    record = made.run.record
    return ForkOut(
        run_id=record.id,
        status=record.status,  # type: ignore[arg-type]  # checked by pydantic
        forked_from=record.forked_from or "",
        forked_seq=record.forked_seq or 0,
        reused=list(made.reused),
        again={task: list(inputs) for task, inputs in made.again.items()},
    )


def schedule_out(schedule: ScheduleRecord) -> ScheduleOut:
    return ScheduleOut(
        schedule_id=schedule.id,
        workflow=schedule.workflow,
        next_at=iso(schedule.next_at),
        every_s=schedule.every_s,
        fired=schedule.fired,
        budget_usd=str(schedule.terms["budget"]),
        created_at=iso(schedule.created_at) or "",
    )
