"""`RayPool`: each replica a named, long-lived async actor; batches go to it by credit.

Actors live in Ray's namespace `podium` under `model:<name>:<replica>`. A pool attaches to an actor that is
there and creates one that is not, so several processes can use the workers that `podium up` started.
"""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..memory.chat import ChatRequest, Chunk, Completion
from ..memory.errors import ClusterError, PodiumError
from ..router.types import ModelSpec
from .answers import WorkerLost, closed_error
from .cluster import NAMESPACE
from .contract import OnDispatch, WorkerStatus
from .host import DEFAULT_FACTORY, LOAD_TIMEOUT_S, in_thread
from .local import Counts, by_name, loaded_first, slots_of
from .ray_head import RayHead
from .slots import Slots

#: seconds for Ray to place a worker, or to restart one that died
START_TIMEOUT_S = 60.0
#: seconds for Ray itself to answer
ANSWER_TIMEOUT_S = 20.0
#: seconds for a worker to say how it is
LOOK_TIMEOUT_S = 5.0
#: seconds for a worker to count tokens
COUNT_TIMEOUT_S = 40.0
#: seconds past the model's own timeout until a worker counts as hung and is restarted
HUNG_AFTER_S = 15.0

T = TypeVar("T")


class RayPool:
    """See `contract.Pool`. This process must be a driver already: `cluster.connect(info)`."""

    kind: Literal["local", "ray"] = "ray"

    def __init__(
        self,
        specs: Sequence[ModelSpec] | Mapping[str, ModelSpec],
        home: Path,
        create: str = DEFAULT_FACTORY,
        *,
        detached: bool = False,
        revive: bool = False,
    ) -> None:
        """`detached`: the workers outlive this pool and this process, until `cluster.stop_head`.
        `revive`: start the home's Ray head again if it dies; else wait a while for someone to do it.

        `create` is the `module:name` of the engine factory, as the workers import it.

        Raises:
            ClusterError: this process is not connected to a Ray cluster.
        """
        import ray

        if not ray.is_initialized():
            raise ClusterError("not connected to a Ray cluster", mend="podium up")
        self._specs = by_name(specs)
        head = RayHead(home, revive=revive)
        self._links: dict[str, list[_RayLink]] = {
            spec.name: [_RayLink(spec, i, home, create, detached, head) for i in range(spec.replicas)]
            for spec in self._specs.values()
        }
        self._slots = {name: Slots(self._specs[name], links) for name, links in self._links.items()}
        self._counts = Counts()
        self._closed = False

    @property
    def specs(self) -> Mapping[str, ModelSpec]:
        return self._specs

    async def start(self) -> None:
        """Create every worker and load its model now, instead of at the first call.

        Raises:
            ConfigError: a model cannot be loaded.
            ClusterError: a worker cannot be placed.
        """
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
        """Asks the workers themselves: also for those that another process started or uses."""
        rows = [row for slots in self._slots.values() for row in slots.status()]
        if self._closed:
            return rows
        links = [link for links in self._links.values() for link in links]
        return list(await asyncio.gather(*map(_RayLink.described, links, rows)))

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(slots.close() for slots in self._slots.values()))
        for links in self._links.values():
            for link in links:
                await link.close()


