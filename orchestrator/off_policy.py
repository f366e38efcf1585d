"""What another policy would have scored and cost on the own graded calls: decisions put together from the
record, the other policy asked about each, and `router.evaluation.off_policy` for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..memory import learning, reads
from ..memory.database import Connection, Database
from ..memory.errors import UsageError
from ..memory.money import NANO
from ..memory.names import in_workflow
from ..router.policy import NoRoute
from ..router.types import ModelSpec, Query, Route
from .explaining import accepted_of
from .policies import Policies
from .replay import query_of
from .routing import MOST, outcome_of

if TYPE_CHECKING:
    from ..memory.reads import CallRecord
    from ..router.evaluation.off_policy import Logged, OffPolicy
    from ..router.evaluation.outcomes import Outcomes

#: decisions that an estimate needs to be worth something
_ENOUGH = 30
#: calls whose requests are read at once
_PAGE = 500


@dataclass(frozen=True, slots=True)
class WhatIf:
    estimate: OffPolicy
    #: what to know before it is believed
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Decision:
    """A free choice that was made, and what came of it."""

    first: CallRecord
    #: of the answer that was accepted
    score: float
    cost: float
    #: of the first answer; None: not known. `presumed`: by the doubt alone
    own: float | None
    presumed: bool

    def is_like(self, route: Route) -> bool:
        """Whether the first answer (of a way that has no more), or the whole way, is that of `route`."""
        said = self.first.route
        if self.first.model != route.model or _is_single(route):
            return self.first.model == route.model
        way = (said.get("mode"), said.get("then"), said.get("samples", 1))
        return way == (route.mode, route.then, route.samples)


def own_outcomes(database: Database, tenant: str) -> Outcomes:
    """The graded answers of the task memory, as `router eval` takes them.

    Raises:
        UsageError: there are none.
    """
    return database.query(lambda c: _outcomes(learning.examples(c, tenant, most=MOST)))


def _outcomes(examples: Iterable[learning.Example]) -> Outcomes:
    from ..router.evaluation.outcomes import Outcomes

    found = Outcomes(tuple(outcome_of(one) for one in examples))
    if not found.rows:
        raise UsageError(
            "the task memory has no graded answer",
            mend="grade answers (podium feedback CALL good), take rows over (podium router train FILE), "
            "or give a CSV",
        )
    return found


def what_if(
    connection: Connection,
    tenant: str,
    spec: Mapping[str, Any],
    models: Sequence[ModelSpec],
    run_id: str | None = None,
) -> WhatIf:
    """What the policy `spec` would have come to on the graded decisions (of one run, if it is given).

    A decision is graded when its accepted answer is. Of one whose first answer was given up ungraded, the
    first answer counts as right with the probability that was found then. Calls that were pinned, or that
    followed a failure, were no free choices and are left out.

    Raises:
        UsageError: too few graded decisions. ConfigError: it is no policy.
    """
    from .caller import stats_of

    policies = Policies(connection, tenant, spec, models)
    examples = learning.examples(connection, tenant, most=MOST)
    scores = {one.call_id: one.score for one in examples if one.call_id is not None}
    runs = [run_id] if run_id is not None else list(dict.fromkeys(e.run_id for e in examples if e.run_id))
    stats = stats_of(reads.latencies(connection, tenant))
    taken: list[tuple[_Decision, Query, Route]] = []
    asked = ungraded = unrouted = 0
    for run in runs:
        made, count = _decisions(reads.calls(connection, run), scores)
        ungraded += count - len(made)
        policy = policies()
        for decision, query in _queries(connection, tenant, run, made):
            asked += 1
            try:
                taken.append((decision, query, policy.choose(query, models, stats)))
            except NoRoute:
                unrouted += 1
    rows, kept = _rows(taken, _outcomes(examples))
    from ..router.evaluation.off_policy import off_policy

    found = off_policy(rows)
    return WhatIf(found, _notes(found, kept, ungraded, unrouted))


def _decisions(calls: Sequence[CallRecord], scores: Mapping[str, float]) -> tuple[list[_Decision], int]:
    """The graded decisions of a run's calls, and how many there were in all."""
    groups: dict[tuple[str, int, int], list[CallRecord]] = {}
    for call in calls:
        groups.setdefault((call.task, call.attempt, call.step), []).append(call)
    found, count = [], 0
    for group in groups.values():
        if any(call.status != "settled" for call in group):
            continue
        count += 1
        first = group[0]
        score, own = scores.get(accepted_of(group).id), scores.get(first.id)
        if score is None:
            continue
        wrong = None if own is not None else (first.review or {}).get("wrong")
        cost = sum(call.cost_nano or 0 for call in group) / NANO
        found.append(_Decision(first, score, cost, own if wrong is None else 1 - wrong, wrong is not None))
    return found, count


