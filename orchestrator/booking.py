"""A call's way to its reservation: the policy's route, refused or throttled routes left out, and the waits.

Refused by a budget, the next route is tried; when none is left, the call waits for what running calls give
back, and is refused for good only when none of them runs.

At a limit of calls, the call waits for its turn. A model at its limit is passed over only for one that is
expected to cost no more (a twin at another endpoint, say): limits never make an answer dearer.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from ..memory import ledger
from ..memory.budgets import BudgetRefused, Left, scopes_of
from ..memory.errors import PodiumError
from ..memory.limits import Throttled
from ..memory.money import format_usd
from ..router.policy import NoRoute
from ..router.types import Query, Route
from .context import RunContext, Services
from .turns import Hold, Line, Place

#: seconds after which a call looks again whether another engine's call has ended
POLL = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that has no route yet."""

    query: Query
    task: str
    attempt: int
    step: int
    #: the request as it is recorded, and its hash; what the router puts into the prompt (`template`) is not
    #: of the hash, so that an attempt that takes over finds the answer, however it was asked for
    request: dict[str, Any]
    digest: str
    #: the verdict of an answer that is no more than a part of the way: sampled | drafted | judged
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Booked:
    """A call with its reservation."""

    id: str
    route: Route
    hold: Hold


@dataclass(frozen=True, slots=True)
class _Busy:
    route: Route
    line: Line
    seen: int
    #: None: until a call ends
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Refused:
    error: BudgetRefused
    line: Line
    seen: int


async def book(
    services: Services,
    run: RunContext,
    asked: Asked,
    failed: AbstractSet[str] = frozenset(),
    last: PodiumError | None = None,
) -> Booked:
    """Choose a route and reserve its worst case. `failed`: models that this call has tried; `last`: how the
    last of them failed, told when there is no other.

    Raises:
        BudgetRefused: no route fits the money or the tokens that are left; of the cheapest one.
        NoRoute: no model may answer.
        StaleEpoch: another engine owns the run.
    """
    booking = _Booking(services, run, asked, failed, last)
    async with Place() as place:
        while True:
            route = booking.choose()
            if route is None:
                await booking.wait(place)
            elif (booked := await booking.reserve(route, place)) is not None:
                return booked


def give_back(
    services: Services, run: RunContext, booked: Booked, error: str, *, unknown: bool
) -> Future[None]:
    """Close a call that came to nothing. Writes keep their order: a later reservation finds the money."""
    close = ledger.settle_unknown if unknown else ledger.refund
    if run.pacing is not None:
        run.pacing.end(booked.route, booked.route.worst_cost_nano if unknown else 0)
    closing = services.journal.submit(
        "call.settle", lambda c: close(c, run.run_id, run.epoch, booked.id, error)
    )
    loop = asyncio.get_running_loop()

    def release(_closed: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: booked.hold.release(returned=True))

    closing.add_done_callback(release)
    return closing


