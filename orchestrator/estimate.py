"""The plan table: task × model × estimated cost × estimated seconds × reason, before anything runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..agents.planner import INSTRUCTIONS
from ..memory.chat import Message
from ..router.policy import NoRoute, Policy
from ..router.stats import Stats
from ..router.tokens import estimate_tokens
from ..router.types import ModelSpec, Query
from .caller import DEFAULT_MAX_TOKENS
from .graph import generations
from .placeholders import ITEM, Ref, TemplateError, as_text, fill, read_path, refs
from .tasks import AgentTask, LlmTask, PlanTask, TaskBase
from .workflow import LoopTask, Workflow, workflow_task

#: model calls that an agent is expected to make
AGENT_CALLS = 3
#: tokens of a value that nothing is known of, and of a plan
_UNKNOWN, _PLAN_TOKENS = 64, 1024


@dataclass(frozen=True, slots=True)
class PlanRow:
    #: a task in a workflow of a task has both names: "review/brief"
    task: str
    kind: str
    #: the model that the router would take now; None for tasks without one
    model: str | None
    #: how often it runs: elements of a map, at most so many iterations of a loop; None while it is not known
    count: int | None
    #: nano-dollars and seconds of all of them together
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
    """One row a task, predecessors first; the tasks of an embedded workflow stand below its task.

    A loop is reckoned with all the iterations it may have, so its figures are upper bounds. What a plan task
    will add is not known: its row is the planning alone.
    """
    scope = _Scope(workflow, inputs, private=workflow.private)
    return list(_Estimator(models, policy, stats).rows(scope))


@dataclass(slots=True)
class _Scope:
    """A workflow at its place: what is known of its inputs, and how often it runs."""

    workflow: Workflow
    #: those whose values are known
    inputs: Mapping[str, Any]
    prefix: str = ""
    #: at least so often; `counted`: exactly, or at most
    times: int = 1
    counted: bool = True
    #: its prompts stay on the pool's machines
    private: bool = False
    #: tokens of the values of inputs and tasks, by name
    sizes: dict[str, int] = field(default_factory=dict)

    def size(self, task: TaskBase, ref: Ref) -> int:
        """Tokens that a placeholder of `task` will take, by estimate."""
        parts = 1
        if ref.name == ITEM and task.map is not None:
            ref = Ref.parse(task.map)
            value = self.inputs.get(ref.name)
            parts = len(value) if isinstance(value, list) and value else 1
        value = self.inputs.get(ref.name)
        if value is not None and ref.name in self.workflow.inputs:
            return estimate_tokens([Message("user", as_text(value))])[0] // parts
        return self.sizes.get(ref.name, _UNKNOWN)

    def count(self, task: TaskBase) -> int | None:
        """Elements of a task; None while they are not known."""
        if task.map is None:
            return 1
        source = Ref.parse(task.map)
        known = source.name in self.workflow.inputs and source.name in self.inputs
        value = read_path(self.inputs[source.name], source) if known else None
        return len(value) if isinstance(value, list) else None

    def below(self, name: str, task: TaskBase, inner: Workflow) -> _Scope:
        """The scope of the workflow in a task: its inputs as `with` fills them."""
        most = task.loop.max if isinstance(task, LoopTask) else 1
        count = self.count(task)
        given: Mapping[str, Any] = getattr(task, "with_", {})
        made = _Scope(
            inner,
            {key: declared.default for key, declared in inner.inputs.items() if not declared.required},
            f"{self.prefix}{name}/",
            self.times * (count or 1) * most,
            self.counted and count is not None,
            self.private or inner.private,
        )
        known = dict(made.inputs)
        for key, tree in given.items():
            read = refs(tree)
            known.pop(key, None)
            made.sizes[key] = sum(self.size(task, ref) for ref in read)
            if all(ref.name in self.inputs for ref in read):
                with contextlib.suppress(TemplateError):  # a field that the value lacks: the run will say so
                    known[key] = fill(tree, lambda ref: read_path(self.inputs[ref.name], ref))
        made.inputs = known
        return made


@dataclass(frozen=True, slots=True)
class _Estimator:
    models: Sequence[ModelSpec]
    policy: Policy
    stats: Stats

    def rows(self, scope: _Scope) -> Iterator[PlanRow]:
        """The rows of a workflow; fills the sizes of the scope's tasks."""
        for name in (name for generation in generations(scope.workflow) for name in generation):
            task = scope.workflow.tasks[name]
            inner = workflow_task(task)
            if isinstance(task, LlmTask | AgentTask | PlanTask):
                yield self._call(scope, name, task)
                continue
            yield self._row(scope, name, task, reason=task.description or _about(task))
            if inner is not None:
                below = scope.below(name, task, inner)
                yield from self.rows(below)
                ends = sum(below.sizes.get(ref.name, _UNKNOWN) for ref in inner.output_refs().values())
                scope.sizes[name] = ends * (scope.count(task) or 1)
            else:
                scope.sizes[name] = _UNKNOWN

    def _call(self, scope: _Scope, name: str, task: LlmTask | AgentTask | PlanTask) -> PlanRow:
        """The row of a task that calls a model."""
        query = _query(scope, name, task)
        count = scope.count(task) or 1
        try:
            route = self.policy.choose(query, self.models, self.stats)
        except NoRoute as error:
            scope.sizes[name] = query.max_tokens or DEFAULT_MAX_TOKENS
            return self._row(scope, name, task, reason=error.message.splitlines()[0])
        scope.sizes[name] = self.stats.est_output(route.model, query.task, route.max_tokens) * count
        times = scope.times * count * (AGENT_CALLS if isinstance(task, AgentTask) else 1)
        return self._row(
            scope,
            name,
            task,
            model=route.model,
            cost=route.expected_nano * times,
            seconds=None if route.est_seconds is None else route.est_seconds * times,
            reason=_planned(task) + route.reason,
        )

    def _row(
        self,
        scope: _Scope,
        name: str,
        task: TaskBase,
        *,
        reason: str,
        model: str | None = None,
        cost: int = 0,
        seconds: float | None = None,
    ) -> PlanRow:
        count = scope.count(task)
        known = None if count is None or not scope.counted else count * scope.times
        return PlanRow(scope.prefix + name, task.kind, model, known, cost, seconds, reason)


