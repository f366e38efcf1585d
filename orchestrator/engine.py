"""The engine: claims runs, keeps its leases alive, notices what people ask for, and drives each run.

One engine lives on one event loop. In-process (`podium run`) it drives the runs it is told to; detached
(`podium up`) it also serves: `Serving` finds queued runs, and those of engines that died, for it to take.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..memory import engines, reads, runs
from ..memory.database import Connection, Database
from ..memory.errors import PodiumError, StaleEpoch
from ..memory.journal import Journal
from ..router.policy import Policy, make_policy
from ..workers.contract import Pool
from .caller import OnToken, RunContext, Services, stats_of
from .driver import RunDriver
from .executor import Executor
from .leases import BEAT, EngineLock, Heart, Watch, beat_seconds
from .pacing import Pacing, Remaining
from .processes import python_workers
from .routing import Learning
from .shares import Shares

if TYPE_CHECKING:
    from .settings import Settings

log = logging.getLogger(__name__)

#: seconds between looks at what people asked for, and at the queue
POLL = 0.2
#: seconds between looks at new outcomes
LEARN = 2.0
#: runs that a serving engine drives at the same time
CAPACITY = 256
#: seconds between looks at new outcomes
LEARN = 2.0


class Engine:
    """Drives runs. `async with Engine(…)`: leaving it lets go of its runs in good order."""

    def __init__(
        self,
        database: Database,
        pool: Pool,
        home: Path,
        *,
        policy: Mapping[str, Any],
        max_parallel: int = 16,
        lease: float | None = None,
        tenant_max_concurrent: int | None = None,
        tenant_calls_per_minute: float | None = None,
    ) -> None:
        """`policy`: the pool's policy as data, for runs that name none. `lease`: seconds without a beat
        until an engine counts as dead, the same for all engines of a database; None: `leases.LEASE`.
        """
        self._policy = policy
        self.watch = Watch(home, lease)
        self.services = Services(
            database,
            Journal(database),
            pool,
            self.watch,
            tenant_max_concurrent=tenant_max_concurrent,
            tenant_calls_per_minute=tenant_calls_per_minute,
        )
        self.learning = Learning(database, list(pool.specs))
        self._workers = python_workers(pool)
        self._executor = Executor(self.services, self._workers)
        self._lock = EngineLock(home)
        self._shares = Shares(max_parallel)
        self._drivers: dict[str, RunDriver] = {}
        #: runs that this engine has claimed, by id
        self._epochs: dict[str, int] = {}
        #: who drives them, and those that another engine has taken
        self._driving: dict[str, asyncio.Task[Any]] = {}
        self._taken: set[str] = set()
        self._known: dict[str, tuple[int, int]] = {}
        #: runs that a serving engine takes at most; None: it does not serve
        self.capacity: int | None = None

    @property
    def name(self) -> str:
        return self._lock.engine

    @property
    def models(self) -> frozenset[str]:
        """The models that its pool has."""
        return frozenset(self.services.pool.specs)

    async def __aenter__(self) -> Engine:
        self._loop = asyncio.get_running_loop()
        self._heart = Heart(self._beat, min(BEAT, beat_seconds(self.watch.lease)))
        self._controls = asyncio.create_task(self._look_at_controls())
        self._learning = asyncio.create_task(self._keep_learning())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._controls.cancel()
        self._learning.cancel()
        await asyncio.gather(self._controls, self._learning, return_exceptions=True)
        for run_id in list(self._epochs):
            await self._let_go(run_id)
        await asyncio.to_thread(self._heart.close)
        await self._workers.close()
        await asyncio.to_thread(self.services.journal.close)
        self._lock.close()

    async def is_driven(self, run_id: str) -> bool:
        """Whether a living engine (this one too) has the run."""
        record = await self.services.read(lambda c: reads.run(c, run_id))
        return self.watch.is_driven(record)

    # -- driving

    async def drive(self, run_id: str, *, on_token: OnToken | None = None) -> str:
        """Claim a run and drive it until it is over or waits for a person; returns its status.

        However it ends, the run is let go of: cancelled here, it can be driven again at once.

        Raises:
            StaleEpoch: another engine has it, or took it.
            PodiumError: the database cannot be reached, or refuses.
        """
        record = await self.services.read(lambda c: reads.run(c, run_id))
        if record.status in runs.ENDED:
            return record.status
        # a run that this engine could not let go of, since the database was away, is its own to take up
        left = record.engine == self.name and run_id not in self._epochs
        if not left and self.watch.is_driven(record):
            raise StaleEpoch(
                "another engine drives this run", mend=f"watch it with `podium watch {run_id}`", run=run_id
            )
        epoch = await self._claim(record)
        self._epochs[run_id] = epoch
        try:
            status = await self._drive_claimed(record, epoch, on_token)
            del self._epochs[run_id]
            return status
        except PodiumError as error:
            error.run = error.run or run_id
            if isinstance(error, StaleEpoch) or error.retryable:
                raise
            return await self._give_up(run_id, epoch, error)
        except Exception as error:
            log.exception("A run ran into a defect.", extra={"action": "run.defect", "run": run_id})
            defect = PodiumError(f"{type(error).__name__}: {error}", mend="please report this", run=run_id)
            return await self._give_up(run_id, epoch, defect)
        finally:
            await self._let_go(run_id)

    async def _claim(self, record: reads.RunRecord) -> int:
        """The claim's epoch. Cancelled while it is written, the run is let go of again."""
        run_id, seen = record.id, record.epoch
        claimed = self.services.journal.submit("run.claim", lambda c: runs.claim(c, run_id, self.name, seen))
        try:
            return await asyncio.shield(asyncio.wrap_future(claimed))
        except asyncio.CancelledError:
            self.services.journal.submit("run.finish", lambda c: runs.release(c, run_id, seen + 1))
            raise

    async def _drive_claimed(self, record: reads.RunRecord, epoch: int, on_token: OnToken | None) -> str:
        """Drive until the end, or until a beat finds that another engine has taken the run."""
        rows = await self.services.read(lambda c: reads.latencies(c, record.tenant))
        policy, pacing = await self._routing(record)
        context = RunContext(
            record.id,
            record.tenant,
            epoch,
            record.project_root,
            frozenset(record.preapproved),
            policy,
            stats_of(rows),
            on_token,
            pacing,
        )
        driver = self._driver(context, record.priority)
        self._known[record.id] = (record.control_version, record.priority)
        self._drivers[record.id] = driver
        task = asyncio.current_task()
        assert task is not None
        self._driving[record.id] = task
        try:
            return await driver.drive()
        except asyncio.CancelledError:
            if record.id not in self._taken or task.uncancel() > 0:
                raise
            raise StaleEpoch("another engine has taken the run", mend="watch it", run=record.id) from None
        finally:
            del self._driving[record.id]
            self._taken.discard(record.id)

    async def _routing(self, record: reads.RunRecord) -> tuple[Policy, Pacing | None]:
        """The run's policy; one that learns with what is known, and with what paces it."""
        spec = record.policy or self._policy
        if spec.get("kind") != "learned":
            return make_policy(spec), None
        from ..router.decision.policy import Known, make_learned, no_template

        shelf, left = await self.learning.shelf(record.tenant), Remaining()
        template = await self.learning.template(record.tenant) if spec.get("templates") else no_template
        policy = make_learned(spec, Known(shelf, left, self.services.pool.queue, template))
        return policy, Pacing(policy.pacer, left, policy.terms.judge)

    def _driver(self, context: RunContext, priority: int) -> RunDriver:
        return RunDriver(self.services, self._executor, context, self._shares, self._wake, priority=priority)

    def _wake(self, run_id: str) -> None:
        driver = self._drivers.get(run_id)
        if driver is not None:
            driver.kick()

    async def _give_up(self, run_id: str, epoch: int, error: PodiumError) -> str:
        """Fail a run that cannot be driven: taken up again it would only meet the same error."""
        await self.services.journal.commit(
            "run.finish", lambda c: runs.finish_run(c, run_id, epoch, "failed", error=error.data())
        )
        del self._epochs[run_id]
        return "failed"

    async def _let_go(self, run_id: str) -> None:
        """Release a run unless it is over, waits, or is another engine's by now."""
        epoch, driver = self._epochs.pop(run_id, None), self._drivers.pop(run_id, None)
        if epoch is None:
            return
        seconds = driver.seconds if driver is not None else 0.0
        with contextlib.suppress(PodiumError):  # refused: then it is not ours; no database: the lock tells
            await self.services.journal.commit(
                "run.finish", lambda c: runs.release(c, run_id, epoch, seconds=seconds)
            )

    # -- beats, in the heart's thread

    def _beat(self) -> None:
        mine = dict(self._epochs)
        if not mine and self.capacity is None:
            return
        shown = self.services.journal.submit("run.beat", lambda c: self._show(c, mine))
        for run_id in shown.result(self.watch.lease):
            self._loop.call_soon_threadsafe(self._leave, run_id, mine[run_id])

    def _show(self, connection: Connection, mine: Mapping[str, int]) -> list[str]:
        """Write the beats; returns the runs that other engines have taken since."""
        if self.capacity is not None:
            engines.beat(connection, self.name, self.capacity)
        kept = runs.beat(connection, list(mine), self.name) if mine else []
        missing = list(mine.keys() - set(kept))
        now = engines.epochs(connection, missing) if missing else {}
        return [run_id for run_id, epoch in now.items() if epoch > mine[run_id]]

    def _leave(self, run_id: str, epoch: int) -> None:
        """Stop what runs of a run that is another engine's now: nothing of it would be accepted."""
        task = self._driving.get(run_id)
        if task is not None and self._epochs.get(run_id) == epoch and run_id not in self._taken:
            log.warning("Another engine took a run.", extra={"action": "run.stale", "run": run_id})
            self._taken.add(run_id)
            task.cancel()

    # -- what people ask for

    async def _look_at_controls(self) -> None:
        """Look for approvals, cancellations and so on while no `Serving` does it. One query for all runs."""
        while True:
            await asyncio.sleep(POLL)
            if self.capacity is not None or not self._drivers:
                continue
            try:
                self.obey(await self.services.read(self.read_controls))
            except PodiumError as error:
                log.warning("Requests could not be read: %s", error, extra={"action": "run.control"})
            except Exception:  # a defect in one request: the next one must be heard
                log.exception("A request ran into a defect.", extra={"action": "run.control"})

    def read_controls(self, connection: Connection) -> dict[str, reads.ControlState]:
        """What people ask of the runs that this engine drives."""
        ids = list(self._drivers)
        return reads.control_versions(connection, ids) if ids else {}

    def obey(self, asked: Mapping[str, reads.ControlState]) -> None:
        """Hand on what people asked for. To cancel or pause again what stops already changes nothing."""
        for run_id, control in asked.items():
            driver = self._drivers.get(run_id)
            if driver is None:
                continue
            version, priority = self._known[run_id]
            self._known[run_id] = (control.version, control.priority)
            if control.cancel:
                driver.cancel()
            elif control.pause:
                driver.pause()
            elif control.version != version:
                if control.priority != priority:
                    driver.reprioritise(control.priority)
                driver.refresh()

    async def _keep_learning(self) -> None:
        """Hear of new outcomes (feedback, checks) while runs are driven whose policy learns."""
        while True:
            await asyncio.sleep(LEARN)
            for tenant in self.learning.tenants if self._drivers else ():
                try:
                    await self.learning.refresh(tenant)
                except PodiumError as error:
                    log.warning("Outcomes could not be read: %s", error, extra={"action": "router.learn"})

    async def serve(self, settings: Settings | None = None, *, capacity: int = CAPACITY) -> None:
        """Take runs as they come, at most `capacity` at a time, until cancelled. With `settings` it also
        starts the runs of schedules.
        """
        from .serving import Serving

        await Serving(self, settings, capacity).run()
