"""What the router learns from, in SQL: how good answers were, and the versions of what was learned.

An outcome says how good one answer was: of a recorded call (what people, checks and judges say of it), or of
a row that was given as data. Outcomes are appended, never changed; of several of one call one counts. A
state is what the router made of them, with the last outcome that it read: what came later is learned on top
of it. Nothing learned is held by a process only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, case, func, insert, or_, select, update

from .chat import asked_text
from .content import Encoded, get_many, plain_text, put_encoded
from .errors import NotFound, UsageError
from .money import NANO
from .names import in_workflow
from .router_states import (
    StateInfo,
    StateRecord,
    active_state,
    last_outcome,
    roll_back,
    save_state,
    states,
)
from .tables import Call, Outcome

#: the states are the other half: whoever learns needs no second module
__all__ = [
    "CallRef",
    "Example",
    "NewExample",
    "StateInfo",
    "StateRecord",
    "active_state",
    "examples",
    "find_call",
    "grade",
    "last_outcome",
    "put_examples",
    "roll_back",
    "save_state",
    "states",
]

#: who says how good a call's answer was; the first one that said something counts
SOURCES = ("feedback", "judge", "check", "failure")
#: where rows without a call come from
ORIGINS = ("import", "profile")
#: letters of a call's id by which it may be named
LEAST_PREFIX = 4
#: rows written in one go
BATCH = 500


@dataclass(frozen=True, slots=True)
class NewExample:
    """One graded answer that no recorded call gave."""

    prompt: str
    model: str
    #: 0 (useless) … 1 (right)
    score: float
    #: the task type; of a workflow, the task's name
    task: str | None = None
    answer: str | None = None
    cost_usd: float | None = None
    in_tok: int | None = None
    out_tok: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One graded answer."""

    #: of its outcome; rises
    id: int
    #: what the user asked; the system's part is left out
    prompt: str
    #: without numbers of elements and iterations
    task: str | None
    model: str
    score: float
    #: feedback | judge | check | failure | import | profile
    source: str
    #: seconds, UTC
    at: float
    answer: str | None
    cost_usd: float | None
    in_tok: int | None
    out_tok: int | None
    seconds: float | None
    #: None: a row given as data, from `origin`
    call_id: str | None
    origin: str | None
    run_id: str | None
    #: number of the call within its attempt
    step: int | None
    #: the chance with which the policy chose this model
    propensity: float | None
    #: how the model was used: direct | cascade | samples | refine; and how often, with `samples`
    mode: str = "direct"
    samples: int = 1


@dataclass(frozen=True, slots=True)
class CallRef:
    """A call that somebody named."""

    id: str
    run_id: str
    task: str
    model: str
    status: str
    cost_nano: int | None
    verdict: str | None


def find_call(connection: Connection, tenant: str, ref: str) -> CallRef:
    """The call with an id, or the one whose id begins with `ref` (at least `LEAST_PREFIX` letters).

    Raises:
        NotFound: there is none.
        UsageError: there are several, or `ref` is too short.
    """
    columns = (Call.id, Call.run_id, Call.task, Call.model, Call.status, Call.cost_nano, Call.verdict)
    query = select(*columns).where(Call.tenant == tenant)
    exact = connection.execute(query.where(Call.id == ref)).first()
    if exact is not None:
        return CallRef(*exact)
    if len(ref) < LEAST_PREFIX:
        raise UsageError(f"{ref!r} names no call", mend=f"give at least {LEAST_PREFIX} letters of its id")
    found = connection.execute(query.where(Call.id.startswith(ref, autoescape=True)).limit(5)).all()
    if not found:
        raise NotFound(f"there is no call {ref}", mend="`podium show RUN` lists a run's calls")
    if len(found) > 1:
        ids = ", ".join(sorted(row.id for row in found))
        raise UsageError(f"{ref} is the start of several calls: {ids}", mend="give more letters")
    return CallRef(*found[0])


