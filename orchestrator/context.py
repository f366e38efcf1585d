"""What tasks share: of their run, and of the engine that drives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ..memory.database import Connection, Database
from ..memory.journal import Journal
from ..memory.limits import Holder, Limit, Throttled
from ..memory.store import TaskMemory
from ..router.policy import Policy
from ..router.stats import Stats
from ..workers.contract import Pool
from .leases import Watch
from .turns import Lines

if TYPE_CHECKING:
    from .pacing import Pacing

T = TypeVar("T")
OnToken = Callable[[str, str], None]


@dataclass(slots=True)
class RunContext:
    """What all tasks of a run that this engine drives share."""

    run_id: str
    tenant: str
    epoch: int
    project_root: str
    preapproved: frozenset[str]
    policy: Policy
    stats: Stats
    #: (task, piece of text) as a model writes; None: nobody listens
    on_token: OnToken | None = None
    #: of a policy that weighs quality against money: hears of every call
    pacing: Pacing | None = None
    #: calls by the budget they count against: the task's name, '' for the run
    lines: Lines = field(default_factory=Lines)


@dataclass(frozen=True, slots=True)
class Services:
    """What an engine gives its tasks."""

    database: Database
    journal: Journal
    pool: Pool
    #: tells whether the engine of a run that holds calls is alive; without it all are taken to be
    watch: Watch | None = None
    #: of each tenant; None: not limited
    tenant_max_concurrent: int | None = None
    tenant_calls_per_minute: float | None = None
    #: calls by the key of their limit
    lines: Lines = field(default_factory=Lines)
    #: runs whose calls no longer count, by the key of the limit where that was seen
    dead: dict[str, frozenset[Holder]] = field(default_factory=dict)
    #: task memories by tenant
    memories: dict[str, TaskMemory] = field(default_factory=dict)

    def memory(self, tenant: str) -> TaskMemory:
        """The task memory of a tenant; one for all its runs, since it keeps what it has read."""
        return self.memories.setdefault(tenant, TaskMemory(self.database, tenant))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Ask the database, patiently, without holding up the loop."""
        return await asyncio.to_thread(self.database.query, query)

    def limits_of(self, model: str, tenant: str) -> list[Limit]:
        """The limits that a call of `model` is under."""
        spec = self.pool.specs[model]
        found = [
            Limit(f"model:{model}", spec.max_concurrent, spec.calls_per_minute),
            Limit(f"tenant:{tenant}", self.tenant_max_concurrent, self.tenant_calls_per_minute),
        ]
        return [x for x in found if x.max_concurrent is not None or x.calls_per_minute is not None]

    def judge(self, throttled: Throttled) -> None:
        """Find out which runs that hold the calls of a limit have lost their engine."""
        watch = self.watch
        if watch is not None:
            self.dead[throttled.key] = frozenset(h for h in throttled.holders if not watch.is_driven(h))
