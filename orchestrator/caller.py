"""What a task sees of models: the `Model` protocol of the agents' room.

The calls of an interrupted attempt are answered from the record, so that an agent goes on from its last step
and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from zlib import crc32

from ..memory import content, ledger, reads
from ..memory.chat import ChatRequest, Completion, Message, asked_text
from ..memory.database import Connection
from ..memory.errors import TaskError
from ..memory.names import in_workflow
from ..router.stats import Stats
from ..router.tokens import estimate_tokens
from ..router.types import Query, Review
from ..router.verifiers.contract import OWN, Check
from .asking import Asking, Needs
from .booking import Asked
from .context import OnToken, RunContext, Services
from .ways import Decision

__all__ = ["DEFAULT_MAX_TOKENS", "Needs", "OnToken", "RunContext", "Services", "TaskModel", "stats_of"]

#: answer tokens asked for when neither the task nor the model says less
DEFAULT_MAX_TOKENS = 256


class TaskModel:
    """The `Model` of one attempt of one task."""

    def __init__(
        self,
        services: Services,
        run: RunContext,
        task: str,
        attempt: int,
        needs: Needs,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """`context`: what of the prompts comes from memory, as their requests record it."""
        self._services, self._run, self._context = services, run, context
        self._task, self._attempt, self._needs = task, attempt, needs
        self._step = 0
        self._asking = Asking(services, run, task, needs)
        #: what the task's own check said of the latest answer
        self._own: Check | None = None

    @property
    def spent_nano(self) -> int:
        """Nano-dollars of this attempt's calls, with those of interrupted attempts that it replays."""
        return self._asking.spent_nano

    def must_pass(self) -> None:
        """
        Raises:
            TaskError: the task's own check refuses the latest answer.
        """
        if self._own is not None and self._own.verdict == "fail":
            raise TaskError(
                f"the answer does not pass its check: {self._own.evidence}",
                retryable=False,
                mend="look at the answers: podium show RUN --verbose; mend the prompt, or add a better model",
            )

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        """See `agents.model.Model`."""
        step, self._step = self._step, self._step + 1
        asked: dict[str, Any] = {
            "messages": [asdict(m) for m in messages],
            "schema": dict(schema) if schema is not None else None,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "model": self._needs.pinned,
        }
        if self._context is not None:
            asked["context"] = self._context
        query = self._query(messages, step, schema, max_tokens)
        request = ChatRequest(tuple(messages), schema=schema, temperature=temperature)
        one = Asked(query, self._task, self._attempt, step, asked, content.content_hash(asked))
        past = await self._recorded(step) if self._attempt > 1 else ()
        decision = Decision(self._asking, self._run, one, request, problem, past)
        accepted = await decision.take()
        self._own = own_of(accepted.review)
        return accepted.completion

    def _query(
        self,
        messages: Sequence[Message],
        step: int,
        schema: Mapping[str, Any] | None,
        max_tokens: int | None,
    ) -> Query:
        expected, upper = estimate_tokens(messages, schema=schema)
        needs = self._needs
        left = None if needs.until is None else needs.until - asyncio.get_running_loop().time()
        return Query(
            input_tokens_max=upper,
            input_tokens=expected,
            max_tokens=max_tokens or DEFAULT_MAX_TOKENS,
            needs_json=schema is not None,
            task=in_workflow(self._task),
            kind=needs.kind,
            pinned=needs.pinned,
            prompt=asked_text(messages),
            private=needs.private,
            checked=needs.check is not None,
            # a template is for the question, not for what an answer to it is told
            may_guide=all(message.role != "assistant" for message in messages),
            weight=needs.weight,
            seconds_left=left,
            seed=crc32(f"{self._run.run_id} {self._task} {step}".encode()),
        )

    async def _recorded(self, step: int) -> list[ledger.Answered]:
        """The answers that an interrupted attempt got at this step."""

        def find(connection: Connection) -> list[ledger.Answered]:
            return ledger.answered(connection, self._run.run_id, self._task, step)

        known = await self._services.read(find)
        self._asking.spent_nano += sum(one.answer.cost_nano for one in known)
        return known


def own_of(review: Review) -> Check | None:
    """What the task's own check said."""
    return next((check for check in review.checks if check.name == OWN), None)


def stats_of(rows: Sequence[reads.LatencyRow]) -> Stats:
    """The router's statistics from recorded calls; elements and iterations count for their task."""
    return Stats.of((r.model, in_workflow(r.task), r.input_tokens, r.output_tokens, r.total_s) for r in rows)