def _queries(
    connection: Connection, tenant: str, run_id: str, decisions: Sequence[_Decision]
) -> Iterable[tuple[_Decision, Query]]:
    """Each free choice with what the router was asked."""
    kinds = {task.name: task.kind for task in reads.tasks(connection, run_id)}
    for start in range(0, len(decisions), _PAGE):
        page = decisions[start : start + _PAGE]
        asked = reads.values(connection, tenant, [one.first.request_blob for one in page])
        for one in page:
            call = one.first
            query = query_of(asked[call.request_blob], run_id, call, kinds.get(call.task, "llm"))
            if query.pinned is None and query.prompt:
                yield one, query


def _rows(
    taken: Sequence[tuple[_Decision, Query, Route]], outcomes: Outcomes
) -> tuple[Logged, list[tuple[_Decision, bool]]]:
    """The estimator's columns, and the decisions in them with whether both policies take them alike."""
    from ..router.evaluation.off_policy import Logged

    guess = _Guess(outcomes)
    rows, kept = [], []
    for one, query, route in taken:
        first, prompt, task = one.first, query.prompt, in_workflow(one.first.task)
        alone, alike = _is_single(route), one.is_like(route)
        score, cost = one.score, one.cost
        if alike and alone:
            if one.own is None:
                continue
            score, cost = one.own, (first.cost_nano or 0) / NANO
        then = (
            guess(prompt, task, route.model) if alone else (route.way_quality, (route.way_nano or 0) / NANO)
        )
        said = guess(prompt, task, first.model) if alone else _said(first.route)
        if then[0] is None:
            then = route.est_quality if route.est_quality is not None else 0.5, route.est_cost_nano / NANO
        chance = float(first.route.get("propensity") or 1.0)
        rows.append((one.score, one.cost, score, cost, chance, alike, *_filled(said, score, cost), *then))
        kept.append((one, alike))
    if len(rows) < 2:
        raise UsageError(
            f"{len(rows)} graded decisions are too few",
            mend="grade more answers of calls that the router chose: podium feedback CALL good",
        )
    return Logged.of(rows), kept


def _is_single(route: Route) -> bool:
    """One answer of one model, whatever it is."""
    return route.mode == "direct" and route.then is None


def _said(route: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """What was expected of a way when it was taken."""
    whole = route.get("way_quality") is not None
    quality = route["way_quality"] if whole else route.get("est_quality")
    cost = route.get("way_usd") if whole else route.get("est_cost_usd")
    return quality, None if cost is None else float(cost)


def _filled(said: tuple[float | None, float | None], score: float, cost: float) -> tuple[float, float]:
    return score if said[0] is None else said[0], cost if said[1] is None else said[1]


class _Guess:
    """What models would score and cost, by a router that has not seen the prompt."""

    def __init__(self, outcomes: Outcomes) -> None:
        from ..router.evaluation.routers import TaskMeans, cross_validate
        from ..router.learned import LearnedRouter

        matrix = outcomes.matrix()
        prompts = len(set(matrix.prompts))
        if prompts < 2:
            raise UsageError("graded answers to one prompt are too few", mend="grade answers to more prompts")
        make = LearnedRouter if prompts >= _ENOUGH else TaskMeans
        self._said = cross_validate(make, outcomes, folds=min(5, prompts))
        cells = zip(matrix.prompts, matrix.tasks, strict=True)
        self._rows = {cell: i for i, cell in enumerate(cells)}
        self._columns = {model: j for j, model in enumerate(matrix.models)}
        self._priced = matrix.priced

    def __call__(self, prompt: str, task: str, model: str) -> tuple[float | None, float | None]:
        """(score, USD); None: nothing is known of the model, or of its cost."""
        i, j = self._rows.get((prompt, task)), self._columns.get(model)
        if i is None or j is None:
            return None, None
        cost = float(self._said.cost[i, j]) if self._priced else None
        return float(self._said.quality[i, j]), cost


def _notes(
    found: OffPolicy, kept: Sequence[tuple[_Decision, bool]], ungraded: int, unrouted: int
) -> list[str]:
    chances = [float(one.first.route.get("propensity") or 1.0) for one, _ in kept]
    notes = []
    if found.effective < _ENOUGH:
        notes.append(
            f"too little to rely on: the decisions taken alike are worth {found.effective:.1f}, and "
            f"{_ENOUGH} are the least; the weighted mean is chance, and the other one rests on predictions"
        )
    if all(chance >= 1 for chance in chances) and found.matched < found.decisions:
        notes.append(
            f"nothing was left to chance (propensity 1): of the {found.decisions - found.matched} decisions "
            "that the policy would take otherwise nothing was seen, and their estimates are predictions; let "
            "the learned policy try now and then (`explore`)"
        )
    presumed = sum(one.presumed and alike for one, alike in kept)
    if presumed:
        notes.append(f"{presumed} answers in doubt that nobody graded count as the doubt found them")
    if ungraded:
        notes.append(
            f"{ungraded} decisions of these runs are not graded and left out; who grades only bad answers "
            "finds every policy bad"
        )
    if unrouted:
        notes.append(f"{unrouted} decisions find no model under the policy and are left out")
    notes.append("decisions of one run share a price of quality; the intervals take them as independent")
    return notes