def grade(
    connection: Connection, tenant: str, call_id: str, source: str, score: float, note: str | None = None
) -> int:
    """Say how good a call's answer was; returns the outcome's id. What was said before stays.

    Args:
        source: one of `SOURCES`.
        score: 0 (useless) … 1 (right).

    Raises:
        NotFound: the tenant has no such call.
        UsageError: the score or source is none, or the call was not answered.
    """
    if source not in SOURCES:
        raise UsageError(f"nothing is graded by {source!r}", mend=f"one of: {', '.join(SOURCES)}")
    checked = _score(score)
    status = connection.execute(select(Call.status).where(Call.tenant == tenant, Call.id == call_id)).scalar()
    if status is None:
        raise NotFound(f"there is no call {call_id}", mend="`podium show RUN` lists a run's calls")
    if status != "settled":
        raise UsageError(
            f"the call {call_id} is {status}: it has no answer to grade",
            mend="grade a call that was answered; `podium show RUN` lists them",
        )
    row = {
        "tenant": tenant,
        "call_id": call_id,
        "source": source,
        "score": checked,
        "note": plain_text(note) if note else None,
        "void": False,
        "at": time.time(),
    }
    return int(connection.execute(insert(Outcome).values(row).returning(Outcome.id)).scalar_one())


def blame(connection: Connection, tenant: str, run_id: str, tasks: Sequence[str], note: str) -> int:
    """A task that had read the outputs of these tasks failed: their latest answers count as failures, as long
    as nobody says better. Returns how many there were."""
    blamed = 0
    for task in tasks:
        mine = (Call.tenant == tenant, Call.run_id == run_id, Call.task == task, Call.status == "settled")
        latest = (
            select(Call.id)
            .where(*mine)
            .order_by(Call.attempt.desc(), Call.step.desc(), Call.created_at.desc())
        )
        call_id = connection.execute(latest.limit(1)).scalar()
        if call_id is not None:
            grade(connection, tenant, call_id, "failure", 0.0, note)
            blamed += 1
    return blamed


def put_examples(
    connection: Connection, tenant: str, origin: str, rows: Iterable[NewExample], *, source: str = "import"
) -> int:
    """Take graded answers over as they are; returns how many. Earlier rows of the same origin become void.

    Where the transaction may be tried again (`Database.transact`), `rows` must not be an iterator.

    Args:
        origin: where they come from, e.g. a file's name.
        source: one of `ORIGINS`.

    Raises:
        UsageError: a row has no prompt or model, or its score is none; nothing is to be kept of the
            transaction then.
    """
    if source not in ORIGINS:
        raise UsageError(f"rows come by none of {source!r}", mend=f"one of: {', '.join(ORIGINS)}")
    name, now, count = plain_text(origin), time.time(), 0
    earlier = (Outcome.tenant == tenant, Outcome.call_id.is_(None), Outcome.origin == name)
    connection.execute(update(Outcome).where(*earlier, Outcome.void.is_(False)).values(void=True))
    common = {"tenant": tenant, "source": source, "origin": name, "void": False, "at": now}
    left = iter(rows)
    while some := list(islice(left, BATCH)):
        values, contents = [], []
        for number, row in enumerate(some, count + 1):
            columns, mine = _columns_of(row, number)
            values.append(common | columns)
            contents += mine
        put_encoded(connection, tenant, contents)
        connection.execute(insert(Outcome), values)
        count += len(some)
    return count


def _columns_of(row: NewExample, number: int) -> tuple[dict[str, Any], list[Encoded]]:
    if not row.prompt.strip() or not row.model:
        missing = "model" if row.prompt.strip() else "prompt"
        raise UsageError(f"row {number} has no {missing}", mend="every row needs prompt, model and score")
    prompt = Encoded.of({"text": row.prompt})
    answer = None if row.answer is None else Encoded.of({"text": row.answer})
    columns = {
        "score": _score(row.score, f" of row {number}"),
        "task": None if row.task is None else plain_text(row.task),
        "model": plain_text(row.model),
        "prompt_blob": prompt.hash,
        "answer_blob": None if answer is None else answer.hash,
        "cost_usd": row.cost_usd,
        "input_tokens": row.in_tok,
        "output_tokens": row.out_tok,
        "total_s": row.seconds,
    }
    return columns, [prompt] if answer is None else [prompt, answer]


def _score(score: float, of: str = "") -> float:
    number = isinstance(score, int | float) and math.isfinite(score)
    if not number or not 0 <= score <= 1:
        raise UsageError(f"the score{of} is {score!r}", mend="give a number from 0 (useless) to 1 (right)")
    return float(score)


