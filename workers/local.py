"""`LocalPool`: the models in this process, each call in a thread. No Ray is imported."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from ..memory.chat import ChatRequest, Chunk, Completion
from ..memory.errors import NotFound, PodiumError
from ..router.types import ModelSpec
from .answers import as_podium, closed_error
from .contract import OnDispatch, WorkerStatus
from .host import DEFAULT_FACTORY, EngineHost
from .slots import Link, Slots

#: counts of tokens that a pool keeps, about 200 bytes each
COUNTS_KEPT = 20_000

L = TypeVar("L", bound=Link)


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
        self._links: dict[str, list[_LocalLink]] = {
            spec.name: [
                _LocalLink(f"{spec.name}:{i}", EngineHost(spec, home, create)) for i in range(spec.replicas)
            ]
            for spec in self._specs.values()
        }
        self._slots = {name: Slots(self._specs[name], links) for name, links in self._links.items()}
        self._counts = Counts()
        self._closed = False

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

    def queue(self, model: str) -> float:
        return slots_of(self._slots, model).queue()

    async def count(self, model: str, texts: Sequence[str]) -> list[int]:
        slots_of(self._slots, model)
        if self._closed:
            raise closed_error(sent=False)
        return await self._counts.of(model, texts, loaded_first(self._links[model]).count)

    async def status(self) -> list[WorkerStatus]:
        rows = [row for slots in self._slots.values() for row in slots.status()]
        links = [link for links in self._links.values() for link in links]
        return list(map(_LocalLink.described, links, rows))

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(slots.close() for slots in self._slots.values()))
        await asyncio.gather(*(link.close() for links in self._links.values() for link in links))


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

    async def count(self, texts: Sequence[str]) -> list[int]:
        return await self._host.count(texts)

    def described(self, row: WorkerStatus) -> WorkerStatus:
        """The row; a model that only `count` has loaded is ready, too."""
        return replace(row, state="ready") if self._host.ready else row

    async def close(self) -> None:
        await self._host.close()


class Counts:
    """Tokens of the texts that a pool's models counted lately. Used from one event loop."""

    def __init__(self, kept: int = COUNTS_KEPT) -> None:
        self._kept = kept
        #: by hash of model and text, the one used longest ago first
        self._known: dict[bytes, int] = {}

    async def of(
        self, model: str, texts: Sequence[str], ask: Callable[[list[str]], Awaitable[list[int]]]
    ) -> list[int]:
        """Tokens of each text; `ask` counts those that are not known. Raises PodiumErrors only."""
        keys = [_count_key(model, text) for text in texts]
        found = {key: self._known[key] for key in keys if key in self._known}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            try:
                found |= zip(missing, await ask(list(missing.values())), strict=True)
            except PodiumError:
                raise
            except Exception as error:  # whatever an engine raises goes to its caller
                raise as_podium(error, model) from error
        for key, count in found.items():
            self._known.pop(key, None)
            self._known[key] = count
        while len(self._known) > self._kept:
            del self._known[next(iter(self._known))]
        return [found[key] for key in keys]


def _count_key(model: str, text: str) -> bytes:
    named = f"{model}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(named, digest_size=16).digest()


def loaded_first(links: Iterable[L]) -> L:
    """A replica that has its model, or the one to load it."""
    return max(links, key=lambda link: link.pid is not None)


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
