"""Drives one run that its engine has claimed: starts ready tasks and commits what came of them.

The driver is a state machine on the engine's loop. A turn takes up what has become ready and writes down
steps: the end of one task and the start of the next share a commit. Its own picture of the run is ahead of
the database by the steps on their way; user code and models start only when their start, and with it all
that they build on, is durable. Should a commit be refused, the picture is thrown away: another engine has
the run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable
from functools import partial
from typing import Any

from ..memory import control, reads, runs
from ..memory.content import encode
from ..memory.errors import BudgetStopped, PodiumError
from ..memory.graphs import NewTask
from ..memory.journal import Outcome as Written
from ..memory.steps import Expand, Finish, Keep, Start, Step
from . import growth, outcomes, saga
from .caller import RunContext, Services
from .executor import Executor, Outcome
from .loading import load
from .pipeline import Pipeline
from .placeholders import Ref, refs
from .ready import ReadyTasks
from .shares import Shares
from .state import Node, RunState, Values
from .timers import NAP, TimeLimits, Timers
from .turns import ATTEMPT_TIMEOUT

log = logging.getLogger(__name__)

#: bytes of map elements' outputs that are kept for the end of the map; the others are read again
KEEP_BYTES = 32 * 1024 * 1024


class RunDriver:
    """One claimed run. `drive` returns its status when it is over, waits for a person or is paused."""

    def __init__(
        self,
        services: Services,
        executor: Executor,
        run: RunContext,
        shares: Shares,
        wake: Callable[[str], None],
        *,
        priority: int = 0,
    ) -> None:
        """`wake`: called with the id of a run that can start tasks now."""
        self.services, self.executor, self.run, self.shares = services, executor, run, shares
        self._wake_run, self._priority = wake, priority
        self.values = Values()
        self.state: RunState
        self.order: ReadyTasks
        self.graph_version = 0
        #: how the run is to end, and why; None: it goes on
        self.stop: tuple[str, PodiumError] | None = None
        #: the same while what the run did is undone
        self.final: tuple[str, PodiumError] | None = None
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._loaded = self._paused = self._ending = self._kicked = False
        #: ready, and not taken up yet
        self._ready: deque[Node] = deque()
        self._pipeline = Pipeline(services.journal, run.run_id, run.epoch, self._committed)
        self._attempts: dict[asyncio.Task[None], Node] = {}
        self._others: set[asyncio.Task[None]] = set()
        self.timers = Timers()
        self._limits = TimeLimits(self.timers, self._late)
        #: tasks that wait for their next attempt, by name
        self._sleeping: dict[str, Node] = {}
        #: bytes by element
        self._kept: dict[str, int] = {}
        self._kept_bytes = 0

    # -- from outside, on the engine's loop

    def cancel(self) -> None:
        """Stop the run: running attempts are cancelled. What is being undone already, goes on."""
        if self.final is not None:
            return
        self.halt("cancelled", PodiumError("cancelled by a person", mend="`podium retry` goes on"), cut=True)

    def pause(self, paused: bool = True) -> None:
        """Start nothing more, and let go of the run when nothing runs; or go on after all."""
        self._paused = paused and self.final is None
        self.kick()

    def undo(self, final: tuple[str, PodiumError]) -> None:
        """From now on only what undoes runs; neither a pause nor a limit of time holds it up."""
        self.final, self.stop, self._paused = final, None, False
        self._sleeping = {name: node for name, node in self._sleeping.items() if node.role == "undo"}

    def reprioritise(self, priority: int) -> None:
        """The run's priority among those of the engine was changed."""
        self.shares.join(self.run.run_id, self.run.tenant, priority)
        self.kick()

    def refresh(self) -> None:
        """Something outside changed (an approval, a budget): look at the database again."""
        self._paused = False
        self.run.lines.look_again()
        if self._loaded:
            self._do(self._reload())

    # -- the main path

    async def drive(self) -> str:
        """Run until the run is over, only a person can go on, or it is paused; returns its status.

        Raises:
            StaleEpoch: another engine has claimed the run.
        """
        self.shares.join(self.run.run_id, self.run.tenant, self._priority)
        try:
            await self._load()
            self.kick()
            return await self._over
        finally:
            self.timers.cancel()
            await self._cancel_all()
            self._wake(self.shares.leave(self.run.run_id))

    async def _load(self) -> None:
        loaded = await self.services.read(partial(load, run_id=self.run.run_id))
        record, self.state, self.values = loaded.record, loaded.state, loaded.values
        self.executor.warm(self.run, self.state.root.workflow)
        self.graph_version = record.graph_version
        if self.run.pacing is not None:
            self.run.pacing.left.follow(self.state)
            self.run.pacing.left.budget(record)
        predicted = {task: figures.mean_seconds for task, figures in self.run.stats.by_task.items()}
        deadline = None if record.deadline_at is None else record.deadline_at - time.time()
        self.order = ReadyTasks(
            self.shares.total, predicted, None if deadline is None else self._loop.time() + deadline
        )
        self.order.add(self.state.nodes.values())
        for node in list(self.state.ready()):
            if node.status == "pending" and node.not_before is not None:
                self.line_up(node, outcomes.backoff_left(node))
            else:
                self._ready.append(node)
        self._paused = record.pause_requested
        self._loaded = True
        for node in self.state.nodes.values():
            if node.status == "expanded":
                outcomes.watch_budget(self, node)
            elif node.status == "waiting":
                self.watch_approval(node.not_before)
        saga.go_on(self, loaded)
        if record.cancel_requested:
            self.cancel()
        self._limits.set(record.deadline_at, record.budget_seconds, record.used_seconds)

    def watch_approval(self, expires: float | None) -> None:
        """When its question expires (seconds, UTC), answer it with no, unless a person was quicker."""
        if expires is None:
            return
        if (left := expires - time.time()) <= 0:
            self._do(self._expire())
        else:
            self.timers.later(min(left, NAP), partial(self.watch_approval, expires))

    async def _expire(self) -> None:
        await self.services.journal.commit("task.wait", lambda c: control.expire_approvals(c, time.time()))
        await self._reload()

    @property
    def seconds(self) -> float:
        """For how long it has driven the run."""
        return self._limits.driven

    def kick(self) -> None:
        """Take a turn as soon as what happens now has happened."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._kicked = False
        if self._over.done() or not self._loaded:
            return
        try:
            while self._ready and self.stop is None:
                self._take_up(self._ready.popleft())
            self._start_tasks()
            self._pipeline.flush()
            if self._is_idle() and not self._ending:
                self._ending = True
                self._do(self._end())
        except Exception as error:  # noqa: BLE001 - whoever awaits `drive` gets it
            self._die(error)

    def take_up(self, nodes: Iterable[Node]) -> None:
        """Look at nodes that have become ready."""
        self._ready.extend(nodes)
        self.kick()

    def _take_up(self, node: Node) -> None:
        """A node has become ready: collect it, skip it, expand it, or line it up for an attempt."""
        state = self.state
        if not state.is_ready(node) or (self.final is not None and node.role != "undo"):
            return
        if node.status == "expanded":
            self._do(self._collect(node))
        elif state.must_skip(node):
            self.skip(node)
        elif node.condition is not None or node.spec.cache is not None or node.holds_tasks:
            self._do(self._prepare(node))
        else:
            self.order.ready(node, self._loop.time())

    def _start_tasks(self) -> None:
        """Give the ready tasks attempts, as far as the engine has slots for this run."""
        waiting = len(self.order)
        if not waiting:
            return
        run_id = self.run.run_id
        if self.stop is not None or self._paused:
            self._wake(self.shares.want(run_id, 0))
            return
        self._wake(self.shares.want(run_id, waiting))
        now = self._loop.time()
        while len(self.order) and self.shares.take(run_id):
            node = self.order.pick(now, self.shares.free + 1)
            if node is None:
                self._hold(now)
                self._wake(self.shares.give(run_id))  # after that: else it would wake this run at once
                return
            start = self.begin(node)
            self._pipeline.write(start, partial(self._launch, node, start.attempt))

    def _hold(self, now: float) -> None:
        """A ready task is held back for a better one: until something ends, or until a time."""
        self._wake(self.shares.want(self.run.run_id, 0))
        if (again := self.order.ask_again) is not None:
            self.timers.later(max(0.0, again - now), self.kick)

    def begin(self, node: Node) -> Start:
        """The start of the next attempt, to be written."""
        node.attempts += 1
        node.started_at = time.time()
        node.first_start = node.first_start or node.started_at
        node.failed = False
        self.state.set_status(node, "running")
        return Start(node.name, node.attempts, node.started_at)

    # -- commits

    def write(self, step: Step) -> None:
        """Put a step into the next commit."""
        self._pipeline.write(step)
        self.kick()

    def _committed(self, written: Written) -> None:
        if written[1] is not None:
            self._die(written[1])
        self.kick()

    def _die(self, error: BaseException) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    # -- attempts

    def _launch(self, node: Node, attempt: int) -> None:
        if node.status != "running" or node.attempts != attempt or self.stop is not None:
            self._wake(self.shares.give(self.run.run_id))
            return
        running = self._loop.create_task(self._attempt(node), name=f"{self.run.run_id}/{node.name}")
        self._attempts[running] = node
        running.add_done_callback(self._attempt_done)

    async def _attempt(self, node: Node) -> None:
        """One attempt of a task that is executed; its outcome becomes steps."""
        number = node.attempts
        try:
            async with asyncio.timeout(outcomes.limit(node)) as timeout:
                ATTEMPT_TIMEOUT.set(timeout)
                await self.fetch(self.state.needed(node, refs(node.spec.templates())))
                outcome = await self.executor.run(self.run, self.values, node, number)
                encoded = encode(outcome.output, "the output")
        except Exception as error:  # noqa: BLE001 - every error has its meaning there
            if node.status == "running" and not self._over.done():
                outcomes.after(self, node, error)
        else:
            if node.status == "running" and not self._over.done():
                if outcome.plan is not None:
                    growth.adopt_plan(self, node, outcome.plan)
                else:
                    self.succeed(node, outcome, encoded)

    def _attempt_done(self, attempt: asyncio.Task[None]) -> None:
        del self._attempts[attempt]
        self._wake(self.shares.give(self.run.run_id))
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            self._die(error)
        self.kick()

    def succeed(self, node: Node, outcome: Outcome, encoded: Any = None) -> None:
        """Accept an output: write it down, and take up what it makes ready."""
        encoded = encoded or encode(outcome.output, "the output")
        keep = None
        if outcome.cache_key is not None:
            keep = Keep(outcome.cache_key, node.spec.cache.ttl if node.spec.cache else None)
        self._pipeline.write(
            Finish(
                node.name,
                node.attempts,
                "succeeded",
                node.begun_at,
                output=encoded,
                error=outcome.error,
                closed=outcome.closed,
                remember=node.parent is None and node.role == "task" and outcome.error is None,
                derived_from=self.state.sources(node) if node.parent is None else (),
                cited=outcome.cited,
                keep=keep,
                event=outcome.event,
            )
        )
        node.output = encoded.hash
        self._keep(node, outcome.output, len(encoded.data))
        self.passed(node, "succeeded")

    def _keep(self, node: Node, value: Any, size: int) -> None:
        if node.role == "element":
            if self._kept_bytes + size > KEEP_BYTES:
                return
            self._kept[node.name] = size
            self._kept_bytes += size
        self.values.outputs[node.name] = value

    def skip(self, node: Node, **finish: Any) -> None:
        """The node is skipped, and so is what cannot run without it."""
        gone = self.state.skip_after(node)
        names = [n.name for n in gone]
        self._pipeline.write(
            Finish(node.name, node.attempts, "skipped", node.begun_at, skipped=names, **finish)
        )
        for other in gone:
            self.order.drop(other)
        for other in (node, *gone):
            self.passed(other, "skipped")

    def passed(self, node: Node, status: str) -> None:
        """The node is over and its successors may go on."""
        self.state.set_status(node, status)
        node.finished_at = time.time()
        self.order.done(node, self._loop.time())
        self._ready.extend(self.state.successors(node))
        self.kick()

    def line_up(self, node: Node, pause: float = 0.0) -> None:
        """The node is to be tried again, after `pause` seconds."""
        self.state.set_status(node, "pending")
        if pause > 0:
            self._sleeping[node.name] = node
            self.timers.later(pause, partial(self._awake, node))
        else:
            self._ready.append(node)
        self.kick()

    def _awake(self, node: Node) -> None:
        self._sleeping.pop(node.name, None)
        node.not_before = None
        self._ready.append(node)
        self.kick()

    # -- tasks that hold others

    async def _prepare(self, node: Node) -> None:
        """What has to be looked up before a node can go on: its condition, the cache, what it expands to."""
        try:
            if (when := node.condition) is not None:
                ref = Ref.parse(when.field)
                await self.fetch(self.state.needed(node, [ref]))
                if node.status != "pending":
                    return
                if not when.holds(self.values.lookup(node, ref)):
                    self.skip(node)
                    return
            if node.spec.cache is not None and not node.holds_tasks and (hit := await self._cached(node)):
                if node.status == "pending":
                    self.succeed(node, hit)
                return
            if node.holds_tasks:
                await growth.expand(self, node)
                return
        except PodiumError as error:
            if node.status == "pending":
                outcomes.fail(self, node, error)
            return
        if node.status == "pending":  # it may have been closed with what it is below of
            self.order.ready(node, self._loop.time())
            self.kick()

    async def _cached(self, node: Node) -> Outcome | None:
        names = self.state.needed(node, refs(node.spec.templates()))
        await self.fetch(names)
        return await self.executor.cached(self.run, self.values, node)

    async def _collect(self, node: Node) -> None:
        """All children are over: what comes of them."""
        try:
            outcome = await growth.collect(self, node)
        except PodiumError as error:
            if node.status == "expanded":
                outcomes.fail(self, node, error)
            return
        if outcome is None or node.status != "expanded":
            return
        for below in node.below():
            self.values.outputs.pop(below.name, None)
            self._kept_bytes -= self._kept.pop(below.name, 0)
        self.succeed(node, outcome)

    def patch(self, node: Node, children: list[NewTask], edges: Any = (), **more: Any) -> None:
        """Give a node children: a graph patch."""
        version, self.graph_version = self.graph_version, self.graph_version + 1
        first = self.state.position
        self._pipeline.write(Expand(node.name, version, first, children, edges, **more))
        self.state.set_status(node, "expanded")
        made = self.state.add(children, edges)
        self.order.add(made)
        self._ready.extend(child for child in made if self.state.is_ready(child))
        outcomes.watch_budget(self, node)
        self.kick()

    def cut(self, nodes: Iterable[Node]) -> None:
        """Cancel the attempts of these nodes."""
        names = {node.name for node in nodes}
        for attempt, node in list(self._attempts.items()):
            if node.name in names:
                attempt.cancel()

    # -- the end

    def halt(self, status: str, error: PodiumError, *, cut: bool = False) -> None:
        """Start nothing more; the first reason is the one that is told. With `cut`, cancel what runs."""
        if self.stop is None:
            self.stop = (status, error)
        if cut:
            for attempt in self._attempts:
                attempt.cancel()
        self.kick()

    def _is_idle(self) -> bool:
        """Whether nothing runs and nothing will start by itself."""
        if self._attempts or self._others or not self._pipeline.is_empty:
            return False
        if self.stop is not None or self._paused:
            return True
        return not (self._sleeping or self._ready or len(self.order))

    async def _end(self) -> None:
        """Commit how the run ended; or go on: something is to be undone, or was answered meanwhile."""
        left = self.state.left()
        if self.stop is None and self.final is None and left and not (self._paused or "waiting" in left):
            self.stop = ("failed", outcomes.left_behind(self))
        if self.stop is not None and saga.begin(self):
            self._ending = False
            return
        outputs, error = None, None
        if (why := self.stop or self.final) is not None:
            status, error = why[0], saga.reason(self, why[1]).data()
        elif self._paused and left:
            status = "paused"
        elif left:
            status = "waiting"
        else:
            status, outputs = "succeeded", await self._outputs()
        run_id, epoch, seconds = self.run.run_id, self.run.epoch, self.seconds
        ended = await self.services.journal.commit(
            "run.finish",
            lambda c: runs.finish_run(
                c, run_id, epoch, status, outputs=outputs, error=error, seconds=seconds
            ),
        )
        if ended is not None:
            if not self._over.done():
                self._over.set_result(ended)
            return
        self._ending = self._paused = False
        await self._reload()

    async def _outputs(self) -> dict[str, Any]:
        wanted = self.state.root.workflow.output_refs()
        await self.fetch(r.name for r in wanted.values() if r.name in self.state.nodes)
        return self.values.outcome(self.state.root)

    # -- helpers

    async def fetch(self, names: Iterable[str]) -> None:
        """Load outputs that are not in memory."""
        nodes, outputs = self.state.nodes, self.values.outputs
        wanted = {n: nodes[n].output for n in names if n not in outputs and n in nodes and nodes[n].output}
        if not wanted:
            return
        self.kick()
        await self._pipeline.settled()
        hashes = [digest for digest in wanted.values() if digest is not None]
        found = await self.services.read(lambda c: reads.values(c, self.run.tenant, hashes))
        outputs.update({name: found[digest] for name, digest in wanted.items() if digest is not None})

    async def _reload(self) -> None:
        """Take over answers to approvals, and limits that were changed."""
        run_id = self.run.run_id
        record = await self.services.read(lambda c: reads.run(c, run_id))
        if self.run.pacing is not None:
            self.run.pacing.left.budget(record)
        self._limits.set(record.deadline_at, record.budget_seconds, record.used_seconds)
        answers = await self.services.read(partial(runs.answers, run_id=run_id))
        for name, approval, comment in answers:
            node = self.state.nodes.get(name)
            if node is not None and node.status == "waiting":
                node.approval, node.approval_comment, node.not_before = approval, comment, None
                self.line_up(node)
        self.kick()

    def _late(self, what: str) -> None:
        """The run's deadline has passed, or its seconds are used up."""
        if self.final is not None or self._over.done():
            return
        if what == "deadline":
            mend = "`podium retry` goes on without a deadline"
            self.halt("failed", PodiumError("the deadline has passed", mend=mend), cut=True)
        else:
            mend = "`podium resume --seconds` gives more"
            self.halt("stopped", BudgetStopped("the run has used up its seconds", mend=mend), cut=True)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._others.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._die(error)
        self.kick()

    def _wake(self, runs_to_wake: Iterable[Hashable]) -> None:
        """Other runs: this one takes a turn after all that gives it a slot."""
        for run_id in runs_to_wake:
            if run_id != self.run.run_id:
                self._wake_run(str(run_id))

    async def _cancel_all(self) -> None:
        tasks = [*self._attempts, *self._others]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)
