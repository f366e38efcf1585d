"""What a call of a user's function costs: in child processes, through Ray, and Ray's own calls beside it.

    python -m benchmarks.dispatch [--calls 1000] [--repeats 5]

Prints one line of JSON. Microseconds a call: medians over repeats of `--calls` no-ops that are asked for
together (`wall`, `cpu`: this process's own), and one after the other (`alone`). `first_ms` is from nothing to
the first answer, Ray's head being up. Everything is measured in one run, since figures of different runs
differ by the machine's load, which stands beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from podium.orchestrator.processes import CHILD, PythonWorkers
from podium.workers.cluster import connect, disconnect, start_head, stop_head
from podium.workers.task_host import ChildOptions

NO_OP = "def no_op(n: int) -> int:\n    return n\n"
#: calls one after the other
ALONE = 200

Call = Callable[[int], Awaitable[Any]]


async def measured(call: Call, calls: int, repeats: int) -> dict[str, float]:
    """Medians in microseconds a call, after a round that warms up."""
    await asyncio.gather(*(call(n) for n in range(calls)))
    walls, cpus = [], []
    for _ in range(repeats):
        cpu, begun = time.process_time(), time.perf_counter()
        found = await asyncio.gather(*(call(n) for n in range(calls)))
        walls.append(time.perf_counter() - begun)
        cpus.append(time.process_time() - cpu)
        if found != list(range(calls)):
            raise RuntimeError("a call got another one's answer")
    begun = time.perf_counter()
    for n in range(ALONE):
        await call(n)
    return {
        "wall": _micros(statistics.median(walls), calls),
        "cpu": _micros(statistics.median(cpus), calls),
        "alone": _micros(time.perf_counter() - begun, ALONE),
    }


async def of_workers(workers: PythonWorkers, root: Path, calls: int, repeats: int) -> dict[str, float]:
    def call(n: int) -> Awaitable[Any]:
        return workers.call(str(root), "no_ops:no_op", {"n": n}, seconds=60)

    try:
        begun = time.perf_counter()
        await call(0)
        first = time.perf_counter() - begun
        return {"first_ms": round(first * 1e3, 1)} | await measured(call, calls, repeats)
    finally:
        await workers.close()


async def of_ray(calls: int, repeats: int) -> dict[str, dict[str, float]]:
    """Ray's own: a call of an actor's method, and a task."""
    import ray

    remote: Any = ray.remote

    def no_op(n: int) -> int:
        return n

    class NoOp:
        def no_op(self, n: int) -> int:
            return n

    task = remote(no_op).options(num_cpus=1)
    actor = remote(NoOp).options(num_cpus=0).remote()
    try:
        return {
            "ray_actor_call": await measured(lambda n: actor.no_op.remote(n), calls, repeats),
            "ray_task": await measured(lambda n: task.remote(n), calls, repeats),
        }
    finally:
        ray.kill(actor)


async def compare(root: Path, calls: int, repeats: int) -> dict[str, dict[str, float]]:
    from podium.workers.ray_tasks import RayTaskHosts

    hosts = RayTaskHosts(ChildOptions.of(CHILD, None))
    return {
        "local": await of_workers(PythonWorkers(), root, calls, repeats),
        "through_ray": await of_workers(PythonWorkers(hosts=hosts), root, calls, repeats),
        **await of_ray(calls, repeats),
    }


def _micros(seconds: float, calls: int) -> float:
    return round(seconds / calls * 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "no_ops.py").write_text(NO_OP)
        load = os.getloadavg()[0]
        try:
            connect(start_head(root / "home", dashboard=False, num_cpus=max(2, os.cpu_count() or 2)))
            figures = asyncio.run(compare(root, given.calls, given.repeats))
        finally:
            disconnect()
            stop_head(root / "home")
    about = {"calls": given.calls, "cpus": os.cpu_count(), "load": round(load, 2)}
    versions = {"python": platform.python_version(), "ray": version("ray")}
    print(json.dumps({"unit": "µs a call", **about, **versions, **figures}, ensure_ascii=False))


if __name__ == "__main__":
    main()
