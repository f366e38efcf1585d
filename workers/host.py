"""One engine in this process, behind an async face: what a local replica and a Ray worker both hold."""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..memory.chat import ChatRequest, Completion
from ..memory.errors import ConfigError
from ..router.types import ModelSpec
from .contract import ModelEngine

#: makes the engine of a spec; the path is PODIUM_HOME
EngineFactory = Callable[[ModelSpec, Path], ModelEngine]
DEFAULT_FACTORY = "podium.workers.engines.factory:create_engine"
#: seconds a model may take to load
LOAD_TIMEOUT_S = 900.0
#: seconds an engine may take to free its model
CLOSE_TIMEOUT_S = 5.0

T = TypeVar("T")


def resolve_factory(reference: str) -> EngineFactory:
    """The engine factory at `module:name`.

    Raises:
        ConfigError: there is none.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"no engine factory at {reference!r}: {error}", mend="give an importable `module:name`"
        ) from error


async def in_thread(work: Callable[[], T], name: str) -> T:
    """Run `work` in a daemon thread of its own: a hung model must not keep the interpreter from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - carried to the awaiting task
            failure = RuntimeError(repr(error)) if isinstance(error, StopIteration) else error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


async def _settled(future: Future[None]) -> None:
    """Wait until the future has its result or its exception; cancelling this cancels only the wait."""
    loop = asyncio.get_running_loop()
    settled = asyncio.Event()

    def tell(_: Future[None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settled.set)

    future.add_done_callback(tell)
    await settled.wait()


class EngineHost:
    """Loads its engine once, when first asked to; a load that failed is tried anew at the next `prepare`.

    May be used from several event loops: a Ray actor has one for each of its concurrency groups.
    """

    def __init__(self, spec: ModelSpec, home: Path, create: str = DEFAULT_FACTORY) -> None:
        self.spec = spec
        self._home = home
        self._create = create
        self._engine: ModelEngine | None = None
        self._loading: Future[None] | None = None
        self._closed = False
        #: threads that are inside the engine now
        self._active = 0
        self._lock = threading.Lock()

    @property
    def device(self) -> str:
        return self._engine.device if self._engine is not None else ""

    @property
    def ready(self) -> bool:
        return self._engine is not None

    async def prepare(self) -> None:
        """Load the model; callers that come meanwhile wait for the same load.

        Raises:
            ConfigError: as `ModelEngine.load`, or the load takes longer than `LOAD_TIMEOUT_S`.
        """
        with self._lock:
            if self._engine is not None:
                return
            loading = self._loading
            if loading is None:
                loading = self._loading = Future()
                name = f"load {self.spec.name}"
                threading.Thread(target=self._load, args=(loading,), name=name, daemon=True).start()
        try:
            await asyncio.wait_for(_settled(loading), LOAD_TIMEOUT_S)
        except TimeoutError as error:
            raise ConfigError(
                f"model {self.spec.name} was not loaded within {LOAD_TIMEOUT_S:.0f} s",
                mend="use a smaller model or a faster disk",
            ) from error
        loading.result()

    def _load(self, loading: Future[None]) -> None:
        engine, failure = None, None
        try:
            engine = resolve_factory(self._create)(self.spec, self._home)
            engine.load()
        except BaseException as error:  # noqa: BLE001 - carried to those who wait
            failure = error
        with self._lock:
            self._loading = None
            if failure is None and not self._closed:
                self._engine, engine = engine, None
        if failure is not None:
            loading.set_exception(failure)
            return
        loading.set_result(None)
        if engine is not None:  # the host was closed meanwhile
            engine.close()

    async def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | Exception]:
        """`ModelEngine.generate` in a thread; loads first if need be."""
        engine = await self._ready_engine()
        return await self._inside(lambda: engine.generate(requests), f"call {self.spec.name}")

    async def stream(self, request: ChatRequest, emit: Callable[[str], None]) -> Completion:
        """`ModelEngine.stream` in a thread; `emit` is called on this event loop, before this returns."""
        engine = await self._ready_engine()
        loop = asyncio.get_running_loop()

        def emit_on_loop(piece: str) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(emit, piece)

        return await self._inside(lambda: engine.stream(request, emit_on_loop), f"stream {self.spec.name}")

    async def count(self, texts: Sequence[str]) -> list[int]:
        """`ModelEngine.count` in a thread; loads first if need be."""
        engine = await self._ready_engine()
        return await self._inside(lambda: engine.count(texts), f"count {self.spec.name}")

    async def _ready_engine(self) -> ModelEngine:
        await self.prepare()
        if self._engine is None:
            raise ConfigError(f"model {self.spec.name} is closed", mend="open a new pool")
        return self._engine

    async def _inside(self, work: Callable[[], T], name: str) -> T:
        def counted() -> T:
            try:
                return work()
            finally:
                with self._lock:
                    self._active -= 1

        with self._lock:
            self._active += 1
        return await in_thread(counted, name)

    async def close(self) -> None:
        """Free the model, waiting a few seconds at most.

        A model in the middle of a call is left to the end of the process: freeing it under a native
        library that still reads it would crash.
        """
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is None or self._active:
            return
        closing = asyncio.ensure_future(in_thread(engine.close, f"close {self.spec.name}"))
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        if closing.done():
            closing.result()
