"""Model calls and their money and tokens: reserved before a call, settled or refunded after it.

What a call may take at worst is reserved under every budget that holds it (`budgets.py`). A call's life:
reserved → sent → settled, or → refunded (never sent, or known not to be billed), or → unknown (sent, and a
crash hid the outcome: settled at its worst case).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from .budgets import Amount, BudgetRefused, Left, NewBudget, give_back, left, open_budgets, raise_budget, take
from .chat import Completion
from .content import get, get_many, plain_text, put
from .errors import StaleEpoch
from .events import NewEvent, append, fence
from .hot import run_sql
from .limits import Holder, Limit, admit
from .money import format_usd
from .tables import Attempt, Call

#: the budgets are the ledger's other half: whoever keeps books needs no second module
__all__ = [
    "Answered",
    "BudgetRefused",
    "Left",
    "NewBudget",
    "NewCall",
    "Recorded",
    "answered",
    "judge",
    "left",
    "mark_sent",
    "open_budgets",
    "raise_budget",
    "recorded",
    "recover",
    "refund",
    "reserve",
    "settle",
    "settle_unknown",
]


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
    #: worst case of prompt and answer together
    reserve_tokens: int = 0


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


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was answered, with how it came to be and what was found of the answer."""

    id: str
    request_hash: str
    answer: Recorded
    route: dict[str, Any]
    #: accepted | escalated | sampled | drafted; None: nobody looked at it
    verdict: str | None
    review: dict[str, Any] | None


