"""`feedback`: a person says how good an answer was. The router learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, client, emit, note

if TYPE_CHECKING:
    from ...memory.database import Connection
    from ...memory.learning import CallRef

#: grades in words
WORDS = {"good": 1.0, "bad": 0.0}


def feedback(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="CALL | RUN TASK  good|bad|0.7",
            help="A call's id or its start; or a run and a task: its accepted answer. Then the grade.",
        ),
    ],
    comment: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why.")] = None,
    as_json: Json = False,
) -> None:
    """Say how good an answer was: good, bad, or a score from 0 to 1. The last word on a call counts."""
    from ...memory import learning
    from ...memory.errors import UsageError
    from .. import routing
    from .router_records import FeedbackOut

    *place, grade = what
    if len(place) not in (1, 2):
        mend = "podium feedback CALL good, or podium feedback RUN TASK good"
        raise UsageError("an answer and its grade are needed", mend=mend)
    score = _score(grade)
    with client() as podium:
        tenant = podium.settings.tenant

        def say(connection: Connection) -> CallRef:
            found = (
                learning.find_call(connection, tenant, place[0])
                if len(place) == 1
                else _accepted(connection, tenant, place)
            )
            routing.feedback(connection, tenant, found, score, comment)
            return found

        call = podium.database.transact(say)
    if as_json:
        emit(
            FeedbackOut(
                call_id=call.id, run_id=call.run_id, task=call.task, model=call.model, score=score,
                note=comment,
            )
        )  # fmt: skip
        return
    print(call.id)
    note(f"{call.model}'s answer to {call.task} of run {call.run_id}: {score:g}")


def _score(text: str) -> float:
    from ...memory.errors import UsageError

    if text in WORDS:
        return WORDS[text]
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise UsageError(
            f"{text!r} is no grade", mend="say good, bad, or a score from 0 (useless) to 1 (right)"
        )
    return score


def _accepted(connection: Connection, tenant: str, place: Sequence[str]) -> CallRef:
    """The last answer of a task that was not given up for another.

    Raises:
        NotFound: there is no such run or task, or nothing of it was answered; with names that are near.
    """
    from ...memory import learning, reads
    from ...memory.errors import NotFound
    from ..explaining import accepted_of

    run_id = reads.resolve(connection, tenant, place[0])
    calls = [call for call in reads.calls(connection, run_id) if call.status == "settled"]
    mine = [call for call in calls if call.task == place[1]]
    if not mine:
        below = sorted(
            {call.task for call in calls if call.task.startswith((f"{place[1]}[", f"{place[1]}/"))}
        )
        names = below or sorted({call.task for call in calls})
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        mend = f"tasks with an answer: {shown}" if names else f"look at it: podium show {run_id}"
        raise NotFound(f"{place[1]} has no answer of its own in run {run_id}", mend=mend)
    last = max((call.attempt, call.step) for call in mine)
    accepted = accepted_of([call for call in mine if (call.attempt, call.step) == last])
    return learning.find_call(connection, tenant, accepted.id)
