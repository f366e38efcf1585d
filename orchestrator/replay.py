"""What another routing policy would have picked for the calls of a run, and what that would have cost.

The router's own code decides on the recorded requests. No model is called and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from ..memory import reads
from ..memory.chat import Message, asked_text
from ..memory.database import Connection
from ..memory.errors import ConfigError
from ..memory.names import in_workflow
from ..memory.reads import CallRecord
from ..router.policy import NoRoute, Policy
from ..router.stats import Stats
from ..router.tokens import estimate_tokens
from ..router.types import ModelSpec, Query
from ..router.verifiers.contract import OWN
from .policies import policy_now


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One call: as it was, and as the other policy would have it."""

    task: str
    attempt: int
    step: int
    #: settled | unknown
    status: str
    model_then: str
    #: nano-dollars that were paid
    cost_then_nano: int
    #: None: the policy finds no model for the call
    model_now: str | None
    #: nano-dollars, estimated; None without a model
    cost_now_nano: int | None
    reason: str

    @property
    def is_same(self) -> bool:
        return self.model_now == self.model_then


@dataclass(frozen=True, slots=True)
class Replay:
    """The calls of a run under another policy."""

    run_id: str
    policy: Mapping[str, Any]
    rows: Sequence[ReplayRow]

    @property
    def cost_then_nano(self) -> int:
        """Nano-dollars of the calls that the policy finds a model for, so that the two sums compare."""
        return sum(row.cost_then_nano for row in self.rows if row.cost_now_nano is not None)

    @property
    def cost_now_nano(self) -> int:
        return sum(row.cost_now_nano or 0 for row in self.rows)

    @property
    def moved(self) -> int:
        """Calls that another model would have got."""
        return sum(not row.is_same for row in self.rows)

    @property
    def unrouted(self) -> int:
        """Calls that no model would have got."""
        return sum(row.model_now is None for row in self.rows)


def replay(
    connection: Connection, run_id: str, models: Sequence[ModelSpec], policy: Mapping[str, Any]
) -> Replay:
    """Route the answered calls of a run anew among `models`, with the statistics of today.

    The cost of a call is that of the tokens it really took, at the price of the model picked now; of a call
    whose outcome is unknown it is the router's estimate.

    Raises:
        NotFound: there is no such run.
        ConfigError: the policy is none, or names a model that is not there.
    """
    record = reads.run(connection, run_id)
    made = policy_now(connection, record.tenant, policy, models)
    if not models:
        raise ConfigError("there are no models to route to", mend="add one: `podium models add`")
    from .caller import stats_of

    stats = stats_of(reads.latencies(connection, record.tenant))
    calls = [c for c in reads.calls(connection, run_id) if c.status in ("settled", "unknown")]
    kinds = {task.name: task.kind for task in reads.tasks(connection, run_id)}
    rows = []
    for start in range(0, len(calls), 500):  # requests are large: not all of them at once
        page = calls[start : start + 500]
        asked = reads.values(connection, record.tenant, [call.request_blob for call in page])
        for call in page:
            query = query_of(asked[call.request_blob], run_id, call, kinds.get(call.task, "llm"))
            rows.append(_row(call, query, models, made, stats))
    return Replay(run_id, dict(policy), rows)


def query_of(asked: Mapping[str, Any], run_id: str, call: CallRecord, kind: str) -> Query:
    """What the router was asked, of a call and its request as they are recorded. `kind`: of its task."""
    from .caller import DEFAULT_MAX_TOKENS

    messages = [Message(**message) for message in asked["messages"]]
    expected, upper = estimate_tokens(messages, schema=asked["schema"])
    return Query(
        input_tokens_max=upper,
        input_tokens=expected,
        max_tokens=asked["max_tokens"] or DEFAULT_MAX_TOKENS,
        needs_json=asked["schema"] is not None,
        task=in_workflow(call.task),
        kind=kind,
        pinned=asked["model"],
        prompt=asked_text(messages),
        checked=any(check["name"] == OWN for check in (call.review or {}).get("checks", ())),
        seed=crc32(f"{run_id} {call.task} {call.step}".encode()),
    )


def _row(
    call: CallRecord, query: Query, models: Sequence[ModelSpec], policy: Policy, stats: Stats
) -> ReplayRow:
    paid = min(call.cost_nano or 0, call.reserved_nano)
    common = (call.task, call.attempt, call.step, call.status, call.model, paid)
    try:
        route = policy.choose(query, models, stats)
    except NoRoute as error:
        return ReplayRow(*common, None, None, error.message.splitlines()[0])
    cost = route.est_cost_nano
    if call.status == "settled" and call.input_tokens is not None and call.output_tokens is not None:
        price = next(model.price for model in models if model.name == route.model)
        cost = price.cost(call.input_tokens, min(call.output_tokens, route.max_tokens))
    if route.model == call.model and call.status == "settled":
        cost = paid  # as it was billed
    return ReplayRow(*common, route.model, cost, route.reason)
