"""How runs and plans look to a person: tables on a terminal, plain aligned lines on a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...memory.money import format_usd
from .common import as_text, iso, note, table

if TYPE_CHECKING:
    from ...memory.reads import CallRecord
    from ...memory.totals import RouteTotal
    from ...router.evaluation.savings import Side
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


def show(run: Run, *, verbose: bool, everything: bool = False) -> None:
    """A run on stdout: its state, tasks, routes, questions and outputs.

    Tasks below those of its own workflow are summed up, unless `everything` lists them; calls and tool calls,
    unless `verbose`.
    """
    _head(run)
    print("\nTasks")
    if everything:
        _all_tasks(run)
    else:
        _outline(run)
    if verbose and run.calls:
        print("\nRoutes")
        _each_route(run.calls)
    elif run.routes:
        print("\nRoutes")
        rows = [_route_row(total) for total in run.routes]
        heads = ["task", "calls", "model", "answers", "tokens", "USD", "s", "reason"]
        table(heads, rows, right="calls tokens USD s")
    _savings(run)
    _effects(run, verbose)
    _end(run, verbose)


def _head(run: Run) -> None:
    record = run.record
    spent = f"{format_usd(run.cost_nano)} of {format_usd(record.budget_nano)} USD"
    pausing = ", to be paused" if record.pause_requested and run.status != "paused" else ""
    print(f"{run.id}  {run.workflow}  {run.status}{pausing}")
    if record.forked_from is not None:
        print(f"forked from {record.forked_from} at event {record.forked_seq}")
    if record.schedule_id is not None:
        print(f"started by the schedule {record.schedule_id}")
    print(f"{spent} · {run.calls_made:,} calls · {_times_of(run)}")
    if record.budget_tokens is not None:
        print(f"{record.settled_tokens:,} of {record.budget_tokens:,} tokens")
    if record.budget_seconds is not None:
        print(f"driven {record.used_seconds:.1f} of {record.budget_seconds:g} s")
    if record.reserved_nano:
        print(f"{format_usd(record.reserved_nano)} USD reserved")


def _times_of(run: Run) -> str:
    record = run.record
    parts = [f"created {iso(record.created_at)}"]
    if record.started_at is not None and record.finished_at is not None:
        parts.append(f"took {record.finished_at - record.started_at:.1f} s")
    elif record.engine is not None:
        parts.append(f"driven by {record.engine}")
    return " · ".join(parts)


_HEADERS = ["task", "kind", "status", "attempts", "model", "calls", "USD", "s"]


def _outline(run: Run) -> None:
    """The tasks of the run's own workflow, then what is below each of them, in sums."""
    rows = []
    for task in run.outline:
        below = task.below
        cells = _cells(task, task.record.attempts + (below.attempts if below else 0))
        if below is not None:
            over = below.counts.get("succeeded", 0) + below.counts.get("skipped", 0)
            shown = "running" if task.record.status == "expanded" else task.record.status
            cells[2] = f"{shown} {over:,}/{below.children:,}"
            cells[5] = f"{below.calls:,}"
        rows.append(cells)
    table(_HEADERS, rows, right="attempts calls USD s")
    families = [(task.name, task.below) for task in run.outline if task.below is not None]
    if families:
        print("\nBelow them (--all lists it)")
    for name, below in families:
        print(f"{name}: {', '.join(f'{count:,} {status}' for status, count in below.counts.items())}")
        for failed in below.failed:
            print(f"    {failed.name} failed: {_first_line(failed.error)}")
        if below.failures > len(below.failed):
            print(f"    … and {below.failures - len(below.failed):,} more failed")


def _all_tasks(run: Run) -> None:
    table(_HEADERS, [_cells(task, task.record.attempts) for task in run.tasks], right="attempts calls USD s")


def _cells(task: TaskView, attempts: int) -> list[str]:
    return [
        task.name,
        task.kind,
        task.record.status,
        f"{attempts:,}",
        ", ".join(task.all_models) or "-",
        f"{task.calls:,}",
        format_usd(task.all_cost_nano),
        _seconds(task),
    ]


