"""What makes an engine serve: it looks at the queue, takes its share of the open runs, and does what is due.

Runs of dead engines are taken over, detached ones at once. One that was driven in-process (`podium run`) is
left to its person's `podium resume` for `sharing.GRACE` seconds, and for good when this engine lacks a model
that the run names or the folder of its project.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..memory import control, engines, reads
from ..memory.database import Connection
from ..memory.engines import EngineRecord, OpenRun
from ..memory.errors import PodiumError, StaleEpoch
from ..memory.reads import ControlState
from . import upkeep
from .sharing import Share

if TYPE_CHECKING:
    from .engine import Engine
    from .settings import Settings

log = logging.getLogger(__name__)

#: seconds between two looks for late approvals, and between two tries of the same chore
CHORES = 1.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the database showed."""

    asked: Mapping[str, ControlState]
    others: Sequence[EngineRecord]
    open: Sequence[OpenRun]
    is_schedule_due: bool
    is_approval_late: bool


class Serving:
    """One time that an engine serves."""

    def __init__(self, engine: Engine, settings: Settings | None, capacity: int) -> None:
        self._engine, self._settings, self._capacity = engine, settings, capacity
        self._share = Share(engine.name, engine.watch, capacity)
        self._driving: dict[str, asyncio.Task[str]] = {}
        self._chores: dict[str, asyncio.Task[None]] = {}
        self._next_chores = 0.0
        self._next_upkeep = time.monotonic() + upkeep.EVERY
        self._others = 1
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled; then let go of the runs."""
        from . import engine

        await self._register()
        try:
            while True:
                self._wake.clear()
                self._reap()
                try:
                    self._act(await self._engine.services.read(self._look))
                except PodiumError as error:
                    log.warning("The queue could not be read: %s", error, extra={"action": "engine.queue"})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), engine.POLL)
        finally:
            await self._stop()

    async def _register(self) -> None:
        """Say that this engine serves, before it takes anything."""
        name, capacity = self._engine.name, self._capacity
        with contextlib.suppress(PodiumError):  # no database yet: a beat will do it
            await self._engine.services.journal.commit(
                "run.beat", lambda c: engines.register(c, name, capacity)
            )
        self._engine.capacity = capacity

    async def _stop(self) -> None:
        tasks = [*self._driving.values(), *self._chores.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._engine.capacity = None
        with contextlib.suppress(PodiumError):  # no database: the lock tells
            await self._forget([self._engine.name])

    # -- the queue

    def _look(self, connection: Connection) -> _Look:
        now = time.time()
        return _Look(
            self._engine.read_controls(connection),
            engines.alive(connection),
            # more than that, all engines together could not take
            engines.open_runs(connection, limit=self._capacity * (1 + self._others)),
            self._settings is not None and engines.is_schedule_due(connection, now),
            time.monotonic() >= self._next_chores and engines.is_approval_late(connection, now),
        )

    def _act(self, look: _Look) -> None:
        self._engine.obey(look.asked)
        self._others = len(look.others)
        choice = self._share.choose(look.open, look.others, self._driving)
        for run in choice.take:
            work = self._engine.drive(run.id) if run.detached else self._adopt(run.id)
            task = self._driving[run.id] = asyncio.create_task(work)
            task.add_done_callback(self._left)
        if choice.dead:
            self._start("dead engines", lambda: self._forget(choice.dead))
        self._do_chores(look)

    def _left(self, task: asyncio.Task[str]) -> None:
        # there is room for another; after a failure, though, the same run would be tried again at once
        if not task.cancelled() and task.exception() is None:
            self._wake.set()

    def _reap(self) -> None:
        for run_id, task in list(self._driving.items()):
            if task.done():
                del self._driving[run_id]
                _report(run_id, task)

    async def _adopt(self, run_id: str) -> str:
        """Take over a run that was driven in-process, if this engine can."""
        if not await self._suits(run_id):
            self._share.refused.add(run_id)
            return "refused"
        return await self._engine.drive(run_id)

    async def _suits(self, run_id: str) -> bool:
        def look(connection: Connection) -> tuple[str, set[str]]:
            record = reads.run(connection, run_id)
            spec = reads.value(connection, record.tenant, record.spec_blob)
            return record.project_root, set(_models(spec)) | set(_models(record.policy))

        root, models = await self._engine.services.read(look)
        return models <= self._engine.models and await asyncio.to_thread(Path(root).is_dir)

    async def _forget(self, names: Sequence[str]) -> None:
        await self._engine.services.journal.commit("run.beat", lambda c: engines.remove(c, names))

    # -- chores

    def _do_chores(self, look: _Look) -> None:
        if time.monotonic() < self._next_chores:
            return
        database, settings, now = self._engine.services.database, self._settings, time.time()
        self._next_chores = time.monotonic() + CHORES
        if look.is_approval_late:
            work = lambda: database.transact(lambda c: control.expire_approvals(c, now))  # noqa: E731
            self._start("late approvals", lambda: asyncio.to_thread(work))
        if look.is_schedule_due and settings is not None:
            from .schedules import fire_due

            self._start("schedules", lambda: asyncio.to_thread(fire_due, database, settings, now))
        if settings is not None and time.monotonic() >= self._next_upkeep:
            self._next_upkeep = time.monotonic() + upkeep.EVERY
            self._start("memory", lambda: upkeep.look_after(self._engine, settings))

    def _start(self, name: str, work: Callable[[], Any]) -> None:
        """Do a chore beside the looks, unless it is being done."""
        if name not in self._chores:
            task = self._chores[name] = asyncio.create_task(_logged(name, work))
            task.add_done_callback(lambda _: self._chores.pop(name))


async def _logged(name: str, work: Callable[[], Any]) -> None:
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - the engine goes on, and will try again
        log.warning("A chore failed: %s: %s", name, error, extra={"action": "engine.chore"})


def _report(run_id: str, task: asyncio.Task[str]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is None:
        log.info("A run ended or waits.", extra={"action": "run.left", "run": run_id})
    elif isinstance(error, StaleEpoch):
        log.info("Another engine took a run.", extra={"action": "run.stale", "run": run_id})
    else:
        log.error("A run could not be driven.", exc_info=error, extra={"action": "run.error", "run": run_id})


def _models(data: Any) -> Iterator[str]:
    """The models that a workflow or a policy names, as data."""
    if isinstance(data, Mapping):
        model = data.get("model")
        if isinstance(model, str):
            yield model
        data = data.values()
    if not isinstance(data, str) and isinstance(data, Sequence | type({}.values())):
        for part in data:
            yield from _models(part)
