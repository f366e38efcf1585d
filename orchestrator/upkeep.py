"""What an engine does for the task memory beside its runs: sweeps, and makes old runs summaries.

A model that is set to write the summaries' texts is asked in runs of a workflow of its own, so that its calls
are booked, recorded and shown like all others.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..memory import reads, runs
from ..memory.errors import PodiumError
from ..memory.lifecycle import compaction, retention
from .settings import Settings
from .submission import Terms, new_run
from .workflow import Workflow

if TYPE_CHECKING:
    from .engine import Engine

#: seconds between two times
EVERY = 600.0
#: runs that are compacted in one go
MOST = 20
#: the workflow that asks a model; its own runs get no digest
DIGEST = "memory-digest"
_DAY = 86_400.0


async def look_after(engine: Engine, settings: Settings) -> None:
    """Erase what has expired; compact runs that ended longer ago than `memory_days`.

    Raises:
        PodiumError: the database cannot be reached; or the model of the digests gave none.
    """
    database, tenant = engine.services.database, settings.tenant
    await asyncio.to_thread(retention.sweep, database, tenant)
    if settings.memory_days is None:
        return
    before = time.time() - settings.memory_days * _DAY
    old = await engine.services.read(lambda c: compaction.compactable(c, tenant, before))
    for run_id in old[:MOST]:
        await asyncio.to_thread(compaction.compact, database, tenant, run_id)
        if settings.memory_digests:
            await _digest(engine, settings, run_id)


def digest_workflow(model: str) -> Workflow:
    """One question to one model."""
    flow = Workflow(DIGEST)
    flow.input("text", str)
    flow.llm("digest", prompt="{text}", model=model, max_tokens=200)
    flow.output("digest", "digest")
    return flow


async def _digest(engine: Engine, settings: Settings, run_id: str) -> None:
    services = engine.services
    if (await services.read(lambda c: reads.run(c, run_id))).workflow == DIGEST:
        return
    flow = digest_workflow(settings.memory_digests)

    async def complete(prompt: str) -> str:
        made = new_run(settings, flow, {"text": prompt}, Path(settings.home), Terms())
        await asyncio.to_thread(services.database.transact, lambda c: runs.create(c, made))
        status = await engine.drive(made.id)
        if status != "succeeded":
            mend = f"look at it: podium show {made.id}"
            raise PodiumError(f"the digest of run {run_id} is {status}", mend=mend, run=made.id)
        record = await services.read(lambda c: reads.run(c, made.id))
        outputs = await services.read(lambda c: reads.value(c, record.tenant, record.outputs_blob))
        return outputs["digest"]

    model = settings.memory_digests
    await compaction.digest_with(services.database, settings.tenant, run_id, complete, model=model)
