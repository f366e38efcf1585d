"""What becomes of a batch's results: how they are labelled and stamped, and which errors stand for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..memory.chat import Completion
from ..memory.errors import PodiumError, ProviderError


class WorkerLost(Exception):
    """The replica died, or was given up, while it worked on a batch."""


class Stopwatch:
    """Times from dispatch, as a Completion reports them."""

    def __init__(self, emit: Callable[[str], None] | None) -> None:
        self._emit = emit
        self._begun = time.monotonic()
        self._first = 0.0

    def emit(self, piece: str) -> None:
        self._first = self._first or time.monotonic() - self._begun
        if self._emit is not None:
            self._emit(piece)

    def stamp(self, completion: Completion, worker: str, batch_size: int) -> Completion:
        return replace(
            completion,
            worker=worker,
            first_token_s=self._first or completion.first_token_s,
            total_s=time.monotonic() - self._begun,
            batch_size=max(batch_size, completion.batch_size),
        )


def batch_label(labels: Sequence[str], model: str) -> str:
    """The name under which a batch is shown: the one label, or `run/<id> <n> calls model=<model>`."""
    if len(set(labels)) == 1:
        return labels[0]
    runs = {label.split(" ", 1)[0] for label in labels}
    run = runs.pop() + " " if len(runs) == 1 else ""
    return f"{run}{len(labels)} calls model={model}"


def as_podium(error: Exception, model: str) -> PodiumError:
    if isinstance(error, PodiumError):
        return error
    wrapped = ProviderError(
        f"the engine of model {model} failed: {type(error).__name__}: {error}",
        mend=f"podium models test {model}",
        retryable=False,
    )
    wrapped.__cause__ = error
    return wrapped


def lost_error(worker: str, lost: WorkerLost) -> ProviderError:
    return ProviderError(
        f"worker {worker} was lost while it answered: {lost}",
        mend="the call can be tried again; podium status shows whether the worker is back",
        retryable=True,
        sent=True,
    )


def closed_error(*, sent: bool) -> ProviderError:
    return ProviderError("the pool was closed", mend="open a new pool", retryable=not sent, sent=sent)
