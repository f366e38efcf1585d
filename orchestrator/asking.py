"""One request to one model: route → reserve → dispatch → look at the answer → settle, each step durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..memory import learning, ledger
from ..memory.chat import ChatRequest, Completion, guided
from ..memory.database import Connection
from ..memory.errors import ClusterError, PodiumError, ProviderError
from ..router.types import Query, Review, Route
from ..router.verifiers.contract import SCHEMA, Check
from ..workers.contract import OnDispatch
from .booking import Asked, Booked, book, cut_off, give_back, route_data
from .context import RunContext, Services


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


#: verdicts of answers that are no more than a part of the way
VERDICTS = {"samples": "sampled", "refine": "drafted"}
#: says what is wrong with the form of an answer, '' if nothing
Problem = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and what was found of it."""

    call_id: str
    completion: Completion
    review: Review
    #: as it is recorded (`booking.route_data`), and itself unless the answer was read from the record
    way: dict[str, Any]
    route: Route | None = None


class Asking:
    """Asks models on behalf of one attempt of a task."""

    def __init__(self, services: Services, run: RunContext, task: str, needs: Needs) -> None:
        self._services, self._run, self._task, self._needs = services, run, task, needs
        #: nano-dollars of its calls
        self.spent_nano = 0

    async def ask(self, asked: Asked, request: ChatRequest, problem: Problem | None) -> Answer:
        """Take the policy's route; after a failure the next one, until none is left.

        Raises:
            ProviderError, ClusterError: no model answered; of the last one.
            BudgetRefused, NoRoute: see `booking.book`.
        """
        failed: set[str] = set()
        last: PodiumError | None = None
        while True:
            booked = await book(self._services, self._run, asked, failed, last)
            try:
                return await self._call(asked, booked, request, problem)
            except (ProviderError, ClusterError) as error:
                if asked.query.pinned is not None:
                    raise
                failed.add(booked.route.model)
                last = error

    async def commit(self, name: str, write: Callable[[Connection], None]) -> None:
        """Write something of this run."""
        await self._services.journal.commit(name, write)

    async def _call(
        self,
        asked: Asked,
        booked: Booked,
        request: ChatRequest,
        problem: Problem | None,
    ) -> Answer:
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
                review = await self._review(asked.query, booked.route, completion, problem)
            except PodiumError:  # the task's own check broke: the answer is paid for and kept
                await self._settle(asked, booked, completion, Review())
                raise
            await self._settle(asked, booked, completion, review)
        except PodiumError:
            booked.hold.release(returned=True)
            raise
        except BaseException as cut:
            cut_off(services, run, booked, cut, unknown=sent)
            raise
        booked.hold.release(returned=True)
        return Answer(booked.id, completion, review, route_data(booked.route), booked.route)

    async def _review(
        self, query: Query, route: Route, completion: Completion, problem: Problem | None
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

    async def _settle(self, asked: Asked, booked: Booked, completion: Completion, review: Review) -> None:
        run, cost = self._run, self._cost(booked.route, completion)
        self.spent_nano += cost
        told = review_data(review)
        part = verdict = asked.part or VERDICTS.get(booked.route.mode)
        if verdict is None and told is not None:
            verdict = "escalated" if review.then is not None else "accepted"

        def settle(connection: Connection) -> None:
            ledger.settle(connection, run.run_id, run.epoch, booked.id, completion, cost, verdict, told)
            # one of several samples, or a draft, is not what this way comes to
            if review.score is not None and part is None:
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
            guided(request.messages, route.template),
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


def review_data(review: Review) -> dict[str, Any] | None:
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
