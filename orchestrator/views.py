"""A run as people see it: one snapshot of its rows, put together. The SDK's `Run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from ..memory import prompts, reads, totals
from ..memory.database import Database
from ..memory.errors import NotFound
from ..memory.money import NANO, format_usd
from ..memory.prompts import PromptRecord
from ..memory.reads import AttemptRecord, CallRecord, EffectRecord, RunRecord, TaskRecord
from ..memory.totals import CallTotal, ChildCount, EffectTotal, RouteTotal
from .problems import did_you_mean

if TYPE_CHECKING:
    from ..router.evaluation.savings import Savings
    from .placeholders import Ref
    from .workflow import Workflow

#: exit code of the CLI by status; a failed run has its error's own
EXIT_CODES = {"succeeded": 0, "stopped": 4, "waiting": 7, "paused": 7, "cancelled": 1, "failed": 1}
#: failed tasks below others that an outline names
NAMED = 20


@dataclass(frozen=True)
class Below:
    """What is below a task: elements of a map, tasks of a sub-workflow, iterations of a loop."""

    #: status → number of its children
    counts: Mapping[str, int]
    #: of everything below it, however deep
    attempts: int
    #: of everything below it and of itself
    calls: int
    cost_nano: int
    models: tuple[str, ...]
    #: the first of those that failed, however deep
    failed: tuple[TaskRecord, ...]
    #: how many failed in all
    failures: int

    @property
    def children(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class TaskView:
    """A task of a run, with what its own calls came to; with `below` they are counted there."""

    record: TaskRecord
    cost_nano: int
    calls: int
    models: tuple[str, ...]
    database: Database
    tenant: str
    #: only in `Run.outline`, and where there is something below the task
    below: Below | None = None

    def __getattr__(self, name: str) -> Any:
        """The columns of the task's row: name, kind, status, attempts, approval_text, …"""
        if name.startswith("_") or name not in TaskRecord.__slots__:
            raise AttributeError(name)
        return getattr(self.record, name)

    @property
    def all_models(self) -> tuple[str, ...]:
        """The models of its calls and of those below it."""
        return self.models if self.below is None else self.below.models

    @property
    def all_cost_nano(self) -> int:
        """Nano-dollars of its calls and of those below it."""
        return self.cost_nano if self.below is None else self.below.cost_nano

    def output(self) -> Any:
        """What the task came to; None while it has not succeeded."""
        with self.database.read() as connection:
            return reads.value(connection, self.tenant, self.record.output_blob)


