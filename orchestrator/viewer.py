"""What can be seen of runs without driving them: the reading half of `Podium`."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..memory import events, reads, runs
from ..memory.database import Database
from ..memory.errors import ClusterError, PodiumError
from ..memory.events import EventRecord
from .leases import Watch
from .settings import Settings
from .views import Run

if TYPE_CHECKING:
    from ..memory.store import TaskMemory
    from ..router.types import ModelSpec
    from .compare import Difference
    from .replay import Replay

OnEvent = Callable[[EventRecord], None]

#: states in which a run does not go on by itself
RESTING = (*runs.ENDED, "waiting", "paused")
#: seconds between two looks at a run that someone follows
FOLLOW = 0.1
#: seconds that a followed run may be without a living engine
UNSERVED = 5.0


class Viewer(ABC):
    """Looks at the runs of a database."""

    settings: Settings
    database: Database
    #: run id → the classes its outputs were declared with, for runs stored by this client
    _classes: dict[str, Mapping[str, type]]
    _watch: Watch
    _memory: TaskMemory | None = None

    @property
    def memory(self) -> TaskMemory:
        """The tenant's task memory: what runs and people have had remembered. It writes too."""
        if self._memory is None:
            from ..memory.store import TaskMemory

            self._memory = TaskMemory(
                self.database, self.settings.tenant, receipt_key=self.settings.memory_receipt_key
            )
        return self._memory

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

    def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """Events with a number above `after`, in order, at most `limit`. The last one's number is the
        `after` of the next call.
        """
        with self.database.read() as connection:
            return events.read(connection, self._resolve(connection, run_id), after=after, limit=limit)

    def stream(self, run_id: str, *, after: int = 0, timeout: float | None = None) -> Iterator[EventRecord]:
        """The events with a number above `after` as they come, in order and each once, until the run is over.

        While the run waits for a person or is paused, so does the stream.

        Raises:
            PodiumError: for `timeout` seconds no event came.
        """
        run = self.get(run_id)
        since = time.monotonic()
        while True:
            # the run is looked at first: what it says is over has all its events
            is_over, last = run.status in runs.ENDED, run.record.event_seq
            while found := self.events(run.id, after=after):
                for event in found:
                    after = event.seq
                    yield event
                since = time.monotonic()
            if is_over and after >= last:
                return
            if timeout is not None and time.monotonic() - since >= timeout:
                raise PodiumError(
                    f"no event came for {timeout:g} seconds; the run is {run.status}",
                    mend=f"go on after event {after}: `podium watch {run.id} --after {after}`",
                    run=run.id,
                )
            _PAUSE.wait(FOLLOW)
            run = run.refresh()

    def verify(self, run_id: str) -> int | None:
        """Number of the first event that does not fit the chain; None: all fit."""
        with self.database.read() as connection:
            return events.verify(connection, self._resolve(connection, run_id))

    def follow(
        self, run_id: str, *, after: int = 0, on_event: OnEvent | None = None, timeout: float | None = None
    ) -> Run:
        """Wait until a run is over, waits for a person or is paused, while another process drives it.

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
            elif time.monotonic() - served > UNSERVED and run.status not in RESTING:
                raise ClusterError(
                    "no engine works on this run any more",
                    mend=f"start one with `podium up`, or go on here: `podium resume {run_id}`",
                    run=run_id,
                )
            after = tell(self.events(run.id, after=after), on_event, after)
            if run.status in RESTING and after >= run.record.event_seq:
                return run
            if end is not None and time.monotonic() >= end:
                raise PodiumError(
                    f"the run is still {run.status} after {timeout:g} seconds",
                    mend=f"follow it with `podium watch {run_id}`",
                    run=run_id,
                )
            _PAUSE.wait(FOLLOW)

    def compare(self, left: str, right: str) -> Difference:
        """What is different between two runs: workflow, inputs, tasks, outputs."""
        from .compare import compare

        with self.database.read() as connection:
            first, second = (self._resolve(connection, name) for name in (left, right))
            return compare(connection, first, second)

    def replay(self, run_id: str, policy: Mapping[str, Any] | str) -> Replay:
        """What another routing policy would pick for a run's calls now, and what they would cost.

        Args:
            policy: as in a pool file, or as text: `cheapest`, `fixed:MODEL`, JSON, or a file's path.

        Raises:
            ConfigError, UsageError: the policy is none, or names a model that the pool does not have.
        """
        from .policies import parse_policy
        from .replay import replay

        chosen = parse_policy(policy) if isinstance(policy, str) else policy
        models = self._models()
        with self.database.read() as connection:
            return replay(connection, self._resolve(connection, run_id), models, chosen)

    def engine_alive(self) -> bool:
        """Whether a detached engine (`podium up`) serves this home."""
        from .service import engine_status

        return engine_status(self.settings.home) is not None

    @abstractmethod
    def _models(self) -> list[ModelSpec]:
        """The models that calls can be routed to, in the pool's order."""

    def _resolve(self, connection: Any, run_id: str) -> str:
        return reads.resolve(connection, self.settings.tenant, run_id)

    def _is_served(self, run: Run) -> bool:
        return self._watch.is_driven(run.record) or (run.record.detached and self.engine_alive())


#: never set: an event waits more exactly than `time.sleep`, and a signal ends it
_PAUSE = threading.Event()


def tell(found: Sequence[EventRecord], on_event: OnEvent | None, after: int) -> int:
    """Hand events on; returns the number of the last one."""
    for event in found:
        if on_event is not None:
            on_event(event)
        after = event.seq
    return after
