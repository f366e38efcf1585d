"""Money and model calls: reserved before a call, settled or refunded after it.

reserved + settled ≤ budget holds in every committed state: the addition and its test are one UPDATE, and a
CHECK constraint stands behind it. A call's life: reserved → sent → settled, or → refunded (never sent, or
known not to be billed), or → unknown (sent, and a crash hid the outcome: settled at its worst case).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from .chat import Completion
from .content import get, plain_text, put
from .errors import BudgetStopped, StaleEpoch
from .events import NewEvent, append, fence
from .money import format_usd
from .tables import Attempt, Call, Ledger, Run


@dataclass(frozen=True, slots=True)
class NewCall:
    id: str
    task: str
    attempt: int
    step: int
    model: str
    #: the Route as data: reason, alternatives, estimates
    route: dict[str, Any]
    request: Any
    request_hash: str
    #: worst-case cost, nano-dollars
    reserve_nano: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call's answer as it was recorded."""

    text: str
    finish_reason: str
    model: str
    worker: str
    input_tokens: int
    output_tokens: int
    #: what it cost, nano-dollars
    cost_nano: int


def reserve(connection: Connection, run_id: str, epoch: int, call: NewCall) -> None:
    """Reserve a call's worst case and record the call.

    Raises:
        BudgetStopped: the budget that is left does not cover it.
        StaleEpoch: another engine owns the run.
    """
    fits = Run.reserved_nano + Run.settled_nano + call.reserve_nano <= Run.budget_nano
    done = connection.execute(
        update(Run)
        .where(Run.id == run_id, Run.epoch == epoch, fits)
        .values(reserved_nano=Run.reserved_nano + call.reserve_nano)
    )
    tenant = fence(connection, run_id, epoch)
    if done.rowcount == 0:
        raise _refusal(connection, run_id, call)
    now = time.time()
    connection.execute(
        insert(Call).values(
            id=call.id,
            run_id=run_id,
            task=call.task,
            attempt=call.attempt,
            step=call.step,
            tenant=tenant,
            model=call.model,
            status="reserved",
            route=call.route,
            request_hash=call.request_hash,
            request_blob=put(connection, tenant, call.request),
            reserved_nano=call.reserve_nano,
            created_at=now,
        )
    )
    _entry(connection, tenant, run_id, call.id, "reserve", call.reserve_nano)


def mark_sent(connection: Connection, run_id: str, epoch: int, call_id: str, worker: str) -> None:
    """From now on the call may be billed.

    Raises:
        StaleEpoch: another engine owns the run, or the call is closed; it must not be sent.
    """
    fence(connection, run_id, epoch)
    done = connection.execute(
        update(Call).where(Call.id == call_id, Call.status == "reserved").values(status="sent", worker=worker)
    )
    if done.rowcount == 0:
        raise StaleEpoch("the call's reservation was given back meanwhile", run=run_id)


def settle(
    connection: Connection, run_id: str, epoch: int, call_id: str, completion: Completion, cost_nano: int
) -> None:
    """Record the answer and what it cost. A bill above the reservation counts as far as the reservation goes;
    the whole of it stands in the call's row and in the event `ledger.overrun`.

    Raises:
        StaleEpoch: another engine owns the run; it has settled the call as unknown.
    """
    tenant = fence(connection, run_id, epoch)
    response = {"text": completion.text}
    values = {
        "response_blob": put(connection, tenant, response),
        "finish_reason": completion.finish_reason,
        "input_tokens": completion.usage.input_tokens,
        "output_tokens": completion.usage.output_tokens,
        "first_token_s": completion.first_token_s,
        "total_s": completion.total_s,
        "worker": completion.worker,
    }
    row = _close(connection, run_id, call_id, "settled", cost_nano, values)
    if row is None:
        return
    events = [
        NewEvent("call.settled", row.task, _summary(row, completion, min(cost_nano, row.reserved_nano)))
    ]
    if cost_nano > row.reserved_nano:
        over = {
            "call": call_id,
            "billed_usd": format_usd(cost_nano),
            "reserved_usd": format_usd(row.reserved_nano),
        }
        events.append(NewEvent("ledger.overrun", row.task, over))
    append(connection, run_id, events, epoch=epoch)


def refund(connection: Connection, run_id: str, epoch: int, call_id: str, error: str) -> None:
    """Give a reservation back: the call was not sent, or is known not to be billed. No call, no effect."""
    fence(connection, run_id, epoch)
    row = _close(connection, run_id, call_id, "refunded", 0, {"error": plain_text(error)})
    if row is not None:
        event = NewEvent("call.refunded", row.task, {"call": call_id, "model": row.model, "error": error})
        append(connection, run_id, [event], epoch=epoch)