class Run:
    """One execution of a workflow, as it was when it was read. `refresh()` reads it again."""

    def __init__(
        self, database: Database, record: RunRecord, output_classes: Mapping[str, type] | None = None
    ):
        self._database, self.record = database, record
        self._classes = dict(output_classes or {})

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self.record.workflow

    @property
    def status(self) -> str:
        """queued, running, waiting, paused, succeeded, failed, cancelled or stopped (by its budget)."""
        return self.record.status

    @property
    def error(self) -> dict[str, Any] | None:
        return self.record.error

    @property
    def exit_code(self) -> int:
        """What the CLI exits with for this run."""
        if self.status == "failed" and self.error is not None:
            return int(self.error.get("exit_code", 1)) or 1
        return EXIT_CODES.get(self.status, 0)

    @property
    def cost_nano(self) -> int:
        """Nano-dollars settled."""
        return self.record.settled_nano

    @property
    def cost(self) -> Decimal:
        """USD settled."""
        return Decimal(self.record.settled_nano) / NANO

    @cached_property
    def tasks(self) -> list[TaskView]:
        """All tasks in the workflow's order; elements and tasks of sub-workflows after those of the run."""
        with self._database.read() as connection:
            records = reads.tasks(connection, self.id)
            calls = _by_task(totals.call_totals(connection, self.id))
        return [self._view(record, calls.get(record.name, [])) for record in records]

    @cached_property
    def outline(self) -> list[TaskView]:
        """The tasks of the run's own workflow; what is below each is summed up by the database, so that a map
        of 10,000 elements costs no more than a small one.
        """
        with self._database.read() as connection:
            records = reads.tasks(connection, self.id, own=True)
            counts = totals.child_counts(connection, self.id)
            calls = _by_task(totals.call_totals(connection, self.id, top=True))
            failed = totals.failed_below(connection, self.id, limit=NAMED) if counts else []
        families: dict[str, list[ChildCount]] = {}
        for count in counts:
            families.setdefault(count.top, []).append(count)
        return [
            self._view(record, [], _below(families[record.name], calls.get(record.name, []), failed))
            if record.name in families
            else self._view(record, calls.get(record.name, []))
            for record in records
        ]

    def _view(self, record: TaskRecord, calls: Sequence[CallTotal], below: Below | None = None) -> TaskView:
        cost, count = sum(call.cost_nano for call in calls), sum(call.calls for call in calls)
        models = tuple(dict.fromkeys(call.model for call in calls))
        return TaskView(record, cost, count, models, self._database, self.record.tenant, below)

    @cached_property
    def waiting(self) -> list[TaskView]:
        """Tasks that wait for a person; `approval_text` is the question."""
        with self._database.read() as connection:
            records = reads.tasks(connection, self.id, statuses=("waiting",))
        return [self._view(record, []) for record in records]

    @cached_property
    def calls_made(self) -> int:
        """How many model calls it made so far."""
        with self._database.read() as connection:
            return sum(total.calls for total in totals.call_totals(connection, self.id, top=True))

    @cached_property
    def routes(self) -> list[RouteTotal]:
        """The model calls, summed up by task of the run's own workflow, model and status."""
        with self._database.read() as connection:
            return totals.route_totals(connection, self.id)

    @cached_property
    def effect_totals(self) -> list[EffectTotal]:
        """The tool calls, summed up by task of the run's own workflow, tool and status."""
        with self._database.read() as connection:
            return totals.effect_totals(connection, self.id)

    @cached_property
    def calls(self) -> list[CallRecord]:
        with self._database.read() as connection:
            return reads.calls(connection, self.id)

    @cached_property
    def savings(self) -> Savings | None:
        """What the router saved against one model for everything, by the estimates of the calls' routes;
        None: no call was routed by a policy that judges quality."""
        from .economics import run_savings

        return run_savings(self.calls)

    @cached_property
    def attempts(self) -> list[AttemptRecord]:
        with self._database.read() as connection:
            return reads.attempts(connection, self.id)

    @cached_property
    def own(self) -> tuple[list[CallRecord], list[AttemptRecord], list[EffectRecord]]:
        """Calls, attempts and tool calls of the run's own tasks, without those of anything below them."""
        with self._database.read() as connection:
            return (
                reads.calls(connection, self.id, own=True),
                reads.attempts(connection, self.id, own=True),
                reads.effects(connection, self.id, own=True),
            )

    def prompts(self, task: str) -> list[PromptRecord]:
        """What the models were asked for a task, call by call.

        Raises:
            NotFound: the run has no such task.
        """
        self._named(task)
        with self._database.read() as connection:
            return prompts.prompts(connection, self.record.tenant, self.id, task)

    def ports(self, task: str) -> dict[str, int]:
        """The tasks whose outputs a task reads → the revisions that hold them."""
        with self._database.read() as connection:
            return prompts.ports(connection, self.record.tenant, self.id, task)

    def _named(self, task: str) -> None:
        with self._database.read() as connection:
            names = [record.name for record in reads.tasks(connection, self.id)]
        if task not in names:
            close = did_you_mean(task, names)
            raise NotFound(
                f"the run has no task {task!r}", mend=close or "`podium show --all` lists them", run=self.id
            )

    @cached_property
    def effects(self) -> list[EffectRecord]:
        """The tool calls."""
        with self._database.read() as connection:
            return reads.effects(connection, self.id)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        return self._value(self.record.inputs_blob)

    @cached_property
    def spec(self) -> Workflow:
        """The workflow as it was submitted."""
        from .workflow import Workflow

        return Workflow.from_data(self._value(self.record.spec_blob))

    @cached_property
    def outputs(self) -> dict[str, Any] | None:
        """The outputs by name, None while the run has not succeeded. An output whose task was declared with a
        pydantic class in this process is an instance of it.
        """
        found = self._value(self.record.outputs_blob)
        if found is None or not self._classes:
            return found
        refs = self.spec.output_refs()
        return {name: self._typed(refs[name], value) for name, value in found.items()}

    def _typed(self, ref: Ref, value: Any) -> Any:
        kind: Any = self._classes.get(ref.name)
        if kind is None or ref.path or value is None:
            return value
        from pydantic import TypeAdapter

        if self.spec.tasks[ref.name].map is not None:
            kind = list[kind | None]  # an element may have been skipped
        return TypeAdapter(kind).validate_python(value)

    @property
    def output(self) -> Any:
        """The only output; all of them by name if there are several."""
        outputs = self.outputs
        return next(iter(outputs.values())) if outputs is not None and len(outputs) == 1 else outputs

    def refresh(self) -> Run:
        """The run as it is now."""
        with self._database.read() as connection:
            return Run(self._database, reads.run(connection, self.id), self._classes)

    def _value(self, digest: str | None) -> Any:
        with self._database.read() as connection:
            return reads.value(connection, self.record.tenant, digest)

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.workflow}: {self.status}, {format_usd(self.cost_nano)} USD>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(t.record.name)}</td><td>{t.record.kind}</td><td>{t.record.status}</td>"
            f"<td>{escape(', '.join(t.all_models))}</td><td>{format_usd(t.all_cost_nano)}</td></tr>"
            for t in self.outline
        )
        head = "<tr><th>task</th><th>kind</th><th>status</th><th>model</th><th>USD</th></tr>"
        return (
            f"<p><b>{escape(self.workflow)}</b> <code>{self.id}</code>: {self.status}, "
            f"{format_usd(self.cost_nano)} USD</p><table>{head}{rows}</table>"
        )


def _by_task(found: Iterable[CallTotal]) -> dict[str, list[CallTotal]]:
    tasks: dict[str, list[CallTotal]] = {}
    for total in found:
        tasks.setdefault(total.task, []).append(total)
    return tasks


def _below(counts: Sequence[ChildCount], calls: Sequence[CallTotal], failed: Sequence[TaskRecord]) -> Below:
    top = counts[0].top
    direct = sorted((count for count in counts if count.direct), key=lambda count: -count.tasks)
    return Below(
        counts={count.status: count.tasks for count in direct},
        attempts=sum(count.attempts for count in counts),
        calls=sum(call.calls for call in calls),
        cost_nano=sum(call.cost_nano for call in calls),
        models=tuple(dict.fromkeys(call.model for call in calls)),
        failed=tuple(task for task in failed if task.name.startswith((f"{top}[", f"{top}/"))),
        failures=sum(count.tasks for count in counts if count.status == "failed"),
    )
