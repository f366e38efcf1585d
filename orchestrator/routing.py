"""What the router has learned, between the database and the engines that use it.

The outcomes in the database are the truth. A version of the router's state is what was learned from all of
them up to one; an engine takes the active version and tells it the outcomes that came since, so that nothing
learned is lost with a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..memory import learning, reads, router_states
from ..memory.database import Connection, Database
from ..memory.errors import UsageError
from ..memory.learning import CallRef, Example
from . import templates

if TYPE_CHECKING:
    from ..router.decision.policy import Shelf
    from ..router.learned import LearnedRouter
    from ..router.learning.predictor import Outcome

#: outcomes that are learned from in one training, the newest
MOST = 20_000
#: outcomes since the last training after which a serving engine trains again: so many, and such a share
DUE, DUE_SHARE = 50, 0.2


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that was saved."""

    version: int
    #: graded answers that it was learned from
    rows: int
    models: Sequence[str]
    #: (weak, strong) whose answers can be doubted
    doubts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Found:
    """The active version and the outcomes since. `upto`: the last of these."""

    version: int | None
    state: bytes | None
    since: Sequence[Example]
    upto: int


def outcome_of(example: Example) -> Outcome:
    """A graded answer as the router learns from it."""
    from ..router.learned import arm
    from ..router.learning.predictor import Outcome

    model = arm(example.model, example.mode, example.samples)
    return Outcome(
        example.prompt, model, example.score, example.task, example.cost_usd,
        example.in_tok, example.out_tok, example.seconds, example.answer,
    )  # fmt: skip


def train(database: Database, tenant: str, models: Sequence[str], note: str) -> Trained:
    """Learn anew from the newest `MOST` outcomes of the tenant, and use that from now on. Takes seconds.

    `models`: those of the pool; models of outcomes alone are learned too, for the day they come back.

    Raises:
        UsageError: there is no outcome to learn from, or something was forgotten meanwhile.
    """
    from ..router.learned import LearnedRouter

    def look(connection: Connection) -> tuple[list[Example], int, int]:
        last = router_states.last_outcome(connection, tenant)
        erasures = router_states.last_erasure(connection, tenant)
        return learning.examples(connection, tenant, most=MOST), last, erasures

    found, upto, erasures = database.query(look)
    if not found:
        raise UsageError(
            "there is nothing to learn from",
            mend="grade answers (podium feedback CALL good), or give a CSV: podium router train FILE",
        )
    outcomes = [outcome_of(one) for one in found]
    names = list(dict.fromkeys([*models, *sorted({one.model for one in outcomes})]))
    router = LearnedRouter(names)
    router.train(outcomes)
    state = router.to_state()
    version = database.transact(
        lambda c: router_states.save_state(
            c, tenant, state, upto=upto, rows=len(found), note=note, erasures=erasures
        )
    )
    return Trained(version, len(found), names, sorted(router.doubts))


def feedback(
    connection: Connection, tenant: str, call: CallRef, score: float, note: str | None = None
) -> None:
    """A person's grade of an answer. Where that answer had taken the place of a cheaper one in doubt, the
    cheap one is graded with it: as good if both come to the same, else as wrong as the other is right.
    Without that, only those cheap answers would ever be graded that were trusted.

    Raises:
        UsageError: the score is none, or the call was not answered.
    """
    learning.grade(connection, tenant, call.id, "feedback", score, note)
    mine = [one for one in reads.calls(connection, call.run_id) if one.task == call.task]
    asked = next((one for one in mine if one.id == call.id), None)
    if asked is None:
        return
    doubted = [
        one
        for one in mine
        if (one.attempt, one.step) == (asked.attempt, asked.step) and one.verdict == "escalated"
        and one.id != asked.id and (one.review or {}).get("then") == asked.model
    ]  # fmt: skip
    for one in doubted:
        from ..router.verifiers.agreement import normal_form

        texts = reads.values(connection, tenant, [b for b in (one.response_blob, asked.response_blob) if b])
        cheap, dear = (texts[blob]["text"] for blob in (one.response_blob or "", asked.response_blob or ""))
        same = normal_form(cheap) == normal_form(dear)
        learning.grade(
            connection, tenant, one.id, "judge", score if same else 1 - score, f"by the feedback on {call.id}"
        )


