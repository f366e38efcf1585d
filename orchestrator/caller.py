"""A model call from end to end: route → reserve → dispatch → settle, each step durable.

`TaskModel` is what a task sees: the `Model` protocol of the agents' room. The calls of an interrupted attempt
are answered from the record, so that an agent goes on from its last step and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from zlib import crc32

from ..memory import content, learning, ledger, reads
from ..memory.chat import ChatRequest, Completion, Message, Usage, asked_text
from ..memory.database import Connection
from ..memory.errors import BudgetStopped, ClusterError, PodiumError, ProviderError, TaskError
from ..memory.names import in_workflow
from ..router.estimates import NoRoute
from ..router.stats import Stats
from ..router.tokens import estimate_tokens
from ..router.types import Query, Review, Route
from ..router.verifiers.contract import OWN, SCHEMA, Check
from ..workers.contract import OnDispatch
from .booking import Asked, Booked, book, cut_off, give_back
from .context import OnToken, RunContext, Services

__all__ = ["DEFAULT_MAX_TOKENS", "Needs", "OnToken", "RunContext", "Services", "TaskModel", "stats_of"]

log = logging.getLogger(__name__)

#: answer tokens asked for when neither the task nor the model says less
DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task asks of the router beside its prompt."""

    #: llm | agent | plan
    kind: str
    #: the only model that may be asked
    pinned: str | None = None
    #: nothing of it may leave the pool's machines
    private: bool = False
    #: how much its answers matter beside those of the run's other tasks; 1: as usual
    weight: float = 1.0
    #: the event loop's time by which it has to be done
    until: float | None = None
    #: the task's own check of an answer to a prompt
    check: Callable[[str, str], Awaitable[Check]] | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    completion: Completion
    review: Review
    route: Route | None


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
        #: nano-dollars of this attempt's calls, with those of interrupted attempts that it replays
        self.spent_nano = 0
        #: what the task's own check said of the latest answer
        self._own: Check | None = None

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
        digest = content.content_hash(asked)
        query = self._query(messages, step, schema, max_tokens, checked=problem is not None)
        request = ChatRequest(tuple(messages), schema=schema, temperature=temperature)
        past = await self._recorded(step, digest) if self._attempt > 1 else deque()
        return await self._decide(
            Asked(query, self._task, self._attempt, step, asked, digest), request, problem, past
        )

    def _query(
        self,
        messages: Sequence[Message],
        step: int,
        schema: Mapping[str, Any] | None,
        max_tokens: int | None,
        *,
        checked: bool,
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
            checked=checked or needs.check is not None,
            weight=needs.weight,
            seconds_left=left,
            seed=crc32(f"{self._run.run_id} {self._task} {step}".encode()),
        )

    async def _recorded(self, step: int, digest: str) -> deque[_Answer]:
        """The answers that an interrupted attempt got to this very request."""

        def find(connection: Connection) -> list[ledger.Answered]:
            return ledger.answered(connection, self._run.run_id, self._task, step)

        known = [one for one in await self._services.read(find) if one.request_hash == digest]
        self.spent_nano += sum(one.answer.cost_nano for one in known)
        return deque(_Answer(_completion(one.answer), _review_of(one.review), None) for one in known)

    async def _decide(
        self,
        asked: Asked,
        request: ChatRequest,
        problem: Callable[[str], str] | None,
        past: deque[_Answer],
    ) -> Completion:
        """Ask a model, look at its answer, and ask the dearer one where that is worth it."""
        first = past.popleft() if past else await self._try_routes(asked, request, problem)
        then = first.review.then
        self._own = own_of(first.review)
        if then is None:
            self._tell(asked, first, None)
            return first.completion
        query = replace(
            asked.query, only=frozenset({then}), why=f"{first.completion.model}: {first.review.reason}"
        )
        try:
            second = (
                past.popleft()
                if past
                else await self._try_routes(replace(asked, query=query), request, problem)
            )
        except (ProviderError, ClusterError, BudgetStopped, NoRoute) as error:
            log.warning(
                "An answer in doubt is kept: %s", error, extra={"action": "call.kept", "task": self._task}
            )
            return first.completion
        self._own = own_of(second.review)
        self._tell(asked, second, first.review)
        return second.completion

    def _tell(self, asked: Asked, answer: _Answer, first: Review | None) -> None:
        """The pacer hears what quality an accepted answer is expected to have."""
        pacing = self._run.pacing
        if pacing is None or answer.route is None:
            return
        from ..router.decision.review import standing

        if (found := standing(answer.route, answer.review, first)) is not None:
            pacing.pacer.answered(*found, asked.query.weight)

    async def _try_routes(
        self, asked: Asked, request: ChatRequest, problem: Callable[[str], str] | None
    ) -> _Answer:
        """Take the policy's route; after a failure the next one, until none is left."""
        failed: set[str] = set()
        last: PodiumError | None = None
        while True:
            booked = await book(self._services, self._run, asked, failed, last)
            try:
                return await self._call(asked.query, booked, request, problem)
            except (ProviderError, ClusterError) as error:
                if asked.query.pinned is not None:
                    raise
                failed.add(booked.route.model)
                last = error

    async def _call(
        self,
        query: Query,
        booked: Booked,
        request: ChatRequest,
        problem: Callable[[str], str] | None,
    ) -> _Answer:
        """Send a reserved call, look at its answer, and settle it."""
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
            try:
                review = await self._review(query, booked.route, completion, problem)
            except PodiumError:  # the task's own check broke: the answer is paid for and kept
                await self._settle(booked, completion, Review())
                raise
            await self._settle(booked, completion, review)
        except PodiumError:
            booked.hold.release(returned=True)
            raise
        except BaseException as cut:
            cut_off(services, run, booked, cut, unknown=sent)
            raise
        booked.hold.release(returned=True)
        return _Answer(completion, review, booked.route)

    async def _review(
        self, query: Query, route: Route, completion: Completion, problem: Callable[[str], str] | None
    ) -> Review:
        """What rules and the policy find of an answer; before it is settled, so that both are one commit."""
        checks: list[Check] = []
        if problem is not None:
            wrong = problem(completion.text)
            checks.append(Check.of(SCHEMA, 0.0 if wrong else 1.0, wrong or "it has the form"))
        if self._needs.check is not None and not any(check.verdict == "fail" for check in checks):
            checks.append(await self._needs.check(query.prompt, completion.text))
        policy = self._run.policy
        if self._run.pacing is None:
            return policy.review(query, route, completion.text, checks)
        return await asyncio.to_thread(policy.review, query, route, completion.text, checks)

    async def _settle(self, booked: Booked, completion: Completion, review: Review) -> None:
        run, cost = self._run, self._cost(booked.route, completion)
        self.spent_nano += cost
        told = _review_data(review)
        verdict = None if told is None else "escalated" if review.then is not None else "accepted"

        def settle(connection: Connection) -> None:
            ledger.settle(connection, run.run_id, run.epoch, booked.id, completion, cost, verdict, told)
            if review.score is not None:
                learning.grade(connection, run.tenant, booked.id, "check", review.score)

        await self._services.journal.commit("call.settle", settle)
        if run.pacing is not None:
            run.pacing.end(booked.route, cost)

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
        # what may be given up for another answer is not shown while it is written
        on_token = self._run.on_token if route.mode == "direct" else None
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


