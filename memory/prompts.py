"""What models were asked: the recorded requests of a task's calls, and what of them came from memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select

from .chat import Message, guided
from .content import get_many
from .hot import fetch_one
from .remember import NEWEST, chain, nearest
from .tables import Call, Edge


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """One request as it was sent."""

    call_id: str
    attempt: int
    #: number of the call within the attempt, from 0
    step: int
    model: str
    status: str
    #: {role, content} each, in order
    messages: list[dict[str, Any]]
    #: the answer's JSON Schema; None: text
    schema: dict[str, Any] | None
    #: {text, tokens, citations, dropped} of what memory added; None: nothing was asked of it
    context: dict[str, Any] | None


def prompts(connection: Connection, tenant: str, run_id: str, task: str) -> list[PromptRecord]:
    """The requests of a task's calls, the earliest first."""
    query = select(Call.id, Call.attempt, Call.step, Call.model, Call.status, Call.request_blob).where(
        Call.run_id == run_id, Call.task == task, Call.tenant == tenant
    )
    rows = connection.execute(query.order_by(Call.attempt, Call.step, Call.created_at)).all()
    requests = get_many(connection, tenant, [row.request_blob for row in rows])
    found = []
    for row in rows:
        asked = requests[row.request_blob]
        found.append(
            PromptRecord(
                *row[:5],
                messages=_sent(asked),
                schema=asked.get("schema"),
                context=asked.get("context"),
            )
        )
    return found


def _sent(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as the model got them: with the template that the router put before the question."""
    messages = asked.get("messages", [])
    if not asked.get("template"):
        return messages
    return [asdict(one) for one in guided([Message(**message) for message in messages], asked["template"])]


def ports(connection: Connection, tenant: str, run_id: str, task: str) -> dict[str, int]:
    """The tasks whose outputs a task reads → the revisions that hold them."""
    query = select(Edge.src).where(Edge.run_id == run_id, Edge.dst == task, Edge.kind == "data")
    seen = chain(connection, tenant, run_id)
    found = {}
    for src in connection.execute(query.order_by(Edge.src)).scalars():
        where, bound = nearest(connection, tenant, seen, src)
        row = fetch_one(connection, NEWEST.format(bound=" AND revision.id <= ?"), (tenant, where, src, bound))
        if row is not None and row[0] is not None:
            found[src] = int(row[0])
    return found
