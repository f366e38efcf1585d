"""The plan table: task × model × estimated cost × estimated seconds × reason, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..memory.chat import Message
from ..router.policy import NoRoute, Policy
from ..router.stats import Stats
from ..router.tokens import estimate_tokens
from ..router.types import ModelSpec, Query
from .caller import DEFAULT_MAX_TOKENS
from .graph import generations
from .placeholders import ITEM, Ref, as_text, read_path, refs
from .tasks import AgentTask, LlmTask, TaskBase
from .workflow import Workflow

#: model calls that an agent is expected to make
AGENT_CALLS = 3


@dataclass(frozen=True, slots=True)
class PlanRow:
    task: str
    kind: str
    #: the model that the router would take now; None for tasks without one
    model: str | None
    #: elements of a map, None while they are not known
    count: int | None
    #: nano-dollars and seconds for all elements together
    est_cost_nano: int
    est_seconds: float | None
    reason: str


def plan_table(
    workflow: Workflow,
    inputs: Mapping[str, Any],
    models: Sequence[ModelSpec],
    policy: Policy,
    stats: Stats,
) -> list[PlanRow]:
    """One row a task, predecessors first. A sub-workflow is one row."""
    sizes: dict[str, int] = {}
    rows = []
    for name in (name for generation in generations(workflow) for name in generation):
        task = workflow.tasks[name]
        count = _count(workflow, task, inputs)
        if not isinstance(task, LlmTask | AgentTask):
            sizes[name] = 64
            rows.append(PlanRow(name, task.kind, None, count, 0, None, task.description or _about(task)))
            continue
        query = _query(workflow, name, task, inputs, sizes)
        times = (count or 1) * (AGENT_CALLS if isinstance(task, AgentTask) else 1)
        try:
            route = policy.choose(query, models, stats)
        except NoRoute as error:
            rows.append(PlanRow(name, task.kind, None, count, 0, None, error.message.splitlines()[0]))
            sizes[name] = query.max_tokens or DEFAULT_MAX_TOKENS
            continue
        sizes[name] = stats.est_output(route.model, name, route.max_tokens) * (count or 1)
        seconds = None if route.est_seconds is None else route.est_seconds * times
        rows.append(
            PlanRow(name, task.kind, route.model, count, route.est_cost_nano * times, seconds, route.reason)
        )
    return rows


def _about(task: TaskBase) -> str:
    found = getattr(task, task.body_key, "")
    return str(found)[:60] if isinstance(found, str) else ""


def _count(workflow: Workflow, task: TaskBase, inputs: Mapping[str, Any]) -> int | None:
    if task.map is None:
        return 1
    source = Ref.parse(task.map)
    value = read_path(inputs.get(source.name), source) if source.name in workflow.inputs else None
    return len(value) if isinstance(value, list) else None


def _query(
    workflow: Workflow,
    name: str,
    task: LlmTask | AgentTask,
    inputs: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> Query:
    texts = [part for part in task.templates() if part]
    tokens, upper = estimate_tokens([Message("user", text) for text in texts])
    for ref in refs(texts):
        more = _size(workflow, task, ref, inputs, sizes)
        tokens, upper = tokens + more, upper + 4 * more
    return Query(
        input_tokens_max=upper,
        input_tokens=tokens,
        max_tokens=task.max_tokens or DEFAULT_MAX_TOKENS,
        needs_json=task.output is not None or isinstance(task, AgentTask),
        task=name,
        kind=task.body_kind,
        pinned=task.model,
    )


def _size(
    workflow: Workflow, task: TaskBase, ref: Ref, inputs: Mapping[str, Any], sizes: Mapping[str, int]
) -> int:
    """Tokens that a placeholder will take, by estimate."""
    parts = 1
    if ref.name == ITEM and task.map is not None:
        ref = Ref.parse(task.map)
        value = inputs.get(ref.name)
        parts = len(value) if isinstance(value, list) and value else 1
    if ref.name in workflow.inputs:
        value = inputs.get(ref.name)
        text = as_text(value) if value is not None else ""
        return estimate_tokens([Message("user", text)])[0] // parts
    return sizes.get(ref.name, 64)
