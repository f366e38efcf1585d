"""What of the task memory stands before a task's prompt: assembled once, and the same in every attempt.

An attempt that takes over from one that was cut off must ask the very same thing, or it would pay for the
answers again: so it takes the context that the calls of the earlier one recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

from ..memory import reads
from ..memory.database import Connection
from ..memory.errors import PodiumError
from .context import RunContext, Services
from .parts import TaskContext
from .state import Node
from .tasks import ModelTask

#: characters of a prompt that are read as the question to the memory
MOST_ASKED = 8_000
#: entries of what was left out that are recorded
MOST_DROPPED = 100
#: seconds after which a thread that waits for the event loop looks whether there still is one
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of a prompt that comes from memory."""

    text: str = ""
    #: as a call's request records it: text, tokens, citations and what was dropped; None: nothing was asked
    record: Mapping[str, Any] | None = None
    #: revisions that it cites
    cited: tuple[int, ...] = field(default=())

    def before(self, prompt: str) -> str:
        return f"{self.text}\n\n{prompt}" if self.text else prompt


def context_of(node: Node) -> TaskContext | None:
    """What a task is shown of the memory: as it says, else as its workflow does. One that is cached is
    shown nothing, since its key is made of its prompt alone.
    """
    spec = node.spec
    if not isinstance(spec, ModelTask):
        return None
    if spec.context is not None:
        return spec.context
    tokens = node.scope.workflow.context
    return None if tokens is None or spec.cache is not None else TaskContext(tokens=tokens)


async def shown_before(
    services: Services, run: RunContext, node: Node, attempt: int, ask: str, model: str | None
) -> Shown:
    """The context of an attempt of a task that is about to `ask`.

    Args:
        model: the one that will be asked; None: the router chooses, and the context fits whichever it is.
    """
    wanted = context_of(node)
    if wanted is None:
        return Shown()
    if attempt > 1 and (known := await _recorded(services, run, node)) is not None:
        return _shown(known)
    count, memory = _counter(services, model), services.memory(run.tenant)

    def assemble() -> dict[str, Any]:
        task = _top(node).name
        found = memory.context(run.run_id, task, wanted.tokens, ask=ask[:MOST_ASKED], count=count)
        return {
            "text": found.text,
            "tokens": count(found.text),
            "citations": [asdict(c) for c in dict.fromkeys(found.citations)],
            "dropped": [asdict(d) for d in found.dropped[:MOST_DROPPED]],
        }

    return _shown(await asyncio.to_thread(assemble))


def _shown(record: Mapping[str, Any]) -> Shown:
    cited = (c["revision"] for c in record["citations"] if c["revision"] is not None)
    return Shown(record["text"], record, tuple(dict.fromkeys(cited)))


def _top(node: Node) -> Node:
    *_, top = node.above()
    return top


async def _recorded(services: Services, run: RunContext, node: Node) -> Mapping[str, Any] | None:
    """The context of an earlier attempt's first call."""

    def find(connection: Connection) -> Any:
        request = reads.first_request(connection, run.run_id, node.name)
        return None if request is None else request.get("context")

    return await services.read(find)


def _counter(services: Services, model: str | None) -> Callable[[str], int]:
    """Counts tokens from a thread, by the tokenizers of the models that may be asked: the largest holds."""
    loop, pool = asyncio.get_running_loop(), services.pool
    models = [model] if model is not None else list(pool.specs)
    known: dict[str, int] = {}

    def count(text: str) -> int:
        if not text:
            return 0
        if text not in known:
            counts = [asyncio.run_coroutine_threadsafe(pool.count(m, [text]), loop) for m in models]
            known[text] = max(counted(found, loop)[0] for found in counts)
        return known[text]

    return count


def counted(found: Future[list[int]], loop: asyncio.AbstractEventLoop) -> list[int]:
    """What a pool counted. A pool keeps its own limits; a loop that has ended answers nobody."""
    while True:
        try:
            return found.result(LOOK_S)
        except TimeoutError:
            if found.done():
                raise
            if not loop.is_running():
                raise PodiumError(
                    "the engine ended before a context was put together", mend="resume the run"
                ) from None
