"""The pool's contracts: what a model engine does for one replica, and what a pool does for its callers.

Two pools stand behind `Pool`: `local.LocalPool` (threads, no Ray) and `ray_pool.RayPool` (named actors).
`tests/contract/test_pool.py` runs over both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..memory.chat import ChatRequest, Chunk, Completion
from ..router.types import ModelSpec

#: Called with the worker's name when a slot is free and just before the request leaves; the pool awaits it.
#: If it raises, the request is not sent and the slot is given back.
OnDispatch = Callable[[str], Awaitable[None]]


class ModelEngine(Protocol):
    """One replica of one model. Methods are blocking and run in worker threads, never on an event loop."""

    spec: ModelSpec
    #: e.g. "cpu", "cuda:0", "remote"
    device: str

    def load(self) -> None:
        """Make the model ready.

        Raises:
            ConfigError: the source is missing, or a package of an extra is not installed.
        """

    def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | Exception]:
        """Answer requests that waited together, in order; one that failed has its exception in its place.

        At most `spec.concurrency` requests. The exceptions are `ProviderError`s (also `ContextTooLong`).
        """
        ...

    def stream(self, request: ChatRequest, emit: Callable[[str], None]) -> Completion:
        """Answer one request; `emit` gets each piece of text as it comes.

        Raises:
            ProviderError: the model did not answer.
        """
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the model's own tokenizer, without template and added special tokens.

        Text that spells a special token counts as a prompt with it does. An engine that has no tokenizer
        (openai, replay) estimates on the high side. Quick; may run while `generate` and `stream` run.

        Raises:
            ProviderError: the model is not loaded, or its tokenizer failed.
        """
        ...

    def close(self) -> None:
        """Free the model. May be called twice."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    model: str
    worker: str
    state: Literal["starting", "ready", "failed", "stopped"]
    device: str = ""
    #: requests running and waiting now
    running: int = 0
    waiting: int = 0
    #: calls answered since the start
    calls: int = 0
    pid: int | None = None
    error: str = ""


class Pool(Protocol):
    """Models that can be called by name. Safe to use from one event loop; `close` ends it."""

    kind: Literal["local", "ray"]

    @property
    def specs(self) -> Mapping[str, ModelSpec]:
        """The pool's models by name, in the pool file's order."""
        ...

    async def generate(
        self, model: str, request: ChatRequest, *, label: str, on_dispatch: OnDispatch | None = None
    ) -> Completion:
        """Wait for a free slot of `model`, call `on_dispatch(worker)`, send the request, return the answer.

        `label` is the name under which the call is shown (Ray dashboard, logs):
        `run/<id> task/<name> model=<model>`. Requests of one replica that wait together may run as one batch.

        Raises:
            NotFound: no such model in the pool.
            ProviderError: the model did not answer; `sent` and `retryable` are set.
            ClusterError: the worker died and could not be restarted in time.
        """
        ...

    def stream(
        self, model: str, request: ChatRequest, *, label: str, on_dispatch: OnDispatch | None = None
    ) -> AsyncIterator[Chunk]:
        """Like `generate`, piece by piece; the last Chunk holds the Completion."""
        ...

    def queue(self, model: str) -> float:
        """How many calls come before a new one in each slot of `model`: 0 where a slot is free. At once."""
        ...

    async def count(self, model: str, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, in order, as `ModelEngine.count`; by any replica, loaded first if none is.

        Takes no slot, and does not wait for calls that run. What was counted lately is not asked again.

        Raises:
            NotFound: no such model in the pool.
            ConfigError: the model cannot be loaded.
            ProviderError: the tokenizer failed, or the pool is closed.
            ClusterError: the worker died and could not be restarted in time.
        """
        ...

    async def status(self) -> list[WorkerStatus]:
        """One entry a replica, also for models that are not loaded yet."""
        ...

    async def close(self) -> None:
        """Stop the workers that this pool started, waiting at most a few seconds. May be called twice."""
