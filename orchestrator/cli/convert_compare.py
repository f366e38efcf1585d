"""From a replay and from a difference to the records that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...memory.money import format_usd
from .records import DiffChangeOut, DiffOut, DiffRunOut, DiffSideOut, DiffTaskOut, ReplayOut, ReplayRowOut

if TYPE_CHECKING:
    from ...memory.reads import RunRecord
    from ..compare import Change, Difference, Side
    from ..replay import Replay


def replay_out(found: Replay) -> ReplayOut:
    return ReplayOut(
        run_id=found.run_id,
        policy=dict(found.policy),
        cost_then_usd=format_usd(found.cost_then_nano),
        cost_now_usd=format_usd(found.cost_now_nano),
        moved=found.moved,
        unrouted=found.unrouted,
        rows=[
            ReplayRowOut(
                task=row.task,
                attempt=row.attempt,
                step=row.step,
                status=row.status,
                model_then=row.model_then,
                cost_then_usd=format_usd(row.cost_then_nano),
                model_now=row.model_now,
                cost_now_usd=None if row.cost_now_nano is None else format_usd(row.cost_now_nano),
                same=row.is_same,
                reason=row.reason,
            )
            for row in found.rows
        ],
    )


def diff_out(found: Difference) -> DiffOut:
    return DiffOut(
        same=found.same,
        left=_diff_run(found.left),
        right=_diff_run(found.right),
        spec=_changes_out(found.spec),
        inputs=_changes_out(found.inputs),
        only_left=list(found.only_left),
        only_right=list(found.only_right),
        common=found.common,
        tasks=[
            DiffTaskOut(
                name=task.name,
                differs=list(task.fields),
                left=_side_out(task.left),
                right=_side_out(task.right),
                output=list(task.output),
            )
            for task in found.tasks
        ],
        outputs=_changes_out(found.outputs),
    )


def _diff_run(record: RunRecord) -> DiffRunOut:
    known = record.started_at is not None and record.finished_at is not None
    return DiffRunOut(
        run_id=record.id,
        workflow=record.workflow,
        status=record.status,  # type: ignore[arg-type]  # checked by pydantic
        cost_usd=format_usd(record.settled_nano),
        seconds=record.finished_at - record.started_at if known else None,  # type: ignore[operator]
    )


def _side_out(side: Side) -> DiffSideOut:
    return DiffSideOut(
        status=side.status,
        models=list(side.models),
        cost_usd=format_usd(side.cost_nano),
        seconds=side.seconds,
        attempts=side.attempts,
    )


def _changes_out(found: Iterable[Change]) -> list[DiffChangeOut]:
    return [
        DiffChangeOut(path=c.path, left=c.left, right=c.right, missing=c.missing)  # type: ignore[arg-type]
        for c in found
    ]