def examples(connection: Connection, tenant: str, *, after: int = 0, most: int = 20_000) -> list[Example]:
    """The graded answers that count, the oldest first: of one call only what people said, else the judge, the
    checks, a failure later on, each the newest. Void rows and those whose prompt was erased are left out.

    Args:
        after: only outcomes with a higher id. On Postgres one with a lower id may still be committed by a
            transaction that runs now; learning from all again finds it.
        most: the newest so many.
    """
    rank = case({name: place for place, name in enumerate(SOURCES)}, value=Outcome.source, else_=len(SOURCES))
    first = func.row_number().over(partition_by=Outcome.call_id, order_by=(rank, Outcome.id.desc()))
    counting = (
        select(Outcome.id, Outcome.call_id, first.label("place"))
        .where(Outcome.tenant == tenant, Outcome.void.is_(False))
        .subquery()
    )
    query = (
        select(Outcome, Call)
        .join(counting, counting.c.id == Outcome.id)
        .outerjoin(Call, Call.id == Outcome.call_id)
        .where(Outcome.id > after, or_(counting.c.call_id.is_(None), counting.c.place == 1))
        .order_by(Outcome.id.desc())
        .limit(most)
        .with_only_columns(*_OUTCOME, *_CALL)
    )
    rows = connection.execute(query).mappings().all()
    return [found for row in _with_contents(connection, tenant, rows[::-1]) if (found := _example(*row))]


#: what an example is made of; a call's columns begin with `c_`
_OUTCOME = (
    Outcome.id, Outcome.source, Outcome.score, Outcome.at, Outcome.call_id, Outcome.origin, Outcome.task,
    Outcome.model, Outcome.prompt_blob, Outcome.answer_blob, Outcome.cost_usd, Outcome.input_tokens,
    Outcome.output_tokens, Outcome.total_s,
)  # fmt: skip
_CALL = tuple(
    column.label(f"c_{column.key}")
    for column in (
        Call.run_id, Call.task, Call.step, Call.model, Call.route, Call.request_blob, Call.response_blob,
        Call.cost_nano, Call.input_tokens, Call.output_tokens, Call.total_s,
    )
)  # fmt: skip


def _with_contents(connection: Connection, tenant: str, rows: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Each row with what was asked and answered, as it is stored."""
    for start in range(0, len(rows), BATCH):
        keys = []
        for row in rows[start : start + BATCH]:
            of_call = row["call_id"] is not None
            blobs = ("c_request_blob", "c_response_blob") if of_call else ("prompt_blob", "answer_blob")
            keys.append((row, row[blobs[0]], row[blobs[1]]))
        wanted = {digest for _, *pair in keys for digest in pair if digest is not None}
        contents = get_many(connection, tenant, wanted)
        for row, prompt, answer in keys:
            yield row, contents.get(prompt), contents.get(answer)


def _example(row: Any, asked: Any, answered: Any) -> Example | None:
    """None: the prompt was erased."""
    of_call = row["call_id"] is not None
    prompt = asked_text(asked.get("messages", ())) if of_call else asked["text"]
    if not prompt.strip():
        return None
    mine = "c_" if of_call else ""
    task, cost, route = row[f"{mine}task"], row["cost_usd"], row["c_route"] or {}
    if of_call:
        cost = None if row["c_cost_nano"] is None else row["c_cost_nano"] / NANO
    return Example(
        id=row["id"],
        prompt=prompt,
        task=in_workflow(task) if of_call else task,
        model=row[f"{mine}model"],
        score=row["score"],
        source=row["source"],
        at=row["at"],
        answer=None if answered is None or answered.get("erased") is True else answered["text"],
        cost_usd=cost,
        in_tok=row[f"{mine}input_tokens"],
        out_tok=row[f"{mine}output_tokens"],
        seconds=row[f"{mine}total_s"],
        call_id=row["call_id"],
        origin=row["origin"],
        run_id=row["c_run_id"],
        step=row["c_step"],
        propensity=route.get("propensity"),
        mode=route.get("mode", "direct"),
        samples=route.get("samples", 1),
    )
