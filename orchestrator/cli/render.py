"""How runs and plans look to a person: tables on a terminal, plain aligned lines on a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ...memory.money import format_usd
from .common import as_text, iso, note, table

if TYPE_CHECKING:
    from ...memory.reads import CallRecord
    from ..estimate import PlanRow
    from ..views import Run, TaskView

#: letters of a reason or an output that are shown without -v
SHORT = 400


def plan_table(rows: Sequence[PlanRow], *, budget: str, err: bool) -> None:
    """The plan: task × model × estimated cost × estimated seconds × reason, and the sum."""
    cells = [
        [
            row.task,
            row.kind,
            _times(row.count),
            row.model or "-",
            format_usd(row.est_cost_nano) if row.model else "-",
            "-" if row.est_seconds is None else f"{row.est_seconds:.1f}",
            row.reason,
        ]
        for row in rows
    ]
    headers = ["task", "kind", "times", "model", "est. USD", "est. s", "reason"]
    plain = [h.replace("est. ", "est.") for h in headers]
    table(plain, cells, err=err, right="times est.USD est.s")
    total = format_usd(sum(row.est_cost_nano for row in rows))
    unknown = " or more (a map's length is not known yet)" if any(r.count is None for r in rows) else ""
    text = f"estimated {total} USD{unknown}; the budget is {budget} USD"
    note(text) if err else print(text)


def _times(count: int | None) -> str:
    return "?" if count is None else str(count)


def show(run: Run, *, verbose: bool) -> None:
    """A run on stdout: its state, tasks, routes, questions and outputs."""
    record = run.record
    spent = f"{format_usd(run.cost_nano)} of {format_usd(record.budget_nano)} USD"
    print(f"{run.id}  {run.workflow}  {run.status}")
    print(f"{spent} · {len(run.calls)} calls · {_times_of(run)}")
    if record.reserved_nano:
        print(f"{format_usd(record.reserved_nano)} USD reserved")
    print("\nTasks")
    _tasks(run, verbose)
    if run.calls:
        print("\nRoutes")
        _routes(run.calls, verbose)
    if run.effects:
        print("\nTool calls")
        rows = [[e.task, str(e.step), e.tool, e.effect, e.status, e.error or ""] for e in run.effects]
        table(["task", "step", "tool", "effect", "status", "error"], rows, right="step")
    _end(run, verbose)


def _times_of(run: Run) -> str:
    record = run.record
    parts = [f"created {iso(record.created_at)}"]
    if record.started_at is not None and record.finished_at is not None:
        parts.append(f"took {record.finished_at - record.started_at:.1f} s")
    elif record.engine is not None:
        parts.append(f"driven by {record.engine}")
    return " · ".join(parts)


def _tasks(run: Run, verbose: bool) -> None:
    children: dict[str, list[TaskView]] = {}
    for task in run.tasks:
        if task.record.parent is not None:
            children.setdefault(_top(task.name), []).append(task)
    shown = run.tasks if verbose else [t for t in run.tasks if t.record.parent is None]
    rows = []
    for task in shown:
        family = [task, *children.get(task.name, [])] if task.record.parent is None else [task]
        rows.append(
            [
                task.name,
                task.kind,
                _progress(task, family[1:]),
                str(sum(t.record.attempts for t in family)),
                ", ".join(dict.fromkeys(m for t in family for m in t.models)) or "-",
                str(sum(t.calls for t in family)),
                format_usd(sum(t.cost_nano for t in family)),
                _seconds(task),
            ]
        )
    headers = ["task", "kind", "status", "attempts", "model", "calls", "USD", "s"]
    table(headers, rows, right="attempts calls USD s")


def _top(name: str) -> str:
    """The task of the run's own workflow that a child belongs to: "sums[3]" → sums, "review/x" → review."""
    return name.split("[")[0].split("/")[0]


def _progress(task: TaskView, children: Sequence[TaskView]) -> str:
    status = task.record.status
    if not children:
        return status
    done = sum(c.record.status in ("succeeded", "skipped") for c in children)
    shown = "running" if status == "expanded" else status
    return f"{shown} {done}/{len(children)}"


def _seconds(task: TaskView) -> str:
    record = task.record
    if record.started_at is None or record.finished_at is None:
        return "-"
    return f"{record.finished_at - record.started_at:.1f}"


def _routes(calls: Sequence[CallRecord], verbose: bool) -> None:
    """One line a call; without -v the calls of a map that were decided alike are one line."""
    if not verbose:
        rows = [_route_row(list(group)) for _, group in groupby(calls, key=_decision)]
        table(["task", "calls", "model", "tokens", "USD", "s", "reason"], rows, right="calls tokens USD s")
        return
    for call in calls:
        route = call.route
        cost = "-" if call.cost_nano is None else format_usd(call.cost_nano)
        print(
            f"{call.task} attempt {call.attempt} step {call.step}: {call.model} ({route.get('mode')}, "
            f"{call.status}, {call.worker or 'no worker'}): {_tokens([call])} tokens, {cost} USD, "
            f"worst case {route.get('worst_cost_usd')} USD"
        )
        print(f"    {route.get('policy')}: {route.get('reason')}")
        for other in route.get("alternatives", []):
            fits = "" if other.get("fits") else "does not fit: "
            print(f"    not {other['model']} (est. {other.get('est_cost_usd')} USD): {fits}{other['reason']}")
        if call.error:
            print(f"    error: {call.error}")


def _decision(call: CallRecord) -> tuple[str, str, str, str]:
    return _top(call.task), call.model, call.status, str(call.route.get("reason", ""))


def _route_row(calls: list[CallRecord]) -> list[str]:
    first = calls[0]
    reason = str(first.route.get("reason", ""))
    if first.status != "settled":
        reason = f"{first.status}: {first.error or reason}"
    return [
        _top(first.task) if len(calls) > 1 else first.task,
        str(len(calls)),
        first.model,
        _tokens(calls),
        format_usd(sum(c.cost_nano or 0 for c in calls)),
        f"{sum(c.total_s or 0 for c in calls):.1f}",
        reason[:SHORT],
    ]


def _tokens(calls: Iterable[CallRecord]) -> str:
    counted = list(calls)
    return f"{sum(c.input_tokens or 0 for c in counted)}→{sum(c.output_tokens or 0 for c in counted)}"


def _end(run: Run, verbose: bool) -> None:
    if run.waiting:
        print("\nWaits for you")
        for line in questions(run):
            print(line)
    if run.error is not None:
        print(f"\nError: {error_text(run)}")
    if run.outputs is not None:
        print("\nOutputs")
        for name, value in run.outputs.items():
            text = as_text(value)
            short = text if verbose or len(text) <= SHORT else f"{text[:SHORT]}… (-v shows all)"
            print(f"{name}: {short}")


def questions(run: Run) -> list[str]:
    """What waits for a person, and the commands that answer."""
    lines: list[str] = []
    for task in run.waiting:
        name = f"'{task.name}'" if "[" in task.name else task.name
        lines.append(f"{task.name}: {task.record.approval_text}")
        lines.append(f"  → podium approve {run.id} {name} --resume    (or --reject)")
    return lines


def error_text(run: Run) -> str:
    """Why a run failed or stopped, with the mend."""
    error = run.error or {}
    place = f"task {error['task']}: " if error.get("task") else ""
    mend = f"\n  → {error['mend']}" if error.get("mend") else ""
    return f"{place}{error.get('message', run.status)}{mend}"
