"""The Ray head that stays while engines are killed, with the crash workflow's model loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.workers.cluster import cluster_info, connect, disconnect, start_head, stop_head
from podium.workers.poolfile import load_pool
from podium.workers.ray_pool import RayPool

POOL = Path(__file__).with_name("pool.yaml")


@contextmanager
def ray_head(home: Path) -> Iterator[None]:
    """A Ray head of `home`. Engines come and go, it and its worker stay."""
    start_head(home, dashboard=False, num_cpus=2)
    try:
        asyncio.run(ray_pool(home).start())
        disconnect()
        yield
    finally:
        disconnect()
        stop_head(home)


def ray_pool(home: Path) -> RayPool:
    """The pool on the running head of `home`; makes this process one of its drivers.

    Raises:
        RuntimeError: no head runs for `home`.
    """
    info = cluster_info(home)
    if info is None:
        raise RuntimeError(f"no Ray head runs for {home}: start one, see benchmarks/README.md")
    connect(info)
    return RayPool(load_pool(POOL, home).models, home, detached=True)
