"""`replay` and `diff`: what another policy would have done, and what is different between two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...memory.money import format_usd
from .common import Json, Pool, RunId, client, emit, table

if TYPE_CHECKING:
    from ..compare import Difference, Side, TaskDifference
    from ..replay import Replay

#: tasks of a difference that are printed
SHOWN = 50


def replay(
    run_id: RunId,
    policy: Annotated[
        str, typer.Option(metavar="POLICY", help="cheapest, fixed:MODEL, a policy or pool file, or JSON.")
    ],
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """What another routing policy would pick for a run's calls, and what they would cost. Calls no model."""
    with client(pool) as podium:
        found = podium.replay(run_id, policy)
    if as_json:
        from .convert_compare import replay_out

        emit(replay_out(found))
    else:
        _show_replay(found)


def _show_replay(found: Replay) -> None:
    rows = [
        [
            row.task,
            str(row.step),
            row.model_then,
            row.model_now or "none",
            format_usd(row.cost_then_nano),
            "-" if row.cost_now_nano is None else format_usd(row.cost_now_nano),
            row.reason,
        ]
        for row in found.rows
    ]
    headers = ["task", "step", "model then", "model now", "USD then", "USD now", "reason"]
    table(headers, rows, right="step")
    now, then = format_usd(found.cost_now_nano), format_usd(found.cost_then_nano)
    print(f"\n{len(rows)} calls, {found.moved} to another model: {now} USD (estimated) instead of {then} USD")
    if found.unrouted:
        print(f"{found.unrouted} of them find no model, and count in neither sum")


def diff(
    left: RunId,
    right: Annotated[str, typer.Argument(metavar="RUN", help="The other run.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when they differ.")] = False,
    as_json: Json = False,
) -> None:
    """What is different between two runs: workflow, inputs, tasks, outputs."""
    with client() as podium:
        found = podium.compare(left, right)
    if as_json:
        from .convert_compare import diff_out

        emit(diff_out(found))
    else:
        _show_diff(found)
    if exit_code and not found.same:
        raise typer.Exit(1)


def _show_diff(found: Difference) -> None:
    from ..compare import text_lines

    for mark, record in (("-", found.left), ("+", found.right)):
        spent = format_usd(record.settled_nano)
        print(f"{mark} {record.id}  {record.workflow}  {record.status}  {spent} USD")
    if found.same and not found.tasks:
        print("\nnothing is different")
    for title, changes in (("Workflow", found.spec), ("Inputs", found.inputs)):
        if changes:
            print(f"\n{title}")
            for line in text_lines(changes):
                print(f"  {line}")
    for mark, names in (("-", found.only_left), ("+", found.only_right)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            print(f"\nOnly in {mark}: {', '.join(names[:SHOWN])}{more}")
    if found.tasks:
        print(f"\nTasks ({len(found.tasks)} of {found.common} differ)")
        for task in found.tasks[:SHOWN]:
            _show_task(task)
        if len(found.tasks) > SHOWN:
            print(f"  … and {len(found.tasks) - SHOWN} more (--json has all)")
    if found.outputs:
        print("\nOutputs")
        for line in text_lines(found.outputs):
            print(f"  {line}")


def _show_task(task: TaskDifference) -> None:
    parts = [
        f"{name} {_cell(task.left, name)} → {_cell(task.right, name)}"
        for name in task.fields
        if name != "output"
    ]
    print(f"  {task.name}: {', '.join([*parts, *(['output'] if 'output' in task.fields else [])])}")
    for line in task.output:
        print(f"      {line}")


def _cell(side: Side, name: str) -> str:
    cells = {
        "status": side.status,
        "models": ", ".join(side.models) or "none",
        "cost": f"{format_usd(side.cost_nano)} USD",
        "seconds": "-" if side.seconds is None else f"{side.seconds:.1f}",
    }
    return cells[name]
