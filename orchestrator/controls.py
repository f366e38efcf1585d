"""What people do to runs from outside: the half of `Podium` that approves, pauses, changes and forks.

A run may be named by its id, the start of it, or `last`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..memory import control, faults, forks, reads, schedules
from ..memory.control import Changes
from ..memory.database import Connection
from ..memory.forks import Forked
from ..memory.money import parse_usd
from ..memory.schedules import ScheduleRecord
from .viewer import Viewer
from .views import Run

if TYPE_CHECKING:
    from .workflow import Workflow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fork:
    """A run that was forked from another."""

    run: Run
    #: tasks whose results it took over
    reused: tuple[str, ...]
    #: finished tasks before the fork that run again all the same → the changed inputs that they rest on, and
    #: the compensations (`undo:…`) that undid what they rest on
    again: Mapping[str, tuple[str, ...]]


class Controls(Viewer):
    """Changes runs that this or another process drives."""

    def approve(self, run_id: str, task: str, *, approved: bool = True, comment: str = "") -> None:
        """Answer a task that waits; a detached run goes on by itself, another one with `drive`.

        Raises:
            UsageError: the task waits for nobody (any more).
        """
        self._do(run_id, lambda c, run: control.approve(c, run, task, approved=approved, comment=comment))

    def reject(self, run_id: str, task: str, *, comment: str = "") -> None:
        """`approve` with the answer no."""
        self.approve(run_id, task, approved=False, comment=comment)

    def cancel(self, run_id: str) -> str:
        """Cancel a run; its engine stops it within a second. Returns the status it has now."""
        record = self.get(run_id).record
        driven = self._watch.is_driven(record)
        return self.database.transact(lambda c: control.cancel(c, record.id, driven=driven))

    def pause(self, run_id: str) -> str:
        """Start no further tasks of a run; those that run end, then it is `paused`. `resume` takes it back.

        Returns the status it has now: a run that nobody drives is paused at once.

        Raises:
            UsageError: the run is over.
        """
        record = self.get(run_id).record
        driven = self._watch.is_driven(record)
        return self.database.transact(lambda c: control.pause(c, record.id, driven=driven))

    def resume(self, run_id: str) -> bool:
        """Take a pause back. A detached run goes on by itself, another one with `drive`.

        Returns whether anybody had asked for a pause.
        """
        return self._do(run_id, control.unpause)

    def change(
        self,
        run_id: str,
        *,
        budget: Any = None,
        tokens: int | None = None,
        seconds: float | None = None,
        priority: int | None = None,
        deadline: float | None = None,
    ) -> Run:
        """Change a run while it runs or stands; a call that was refused for want of money is tried again.

        Args:
            budget: USD; tokens: of all calls together; seconds: of driving. Not below what is used already.
            deadline: seconds from now.

        Raises:
            UsageError: nothing is given, a budget is too low, or the run has succeeded.
        """
        changes = _changes(budget, tokens, seconds, priority, deadline)
        self._do(run_id, lambda c, run: control.change(c, run, changes))
        return self.get(run_id)

    def retry(self, run_id: str, tasks: Sequence[str] = ()) -> list[str]:
        """Make the failed tasks of a run that is over pending again; returns the tasks that will run."""
        return self._do(run_id, lambda c, run: control.retry(c, run, tasks))

    def reopen(
        self, run_id: str, *, budget: Any = None, tokens: int | None = None, seconds: float | None = None
    ) -> None:
        """Let a stopped run go on, with new budgets (USD, tokens, seconds of driving) if some are given."""
        changes = _changes(budget, tokens, seconds, None, None)
        self._do(run_id, lambda c, run: control.reopen(c, run, changes))

    def prune(self, *, older_than_s: float, dry_run: bool = False) -> list[str]:
        """Delete runs that ended more than so many seconds ago; returns their ids."""
        before = time.time() - older_than_s
        return self.database.transact(
            lambda c: control.prune(c, self.settings.tenant, before=before, dry_run=dry_run)
        )

    def fork(
        self,
        run_id: str,
        at: str,
        /,
        *,
        detached: bool = False,
        budget: Any = None,
        tokens: int | None = None,
        seconds: float | None = None,
        deadline: float | None = None,
        priority: int = 0,
        approve: Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> Fork:
        """Store a new run of the same workflow that starts at the task `at`: results of tasks that do not
        come after it are taken over by reference. `run_id` may be in any state. Its ledger starts at zero.

        A task that rests on an input that is changed here, or on something that was undone, runs again
        wherever it stands. Budgets and policy are those of the source unless they are given; approvals given
        beforehand are not taken over.

        Raises:
            NotFound: no such run or task.
            UsageError: `at` is a part of a task: an element of a map, or a task of a sub-workflow.
            WorkflowError: the inputs do not fit.
        """
        from .submission import Terms, forked_run

        source = self.get(run_id)
        terms = Terms(budget, deadline, priority, approve, policy, None, detached, tokens, seconds)
        given = {**(inputs or {}), **more_inputs}
        new, changed = forked_run(self.settings, source.record, source.spec, (source.inputs, given), terms)

        def create(connection: Connection) -> Forked:
            made = forks.fork(connection, source.id, new, at, changed)
            faults.hit("run.create", "before")
            return made

        made = self.database.transact(create)
        faults.hit("run.create", "after")
        return Fork(self.get(made.run_id), made.reused, made.again)

    # -- schedules

    def schedule(
        self,
        workflow: Workflow | str | Path,
        /,
        *,
        at: float | None = None,
        every: float | None = None,
        budget: Any = None,
        tokens: int | None = None,
        seconds: float | None = None,
        deadline: float | None = None,
        priority: int = 0,
        approve: Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> ScheduleRecord:
        """Have the detached engine (`podium up`) start runs of a workflow, which is stored as it is now.

        Args:
            at: when the first one starts, seconds since the epoch, UTC; None: after `every` seconds.
            every: seconds between two runs; None: one run only. Runs that no engine was up for become one.
            deadline: seconds from the start of each run.

        Raises:
            WorkflowError: the workflow or its inputs are wrong; nothing was stored.
            UsageError: neither `at` nor `every` is given, or one of them is no time to come.
        """
        from .schedules import first_time, new_schedule
        from .submission import Terms, checked

        made, root = checked(workflow)
        terms = Terms(budget, deadline, priority, approve, policy, None, True, tokens, seconds)
        given = {**(inputs or {}), **more_inputs}
        next_at = first_time(at, every, time.time())
        new = new_schedule(self.settings, made, given, root, terms, next_at=next_at, every_s=every)
        self.database.transact(lambda c: schedules.add(c, new))
        return next(s for s in self.schedules() if s.id == new.id)

    def schedules(self) -> list[ScheduleRecord]:
        """The tenant's schedules: those to come by their time, then those that are over."""
        with self.database.read() as connection:
            return schedules.list_schedules(connection, self.settings.tenant)

    def remove_schedule(self, schedule_id: str) -> str:
        """Delete a schedule by its id or the start of it; returns its id. Runs it has started stay."""
        tenant = self.settings.tenant
        return self.database.transact(lambda c: schedules.remove(c, tenant, schedule_id))

    def _do(self, run_id: str, work: Callable[[Connection, str], T]) -> T:
        """Write something of a run of this tenant."""
        tenant = self.settings.tenant
        return self.database.transact(lambda c: work(c, reads.resolve(c, tenant, run_id)))


def _changes(
    budget: Any, tokens: int | None, seconds: float | None, priority: int | None, deadline: float | None
) -> Changes:
    return Changes(
        budget_nano=parse_usd(budget) if budget is not None else None,
        budget_tokens=tokens,
        budget_seconds=seconds,
        priority=priority,
        deadline_at=time.time() + deadline if deadline is not None else None,
    )