def own_of(review: Review) -> Check | None:
    """What the task's own check said."""
    return next((check for check in review.checks if check.name == OWN), None)


def _completion(found: ledger.Recorded) -> Completion:
    return Completion(
        text=found.text,
        model=found.model,
        usage=Usage(found.input_tokens, found.output_tokens),
        finish_reason="length" if found.finish_reason == "length" else "stop",
        worker=found.worker,
    )


def _review_data(review: Review) -> dict[str, Any] | None:
    """A review as it is recorded; None: nothing was looked at."""
    if not review.checks and review.wrong is None:
        return None
    return {
        "checks": [asdict(check) for check in review.checks if check.verdict != "unknown"],
        "wrong": review.wrong,
        "gain": review.gain,
        "then": review.then,
        "reason": review.reason,
    }


def _review_of(data: Mapping[str, Any] | None) -> Review:
    """A recorded review, as far as it says how to go on."""
    if data is None:
        return Review()
    checks = tuple(Check(**check) for check in data["checks"])
    return Review(checks, data["wrong"], data["gain"], data["then"], data["reason"])


def stats_of(rows: Sequence[reads.LatencyRow]) -> Stats:
    """The router's statistics from recorded calls; elements and iterations count for their task."""
    return Stats.of((r.model, in_workflow(r.task), r.input_tokens, r.output_tokens, r.total_s) for r in rows)
