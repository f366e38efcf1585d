"""An agent's memory in a run: durable as its other tool calls, seen only where the run may look."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

from ..agents.memory_tools import NOTE, RECALL, REMEMBER, Bounds, Recalled, passage
from ..agents.tools import Tool
from ..memory import agent_writes, effects, reads
from ..memory.items import ItemKind, Place, RevisionRecord
from .context import RunContext, Services
from .toolbox import effect_key

#: who sees what an agent keeps: its run (and its forks), all runs of its workflow, all of the tenant
MemoryScope = Literal["run", "workflow", "tenant"]
#: opens the keys of what agents keep; no task's artifact or fact has such a key, so none can be overwritten
KEYS = "memory:"


class TaskRecall:
    """The memory of one attempt of one task: `agents.memory_tools.Memory`.

    A call is known by task, step, tool and arguments, like every tool call. It is written with what it did in
    one transaction: an attempt that is replayed writes nothing again and finds what it found.
    """

    def __init__(
        self,
        services: Services,
        run: RunContext,
        task: str,
        attempt: int,
        scope: MemoryScope = "run",
    ) -> None:
        self._services, self._run, self._task, self._attempt = services, run, task, attempt
        self._scope: MemoryScope = scope
        #: revisions that this attempt has read: what it keeps from then on is derived from them
        self.read: set[int] = set()

    async def remember(self, step: int, key: str, value: Any) -> int:
        """See `agents.memory_tools.Memory.remember`."""
        key = key.removeprefix(KEYS)
        return await self._keep(step, REMEMBER, {"key": key, "value": value}, "fact", f"{KEYS}{key}", value)

    async def note(self, step: int, text: str) -> int:
        """See `agents.memory_tools.Memory.note`. The same note of the same task is one item."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return await self._keep(step, NOTE, {"text": text}, "note", f"{KEYS}{self._task}/{digest}", text)

    async def recall(self, step: int, query: str, k: int) -> Sequence[Recalled]:
        """See `agents.memory_tools.Memory.recall`."""
        new = self._effect(step, RECALL, {"query": query, "k": k})
        known = await self._services.read(partial(effects.load, run_id=self._run.run_id, key=new.key))
        if known is not None and known.status == "done":
            rows = known.result
        else:
            rows = await asyncio.to_thread(self._search, query, k)
            rows = await self._services.journal.commit(
                "effect.finish",
                lambda c: agent_writes.record(c, self._run.run_id, self._run.epoch, new, rows),
            )
        found = [Recalled(**row) for row in rows]
        self.read.update(hit.revision for hit in found)
        return found

    def _search(self, query: str, k: int) -> list[dict[str, Any]]:
        hits = self._services.memory(self._run.tenant).search(query, k=k, run_id=self._run.run_id)
        return [asdict(_recalled(hit.revision, query)) for hit in hits]

    async def _keep(
        self, step: int, tool: Tool, arguments: dict[str, Any], kind: ItemKind, key: str, value: Any
    ) -> int:
        run, new = self._run, self._effect(step, tool, arguments)
        place = Place(run.tenant, self._scope, await self._scope_id(), key)
        said = agent_writes.Said(place, kind, value, sorted(self.read))
        return await self._services.journal.commit(
            "effect.finish", lambda c: agent_writes.keep(c, run.run_id, run.epoch, new, said)
        )

    def _effect(self, step: int, tool: Tool, arguments: dict[str, Any]) -> effects.NewEffect:
        key = effect_key(self._task, step, tool, arguments)
        return effects.NewEffect(key, self._task, self._attempt, step, tool.ref, tool.effect, arguments)

    async def _scope_id(self) -> str:
        run = self._run
        if self._scope == "run":
            return run.run_id
        if self._scope == "tenant":
            return ""
        return (await self._services.read(partial(reads.run, run_id=run.run_id))).workflow


def _recalled(found: RevisionRecord, query: str) -> Recalled:
    """A hit with no more of its text than a model is shown: it is kept in the run's record."""
    text = passage(found.text, query, Bounds().hit)
    return Recalled(found.id, found.key.removeprefix(KEYS), text, found.kind, found.producer.task)