def _about(task: TaskBase) -> str:
    if isinstance(task, LoopTask):
        until = task.loop.until
        asked = f"{until.field} {until.op} {as_text(until.value)}"
        return f"until {asked}; its tasks are reckoned {task.loop.max} times, the most it may take"
    found = getattr(task, task.body_key, "")
    return str(found)[:60] if isinstance(found, str) else ""


def _planned(task: TaskBase) -> str:
    if not isinstance(task, PlanTask):
        return ""
    more = f"; it adds at most {task.plan.max_tasks} tasks that are not known yet" if task.plan.run else ""
    again = f", {task.plan.replans} more if a plan fails" if task.plan.replans and task.plan.run else ""
    return f"one planning{again}{more}; "


def _query(scope: _Scope, name: str, task: LlmTask | AgentTask | PlanTask) -> Query:
    texts = [part for part in task.templates() if part]
    spoken = [text for text in texts if isinstance(text, str)]
    if isinstance(task, PlanTask):
        spoken.append(INSTRUCTIONS)
    tokens, upper = estimate_tokens([Message("user", text) for text in spoken])
    try:
        read = refs(texts)
    except TemplateError:
        read = []
    for ref in read:
        more = scope.size(task, ref)
        tokens, upper = tokens + more, upper + 4 * more
    planning = isinstance(task, PlanTask)
    return Query(
        input_tokens_max=upper,
        input_tokens=tokens,
        max_tokens=_PLAN_TOKENS if planning else task.max_tokens or DEFAULT_MAX_TOKENS,
        needs_json=planning or isinstance(task, AgentTask) or task.output is not None,
        task=scope.prefix + name,
        kind=task.body_kind,
        pinned=task.plan.model if planning else task.model,
        prompt="\n\n".join(spoken),
        private=scope.private or getattr(task, "private", False),
        checked=getattr(task, "check", None) is not None,
    )
