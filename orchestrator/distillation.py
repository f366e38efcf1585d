"""The best graded answers of the task memory as chats that a model can be taught with.

After the query-level fusion of FusionFactory (Feng et al. 2025): of several models' answers to a prompt the
best one is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..memory import learning, reads
from ..memory.database import Connection, Database
from ..memory.errors import UsageError
from ..memory.learning import Example

#: graded answers that are looked through, the newest
MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt with its best answer."""

    messages: Sequence[Mapping[str, str]]
    task: str | None
    model: str
    score: float

    def line(self) -> str:
        """As one line of JSON, without its end."""
        data = {"messages": list(self.messages), "task": self.task, "model": self.model, "score": self.score}
        return json.dumps(data, ensure_ascii=False)


def best(examples: Sequence[Example], least: float) -> list[Example]:
    """Of each prompt of a task the answer with the highest score, if that is `least` at least: of equals the
    one that people or rules graded, then the cheapest, then the newest. The oldest prompt first."""
    found: dict[tuple[str | None, str], Example] = {}
    for one in examples:
        if not one.answer or not one.answer.strip() or one.score < least:
            continue
        key = one.task, one.prompt
        known = found.get(key)
        if known is None or _rank(one) >= _rank(known):
            found[key] = one
    return list(found.values())


def _rank(one: Example) -> tuple[float, bool, float, int]:
    cost = float("inf") if one.cost_usd is None else one.cost_usd
    return one.score, one.source != "profile", -cost, one.id


def best_chats(database: Database, tenant: str, least: float) -> list[Chat]:
    """The best answer to each prompt with what was asked: of a call the messages as they were sent, the
    system's too; of a row given as data its prompt.

    Raises:
        UsageError: no graded answer has such a score.
    """

    def look(connection: Connection) -> list[Chat]:
        kept = best(learning.examples(connection, tenant, most=MOST), least)
        asked = asked_of(connection, tenant, kept)
        return [_chat(one, asked.get(one.call_id or "")) for one in kept]

    chats = database.query(look)
    if not chats:
        raise UsageError(
            f"no graded answer has a score of {least:g} or more",
            mend="grade answers (podium feedback CALL good), or lower --least",
        )
    return chats


def asked_of(
    connection: Connection, tenant: str, examples: Sequence[Example]
) -> dict[str, Sequence[Mapping[str, str]]]:
    """call id → the messages of its request, for those examples that are of calls."""
    wanted = {one.call_id for one in examples if one.call_id is not None}
    found: dict[str, Sequence[Mapping[str, str]]] = {}
    for run_id in dict.fromkeys(one.run_id for one in examples if one.run_id is not None):
        blobs = {c.id: c.request_blob for c in reads.calls(connection, run_id) if c.id in wanted}
        contents = reads.values(connection, tenant, list(blobs.values()))
        found |= {call: contents[blob]["messages"] for call, blob in blobs.items() if blob in contents}
    return found


def _chat(one: Example, asked: Sequence[Mapping[str, str]] | None) -> Chat:
    said = asked or [{"role": "user", "content": one.prompt}]
    messages = [{"role": m["role"], "content": m["content"]} for m in said]
    answer = {"role": "assistant", "content": one.answer or ""}
    return Chat([*messages, answer], one.task, one.model, one.score)
