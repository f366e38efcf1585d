"""A serving engine as a process that tests kill and stop: `python serving_driver.py HOME DATABASE_URL`.

It says its name when it is ready, logs to stderr, and serves until SIGTERM. Settings come from `PODIUM_…`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from podium.memory.database import Database
from podium.orchestrator.engine import Engine
from podium.orchestrator.settings import load_settings
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec


async def main(home: str, url: str) -> None:
    settings = load_settings(home=home, database_url=url)
    database = Database(settings.database)
    database.ensure_schema()
    pool = LocalPool([echo_spec(concurrency=16)], settings.home, create=ECHO)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Engine(database, pool, settings.home, policy={}, lease=settings.lease_seconds) as engine:
        serving = asyncio.create_task(engine.serve(settings))
        print(engine.name, flush=True)
        await stop.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    await pool.close()
    database.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(*sys.argv[1:]))
