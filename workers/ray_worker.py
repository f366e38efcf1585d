"""The Ray actor that holds one replica of a model. It never opens the database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import ray

from ..memory.chat import ChatRequest, Completion
from ..memory.errors import PodiumError, ProviderError
from ..router.types import ModelSpec
from .host import EngineHost

#: calls that may be inside the actor at the same time, those that wait for the gate included
MAX_CALLS = 1000
#: these calls pass while all others wait or run; each group has an event loop of its own
GROUPS = {"status": 8, "count": 16}


class ModelWorker:
    """One replica. All methods are async; the engine's blocking ones run in threads (`EngineHost`)."""

    def __init__(self, spec_json: str, home: str, create: str) -> None:
        spec = ModelSpec.model_validate_json(spec_json)
        if not spec.resources.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray granted none: torch must not see one
        self._fingerprint = (spec_json, create)
        self._host = EngineHost(spec, Path(home), create)
        self._gate = Gate(spec.concurrency)
        self._running = 0
        self._calls = 0

    @ray.method(concurrency_group="status")
    async def look(self) -> dict[str, Any]:
        """Also answers while calls run or the model loads."""
        return {
            "pid": os.getpid(),
            "fingerprint": self._fingerprint,
            "ready": self._host.ready,
            "device": self._host.device,
            "running": self._running,
            "calls": self._calls,
        }

    @ray.method(concurrency_group="status")
    async def prepare(self) -> str:
        """Load the model if it is not; gives its device. Raises as `ModelEngine.load`."""
        await self._host.prepare()
        return self._host.device

    @ray.method(concurrency_group="count")
    async def count(self, texts: Sequence[str]) -> list[int]:
        """As `ModelEngine.count`; passes the gate by."""
        try:
            return await self._host.count(texts)
        except PodiumError:
            raise
        except Exception as error:  # noqa: BLE001 - a tokenizer's bug, as an error that the caller knows
            raise _carried(error) from None

    async def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | PodiumError]:
        """One batch; results in order."""
        async with self._gate.slots(len(requests)):
            self._running += len(requests)
            try:
                results = await self._host.generate(requests)
            finally:
                self._running -= len(requests)
                self._calls += len(requests)
        return [r if isinstance(r, (Completion, PodiumError)) else _carried(r) for r in results]

    async def stream(self, request: ChatRequest) -> AsyncIterator[str | Completion]:
        """Pieces of text, then the Completion; pieces that come faster than they are read are joined."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        async with self._gate.slots(1):
            self._running += 1
            try:
                task = asyncio.create_task(self._host.stream(request, pieces.put_nowait))
                task.add_done_callback(lambda _: pieces.put_nowait(None))
                while (piece := await pieces.get()) is not None:
                    yield piece
                yield await task
            finally:
                self._running -= 1
                self._calls += 1


class Gate:
    """Keeps a replica within its concurrency when several pools send to it: each counts only its own."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._size = size
        self._changed = asyncio.Condition()

    def slots(self, count: int) -> _Slots:
        """An async context that holds `count` slots (at most all of them)."""
        return _Slots(self, min(count, self._size))

    async def take(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    async def give(self, count: int) -> None:
        async with self._changed:
            self._free += count
            self._changed.notify_all()


class _Slots:
    def __init__(self, gate: Gate, count: int) -> None:
        self._gate = gate
        self._count = count

    async def __aenter__(self) -> None:
        await self._gate.take(self._count)

    async def __aexit__(self, *_: object) -> None:
        await self._gate.give(self._count)


def _carried(error: Exception) -> ProviderError:
    """An engine's own exception class may not exist, or not unpickle, where the answer goes."""
    return ProviderError(
        f"{type(error).__name__}: {error}", mend="report this with the engine's name", retryable=False
    )


def actor_class(spec: ModelSpec) -> Any:
    """A Ray actor class named after the model, which is what the dashboard lists workers by."""
    named = type(f"Model:{spec.name}", (ModelWorker,), {"__doc__": ModelWorker.__doc__})
    remote: Any = ray.remote
    return remote(concurrency_groups=GROUPS)(named)
