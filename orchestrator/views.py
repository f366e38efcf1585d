"""A run as people see it: one snapshot of its rows, put together. The SDK's `Run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from ..memory import reads
from ..memory.database import Database
from ..memory.money import NANO, format_usd
from ..memory.reads import AttemptRecord, CallRecord, EffectRecord, RunRecord, TaskRecord

if TYPE_CHECKING:
    from .placeholders import Ref
    from .workflow import Workflow

#: exit code of the CLI by status; a failed run has its error's own
EXIT_CODES = {"succeeded": 0, "stopped": 4, "waiting": 7, "cancelled": 1, "failed": 1}


@dataclass(frozen=True)
class TaskView:
    """A task of a run, with what its calls came to."""

    record: TaskRecord
    cost_nano: int
    calls: int
    models: tuple[str, ...]
    database: Database
    tenant: str

    def __getattr__(self, name: str) -> Any:
        """The columns of the task's row: name, kind, status, attempts, approval_text, …"""
        if name.startswith("_") or name not in TaskRecord.__slots__:
            raise AttributeError(name)
        return getattr(self.record, name)

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
        """queued, running, waiting, succeeded, failed, cancelled or stopped (by its budget)."""
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
        calls: dict[str, list[CallRecord]] = {}
        for call in self.calls:
            calls.setdefault(call.task, []).append(call)
        return [self._view(record, calls.get(record.name, [])) for record in records]

    def _view(self, record: TaskRecord, calls: list[CallRecord]) -> TaskView:
        cost = sum(call.cost_nano or 0 for call in calls)
        models = tuple(dict.fromkeys(call.model for call in calls))
        return TaskView(record, cost, len(calls), models, self._database, self.record.tenant)

    @property
    def waiting(self) -> list[TaskView]:
        """Tasks that wait for a person; `approval_text` is the question."""
        return [task for task in self.tasks if task.record.status == "waiting"]

    @cached_property
    def calls(self) -> list[CallRecord]:
        with self._database.read() as connection:
            return reads.calls(connection, self.id)

    @cached_property
    def attempts(self) -> list[AttemptRecord]:
        with self._database.read() as connection:
            return reads.attempts(connection, self.id)

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
            f"<td>{escape(', '.join(t.models))}</td><td>{format_usd(t.cost_nano)}</td></tr>"
            for t in self.tasks
        )
        head = "<tr><th>task</th><th>kind</th><th>status</th><th>model</th><th>USD</th></tr>"
        return (
            f"<p><b>{escape(self.workflow)}</b> <code>{self.id}</code>: {self.status}, "
            f"{format_usd(self.cost_nano)} USD</p><table>{head}{rows}</table>"
        )