class _RayLink:
    def __init__(
        self, spec: ModelSpec, replica: int, home: Path, create: str, detached: bool, head: RayHead
    ) -> None:
        self.worker = f"{spec.name}:{replica}"
        self.device = ""
        self.pid: int | None = None
        self._spec = spec
        self._arguments = (_canonical(spec), str(home), create)
        self._detached, self._head = detached, head
        self._actor: Any = None
        self._created = False
        #: of which head the actor is
        self._of = head.number

    async def prepare(self) -> None:
        try:
            await self._load()
        except WorkerLost:
            # The first may have reached a process that was dying already; the second has no such excuse.
            try:
                await self._load()
            except WorkerLost as lost:
                raise ClusterError(
                    f"worker {self.worker} was lost while it loaded its model: {lost}",
                    mend="it may be short of memory: use a smaller model or fewer replicas",
                ) from lost

    async def _load(self) -> None:
        seen = await self._reach(asyncio.get_running_loop().time() + START_TIMEOUT_S)
        if tuple(seen["fingerprint"]) != (self._arguments[0], self._arguments[2]):
            self._actor = None
            raise ClusterError(
                f"worker {self.worker} runs with an older pool file", mend="podium down, then podium up"
            )
        try:
            loading = _unwrapped(self._actor.prepare.remote())
            self.device = await self._head.unless_away(loading, LOAD_TIMEOUT_S)
        except TimeoutError as error:
            raise self._unreachable("it did not load its model in time") from error
        self.pid = seen["pid"]

    async def generate(self, requests: Sequence[ChatRequest], label: str) -> Sequence[Completion | Exception]:
        self._check()
        call = self._actor.generate.options(name=label).remote(list(requests))
        return await self._watched(_bounded(call, self._limit()))

    async def stream(self, request: ChatRequest, label: str, emit: Callable[[str], None]) -> Completion:
        self._check()
        pieces = self._actor.stream.options(name=label, num_returns="streaming").remote(request)

        async def read() -> Completion:
            async for reference in pieces:
                piece = await _bounded(reference, self._limit())
                if isinstance(piece, Completion):
                    return piece
                emit(piece)
            raise WorkerLost("the stream ended without an answer")

        return await self._watched(asyncio.wait_for(_unwrapped(read()), self._limit()))

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Asks a worker that was lost once more: to count again does no harm."""
        if self._actor is not None and self.pid is not None and self._of == self._head.number:
            with suppress(WorkerLost, TimeoutError):
                return await self._counted(texts)
        await self.prepare()
        try:
            return await self._counted(texts)
        except (WorkerLost, TimeoutError) as error:
            raise ClusterError(
                f"worker {self.worker} did not count tokens: {error or 'no answer'}", mend="podium status"
            ) from error

    async def _counted(self, texts: Sequence[str]) -> list[int]:
        call = self._actor.count.remote(list(texts))
        return await self._head.unless_away(_unwrapped(call), COUNT_TIMEOUT_S)

    async def described(self, row: WorkerStatus) -> WorkerStatus:
        """The row, with what the worker says of itself."""
        try:
            if self._actor is None:
                self._actor = await self._find()
            if self._actor is None:
                return row
            seen = await _bounded(self._actor.look.remote(), LOOK_TIMEOUT_S)
        except (TimeoutError, WorkerLost, ClusterError) as error:
            return replace(row, state="failed", error=str(error) or "no answer", pid=None)
        state = "ready" if seen["ready"] else row.state
        return replace(
            row,
            state="starting" if state == "stopped" else state,
            device=seen["device"],
            running=max(row.running, seen["running"]),
            calls=seen["calls"],
            pid=seen["pid"],
        )

    async def close(self) -> None:
        """Ends the worker if this pool made it and it is not meant to outlive it."""
        actor, self._actor = self._actor, None
        if actor is None or not self._created or self._detached or self._of != self._head.number:
            return
        import ray

        if ray.is_initialized() and not self._head.is_away():
            await _ray_call(lambda: ray.kill(actor, no_restart=True))

    def _check(self) -> None:
        if self._of != self._head.number:
            raise WorkerLost("the Ray head died")

    def _limit(self) -> float:
        return self._spec.timeout + HUNG_AFTER_S

    async def _watched(self, call: Awaitable[T]) -> T:
        """A worker that does not answer in time is killed, so that Ray restarts it."""
        try:
            return await self._head.watch(call)
        except TimeoutError:
            import ray

            actor = self._actor
            if not self._head.is_away():
                await _ray_call(lambda: ray.kill(actor, no_restart=False))
            raise WorkerLost(f"no answer in {self._limit():.0f} s; it was restarted") from None

    async def _reach(self, deadline: float) -> dict[str, Any]:
        """What the worker says of itself, once it is up; creates it if it is not there."""
        loop = asyncio.get_running_loop()
        why = "Ray did not place it"
        while (left := deadline - loop.time()) > 0:
            await self._head.reach()
            if self._of != self._head.number:
                self._actor, self._of = None, self._head.number
            try:
                if self._actor is None:
                    self._actor = await self._find() or await self._create()
                return await self._head.unless_away(_unwrapped(self._actor.look.remote()), left)
            except TimeoutError:
                break
            except WorkerLost as lost:
                why = str(lost)
                if lost.__cause__ is not None and type(lost.__cause__).__name__ == "ActorDiedError":
                    self._actor = None  # for good: its name is free again
                await asyncio.sleep(0.2)
        raise self._unreachable(why)

    def _unreachable(self, why: str) -> ClusterError:
        need = self._spec.resources
        return ClusterError(
            f"worker {self.worker} is not up: {why} (it needs {need.cpus:g} CPUs and {need.gpus:g} GPUs)",
            mend="podium status; ask for less in the model's `resources`, or podium down and podium up",
        )

    async def _find(self) -> Any:
        import ray

        def find() -> Any:
            try:
                return ray.get_actor(f"model:{self.worker}", namespace=NAMESPACE)
            except ValueError:
                return None

        return await _ray_call(find)

    async def _create(self) -> Any:
        from .ray_worker import MAX_CALLS, actor_class

        actor = actor_class(self._spec).options(
            name=f"model:{self.worker}",
            namespace=NAMESPACE,
            lifetime="detached" if self._detached else None,
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=MAX_CALLS,
            num_cpus=self._spec.resources.cpus,
            num_gpus=self._spec.resources.gpus,
        )
        made = await _ray_call(lambda: actor.remote(*self._arguments))
        self._created = True
        return made


def _canonical(spec: ModelSpec) -> str:
    """The spec as JSON, the same in every process: sets have no order of their own."""
    data = spec.model_dump(mode="json")
    return json.dumps(data | {"capabilities": sorted(data["capabilities"])}, sort_keys=True)


async def _ray_call(work: Callable[[], T]) -> T:
    """A blocking call of Ray's API, off the event loop and bounded."""
    from ray.exceptions import RayError

    try:
        return await asyncio.wait_for(in_thread(work, "ray"), ANSWER_TIMEOUT_S)
    except TimeoutError as error:
        raise ClusterError("Ray does not answer", mend="podium down, then podium up") from error
    except (RayError, ConnectionError, RuntimeError) as error:
        raise ClusterError(f"Ray refused: {error}", mend="podium down, then podium up") from error


async def _bounded(reference: Awaitable[T], seconds: float) -> T:
    """The value behind an object reference, with Ray's errors turned into ours."""
    return await asyncio.wait_for(_unwrapped(reference), seconds)


async def _unwrapped(reference: Awaitable[T]) -> T:
    """Raises what the worker raised, WorkerLost if it is gone, ClusterError for other troubles of Ray's."""
    from ray.exceptions import RayActorError, RayError, RayTaskError, WorkerCrashedError

    try:
        return await reference
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, PodiumError):
            raise cause from None
        raise RuntimeError(f"{type(cause).__name__}: {cause}") from error
    except (RayActorError, WorkerCrashedError) as error:
        raise WorkerLost(textwrap.shorten(str(error), 200, placeholder="…")) from error
    except RayError as error:
        raise ClusterError(f"Ray: {error}", mend="podium status") from error