class _Booking:
    """One call's tries."""

    def __init__(
        self,
        services: Services,
        run: RunContext,
        asked: Asked,
        failed: AbstractSet[str],
        last: PodiumError | None,
    ) -> None:
        self._services, self._run, self._asked = services, run, asked
        self._failed, self._last = failed, last
        #: by model
        self._refused: dict[str, _Refused] = {}
        self._busy: dict[str, _Busy] = {}
        self._none: NoRoute | None = None
        #: the budget has room for the prompt with the task's template
        self._may_guide = asked.query.may_guide

    def choose(self) -> Route | None:
        """The policy's next route; None: there is none that may be taken now."""
        left_out = self._failed | self._refused.keys() | self._busy.keys()
        models = list(self._services.pool.specs.values())
        query = replace(excluding(self._asked.query, left_out), may_guide=self._may_guide)
        try:
            route = self._run.policy.choose(query, models, self._run.stats)
        except NoRoute as error:
            self._none = error
            return None
        if not self._busy:
            return route
        first = next(iter(self._busy.values())).route
        if route.est_cost_nano > first.est_cost_nano:
            return None
        return replace(route, reason=f"{route.reason}; {first.model} is at its limit")

    async def wait(self, place: Place) -> None:
        """Wait for what the routes were left for, then take all of them up again.

        Raises:
            PodiumError: there is nothing to wait for.
        """
        if self._busy:
            first = next(iter(self._busy.values()))
            known = [busy.seconds for busy in self._busy.values() if busy.seconds is not None]
            ends_it = first.seconds is None
            await place.turn(
                first.line, first.seen, min([*known, POLL] if ends_it else known), ends_it=ends_it
            )
        elif self._refused:
            least = min(self._refused.values(), key=lambda refused: refused.error.need_nano)
            if not await place.refund(least.line, least.seen):
                raise least.error
        else:
            assert self._none is not None
            raise (self._last or self._none) from (self._none if self._last else None)
        self._busy.clear()
        self._refused.clear()

    async def reserve(self, route: Route, place: Place) -> Booked | None:
        """Reserve for a route; None: it was refused or has to wait."""
        services, run = self._services, self._run
        limits = services.limits_of(route.model, run.tenant)
        turns = {limit.key: services.lines[limit.key] for limit in limits}
        for line in turns.values() if not place.taken else ():
            if line.first.locked():  # others wait there already
                self._busy[route.model] = _Busy(route, line, line.returns, None)
                return None
        budgets = {scope: run.lines[scope or ""] for scope in (None, *scopes_of(self._asked.task))}
        seen = {id(line): line.returns for line in (*turns.values(), *budgets.values())}
        call = self._new_call(route)
        booked = Booked(call.id, route, Hold([*turns.values(), *budgets.values()]))
        dead = frozenset().union(*services.dead.values())
        try:
            await services.journal.commit(
                "call.reserve", lambda c: ledger.reserve(c, run.run_id, run.epoch, call, limits, dead)
            )
        except PodiumError as error:
            booked.hold.release(returned=False)
            if isinstance(error, BudgetRefused):
                if (shorter := self._shorter(route, error.left)) is not None:
                    return await self.reserve(shorter, place)
                if route.mode == "template":  # the plain prompt is shorter
                    self._may_guide = False
                    return None
                line = budgets[error.scope]
                self._refused[route.model] = _Refused(error, line, seen[id(line)])
            elif isinstance(error, Throttled):
                line = turns[error.key]
                services.judge(error)
                self._busy[route.model] = _Busy(route, line, seen[id(line)], error.seconds)
            else:
                raise
            return None
        except BaseException as cut:
            cut_off(services, run, booked, cut, unknown=False)
            raise
        if run.pacing is not None:
            run.pacing.begin(route)
        return booked

    def _shorter(self, route: Route, left: Left) -> Route | None:
        """The same route with an answer that the rest of the budget covers, if nearly every answer is no
        longer; None: there is none."""
        enough, query = route.enough_tokens, self._asked.query
        if enough is None or enough >= route.max_tokens:
            return None
        price = self._services.pool.specs[route.model].price
        read = query.input_tokens_max + route.template_tokens
        worst, tokens = price.cost(read, enough), read + enough
        if (left.nano is not None and worst > left.nano) or (
            left.tokens is not None and tokens > left.tokens
        ):
            return None
        reason = f"{route.reason}; {enough:,} tokens of answer, since no more are in the budget"
        return replace(route, max_tokens=enough, worst_cost_nano=worst, enough_tokens=None, reason=reason)

    def _new_call(self, route: Route) -> ledger.NewCall:
        asked = self._asked
        return ledger.NewCall(
            id=uuid.uuid4().hex,
            task=asked.task,
            attempt=asked.attempt,
            step=asked.step,
            model=route.model,
            route=route_data(route),
            request=asked.request | {"template": route.template} if route.template else asked.request,
            request_hash=asked.digest,
            reserve_nano=route.worst_cost_nano,
            reserve_tokens=asked.query.input_tokens_max + route.template_tokens + route.max_tokens,
        )


def cut_off(
    services: Services, run: RunContext, booked: Booked, cut: BaseException, *, unknown: bool
) -> None:
    """The attempt was cancelled or timed out: nobody waits, but the run goes on and may need the money."""
    try:
        give_back(services, run, booked, f"the attempt was cut off: {type(cut).__name__}", unknown=unknown)
    except PodiumError:  # a closed journal: the next claim closes the call
        booked.hold.release(returned=True)


def excluding(query: Query, models: AbstractSet[str]) -> Query:
    return replace(query, exclude=query.exclude | models)


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
        "est_quality": route.est_quality,
        "quality_sd": route.quality_sd,
        "then": route.then,
        "samples": route.samples,
        "way_quality": route.way_quality,
        "way_usd": None if route.way_nano is None else format_usd(route.way_nano),
        "point_usd": None if route.point_nano is None else format_usd(route.point_nano),
        "explored": route.explored,
        "state": route.state,
        "alternatives": [
            {
                "model": a.model,
                "fits": a.fits,
                "est_cost_usd": format_usd(a.est_cost_nano),
                "reason": a.reason,
                "est_quality": a.est_quality,
                "quality_sd": a.quality_sd,
            }
            for a in route.alternatives
        ],
    }