def _first_line(error: Mapping[str, Any] | None) -> str:
    lines = str((error or {}).get("message", "")).splitlines()
    return lines[0][:SHORT] if lines else "it does not say why"


def _seconds(task: TaskView) -> str:
    record = task.record
    if record.started_at is None or record.finished_at is None:
        return "-"
    return f"{record.finished_at - record.started_at:.1f}"


def _each_route(calls: Sequence[CallRecord]) -> None:
    for call in calls:
        route = call.route
        cost = "-" if call.cost_nano is None else format_usd(call.cost_nano)
        tokens = f"{call.input_tokens or 0}→{call.output_tokens or 0}"
        print(
            f"{call.task} attempt {call.attempt} step {call.step}: {call.model} ({route.get('mode')}, "
            f"{call.status}, {call.worker or 'no worker'}): {tokens} tokens, "
            f"{cost} USD, worst case {route.get('worst_cost_usd')} USD"
        )
        print(f"    {route.get('policy')}: {route.get('reason')}")
        for other in route.get("alternatives", []):
            fits = "" if other.get("fits") else "does not fit: "
            print(f"    not {other['model']} (est. {other.get('est_cost_usd')} USD): {fits}{other['reason']}")
        _review(call)
        if call.error:
            print(f"    error: {call.error}")


def _review(call: CallRecord) -> None:
    """What the checks found of an answer, and what came of it."""
    if call.review is None:
        return
    for check in call.review["checks"]:
        print(f"    {check['name']}: {check['verdict']}, {check['evidence']}")
    then = call.review.get("then")
    verdict = f"escalated to {then}" if then else "accepted"
    print(f"    {verdict}{': ' if call.review['reason'] else ''}{call.review['reason']}")


def _savings(run: Run) -> None:
    """The bill beside that of one model for everything."""
    found = run.savings
    if found is None:
        return
    print("\nSaving (what was not called is estimated)")
    rows = [_side(found.actual, "")]
    for name, lead in (("best", found.best), ("cheapest", found.cheapest)):
        if lead is not None:
            part = lead.saved_share or 0.0
            share = f" ({100 * part:.0f} %)" if part > 0 else ""
            rows.append(_side(lead.other, f"{format_usd(lead.saved_nano)}{share}", f"always the {name}: "))
    table(["way", "USD", "expected score", "saved by this run"], rows, right="USD saved")
    print(
        f"{found.decisions:,} decisions, {found.calls:,} calls; estimated "
        f"{format_usd(found.expected_nano)} USD, billed {format_usd(found.billed_nano)} USD for these"
    )


def _side(side: Side, saved: str, before: str = "") -> list[str]:
    score = "-" if side.quality is None else f"{side.quality:.2f}"
    if side.low is not None and side.high is not None and side.high > side.low:
        score += f" [{max(0.0, side.low):.2f}, {min(1.0, side.high):.2f}]"
    name = "this run" if side.name == "actual" else before + side.name
    return [name, format_usd(side.cost_nano), score, saved]


def _route_row(total: RouteTotal) -> list[str]:
    """Calls of a task that went the same way. The reason is that of one of them."""
    reason = total.reason
    if total.status != "settled":
        reason = f"{total.status}: {total.error or reason}"
    elif total.reasons > 1:
        reason = f"{reason[:SHORT]} (one of {total.reasons:,} reasons)"
    return [
        total.top,
        f"{total.calls:,}",
        total.model,
        "-" if total.verdict is None else total.verdict,
        f"{total.input_tokens}→{total.output_tokens}",
        format_usd(total.cost_nano),
        f"{total.total_s:.1f}",
        reason[: 2 * SHORT],
    ]


def _effects(run: Run, verbose: bool) -> None:
    if verbose and run.effects:
        print("\nTool calls")
        rows = [[e.task, str(e.step), e.tool, e.effect, e.status, e.error or ""] for e in run.effects]
        table(["task", "step", "tool", "effect", "status", "error"], rows, right="step")
    elif run.effect_totals:
        print("\nTool calls")
        rows = [[e.top, f"{e.calls:,}", e.tool, e.effect, e.status, e.error or ""] for e in run.effect_totals]
        table(["task", "calls", "tool", "effect", "status", "error"], rows, right="calls")


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