def settle_unknown(connection: Connection, run_id: str, epoch: int, call_id: str, error: str) -> None:
    """The call was sent and its outcome is not known: it is settled at its worst case."""
    fence(connection, run_id, epoch)
    reserved = connection.execute(select(Call.reserved_nano).where(Call.id == call_id)).scalar() or 0
    closed = _close(connection, run_id, call_id, "unknown", reserved, {"error": plain_text(error)})
    if closed is not None:
        cost = format_usd(reserved)
        event = NewEvent(
            "call.unknown", closed.task, {"call": call_id, "model": closed.model, "cost_usd": cost}
        )
        append(connection, run_id, [event], epoch=epoch)


def recover(connection: Connection, run_id: str, epoch: int) -> int:
    """Close the calls that a dead engine left open; returns how many."""
    query = select(Call.id, Call.status).where(Call.run_id == run_id, Call.status.in_(("reserved", "sent")))
    rows: Sequence[Any] = connection.execute(query).all()
    for call_id, status in rows:
        if status == "sent":
            settle_unknown(
                connection, run_id, epoch, call_id, "the engine died before the answer was recorded"
            )
        else:
            refund(connection, run_id, epoch, call_id, "the engine died before the call was sent")
    return len(rows)


def recorded(connection: Connection, run_id: str, task: str, step: int, request_hash: str) -> Recorded | None:
    """The settled answer to this very request at this step of the task, from an attempt that was interrupted.

    Answers of attempts up to the last failed one do not count: a retry is to ask again.
    """
    failed = (
        select(func.coalesce(func.max(Attempt.number), 0))
        .where(Attempt.run_id == run_id, Attempt.task == task, Attempt.status == "failed")
        .scalar_subquery()
    )
    query = select(Call).where(
        Call.run_id == run_id,
        Call.task == task,
        Call.step == step,
        Call.request_hash == request_hash,
        Call.status == "settled",
        Call.attempt > failed,
    )
    row = connection.execute(query.order_by(Call.created_at.desc()).limit(1)).mappings().first()
    if row is None:
        return None
    return Recorded(
        text=get(connection, row["tenant"], row["response_blob"])["text"],
        finish_reason=row["finish_reason"],
        model=row["model"],
        worker=row["worker"] or "",
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cost_nano=row["cost_nano"],
    )


def _close(
    connection: Connection, run_id: str, call_id: str, status: str, cost_nano: int, values: dict[str, Any]
) -> Any:
    """Move a call's reservation to its final state; None if it is closed already."""
    row = connection.execute(
        select(Call.task, Call.attempt, Call.step, Call.model, Call.reserved_nano, Call.tenant).where(
            Call.id == call_id, Call.status.in_(("reserved", "sent"))
        )
    ).first()
    if row is None:
        return None
    paid = min(cost_nano, row.reserved_nano)
    connection.execute(
        update(Call)
        .where(Call.id == call_id)
        .values(status=status, cost_nano=cost_nano, finished_at=time.time(), **values)
    )
    connection.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(reserved_nano=Run.reserved_nano - row.reserved_nano, settled_nano=Run.settled_nano + paid)
    )
    if paid:
        _entry(connection, row.tenant, run_id, call_id, "settle", paid)
    if row.reserved_nano > paid:
        _entry(connection, row.tenant, run_id, call_id, "refund", row.reserved_nano - paid)
    return row


def _summary(row: Any, completion: Completion, paid: int) -> dict[str, Any]:
    return {
        "model": row.model,
        "attempt": row.attempt,
        "step": row.step,
        "cost_usd": format_usd(paid),
        "input_tokens": completion.usage.input_tokens,
        "output_tokens": completion.usage.output_tokens,
        "seconds": round(completion.total_s, 3),
    }


def _entry(connection: Connection, tenant: str, run_id: str, call_id: str, kind: str, amount: int) -> None:
    connection.execute(
        insert(Ledger).values(
            run_id=run_id, call_id=call_id, tenant=tenant, kind=kind, amount_nano=amount, at=time.time()
        )
    )


def _refusal(connection: Connection, run_id: str, call: NewCall) -> BudgetStopped:
    row = connection.execute(
        select(Run.budget_nano, Run.reserved_nano, Run.settled_nano).where(Run.id == run_id)
    ).one()
    left = row.budget_nano - row.reserved_nano - row.settled_nano
    return BudgetStopped(
        f"a call of {call.model} may cost {format_usd(call.reserve_nano)} USD, "
        f"{format_usd(left)} of the budget of {format_usd(row.budget_nano)} are left",
        mend=f"go on with more money: `podium resume {run_id} --budget USD`",
        run=run_id,
        task=call.task,
    )
