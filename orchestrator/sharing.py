"""Which open runs a serving engine takes: its fair share, by priority and age. No I/O."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..memory.engines import EngineRecord, OpenRun
from .leases import Watch

#: seconds that an in-process run whose engine died is left to its person's own `podium resume`
GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What an engine does after a look at the open runs."""

    #: runs to claim, the first one first
    take: Sequence[OpenRun]
    #: engines whose rows stand for nobody
    dead: Sequence[str]


class Share:
    """One serving engine's view of the others. Keep it for as long as the engine serves."""

    def __init__(self, engine: str, watch: Watch, capacity: int) -> None:
        """`capacity`: runs that the engine drives at the same time at most."""
        self._engine, self._watch, self._capacity = engine, watch, capacity
        #: run → monotonic seconds when its in-process engine was found dead
        self._orphans: dict[str, float] = {}
        #: in-process runs that this engine cannot drive
        self.refused: set[str] = set()

    def choose(
        self, runs: Sequence[OpenRun], engines: Sequence[EngineRecord], mine: Collection[str]
    ) -> Choice:
        """What to take of `runs` (by priority and age), and which of the `engines` are dead.

        `mine`: what the engine drives already; it keeps all of it, also beyond its share.
        """
        others = [e for e in engines if e.id != self._engine]
        living = [e for e in others if self._watch.is_alive(e.id, e.beat)]
        serving = {e.id for e in living}
        free: list[OpenRun] = []
        taken = len(mine)
        for run in runs:
            if run.id in mine or run.engine == self._engine:
                continue
            if self._is_free(run):
                free.append(run)
            elif run.engine in serving:
                taken += 1
        self._forget(runs, engines)
        share = fair_share(self._capacity, [e.capacity for e in living], taken + len(free))
        dead = {e.id for e in others} - serving
        return Choice(free[: max(0, share - len(mine))], sorted(dead))

    def _is_free(self, run: OpenRun) -> bool:
        """Whether an engine may take the run now."""
        if self._watch.is_driven(run):
            self._orphans.pop(run.id, None)
            return False
        if run.detached:
            return True
        since = self._orphans.setdefault(run.id, time.monotonic())
        return time.monotonic() - since >= GRACE and run.id not in self.refused

    def _forget(self, runs: Sequence[OpenRun], engines: Sequence[EngineRecord]) -> None:
        open_ids = {run.id for run in runs}
        self._watch.keep(open_ids | {e.id for e in engines})
        self._orphans = {key: since for key, since in self._orphans.items() if key in open_ids}
        self.refused &= open_ids


def fair_share(capacity: int, others: Sequence[int], runs: int) -> int:
    """Runs for an engine of `capacity` when `runs` are shared evenly with others of these capacities.

    Rounded up; what an engine cannot take for want of capacity, the rest share.
    """
    left, engines = runs, 1 + len(others)
    for smaller in sorted(others):
        even = -(-left // engines)
        if smaller >= even:
            break
        left -= smaller
        engines -= 1
    return min(capacity, -(-left // engines))
