"""`Podium`: the front door of the SDK and of the CLI. Sync, with async twins (`arun`, `adrive`, `aask`).

The database is opened at once, the engine and the pool only when something is to run in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..memory import control, events, reads, runs
from ..memory.database import Database
from ..memory.errors import ClusterError, PodiumError, StaleEpoch, UsageError
from ..memory.events import EventRecord
from ..memory.money import parse_usd
from .leases import Watch
from .settings import Settings, load_settings
from .submission import Terms, ask_workflow, checked, new_run, store
from .tasks import PlanTask
from .views import Run
from .workflow import Workflow

if TYPE_CHECKING:
    from ..workers.contract import Pool
    from ..workers.poolfile import PoolFile
    from .engine import Engine
    from .estimate import PlanRow

T = TypeVar("T")
OnEvent = Callable[[EventRecord], None]
OnToken = Callable[[str, str], None]

#: seconds between two looks at a run that someone follows
FOLLOW = 0.1
#: seconds that a followed run may be without a living engine
UNSERVED = 5.0


@dataclass(frozen=True, slots=True)
class GoalPlan:
    """A workflow that was planned for a goal."""

    workflow: Workflow
    #: model, or template when no model could plan it
    source: str
    #: what to tell the person: which template and why
    notes: tuple[str, ...]
    #: the run in which it was planned
    run: Run


class Podium:
    """Runs workflows and shows them. A context manager; `close` it otherwise.

    Raises:
        ConfigError: a setting does not fit, or the database cannot be opened.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        home: Path | str | None = None,
        database_url: str | None = None,
        pool: Path | str | Pool | None = None,
        tenant: str | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> None:
        """`pool`: a pool file, or a Pool that you made (and close). `policy`: as in a pool file."""
        self._given_pool: Pool | None = None
        if pool is not None and not isinstance(pool, str | Path):
            self._given_pool, pool = pool, None
        self.settings = settings or load_settings(
            home=home, database_url=database_url, pool=pool, tenant=tenant
        )
        self._policy = dict(policy) if policy is not None else None
        self.database = Database(self.settings.database)
        self.database.ensure_schema()
        #: run id → the classes its outputs were declared with, for runs stored by this client
        self._classes: dict[str, Mapping[str, type]] = {}
        self._lock = threading.Lock()
        self._watch = Watch(self.settings.home)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._pool: Pool | None = None

    def __enter__(self) -> Podium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the runs that this process drives and free the models. May be called twice."""
        if self._loop is not None:
            self._wait(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = None
        self.database.close()

    # -- running

    def run(
        self,
        workflow: Workflow | str | Path,
        /,
        *,
        budget: Any = None,
        deadline: float | None = None,
        priority: int = 0,
        approve: Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        on_token: OnToken | None = None,
        **more_inputs: Any,
    ) -> Run:
        """Run a workflow in this process until it is over or waits for a person.

        Args:
            workflow: one that was built, or the path of a YAML file.
            budget: USD it may cost at most; default: the setting `budget`.
            deadline: seconds from now.
            approve: tasks that are approved beforehand.
            policy: routing of this run, e.g. {"kind": "fixed", "model": "smollm2-135m"}.
            inputs: the workflow's inputs; those whose names are free may be given as keywords instead.

        Raises:
            WorkflowError: the workflow or its inputs are wrong; nothing was stored.
            PodiumError: the run could not be driven. A run that failed is returned, not raised.
        """
        run = self.submit(
            workflow,
            detached=False,
            budget=budget,
            deadline=deadline,
            priority=priority,
            approve=approve,
            policy=policy,
            idempotency_key=idempotency_key,
            inputs={**(inputs or {}), **more_inputs},
        )
        return self.drive(run.id, on_event=on_event, on_token=on_token)

    async def arun(self, workflow: Workflow | str | Path, /, **options: Any) -> Run:
        """`run`, awaited. Cancelling it lets go of the run, which can be resumed."""
        on_event, on_token = options.pop("on_event", None), options.pop("on_token", None)
        run = await asyncio.to_thread(lambda: self.submit(workflow, detached=False, **options))
        return await self.adrive(run.id, on_event=on_event, on_token=on_token)

    def submit(
        self,
        workflow: Workflow | str | Path,
        /,
        *,
        detached: bool = True,
        budget: Any = None,
        deadline: float | None = None,
        priority: int = 0,
        approve: Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> Run:
        """Store a run for the detached engine (`podium up`), and return at once. See `run`."""
        terms = Terms(budget, deadline, priority, approve, policy, idempotency_key, detached)
        made, root = checked(workflow)
        new = new_run(self.settings, made, {**(inputs or {}), **more_inputs}, root, terms)
        return self._keep(new, made.output_classes)

    def drive(
        self,
        run_id: str,
        *,
        on_event: OnEvent | None = None,
        on_token: OnToken | None = None,
    ) -> Run:
        """Go on with a run in this process; if a living engine has it, follow it instead."""
        return self._wait(self._drive(run_id, on_event, on_token))

    async def adrive(
        self,
        run_id: str,
        *,
        on_event: OnEvent | None = None,
        on_token: OnToken | None = None,
    ) -> Run:
        """`drive`, awaited."""
        work = self._drive(run_id, on_event, on_token)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running_loop()))

    def ask(
        self,
        prompt: str,
        *,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        budget: Any = None,
        on_token: Callable[[str], None] | None = None,
    ) -> Run:
        """One question to one model: a run with the task `answer`. `on_token` gets the text as it comes."""
        workflow = ask_workflow(model, system, max_tokens)
        listen = None if on_token is None else lambda _task, text: on_token(text)
        return self.run(workflow, budget=budget, on_token=listen, prompt=prompt)

    async def aask(
        self, prompt: str, *, on_token: Callable[[str], None] | None = None, **options: Any
    ) -> Run:
        """`ask`, awaited."""
        budget = options.pop("budget", None)
        workflow = ask_workflow(options.pop("model", None), options.pop("system", None), **options)
        listen = None if on_token is None else lambda _task, text: on_token(text)
        return await self.arun(workflow, budget=budget, on_token=listen, prompt=prompt)

    # -- planning

    def plan_table(self, workflow: Workflow, inputs: Mapping[str, Any]) -> list[PlanRow]:
        """What each task would be routed to now, and the estimates. Nothing is called."""
        from ..router.policy import make_policy
        from .caller import stats_of
        from .estimate import plan_table

        file = self.pool_file()
        with self.database.read() as connection:
            stats = stats_of(reads.latencies(connection, self.settings.tenant))
        return plan_table(workflow, inputs, list(file.models.values()), make_policy(self._routing()), stats)

    def plan(
        self,
        goal: str,
        *,
        inputs: Mapping[str, str] | None = None,
        model: str | None = None,
        tools: Sequence[tuple[str, str]] = (),
        budget: Any = None,
        on_event: OnEvent | None = None,
    ) -> GoalPlan:
        """A workflow for a goal, planned by a model or, if it is too weak, taken from the templates.

        Args:
            inputs: name → type of the values the workflow will get; None: the plan says what it needs.
            tools: (`module:name`, what it does) that the plan may use.

        Raises:
            PodiumError: the planning run did not succeed.
        """
        details = {
            "goal": goal,
            "inputs": dict(inputs) if inputs is not None else None,
            "model": model,
            "tools": [list(t) for t in tools],
        }
        # validation refuses plan tasks of users; this one only plans and adds nothing to the graph
        workflow = Workflow("plan", tasks={"plan": PlanTask(plan=details)})
        run = self._keep(new_run(self.settings, workflow, {}, Path.cwd(), Terms(budget=budget)), {})
        run = self.drive(run.id, on_event=on_event)
        if run.status != "succeeded":
            error = run.error or {}
            raise UsageError(
                f"the planning run {run.id} {run.status}: {error.get('message', '')}",
                mend=str(error.get("mend") or f"look with `podium show {run.id}`"),
            )
        found = run.output
        return GoalPlan(Workflow.from_data(found["workflow"]), found["source"], tuple(found["notes"]), run)

    # -- looking

    def get(self, run_id: str) -> Run:
        """A run by its id, the start of it, or `last`.

        Raises:
            NotFound: there is none; UsageError: several start so.
        """
        with self.database.read() as connection:
            full = reads.resolve(connection, self.settings.tenant, run_id)
            return Run(self.database, reads.run(connection, full), self._classes.get(full))

    def runs(self, *, statuses: Sequence[str] = (), limit: int = 50) -> list[Run]:
        """Runs of the tenant, the newest first."""
        with self.database.read() as connection:
            found = reads.list_runs(connection, self.settings.tenant, statuses=statuses, limit=limit)
        return [Run(self.database, record, self._classes.get(record.id)) for record in found]

    def events(self, run_id: str, *, after: int = 0) -> list[EventRecord]:
        """Events with a number above `after`, at most 1,000."""
        with self.database.read() as connection:
            return events.read(connection, run_id, after=after)

    def verify(self, run_id: str) -> int | None:
        """Number of the first event that does not fit the chain; None: all fit."""
        with self.database.read() as connection:
            return events.verify(connection, run_id)

    def follow(
        self, run_id: str, *, after: int = 0, on_event: OnEvent | None = None, timeout: float | None = None
    ) -> Run:
        """Wait until a run is over or waits for a person, while another process drives it.

        Raises:
            ClusterError: for a while no living engine had the run or could take it.
            PodiumError: it took longer than `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        served = time.monotonic()
        while True:
            run = self.get(run_id)
            if self._is_served(run):
                served = time.monotonic()
            elif time.monotonic() - served > UNSERVED and run.status not in (*runs.ENDED, "waiting"):
                raise ClusterError(
                    "no engine works on this run any more",
                    mend=f"start one with `podium up`, or go on here: `podium resume {run_id}`",
                    run=run_id,
                )
            after = _tell(self.events(run_id, after=after), on_event, after)
            if run.status in (*runs.ENDED, "waiting") and after >= run.record.event_seq:
                return run
            if end is not None and time.monotonic() >= end:
                raise PodiumError(
                    f"the run is still {run.status} after {timeout:g} seconds",
                    mend=f"follow it with `podium watch {run_id}`",
                    run=run_id,
                )
            time.sleep(FOLLOW)

    def _is_served(self, run: Run) -> bool:
        return self._watch.is_driven(run.record) or (run.record.detached and self.engine_alive())

    # -- control

    def approve(self, run_id: str, task: str, *, approved: bool = True, comment: str = "") -> None:
        """Answer a task that waits; a detached run goes on by itself, another one with `drive`."""
        self.database.transact(lambda c: control.approve(c, run_id, task, approved=approved, comment=comment))

    def cancel(self, run_id: str) -> str:
        """Cancel a run; its engine stops it within a second. Returns the status it has now."""
        record = self.get(run_id).record
        driven = self._watch.is_driven(record)
        return self.database.transact(lambda c: control.cancel(c, record.id, driven=driven))

    def retry(self, run_id: str, tasks: Sequence[str] = ()) -> list[str]:
        """Make the failed tasks of a run that is over pending again; returns the tasks that will run."""
        return self.database.transact(lambda c: control.retry(c, run_id, tasks))

    def reopen(self, run_id: str, *, budget: Any = None) -> None:
        """Let a stopped run go on, with a new budget (USD) if one is given."""
        amount = parse_usd(budget) if budget is not None else None
        self.database.transact(lambda c: control.reopen(c, run_id, budget_nano=amount))

    def prune(self, *, older_than_s: float, dry_run: bool = False) -> list[str]:
        """Delete runs that ended more than so many seconds ago; returns their ids."""
        before = time.time() - older_than_s
        return self.database.transact(
            lambda c: control.prune(c, self.settings.tenant, before=before, dry_run=dry_run)
        )

    def engine_alive(self) -> bool:
        """Whether a detached engine (`podium up`) serves this home."""
        from .service import engine_status

        return engine_status(self.settings.home) is not None

    def pool_file(self) -> PoolFile:
        from ..workers.poolfile import load_pool

        return load_pool(self.settings.pool_file, self.settings.home)

    # -- inside

    def _keep(self, new: runs.NewRun, classes: Mapping[str, type]) -> Run:
        run_id = store(self.database, new)
        if classes:
            self._classes[run_id] = dict(classes)
        return self.get(run_id)

    async def _drive(
        self,
        run_id: str,
        on_event: OnEvent | None,
        on_token: OnToken | None,
    ) -> Run:
        engine = await self._open()
        start = (await asyncio.to_thread(self.get, run_id)).record.event_seq
        teller = asyncio.create_task(self._stream(run_id, start if start > 1 else 0, on_event))
        try:
            await self._drive_or_follow(engine, run_id, on_token)
        finally:
            teller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await teller
        return await asyncio.to_thread(self.get, run_id)

    async def _drive_or_follow(self, engine: Engine, run_id: str, on_token: OnToken | None) -> None:
        """Drive a run; while another engine has it, follow it, and take it over should that engine die."""
        while True:
            try:
                await engine.drive(run_id, on_token=on_token)
            except StaleEpoch:
                run = await asyncio.to_thread(self.get, run_id)
                if run.status in (*runs.ENDED, "waiting"):
                    return
                await asyncio.sleep(FOLLOW)
            else:
                return

    async def _stream(self, run_id: str, after: int, on_event: OnEvent | None) -> None:
        """Tell events until cancelled, and then those that are left."""
        if on_event is None:
            return
        try:
            while True:
                after = _tell(await asyncio.to_thread(self.events, run_id, after=after), on_event, after)
                await asyncio.sleep(FOLLOW)
        finally:
            while found := self.events(run_id, after=after):
                after = _tell(found, on_event, after)

    async def _open(self) -> Engine:
        if self._engine is None:
            from ..workers.local import LocalPool
            from .engine import Engine

            if self._given_pool is None:
                self._pool = LocalPool(self.pool_file().models, self.settings.home)
            pool = self._given_pool or self._pool
            assert pool is not None
            self._engine = Engine(
                self.database,
                pool,
                self.settings.home,
                policy=self._routing(),
                max_parallel=self.settings.max_parallel,
            )
            await self._engine.__aenter__()
        return self._engine

    def _routing(self) -> Mapping[str, Any]:
        if self._policy is not None:
            return self._policy
        return {} if self._given_pool is not None else self.pool_file().policy.model_dump()

    async def _close(self) -> None:
        if self._engine is not None:
            await self._engine.__aexit__(None, None, None)
            self._engine = None
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="podium-engine", daemon=True
                )
                self._thread.start()
            return self._loop

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _tell(found: Sequence[EventRecord], on_event: OnEvent | None, after: int) -> int:
    for event in found:
        if on_event is not None:
            on_event(event)
        after = event.seq
    return after
