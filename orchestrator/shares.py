"""How the slots of an engine are divided between runs. Pure: no clock, no I/O.

Between tenants a free slot goes to the one that holds fewest (max-min fairness), among equals to the one that
got fewest so far. Between the runs of a tenant it is stride scheduling (Waldspurger and Weihl 1995): a slot
weighs `BASE` times less with each step of priority, so higher ones go first; as each slot moves a run back,
everybody's turn comes. No slot stays free while any run wants one.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field

from ..memory.errors import PodiumError

#: of BASE + 1 slots the lower of two neighbouring priorities gets one
BASE = 8.0
#: priorities are taken as within -HIGHEST..HIGHEST
HIGHEST = 4


@dataclass(slots=True, eq=False)
class _Run:
    name: Hashable
    tenant: _Tenant
    priority: int
    serial: int
    #: virtual time: slots so far, each weighed by priority
    used: float
    #: ready jobs, slots set aside for them, slots in use
    wanted: int = 0
    granted: int = 0
    held: int = 0
    #: its entry in the line of its tenant; older ones are void
    stamp: int = 0


@dataclass(slots=True, eq=False)
class _Tenant:
    name: Hashable
    serial: int
    used: float
    held: int = 0
    runs: int = 0
    #: virtual time of the last run served
    clock: float = 0.0
    line: list[tuple[float, int, int, int, _Run]] = field(default_factory=list)
    stamp: int = 0


class Shares:
    """Sets free slots aside for runs that want them, fairly; a run then takes them.

    A run says how many ready jobs it has (`want`), takes slots while it may (`take`) and gives each one back
    (`give`). Slots that are set aside stay so until they are taken: a run that will not take them wants less.
    All methods cost O(log n) for each slot that changes hands.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise PodiumError(f"an engine with {total} slots", mend="give the engine at least one slot")
        self.total = self.free = total
        self._runs: dict[Hashable, _Run] = {}
        self._tenants: dict[Hashable, _Tenant] = {}
        self._line: list[tuple[int, float, int, int, _Tenant]] = []
        self._clock = 0.0
        self._serial = 0

    def join(self, run: Hashable, tenant: Hashable, priority: int = 0, now: float = 0.0) -> None:
        """A run begins, behind nobody and before nobody. Known runs get the priority.

        `now` is not needed: turns are counted in slots, so that a pause of the clock changes nothing.
        """
        priority = max(-HIGHEST, min(HIGHEST, priority))
        known = self._runs.get(run)
        if known is not None:
            known.priority = priority
            self._line_up(known)
            return
        self._serial += 1
        owner = self._tenants.get(tenant)
        if owner is None:
            owner = self._tenants[tenant] = _Tenant(tenant, self._serial, self._clock)
        owner.runs += 1
        self._runs[run] = _Run(run, owner, priority, self._serial, owner.clock)

    def leave(self, run: Hashable) -> list[Hashable]:
        """The run is over; whatever it still had is free. Returns the runs to wake."""
        gone = self._runs.pop(run, None)
        if gone is None:
            return []
        gone.stamp = -1
        back = gone.held + gone.granted
        owner = gone.tenant
        owner.held -= back
        owner.runs -= 1
        self.free += back
        if not owner.runs:
            owner.stamp = -1
            del self._tenants[owner.name]
        else:
            self._line_up_tenant(owner)
        return self._grant()

    def want(self, run: Hashable, n: int) -> list[Hashable]:
        """The run has `n` ready jobs without a slot. Returns the runs for which slots were set aside now."""
        wanting = self._find(run)
        if not wanting.wanted:  # absent so far: no claim on what others took meanwhile
            wanting.used = max(wanting.used, wanting.tenant.clock)
        wanting.wanted = max(0, n)
        surplus = wanting.granted - wanting.wanted
        if surplus > 0:
            wanting.granted -= surplus
            wanting.tenant.held -= surplus
            wanting.used -= surplus * BASE**-wanting.priority
            self.free += surplus
        self._line_up(wanting)
        return self._grant()

    def take(self, run: Hashable) -> bool:
        """Whether the run may start a job now; if so, it holds one slot more."""
        taking = self._find(run)
        if not taking.granted:
            return False
        taking.granted -= 1
        taking.wanted -= 1
        taking.held += 1
        return True

    def give(self, run: Hashable) -> list[Hashable]:
        """A job of the run has ended and its slot is free. Returns the runs to wake.

        Raises:
            PodiumError: the run holds none.
        """
        giving = self._find(run)
        if not giving.held:
            raise PodiumError(f"run {run} gave back a slot that it had not", mend="report this as a bug")
        giving.held -= 1
        giving.tenant.held -= 1
        self.free += 1
        self._line_up_tenant(giving.tenant)
        return self._grant()

    def held(self, run: Hashable) -> int:
        """Slots that the run has taken and not given back."""
        return self._find(run).held

    def _find(self, run: Hashable) -> _Run:
        found = self._runs.get(run)
        if found is None:
            raise PodiumError(f"run {run} has not joined", mend="report this as a bug")
        return found

    # -- lines

    def _line_up(self, run: _Run) -> None:
        self._serial += 1
        run.stamp = self._serial
        if run.wanted > run.granted:
            heapq.heappush(run.tenant.line, (run.used, -run.priority, run.serial, run.stamp, run))
        self._line_up_tenant(run.tenant)

    def _line_up_tenant(self, tenant: _Tenant) -> None:
        self._serial += 1
        tenant.stamp = self._serial
        while tenant.line and tenant.line[0][3] != tenant.line[0][4].stamp:
            heapq.heappop(tenant.line)
        if tenant.line:
            heapq.heappush(self._line, (tenant.held, tenant.used, tenant.serial, tenant.stamp, tenant))

    def _grant(self) -> list[Hashable]:
        woken: dict[Hashable, None] = {}
        while self.free and self._line:
            _, _, _, stamp, tenant = heapq.heappop(self._line)
            if stamp != tenant.stamp:
                continue
            run = heapq.heappop(tenant.line)[4]  # valid: a tenant lines up with a valid run in front
            self.free -= 1
            tenant.clock = max(tenant.clock, run.used)
            self._clock = max(self._clock, tenant.used)
            tenant.used = max(tenant.used, self._clock) + 1.0
            tenant.held += 1
            run.used += BASE**-run.priority
            run.granted += 1
            woken[run.name] = None
            self._line_up(run)
        return list(woken)
