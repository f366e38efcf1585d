"""The detached engine: `python -m podium.orchestrator.daemon`, started by `podium up`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal

from ..memory.errors import ClusterError
from ..workers.cluster import cluster_info, connect
from ..workers.poolfile import load_pool
from ..workers.ray_pool import RayPool
from .engine import Engine
from .service import STATE_FILE
from .settings import Settings, load_settings

log = logging.getLogger("podium.engine")


async def serve(settings: Settings) -> None:
    """Serve detached runs on the Ray pool until SIGTERM or SIGINT.

    Raises:
        ClusterError: there is no cluster, or a model does not load.
    """
    info = cluster_info(settings.home)
    if info is None:
        raise ClusterError("no Ray head runs for this home", mend="start it with `podium up`")
    file = load_pool(settings.pool_file, settings.home)
    database = settings.open_database()
    connect(info)
    pool = RayPool(file.models, settings.home, detached=True, revive=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray, which sets handlers of its own
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await pool.start()
        policy = file.policy.data()
        options = settings.engine_options()
        async with Engine(database, pool, settings.home, policy=policy, **options) as engine:
            state = settings.home / STATE_FILE
            found = {"pid": os.getpid(), "engine": engine.name, "ready": True, "models": list(file.models)}
            temporary = state.with_suffix(".new")
            temporary.write_text(json.dumps(found))
            temporary.replace(state)
            log.info("The engine serves.", extra={"action": "engine.ready"})
            serving = asyncio.create_task(engine.serve(settings))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, stopping):
                task.cancel()
            outcome = (await asyncio.gather(serving, stopping, return_exceptions=True))[0]
            if isinstance(outcome, Exception):
                raise outcome
    finally:
        await pool.close()
        database.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(load_settings()))


if __name__ == "__main__":
    main()
