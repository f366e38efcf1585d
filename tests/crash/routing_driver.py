"""What tests kill: `python routing_driver.py HOME DATABASE_URL` drives the one run that is there, one call
after the other, with the models of `sums`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from podium import Podium, Settings
from podium.orchestrator import engine
from podium.workers.local import LocalPool
from sums import specs


def main(home: str, url: str) -> None:
    engine.BEAT = 0.05
    pool = LocalPool(specs(Path(home)), Path(home))
    with Podium(Settings(home=Path(home), database_url=url, max_parallel=1), pool=pool) as podium:
        print(podium.drive(podium.get("last").id).status)


if __name__ == "__main__":
    main(*sys.argv[1:])
