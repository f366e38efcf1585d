"""From the client's nouns to the records that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ...memory.money import format_usd
from .common import iso
from .output import (
    AlternativeOut,
    AttemptOut,
    ChainOut,
    EffectOut,
    ErrorInfo,
    EventOut,
    PlanRowOut,
    RouteOut,
    RunOut,
    RunSummary,
    ShowOut,
    TaskDetail,
    TaskOut,
    WaitingOut,
)

if TYPE_CHECKING:
    from ...memory.events import EventRecord
    from ...memory.reads import CallRecord
    from ..estimate import PlanRow
    from ..views import Run, TaskView

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
        (e.task, EffectOut(**{name: getattr(e, name) for name in EffectOut.model_fields}))
        for e in run.effects
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
