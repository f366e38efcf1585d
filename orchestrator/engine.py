"""The engine: claims runs, keeps its leases alive, notices what people ask for, and drives each run.

One engine lives on one event loop. In-process (`podium run`) it drives the runs it is told to; detached
(`podium up`) it also takes queued runs and those of engines that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..memory import reads, runs
from ..memory.database import Database
from ..memory.errors import PodiumError, StaleEpoch
from ..memory.journal import Journal
from ..router.policy import make_policy
from ..workers.contract import Pool
from .caller import OnToken, RunContext, Services, stats_of
from .driver import RunDriver
from .executor import Executor
from .leases import BEAT, EngineLock, Watch
from .processes import PythonWorkers

log = logging.getLogger(__name__)

#: seconds between looks at what people asked for, and at the queue
POLL = 0.2


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
    ) -> None:
        """`policy`: the pool's policy as data, for runs that name none."""
        self._database, self._pool, self._policy = database, pool, policy
        self._journal = Journal(database)
        self._services = Services(database, self._journal, pool)
        self._workers = PythonWorkers()
        self._executor = Executor(self._services, self._workers)
        self._lock = EngineLock(home)
        self._watch = Watch(home)
        self._slots = asyncio.Semaphore(max_parallel)
        self._drivers: dict[str, RunDriver] = {}
        #: runs that this engine has claimed, by id
        self._epochs: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self._background: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        return self._lock.engine

    async def __aenter__(self) -> Engine:
        self._background = [asyncio.create_task(self._beats()), asyncio.create_task(self._controls())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for run_id in list(self._epochs):
            await self._let_go(run_id)
        await self._workers.close()
        await asyncio.to_thread(self._journal.close)
        self._lock.close()

    async def is_driven(self, run_id: str) -> bool:
        """Whether a living engine (this one too) has the run."""
        record = await self._services.read(lambda c: reads.run(c, run_id))
        return self._watch.is_driven(record)

    async def drive(self, run_id: str, *, on_token: OnToken | None = None) -> str:
        """Claim a run and drive it until it is over or waits for a person; returns its status.

        However it ends, the run is let go of: cancelled here, it can be driven again at once.

        Raises:
            StaleEpoch: another engine has it, or took it.
            PodiumError: the database cannot be reached, or refuses.
        """
        record = await self._services.read(lambda c: reads.run(c, run_id))
        if record.status in runs.ENDED:
            return record.status
        if self._watch.is_driven(record):
            raise StaleEpoch(
                "another engine drives this run", mend=f"watch it with `podium watch {run_id}`", run=run_id
            )
        epoch = await self._claim(record)
        self._epochs[run_id] = epoch
        try:
            status = await self._drive(record, epoch, on_token)
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
            self._drivers.pop(run_id, None)
            await self._let_go(run_id)

    async def _claim(self, record: reads.RunRecord) -> int:
        """The claim's epoch. Cancelled while it is written, the run is let go of again."""
        run_id, seen = record.id, record.epoch
        claimed = self._journal.submit("run.claim", lambda c: runs.claim(c, run_id, self.name, seen))
        try:
            return await asyncio.shield(asyncio.wrap_future(claimed))
        except asyncio.CancelledError:
            self._journal.submit("run.finish", lambda c: runs.release(c, run_id, seen + 1))
            raise

    async def _drive(self, record: reads.RunRecord, epoch: int, on_token: OnToken | None) -> str:
        rows = await self._services.read(lambda c: reads.latencies(c, record.tenant))
        context = RunContext(
            record.id,
            record.tenant,
            epoch,
            record.project_root,
            frozenset(record.preapproved),
            make_policy(record.policy or self._policy),
            stats_of(rows),
            on_token,
        )
        driver = RunDriver(self._services, self._executor, context, self._slots)
        self._drivers[record.id], self._versions[record.id] = driver, record.control_version
        return await driver.drive()

    async def _give_up(self, run_id: str, epoch: int, error: PodiumError) -> str:
        """Fail a run that cannot be driven: taken up again it would only meet the same error."""
        await self._journal.commit(
            "run.finish", lambda c: runs.finish_run(c, run_id, epoch, "failed", error=error.data())
        )
        del self._epochs[run_id]
        return "failed"

    async def _let_go(self, run_id: str) -> None:
        """Release a run unless it is over, waits, or is another engine's by now."""
        epoch = self._epochs.pop(run_id, None)
        if epoch is None:
            return
        with contextlib.suppress(PodiumError):  # refused: then it is not ours; no database: the lock tells
            await self._journal.commit("run.finish", lambda c: runs.release(c, run_id, epoch))

    async def serve(self) -> None:
        """Take detached runs as they come, until cancelled."""
        driving: dict[str, asyncio.Task[str]] = {}
        try:
            while True:
                for run_id, task in list(driving.items()):
                    if task.done():
                        del driving[run_id]
                        self._report(run_id, task)
                for record in await self._claimable():
                    if record.id not in driving and not self._watch.is_driven(record):
                        driving[record.id] = asyncio.create_task(self.drive(record.id))
                await asyncio.sleep(POLL)
        finally:
            for task in driving.values():
                task.cancel()
            await asyncio.gather(*driving.values(), return_exceptions=True)

    async def _claimable(self) -> list[reads.RunRecord]:
        try:
            return await self._services.read(reads.claimable)
        except PodiumError as error:
            log.warning("The queue could not be read: %s", error, extra={"action": "engine.queue"})
            return []

    def _report(self, run_id: str, task: asyncio.Task[str]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            log.info("A run ended or waits.", extra={"action": "run.left", "run": run_id})
        elif isinstance(error, StaleEpoch):
            log.info("Another engine took a run.", extra={"action": "run.stale", "run": run_id})
        else:
            log.error(
                "A run could not be driven.", exc_info=error, extra={"action": "run.error", "run": run_id}
            )

    async def _beats(self) -> None:
        while True:
            try:
                await self._beat(list(self._epochs))
            except PodiumError as error:
                log.warning("A beat was not written: %s", error.message, extra={"action": "run.beat"})
            await asyncio.sleep(BEAT)

    async def _beat(self, mine: Sequence[str]) -> None:
        if mine:
            await self._journal.commit("run.beat", lambda c: runs.beat(c, mine, self.name))

    async def _controls(self) -> None:
        """Look for approvals and cancellations. One query for all runs."""
        while True:
            await asyncio.sleep(POLL)
            try:
                await self._obey(list(self._drivers))
            except PodiumError as error:
                log.warning("Requests could not be read: %s", error, extra={"action": "run.control"})

    async def _obey(self, ids: Sequence[str]) -> None:
        asked = await self._services.read(lambda c: reads.control_versions(c, ids)) if ids else {}
        for run_id, (version, cancel) in asked.items():
            driver = self._drivers.get(run_id)
            if driver is not None and cancel:
                driver.cancel()
            elif driver is not None and version != self._versions.get(run_id):
                self._versions[run_id] = version
                driver.refresh()