def reserve(
    connection: Connection,
    run_id: str,
    epoch: int,
    call: NewCall,
    limits: Sequence[Limit] = (),
    dead: AbstractSet[Holder] = frozenset(),
) -> None:
    """Reserve a call's worst case on every level and record the call: all of it or nothing. To be undone by
    the caller's transaction or savepoint when it raises.

    Raises:
        BudgetRefused: a budget does not cover it.
        Throttled: one of `limits` is reached; see `limits.admit`, also for `dead`.
        StaleEpoch: another engine owns the run.
    """
    tenant = fence(connection, run_id, epoch)
    worst = Amount(call.reserve_nano, call.reserve_tokens)
    take(connection, run_id, call.task, call.model, worst)
    admit(connection, limits, dead=dead)
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
            reserved_nano=worst.nano,
            reserved_tokens=worst.tokens,
            created_at=time.time(),
        )
    )
    _entry(connection, tenant, run_id, call.id, "reserve", worst.nano)


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
    connection: Connection,
    run_id: str,
    epoch: int,
    call_id: str,
    completion: Completion,
    cost_nano: int,
    verdict: str | None = None,
    review: Mapping[str, Any] | None = None,
) -> None:
    """Record the answer, what was found of it (`verdict`, `review`) and what it took. A bill above the
    reservation counts as far as the reservation goes; the whole of it stands in the call's row and in the
    event `ledger.overrun`. So with tokens.

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
        "verdict": verdict,
        "review": None if review is None else dict(review),
    }
    tokens = completion.usage.input_tokens + completion.usage.output_tokens
    row = _close(connection, run_id, call_id, "settled", Amount(cost_nano, tokens), values)
    if row is None:
        return
    summary = _summary(row, completion, min(cost_nano, row.reserved_nano))
    if verdict is not None:
        summary["verdict"] = verdict
    events = [NewEvent("call.settled", row.task, summary)]
    if over := _overrun(row, cost_nano, tokens):
        events.append(NewEvent("ledger.overrun", row.task, {"call": call_id, **over}))
    append(connection, run_id, events, epoch=epoch)


def _overrun(row: Any, cost_nano: int, tokens: int) -> dict[str, Any]:
    over: dict[str, Any] = {}
    if cost_nano > row.reserved_nano:
        over |= {"billed_usd": format_usd(cost_nano), "reserved_usd": format_usd(row.reserved_nano)}
    if tokens > row.reserved_tokens > 0:  # 0: reserved before tokens were counted
        over |= {"tokens": tokens, "reserved_tokens": row.reserved_tokens}
    return over


def judge(
    connection: Connection, run_id: str, epoch: int, call_id: str, verdict: str, review: Mapping[str, Any]
) -> None:
    """What was found of a settled answer once others stood beside it.

    Raises:
        StaleEpoch: another engine owns the run.
    """
    fence(connection, run_id, epoch)
    connection.execute(
        update(Call)
        .where(Call.id == call_id, Call.run_id == run_id)
        .values(verdict=verdict, review=dict(review))
    )


def refund(connection: Connection, run_id: str, epoch: int, call_id: str, error: str) -> None:
    """Give a reservation back: the call was not sent, or is known not to be billed. No call, no effect."""
    fence(connection, run_id, epoch)
    row = _close(connection, run_id, call_id, "refunded", Amount(0, 0), {"error": plain_text(error)})
    if row is not None:
        event = NewEvent("call.refunded", row.task, {"call": call_id, "model": row.model, "error": error})
        append(connection, run_id, [event], epoch=epoch)


def settle_unknown(connection: Connection, run_id: str, epoch: int, call_id: str, error: str) -> None:
    """The call was sent and its outcome is not known: it is settled at its worst case."""
    fence(connection, run_id, epoch)
    reserved = connection.execute(
        select(Call.reserved_nano, Call.reserved_tokens).where(Call.id == call_id)
    ).first()
    if reserved is None:
        return
    closed = _close(connection, run_id, call_id, "unknown", Amount(*reserved), {"error": plain_text(error)})
    if closed is not None:
        data = {"call": call_id, "model": closed.model, "cost_usd": format_usd(reserved.reserved_nano)}
        append(connection, run_id, [NewEvent("call.unknown", closed.task, data)], epoch=epoch)


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
    query = _settled(run_id, task, step).where(Call.request_hash == request_hash)
    row = connection.execute(query.order_by(Call.created_at.desc()).limit(1)).mappings().first()
    if row is None:
        return None
    return _recorded(row, get(connection, row["tenant"], row["response_blob"])["text"])


def answered(connection: Connection, run_id: str, task: str, step: int) -> list[Answered]:
    """The settled calls of a step of the task, from attempts that were interrupted; the oldest first.

    Calls of attempts up to the last failed one do not count: a retry is to ask again.
    """
    query = _settled(run_id, task, step).order_by(Call.created_at, Call.id)
    rows = connection.execute(query).mappings().all()
    if not rows:
        return []
    answers = get_many(connection, rows[0]["tenant"], [row["response_blob"] for row in rows])
    return [
        Answered(
            id=row["id"],
            request_hash=row["request_hash"],
            answer=_recorded(row, answers[row["response_blob"]]["text"]),
            route=row["route"],
            verdict=row["verdict"],
            review=row["review"],
        )
        for row in rows
    ]


def _settled(run_id: str, task: str, step: int) -> Select[Any]:
    failed = (
        select(func.coalesce(func.max(Attempt.number), 0))
        .where(Attempt.run_id == run_id, Attempt.task == task, Attempt.status == "failed")
        .scalar_subquery()
    )
    columns = Call.__table__.columns
    return select(*columns).where(
        Call.run_id == run_id,
        Call.task == task,
        Call.step == step,
        Call.status == "settled",
        Call.attempt > failed,
    )


def _recorded(row: Mapping[Any, Any], text: str) -> Recorded:
    return Recorded(
        text=text,
        finish_reason=row["finish_reason"],
        model=row["model"],
        worker=row["worker"] or "",
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cost_nano=row["cost_nano"],
    )


def _close(
    connection: Connection, run_id: str, call_id: str, status: str, took: Amount, values: dict[str, Any]
) -> Any:
    """Move a call's reservation to its final state on every level; None if it is closed already."""
    row = connection.execute(
        select(
            Call.task,
            Call.attempt,
            Call.step,
            Call.model,
            Call.reserved_nano,
            Call.reserved_tokens,
            Call.tenant,
        ).where(Call.id == call_id, Call.status.in_(("reserved", "sent")))
    ).first()
    if row is None:
        return None
    connection.execute(
        update(Call)
        .where(Call.id == call_id)
        .values(status=status, cost_nano=took.nano, finished_at=time.time(), **values)
    )
    reserved = Amount(row.reserved_nano, row.reserved_tokens)
    used = Amount(min(took.nano, reserved.nano), min(took.tokens, reserved.tokens))
    give_back(connection, run_id, row.task, reserved, used)
    if used.nano:
        _entry(connection, row.tenant, run_id, call_id, "settle", used.nano)
    if reserved.nano > used.nano:
        _entry(connection, row.tenant, run_id, call_id, "refund", reserved.nano - used.nano)
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
    run_sql(connection, _ENTRY, (run_id, call_id, tenant, kind, amount, time.time()))


_ENTRY = "INSERT INTO ledger (run_id, call_id, tenant, kind, amount_nano, at) VALUES (?, ?, ?, ?, ?, ?)"
