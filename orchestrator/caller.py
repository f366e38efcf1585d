"""A model call from end to end: route → reserve → dispatch → settle, each step durable.

`TaskModel` is what a task sees: the `Model` protocol of the agents' room. The calls of an interrupted attempt
are answered from the record, so that an agent goes on from its last step and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..memory import content, ledger, reads
from ..memory.chat import ChatRequest, Completion, Message, Usage
from ..memory.database import Connection
from ..memory.errors import ClusterError, PodiumError, ProviderError
from ..router.stats import Stats
from ..router.tokens import estimate_tokens
from ..router.types import Query, Route
from ..workers.contract import OnDispatch
from .booking import Asked, Booked, book, cut_off, give_back
from .context import OnToken, RunContext, Services
from .names import in_workflow

__all__ = ["DEFAULT_MAX_TOKENS", "OnToken", "RunContext", "Services", "TaskModel", "stats_of"]

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
        *,
        kind: str,
        pinned: str | None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """`context`: what of the prompts comes from memory, as their requests record it."""
        self._services, self._run, self._context = services, run, context
        self._task, self._attempt, self._kind, self._pinned = task, attempt, kind, pinned
        self._step = 0
        #: nano-dollars of this attempt's calls, with those of interrupted attempts that it replays
        self.spent_nano = 0

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
    ) -> Completion:
        """See `agents.model.Model`."""
        step, self._step = self._step, self._step + 1
        asked: dict[str, Any] = {
            "messages": [asdict(m) for m in messages],
            "schema": dict(schema) if schema is not None else None,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "model": self._pinned,
        }
        if self._context is not None:
            asked["context"] = self._context
        digest = content.content_hash(asked)
        if self._attempt > 1 and (known := await self._recorded(step, digest)) is not None:
            return known
        upper = estimate_tokens(messages, schema=schema)
        query = Query(
            input_tokens_max=upper[1],
            input_tokens=upper[0],
            max_tokens=max_tokens or DEFAULT_MAX_TOKENS,
            needs_json=schema is not None,
            task=in_workflow(self._task),
            kind=self._kind,
            pinned=self._pinned,
        )
        request = ChatRequest(tuple(messages), schema=schema, temperature=temperature)
        return await self._try_routes(Asked(query, self._task, self._attempt, step, asked, digest), request)

    async def _recorded(self, step: int, digest: str) -> Completion | None:
        def find(connection: Connection) -> ledger.Recorded | None:
            return ledger.recorded(connection, self._run.run_id, self._task, step, digest)

        found = await self._services.read(find)
        if found is None:
            return None
        self.spent_nano += found.cost_nano
        return Completion(
            text=found.text,
            model=found.model,
            usage=Usage(found.input_tokens, found.output_tokens),
            finish_reason="length" if found.finish_reason == "length" else "stop",
            worker=found.worker,
        )

    async def _try_routes(self, asked: Asked, request: ChatRequest) -> Completion:
        """Take the policy's route; after a failure the next one, until none is left."""
        failed: set[str] = set()
        last: PodiumError | None = None
        while True:
            booked = await book(self._services, self._run, asked, failed, last)
            try:
                return await self._call(booked, request)
            except (ProviderError, ClusterError) as error:
                if asked.query.pinned is not None:
                    raise
                failed.add(booked.route.model)
                last = error

    async def _call(self, booked: Booked, request: ChatRequest) -> Completion:
        """Send a reserved call and settle it."""
        run, services = self._run, self._services
        sent = False

        async def on_dispatch(worker: str) -> None:
            nonlocal sent
            await services.journal.commit(
                "call.sent", lambda c: ledger.mark_sent(c, run.run_id, run.epoch, booked.id, worker)
            )
            sent = True

        try:
            try:
                completion = await self._dispatch(booked.route, request, on_dispatch)
            except PodiumError as error:
                unknown = sent and not (isinstance(error, ProviderError) and not error.sent)
                closing = give_back(services, run, booked, error.message, unknown=unknown)
                await asyncio.wrap_future(closing)
                raise
            await self._settle(booked, completion)
        except PodiumError:
            booked.hold.release(returned=True)
            raise
        except BaseException as cut:
            cut_off(services, run, booked, cut, unknown=sent)
            raise
        booked.hold.release(returned=True)
        return completion

    async def _settle(self, booked: Booked, completion: Completion) -> None:
        run, cost = self._run, self._cost(booked.route, completion)
        self.spent_nano += cost
        await self._services.journal.commit(
            "call.settle",
            lambda c: ledger.settle(c, run.run_id, run.epoch, booked.id, completion, cost),
        )

    def _cost(self, route: Route, completion: Completion) -> int:
        """Nano-dollars of an answer: as billed, else by the model's price."""
        if completion.billed_nano is not None:
            return completion.billed_nano
        usage = completion.usage
        return self._services.pool.specs[route.model].price.cost(usage.input_tokens, usage.output_tokens)

    async def _dispatch(self, route: Route, request: ChatRequest, on_dispatch: OnDispatch) -> Completion:
        label = f"run/{self._run.run_id} task/{self._task} model={route.model}"
        request = ChatRequest(
            request.messages,
            route.max_tokens,
            request.schema,
            request.temperature,
            request.seed,
            request.stop,
        )
        on_token = self._run.on_token
        if on_token is None:
            return await self._services.pool.generate(
                route.model, request, label=label, on_dispatch=on_dispatch
            )
        done: Completion | None = None
        chunks = self._services.pool.stream(route.model, request, label=label, on_dispatch=on_dispatch)
        async for chunk in chunks:
            if chunk.text:
                on_token(self._task, chunk.text)
            done = chunk.completion or done
        if done is None:
            raise ProviderError(f"{route.model} ended its stream without an answer", mend="try again")
        return done


def stats_of(rows: Sequence[reads.LatencyRow]) -> Stats:
    """The router's statistics from recorded calls; elements and iterations count for their task."""
    return Stats.of((r.model, in_workflow(r.task), r.input_tokens, r.output_tokens, r.total_s) for r in rows)