def known(
    connection: Connection, tenant: str, models: Sequence[str]
) -> tuple[LearnedRouter | None, int | None]:
    """What is known now, and the version it begins with (None: only outcomes). `models`: the pool's."""
    found = _look(connection, tenant, None, 0)
    return _made(found, models), found.version


def is_due(database: Database, tenant: str) -> bool:
    """Whether enough came in since the last training to learn anew."""

    def look(connection: Connection) -> bool:
        active = next((one for one in router_states.states(connection, tenant) if one.active), None)
        upto, rows = (0, 0) if active is None else (active.upto, active.rows)
        if router_states.last_outcome(connection, tenant) < upto + DUE:
            return False
        return len(learning.examples(connection, tenant, after=upto)) >= max(DUE, DUE_SHARE * rows)

    return database.query(look)


class Learning:
    """What one engine knows, by tenant. Methods are for its event loop."""

    def __init__(self, database: Database, models: Sequence[str]) -> None:
        self._database, self._models = database, list(models)
        self._shelves: dict[str, Shelf] = {}
        #: the last outcome that was heard of
        self._upto: dict[str, int] = {}
        #: of tenants whose policies want them: task → template, as it is put into prompts
        self._templates: dict[str, Mapping[str, str]] = {}

    @property
    def tenants(self) -> list[str]:
        return list(self._shelves)

    async def shelf(self, tenant: str) -> Shelf:
        """Where what is known of a tenant's models stands, up to date now and with each `refresh`."""
        from ..router.decision.policy import Shelf

        self._shelves.setdefault(tenant, Shelf())
        await self.refresh(tenant)
        return self._shelves[tenant]

    async def template(self, tenant: str) -> Callable[[str], str | None]:
        """What tells the template of a task of a tenant, up to date now and with each `refresh`."""
        await self._load_templates(tenant)
        return lambda task: self._templates[tenant].get(task)

    async def _load_templates(self, tenant: str) -> None:
        found = await asyncio.to_thread(self._database.query, lambda c: templates.load(c, tenant))
        self._templates[tenant] = found

    async def refresh(self, tenant: str) -> None:
        """Take up another version, the outcomes since, and the templates as they are now."""
        if tenant in self._templates:
            await self._load_templates(tenant)
        shelf = self._shelves[tenant]
        known = shelf.version if shelf.router is not None else -1
        after = self._upto.get(tenant, 0)
        found = await asyncio.to_thread(self._database.query, lambda c: _look(c, tenant, known, after))
        self._upto[tenant] = max(after, found.upto)
        if found.state is not None or shelf.router is None:
            shelf.router = await asyncio.to_thread(_made, found, self._models)
            shelf.version = found.version
            return
        for one in found.since:
            shelf.router.follow(outcome_of(one))
            await asyncio.sleep(0)  # a few milliseconds each: calls go on between them


def _look(connection: Connection, tenant: str, known: int | None, after: int) -> _Found:
    """The active version if it is not `known`, with the outcomes since it; else those after `after`."""
    active = next((one for one in router_states.states(connection, tenant) if one.active), None)
    version = None if active is None else active.version
    if version == known:
        if router_states.last_outcome(connection, tenant) <= after:
            return _Found(version, None, (), after)
        since = learning.examples(connection, tenant, after=after, most=MOST)
        return _Found(version, None, since, max([after, *(one.id for one in since)]))
    record = router_states.active_state(connection, tenant)
    # a state that was erased says nothing: what is left of its outcomes is learned from again
    upto = 0 if record is None or not record.state else record.upto
    since = learning.examples(connection, tenant, after=upto, most=MOST)
    state = b"" if record is None else record.state
    return _Found(version, state, since, max([upto, *(one.id for one in since)]))


def _made(found: _Found, models: Sequence[str]) -> LearnedRouter | None:
    """The router of what was found; None: nothing was."""
    from ..router.learned import LearnedRouter

    if not found.state and not found.since:
        return None
    router = LearnedRouter.from_state(found.state) if found.state else LearnedRouter(list(models))
    for one in found.since:
        router.follow(outcome_of(one))
    return router
