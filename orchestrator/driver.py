"""Drives one run that its engine has claimed: starts ready tasks and commits what came of them.

Successors start only after the commit of what they need. Every write carries the epoch of the claim; the
first refusal (StaleEpoch) ends the driver, for another engine has the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..memory import reads, runs
from ..memory.database import Connection
from ..memory.errors import BudgetStopped, PodiumError, StaleEpoch, TaskError, WaitingForPerson
from ..memory.runs import Finish, NewEdge, NewTask
from .caller import RunContext, Services
from .executor import Executor, Outcome
from .placeholders import Ref, fill, refs
from .scheduler import Scheduler
from .state import PASSED, Node, RunState, Values, elements, first_edges, first_tasks
from .tasks import PythonTask, ToolTask
from .workflow import Workflow, WorkflowTask

log = logging.getLogger(__name__)

#: seconds that a backoff may grow to
MAX_BACKOFF = 60.0


Commit = Callable[[], Awaitable[None]]


class RunDriver:
    """One claimed run. `drive` returns its status when it is over or waits for a person."""

    def __init__(
        self, services: Services, executor: Executor, run: RunContext, slots: asyncio.Semaphore
    ) -> None:
        self._services, self._executor, self._run, self._slots = services, executor, run, slots
        self._values = Values()
        self._blobs: dict[str, str] = {}
        self._cancelled = self._reload = False
        self._attempts: dict[asyncio.Task[None], str] = {}
        self._stop: tuple[str, PodiumError] | None = None
        self._fatal: BaseException | None = None
        self._wake = asyncio.Event()
        self._graph_lock = asyncio.Lock()
        self._deadline_at: float | None = None
        #: when the first of the ready tasks that wait for their backoff may start
        self._backoff_until: float | None = None

    # -- from outside, on the engine's loop

    def cancel(self) -> None:
        """Stop the run: running attempts are cancelled."""
        if not self._cancelled:
            self._cancelled = True
            self._halt("cancelled", PodiumError("cancelled by a person", mend="`podium retry` goes on"))
            self._cut()

    def refresh(self) -> None:
        """Something outside changed (an approval): look at the database again."""
        self._reload = True
        self._wake.set()

    # -- the main path

    async def drive(self) -> str:
        """Run until the run is over or only a person can go on; returns its status.

        Raises:
            StaleEpoch: another engine has claimed the run.
        """
        await self._load()
        try:
            while self._fatal is None:
                self._check_deadline()
                await self._start_ready()
                if self._attempts or self._sleeping():
                    await self._wait()
                elif (status := await self._end()) is not None:
                    return status
            raise self._fatal
        finally:
            await self._cancel_attempts()

    async def _load(self) -> None:
        record, tasks, edges = await self._services.read(self._query)
        self._reload = False
        self._deadline_at = record.deadline_at
        self._graph_version = record.graph_version
        state = RunState(self._workflow)
        rows = [NewTask(t.name, t.kind, t.parent, t.element) for t in tasks]
        state.add(rows, [NewEdge(e.src, e.dst, e.kind) for e in edges])
        for task in tasks:
            node = state.nodes[task.name]
            node.attempts, node.failures, node.not_before = task.attempts, task.failures, task.not_before
            node.approval, node.approval_comment = task.approval, task.approval_comment
            state.set_status(task.name, task.status)
            if task.output_blob:
                self._blobs[task.name] = task.output_blob
        self._state = state
        predicted = {name: seconds for name, seconds in self._history().items() if name in state.nodes}
        self._scheduler = Scheduler(state, predicted)
        self._scheduler.push(state.ready())
        if record.cancel_requested:
            self.cancel()

    def _query(self, connection: Connection) -> tuple[Any, Any, Any]:
        record = reads.run(connection, self._run.run_id)
        spec = reads.value(connection, record.tenant, record.spec_blob)
        self._workflow = Workflow.from_data(spec)
        tasks = reads.tasks(connection, record.id)
        owners: dict[str | None, str] = {t.name: t.inputs_blob for t in tasks if t.inputs_blob is not None}
        owners[None] = record.inputs_blob
        found = reads.values(connection, record.tenant, list(owners.values()))
        self._values.inputs = {owner: found[blob] for owner, blob in owners.items()}
        return record, tasks, reads.edges(connection, record.id)

    def _history(self) -> dict[str, float]:
        return {task: figures.mean_seconds for task, figures in self._run.stats.by_task.items()}

    async def _start_ready(self) -> None:
        if self._reload:
            await self._reload_waiting()
        now = time.time()
        later: list[Node] = []
        while self._stop is None and len(self._scheduler) and not self._slots.locked():
            node = self._scheduler.pop()
            assert node is not None
            if node.not_before is not None and node.not_before > now:
                later.append(node)
                continue
            await self._slots.acquire()
            attempt = asyncio.create_task(self._step(node), name=f"{self._run.run_id}/{node.name}")
            self._attempts[attempt] = node.name
            attempt.add_done_callback(self._step_done)
        self._scheduler.push(later)
        self._backoff_until = min((n.not_before for n in later if n.not_before is not None), default=None)

    def _step_done(self, attempt: asyncio.Task[None]) -> None:
        self._slots.release()
        del self._attempts[attempt]
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            self._fatal = self._fatal or error
        self._wake.set()

    def _sleeping(self) -> bool:
        """Whether a pending task waits for its backoff, or for a slot that another run has."""
        return self._stop is None and len(self._scheduler) > 0

    async def _wait(self) -> None:
        """Until an attempt ended, something changed outside, a backoff is over or the deadline passed."""
        pause = 0.5 if self._slots.locked() else 3600.0
        for moment in (self._backoff_until, self._deadline_at if self._stop is None else None):
            if moment is not None:
                pause = min(pause, moment - time.time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(pause, 0.01))
        self._wake.clear()

    def _check_deadline(self) -> None:
        if self._deadline_at is not None and time.time() >= self._deadline_at and self._stop is None:
            late = PodiumError("the deadline has passed", mend="`podium retry` goes on without a deadline")
            self._halt("failed", late)
            self._cut()

    def _cut(self) -> None:
        """Cancel the running attempts."""
        for attempt in self._attempts:
            attempt.cancel()
        self._wake.set()

    async def _end(self) -> str | None:
        """Commit how the run ended. None: an approval was answered meanwhile, so it goes on."""
        left = {node.status for node in self._state.nodes.values()} - PASSED
        outputs, error = None, None
        if self._stop is not None:
            status, reason = self._stop
            error = reason.data()
        elif "waiting" in left:
            status = "waiting"
        elif left:
            status, error = "failed", self._left_behind().data()
        else:
            status = "succeeded"
            outputs = await self._outputs()
        ended: str | None = await self._commit(
            "run.finish",
            lambda c: runs.finish_run(
                c, self._run.run_id, self._run.epoch, status, outputs=outputs, error=error
            ),
        )
        self._reload = ended is None
        return ended

    def _left_behind(self) -> PodiumError:
        """Nothing can go on, though tasks are left: they need one that failed in an earlier drive."""
        failed = [node.name for node in self._state.nodes.values() if node.status == "failed"]
        where = f"{', '.join(failed[:5])} failed before" if failed else "nothing that is left can start"
        return PodiumError(where, mend="`podium retry` runs failed tasks again", run=self._run.run_id)

    async def _outputs(self) -> dict[str, Any]:
        wanted = self._workflow.output_refs()
        names = [r.name for r in wanted.values() if r.name in self._workflow.tasks]
        await self._fetch(names)
        probe = next(iter(self._state.nodes.values()))
        root = Node("", "", probe.spec, self._state.root, 0)
        return {name: self._values.lookup(root, ref) for name, ref in wanted.items()}

    async def _cancel_attempts(self) -> None:
        for attempt in list(self._attempts):
            attempt.cancel()
        if self._attempts:
            await asyncio.wait(list(self._attempts), timeout=10)

    # -- one task

    async def _step(self, node: Node) -> None:
        """Bring one ready task forward: skip it, expand it, collect its children, or try it."""
        try:
            outcome = await self._collect(node) if node.status == "expanded" else None
            skip = outcome is None and (self._state.must_skip(node) or not await self._condition_holds(node))
        except StaleEpoch:
            raise
        except PodiumError as error:
            await self._fail(node, error)
            return
        if outcome is not None:
            await self._succeed(node, outcome)
        elif skip:
            await self._skip(node)
        elif (node.spec.map is not None and node.element is None) or isinstance(node.spec, WorkflowTask):
            await self._try(node, self._expand)
        else:
            await self._try(node, self._execute)

    async def _condition_holds(self, node: Node) -> bool:
        when = node.condition
        if when is None:
            return True
        ref = Ref.parse(when.field)
        await self._fetch(self._state.needed(node, [ref]))
        return when.holds(self._values.lookup(node, ref))

    async def _skip(self, node: Node) -> None:
        skipped = self._state.skip_after(node.name)
        finish = Finish(node.name, node.attempts, "skipped", skipped=skipped)
        await self._commit(
            "task.finish", lambda c: runs.finish_task(c, self._run.run_id, self._run.epoch, finish)
        )
        for name in (node.name, *skipped):
            self._state.set_status(name, "skipped")
        for name in (node.name, *skipped):  # the scheduler takes a successor of several of them once
            self._scheduler.push(self._state.successors(name))

    async def _try(self, node: Node, work: Callable[[Node, int], Awaitable[Commit]]) -> None:
        """One attempt, and what its failure means. `work` gives what is to be committed."""
        attempt = await self._commit(
            "task.start", lambda c: runs.start_task(c, self._run.run_id, self._run.epoch, node.name)
        )
        node.attempts, node.status, node.not_before = attempt, "running", None
        try:
            async with asyncio.timeout(_limit(node)):
                commit = await work(node, attempt)
        except WaitingForPerson as waiting:
            question = waiting.message
            await self._commit(
                "task.wait",
                lambda c: runs.wait_task(c, self._run.run_id, self._run.epoch, node.name, attempt, question),
            )
            self._state.set_status(node.name, "waiting")
        except BudgetStopped as error:
            self._halt("stopped", error)
        except StaleEpoch:
            raise
        except TimeoutError:
            late = TaskError(
                f"it did not end within {node.spec.timeout:g} seconds", mend="raise the task's `timeout`"
            )
            await self._failed(node, attempt, late)
        except PodiumError as error:
            await self._failed(node, attempt, error)
        except Exception as error:
            log.exception("A task ran into a defect.", extra={"action": "task.defect", "task": node.name})
            defect = TaskError(f"{type(error).__name__}: {error}", retryable=False, mend="please report this")
            await self._failed(node, attempt, defect)
        else:
            await commit()  # outside the timeout: a result that is being written is no late one

    async def _execute(self, node: Node, attempt: int) -> Commit:
        await self._fetch(self._state.needed(node, self._reads_of(node)))
        outcome = await self._executor.run(self._run, self._values, node, attempt)
        return partial(self._succeed, node, outcome)

    def _reads_of(self, node: Node) -> list[Ref]:
        return refs(node.spec.templates())

    async def _expand(self, node: Node, attempt: int) -> Commit:
        """What the graph gets: one task per element, or those of the sub-workflow."""
        spec, inputs = node.spec, None
        if spec.map is not None and node.element is None:
            source = Ref.parse(spec.map)
            await self._fetch(self._state.needed(node, [source]))
            children, edges = elements(node, self._values.lookup(node, source)), []
        else:
            assert isinstance(spec, WorkflowTask)
            await self._fetch(self._state.needed(node, self._reads_of(node)))
            from .graph import check_inputs

            given = fill(spec.with_, lambda ref: self._values.lookup(node, ref))
            inputs = check_inputs(spec.workflow, given)
            children = first_tasks(spec.workflow, f"{node.name}/", node.name)
            edges = first_edges(spec.workflow, f"{node.name}/")
        return partial(self._patch, node, children, edges, inputs)

    async def _patch(
        self, node: Node, children: list[NewTask], edges: list[NewEdge], inputs: dict[str, Any] | None
    ) -> None:
        async with self._graph_lock:
            version = self._graph_version
            await self._commit(
                "task.expand",
                lambda c: runs.expand_task(
                    c, self._run.run_id, self._run.epoch, node.name, version, children, edges, inputs=inputs
                ),
            )
            self._graph_version += 1
        if inputs is not None:
            self._values.inputs[node.name] = inputs
        node.status = "expanded"
        made = self._state.add(children, edges)
        self._scheduler.replan()
        self._scheduler.push(child for child in made if self._state.is_ready(child))

    async def _collect(self, node: Node) -> Outcome:
        """All children are over: their outputs, put together."""
        await self._fetch([name for name in node.children if self._state.nodes[name].status == "succeeded"])
        if node.spec.map is not None and node.element is None:
            return Outcome([self._values.outputs.get(name) for name in node.children])
        assert isinstance(node.spec, WorkflowTask)
        child = self._state.nodes[node.children[0]]
        outputs = {
            name: self._values.lookup(child, ref) for name, ref in node.spec.workflow.output_refs().items()
        }
        return Outcome(outputs)

    async def _succeed(self, node: Node, outcome: Outcome) -> None:
        finish = Finish(
            node.name,
            node.attempts,
            "succeeded",
            output=outcome.output,
            remember=node.parent is None,
            derived_from=self._state.sources(node),
            event=outcome.event,
        )
        await self._commit(
            "task.finish", lambda c: runs.finish_task(c, self._run.run_id, self._run.epoch, finish)
        )
        self._values.outputs[node.name] = outcome.output
        self._state.set_status(node.name, "succeeded")
        self._scheduler.push(self._state.successors(node.name))

    async def _failed(self, node: Node, attempt: int, error: PodiumError) -> None:
        """Try again after a pause, or fail the task and with it the run."""
        data = error.data()
        node.failures += 1
        if (
            error.retryable
            and node.failures < node.spec.retry.attempts
            and not isinstance(node.spec, ToolTask)
        ):
            pause = min(MAX_BACKOFF, node.spec.retry.backoff * 2 ** (node.failures - 1))
            not_before = time.time() + pause * random.uniform(0.75, 1.25)
            await self._commit(
                "task.retry",
                lambda c: runs.retry_task(
                    c, self._run.run_id, self._run.epoch, node.name, attempt, data, not_before
                ),
            )
            node.status, node.not_before = "pending", not_before
            self._scheduler.push([node])
            return
        await self._fail(node, error)

    async def _fail(self, node: Node, error: PodiumError) -> None:
        finish = Finish(node.name, node.attempts, "failed", error=error.data())
        await self._commit(
            "task.finish", lambda c: runs.finish_task(c, self._run.run_id, self._run.epoch, finish)
        )
        self._state.set_status(node.name, "failed")
        error.task = error.task or node.name
        self._halt("failed", error)

    # -- helpers

    def _halt(self, status: str, error: PodiumError) -> None:
        """Start nothing more; the first reason is the one that is told."""
        if self._stop is None:
            self._stop = (status, error)
        self._wake.set()

    async def _commit(self, name: str, work: Callable[[Connection], Any]) -> Any:
        return await self._services.journal.commit(name, work)

    async def _fetch(self, names: Any) -> None:
        """Load outputs that are not in memory yet."""
        wanted = {n: self._blobs[n] for n in names if n not in self._values.outputs and n in self._blobs}
        if not wanted:
            return
        found = await self._services.read(lambda c: reads.values(c, self._run.tenant, list(wanted.values())))
        self._values.outputs.update({name: found[blob] for name, blob in wanted.items()})

    async def _reload_waiting(self) -> None:
        """Take over answers to approvals that came in while other tasks run."""
        self._reload = False
        rows = await self._services.read(lambda c: reads.tasks(c, self._run.run_id))
        for row in rows:
            node = self._state.nodes.get(row.name)
            if node is not None and node.status == "waiting" and row.status == "pending":
                node.approval, node.approval_comment = row.approval, row.approval_comment
                self._state.set_status(row.name, "pending")
                self._scheduler.push([node])


def _limit(node: Node) -> float | None:
    """Seconds that an attempt may take. The isolated workers keep the limit of user code themselves: the
    wait for a free one does not count.
    """
    spec = node.spec
    isolated = isinstance(spec, ToolTask) or (isinstance(spec, PythonTask) and not spec.inline)
    return None if isolated else spec.timeout
