"""`Podium`: the front door of the SDK and of the CLI. Sync, with async twins (`arun`, `adrive`, `aask`).

The database is opened at once, the engine and the pool only when something is to run in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..memory import reads, runs
from ..memory.errors import PodiumError, StaleEpoch, UsageError
from .controls import Controls
from .leases import Watch
from .settings import Settings, load_settings
from .viewer import FOLLOW, RESTING, OnEvent, tell
from .views import Run

if TYPE_CHECKING:
    from ..router.types import ModelSpec
    from ..workers.contract import Pool
    from ..workers.poolfile import PoolFile
    from .engine import Engine
    from .estimate import PlanRow
    from .workflow import Workflow

T = TypeVar("T")
OnToken = Callable[[str, str], None]


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


class Podium(Controls):
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
        self.database = self.settings.open_database()
        self._classes = {}
        self._lock = threading.Lock()
        self._watch = Watch(self.settings.home, self.settings.lease_seconds)
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
            self.database.hurry()
            self._wait(self._close())
            self._wait(_cancel_others())
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
        tokens: int | None = None,
        seconds: float | None = None,
        inputs: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        on_token: OnToken | None = None,
        **more_inputs: Any,
    ) -> Run:
        """Run a workflow in this process until it is over, waits for a person or is paused.

        Args:
            workflow: one that was built, or the path of a YAML file.
            budget: USD it may cost at most; default: the setting `budget`.
            deadline: seconds from now.
            approve: tasks that are approved beforehand.
            policy: routing of this run, e.g. {"kind": "fixed", "model": "smollm2-135m"}.
            tokens: of all its model calls together, input and output; default: not limited.
            seconds: that engines may drive it; default: not limited.
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
            tokens=tokens,
            seconds=seconds,
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
        tokens: int | None = None,
        seconds: float | None = None,
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> Run:
        """Store a run for the detached engine (`podium up`), and return at once. See `run`."""
        from .submission import Terms, checked, new_run

        terms = Terms(budget, deadline, priority, approve, policy, idempotency_key, detached, tokens, seconds)
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
        from .submission import ask_workflow

        workflow = ask_workflow(model, system, max_tokens)
        listen = None if on_token is None else lambda _task, text: on_token(text)
        return self.run(workflow, budget=budget, on_token=listen, prompt=prompt)

    async def aask(
        self, prompt: str, *, on_token: Callable[[str], None] | None = None, **options: Any
    ) -> Run:
        """`ask`, awaited."""
        from .submission import ask_workflow

        budget = options.pop("budget", None)
        workflow = ask_workflow(options.pop("model", None), options.pop("system", None), **options)
        listen = None if on_token is None else lambda _task, text: on_token(text)
        return await self.arun(workflow, budget=budget, on_token=listen, prompt=prompt)

    # -- planning

    def plan_table(self, workflow: Workflow, inputs: Mapping[str, Any]) -> list[PlanRow]:
        """What each task would be routed to now, and the estimates. Nothing is called."""
        from .caller import stats_of
        from .estimate import plan_table
        from .policies import policy_now

        models, tenant = self._models(), self.settings.tenant
        with self.database.read() as c:
            policy = policy_now(c, tenant, self._routing(), models)
            return plan_table(workflow, inputs, models, policy, stats_of(reads.latencies(c, tenant)))

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
        from .planning import planning_workflow
        from .submission import Terms, new_run
        from .workflow import Workflow

        workflow = planning_workflow(goal, inputs=inputs, model=model, tools=tools)
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

    def pool_file(self) -> PoolFile:
        from ..workers.poolfile import load_pool

        return load_pool(self.settings.pool_file, self.settings.home)

    # -- inside

    def _models(self) -> list[ModelSpec]:
        pool = self._given_pool
        return list((pool.specs if pool is not None else self.pool_file().models).values())

    def _keep(self, new: runs.NewRun, classes: Mapping[str, type]) -> Run:
        from .submission import store

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
        while (await asyncio.to_thread(self.get, run_id)).status != "paused":
            try:
                await engine.drive(run_id, on_token=on_token)
            except StaleEpoch:
                run = await asyncio.to_thread(self.get, run_id)
                if run.status in RESTING:
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
                after = tell(await asyncio.to_thread(self.events, run_id, after=after), on_event, after)
                await asyncio.sleep(FOLLOW)
        finally:
            while found := self.events(run_id, after=after):
                after = tell(found, on_event, after)

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
                **self.settings.engine_options(),
            )
            await self._engine.__aenter__()
        return self._engine

    def _routing(self) -> Mapping[str, Any]:
        if self._policy is not None:
            return self._policy
        return {} if self._given_pool is not None else self.pool_file().policy.data()

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
        except CancelledError as cut:
            mend = "open it again; `resume` goes on with a run"
            raise PodiumError("this Podium was closed by another thread meanwhile", mend=mend) from cut
        except BaseException:
            future.cancel()
            raise


async def _cancel_others() -> None:
    """End what still waits in this loop, so that the threads that wait for it are told."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
