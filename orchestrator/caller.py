"""A model call from end to end: route → reserve → dispatch → settle, each step durable.

`TaskModel` is what a task sees: the `Model` protocol of the agents' room. The calls of an interrupted attempt
are answered from the record, so that an agent goes on from its last step and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
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
    #: how often money came back
    refunds: int = 0
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
        run = self._run
        seen = run.refunds
        while True:
            tried = _excluding(query, failed | refused)
            try:
                route = self._run.policy.choose(
                    tried, list(self._services.pool.specs.values()), self._run.stats
                )
            except NoRoute as error:
                if refused and (run.open_calls or run.refunds != seen):
                    # running calls hold more than they will cost: wait for what they give back
                    if run.refunds == seen:
                        run.refunded.clear()
                        await run.refunded.wait()
                    seen = run.refunds
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
        sent = False

        async def on_dispatch(worker: str) -> None:
            nonlocal sent
            await journal.commit(
                "call.sent", lambda c: ledger.mark_sent(c, run.run_id, run.epoch, call.id, worker)
            )
            sent = True

        try:
            await journal.commit("call.reserve", lambda c: ledger.reserve(c, run.run_id, run.epoch, call))
            with self._holding():
                try:
                    completion = await self._dispatch(route, request, on_dispatch)
                except PodiumError as error:
                    known = isinstance(error, ProviderError) and not error.sent
                    await asyncio.wrap_future(self._give_back(call.id, error.message, sent and not known))
                    raise
                cost = self._cost(route, completion)
                self.spent_nano += cost
                await journal.commit(
                    "call.settle",
                    lambda c: ledger.settle(c, run.run_id, run.epoch, call.id, completion, cost),
                )
        except PodiumError:
            raise
        except BaseException as cut:
            # cancelled or timed out: nobody waits, but the run goes on and may need the money
            with suppress(PodiumError):  # a closed journal: the next claim closes the call
                self._give_back(call.id, f"the attempt was cut off: {type(cut).__name__}", sent)
            raise
        return completion

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

    def _give_back(self, call_id: str, error: str, unknown: bool) -> Future[None]:
        """Close a call that came to nothing. Writes keep their order: a later reservation finds the money."""
        run = self._run
        close = ledger.settle_unknown if unknown else ledger.refund
        return self._services.journal.submit(
            "call.settle", lambda c: close(c, run.run_id, run.epoch, call_id, error)
        )

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """The reservation is held inside; afterwards whoever waits for money looks again."""
        self._run.open_calls += 1
        try:
            yield
        finally:
            self._run.open_calls -= 1
            self._run.refunds += 1
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
