"""A model call from end to end: route → reserve → dispatch → settle, each step durable.

`TaskModel` is what a task sees: the `Model` protocol of the agents' room. The calls of an interrupted attempt
are answered from the record, so that an agent goes on from its last step and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ..memory import content, ledger, reads
from ..memory.chat import ChatRequest, Completion, Message, Usage
from ..memory.database import Connection, Database
from ..memory.errors import BudgetStopped, ClusterError, PodiumError, ProviderError
from ..memory.journal import Journal
from ..memory.money import format_usd
from ..router.policy import NoRoute, Policy
from ..router.stats import Stats
from ..router.tokens import estimate_tokens
from ..router.types import Query, Route
from ..workers.contract import OnDispatch, Pool

T = TypeVar("T")
OnToken = Callable[[str, str], None]

#: answer tokens asked for when neither the task nor the model says less
DEFAULT_MAX_TOKENS = 256


@dataclass(slots=True)
class RunContext:
    """What all tasks of a run that this engine drives share."""

    run_id: str
    tenant: str
    epoch: int
    project_root: str
    preapproved: frozenset[str]
    policy: Policy
    stats: Stats
    #: (task, piece of text) as a model writes; None: nobody listens
    on_token: OnToken | None = None
    #: set when money came back, so that a refused call looks again
    refunded: asyncio.Event = field(default_factory=asyncio.Event)
    #: calls that hold a reservation now
    open_calls: int = 0


@dataclass(frozen=True, slots=True)
class Services:
    """What an engine gives its tasks."""

    database: Database
    journal: Journal
    pool: Pool

    async def read(self, query: Callable[[Connection], T]) -> T:
        def ask() -> T:
            with self.database.read() as connection:
                return query(connection)

        return await asyncio.to_thread(ask)


class TaskModel:
    """The `Model` of one attempt of one task."""

    def __init__(
        self, services: Services, run: RunContext, task: str, attempt: int, *, kind: str, pinned: str | None
    ) -> None:
        self._services, self._run = services, run
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
        asked = {
            "messages": [asdict(m) for m in messages],
            "schema": dict(schema) if schema is not None else None,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "model": self._pinned,
        }
        digest = content.content_hash(asked)
        if self._attempt > 1 and (known := await self._recorded(step, digest)) is not None:
            return known
        upper = estimate_tokens(messages, schema=schema)
        query = Query(
            input_tokens_max=upper[1],
            input_tokens=upper[0],
            max_tokens=max_tokens or DEFAULT_MAX_TOKENS,
            needs_json=schema is not None,
            task=self._task.split("[")[0],
            kind=self._kind,
            pinned=self._pinned,
        )
        request = ChatRequest(tuple(messages), schema=schema, temperature=temperature)
        return await self._try_routes(query, request, asked, digest, step)

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

    async def _try_routes(
        self, query: Query, request: ChatRequest, asked: dict[str, Any], digest: str, step: int
    ) -> Completion:
        """Take the policy's route; after a refusal or a failure the next one, until none is left."""
        failed: set[str] = set()
        refused: set[str] = set()
        last: PodiumError | None = None
        while True:
            self._run.refunded.clear()
            tried = _excluding(query, failed | refused)
            try:
                route = self._run.policy.choose(
                    tried, list(self._services.pool.specs.values()), self._run.stats
                )
            except NoRoute as error:
                if isinstance(last, BudgetStopped) and self._run.open_calls:
                    # running calls hold more than they will cost: wait for what they give back
                    await self._run.refunded.wait()
                    refused.clear()
                    continue
                raise (last or error) from (error if last else None)
            try:
                return await self._call(route, request, asked, digest, step)
            except BudgetStopped as error:
                refused.add(route.model)
                last = error
            except (ProviderError, ClusterError) as error:
                if query.pinned is not None:
                    raise
                failed.add(route.model)
                last = error

    async def _call(
        self, route: Route, request: ChatRequest, asked: dict[str, Any], digest: str, step: int
    ) -> Completion:
        call = ledger.NewCall(
            id=uuid.uuid4().hex,
            task=self._task,
            attempt=self._attempt,
            step=step,
            model=route.model,
            route=route_data(route),
            request=asked,
            request_hash=digest,
            reserve_nano=route.worst_cost_nano,
        )
        run, journal = self._run, self._services.journal
        await journal.commit("call.reserve", lambda c: ledger.reserve(c, run.run_id, run.epoch, call))
        sent = False

        async def on_dispatch(worker: str) -> None:
            nonlocal sent
            await journal.commit(
                "call.sent", lambda c: ledger.mark_sent(c, run.run_id, run.epoch, call.id, worker)
            )
            sent = True

        async with self._holding():
            try:
                completion = await self._dispatch(route, request, on_dispatch)
            except (ProviderError, ClusterError) as error:
                known = isinstance(error, ProviderError) and not error.sent
                await self._give_back(call, error, unknown=sent and not known)
                raise
            price = self._services.pool.specs[route.model].price
            usage = completion.usage
            cost = completion.billed_nano
            if cost is None:
                cost = price.cost(usage.input_tokens, usage.output_tokens)
            self.spent_nano += cost
            await journal.commit(
                "call.settle", lambda c: ledger.settle(c, run.run_id, run.epoch, call.id, completion, cost)
            )
        return completion

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
        async for chunk in self._services.pool.stream(
            route.model, request, label=label, on_dispatch=on_dispatch
        ):
            if chunk.text:
                on_token(self._task, chunk.text)
            done = chunk.completion or done
        if done is None:
            raise ProviderError(f"{route.model} ended its stream without an answer", mend="try again")
        return done

    async def _give_back(self, call: ledger.NewCall, error: PodiumError, *, unknown: bool) -> None:
        run = self._run
        close = ledger.settle_unknown if unknown else ledger.refund
        await self._services.journal.commit(
            "call.settle", lambda c: close(c, run.run_id, run.epoch, call.id, error.message)
        )

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[None]:
        """The reservation is held inside; afterwards whoever waits for money looks again."""
        self._run.open_calls += 1
        try:
            yield
        finally:
            self._run.open_calls -= 1
            self._run.refunded.set()


def _excluding(query: Query, models: set[str]) -> Query:
    values = {name: getattr(query, name) for name in Query.__slots__}
    return Query(**{**values, "exclude": query.exclude | models})


def route_data(route: Route) -> dict[str, Any]:
    """A Route as it is recorded; money as decimal strings of USD."""
    return {
        "model": route.model,
        "max_tokens": route.max_tokens,
        "mode": route.mode,
        "policy": route.policy,
        "reason": route.reason,
        "propensity": route.propensity,
        "est_cost_usd": format_usd(route.est_cost_nano),
        "worst_cost_usd": format_usd(route.worst_cost_nano),
        "est_seconds": route.est_seconds,
        "alternatives": [
            {
                "model": a.model,
                "fits": a.fits,
                "est_cost_usd": format_usd(a.est_cost_nano),
                "reason": a.reason,
            }
            for a in route.alternatives
        ],
    }


def stats_of(rows: Sequence[reads.LatencyRow]) -> Stats:
    """The router's statistics from recorded calls; map elements count for their task."""
    return Stats.of((r.model, r.task.split("[")[0], r.input_tokens, r.output_tokens, r.total_s) for r in rows)
