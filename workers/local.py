"""`LocalPool`: the models in this process, each call in a thread. No Ray is imported."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ..memory.chat import ChatRequest, Chunk, Completion
from ..memory.errors import NotFound
from ..router.types import ModelSpec
from .contract import OnDispatch, WorkerStatus
from .host import DEFAULT_FACTORY, EngineHost
from .slots import Slots


class LocalPool:
    """See `contract.Pool`. A model is loaded at its first call, its further replicas when a line forms."""

    kind: Literal["local", "ray"] = "local"

    def __init__(
        self,
        specs: Sequence[ModelSpec] | Mapping[str, ModelSpec],
        home: Path,
        create: str = DEFAULT_FACTORY,
    ) -> None:
        """`create` is the `module:name` of the engine factory; tests give that of a fake."""
        self._specs = by_name(specs)
        self._hosts: list[EngineHost] = []
        self._slots: dict[str, Slots] = {}
        for spec in self._specs.values():
            hosts = [EngineHost(spec, home, create) for _ in range(spec.replicas)]
            self._hosts += hosts
            self._slots[spec.name] = Slots(
                spec, [_LocalLink(f"{spec.name}:{i}", host) for i, host in enumerate(hosts)]
            )

    @property
    def specs(self) -> Mapping[str, ModelSpec]:
        return self._specs

    async def start(self) -> None:
        """Load every model now, instead of at its first call. Raises ConfigError if one does not load."""
        await asyncio.gather(*(slots.start() for slots in self._slots.values()))

    async def generate(
        self, model: str, request: ChatRequest, *, label: str, on_dispatch: OnDispatch | None = None
    ) -> Completion:
        return await slots_of(self._slots, model).submit(request, label, on_dispatch)

    def stream(
        self, model: str, request: ChatRequest, *, label: str, on_dispatch: OnDispatch | None = None
    ) -> AsyncIterator[Chunk]:
        return slots_of(self._slots, model).stream(request, label, on_dispatch)

    async def status(self) -> list[WorkerStatus]:
        return [row for slots in self._slots.values() for row in slots.status()]

    async def close(self) -> None:
        await asyncio.gather(*(slots.close() for slots in self._slots.values()))
        await asyncio.gather(*(host.close() for host in self._hosts))


class _LocalLink:
    def __init__(self, worker: str, host: EngineHost) -> None:
        self.worker = worker
        self._host = host

    @property
    def device(self) -> str:
        return self._host.device

    @property
    def pid(self) -> int | None:
        return os.getpid() if self._host.ready else None

    async def prepare(self) -> None:
        await self._host.prepare()

    async def generate(self, requests: Sequence[ChatRequest], label: str) -> Sequence[Completion | Exception]:
        return await self._host.generate(requests)

    async def stream(self, request: ChatRequest, label: str, emit: Callable[[str], None]) -> Completion:
        return await self._host.stream(request, emit)


def by_name(specs: Sequence[ModelSpec] | Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """The specs by model name, in their order."""
    listed = specs.values() if isinstance(specs, Mapping) else specs
    return {spec.name: spec for spec in listed}


def slots_of(slots: Mapping[str, Slots], model: str) -> Slots:
    """Raises NotFound, with the nearest name, when the pool has no such model."""
    if model not in slots:
        near = difflib.get_close_matches(model, slots, n=1)
        mend = f"did you mean {near[0]}?" if near else "podium models lists the pool's models"
        raise NotFound(f"no model {model!r} in the pool", mend=mend)
    return slots[model]
