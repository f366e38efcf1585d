"""What tests kill: `python ways_driver.py HOME DATABASE_URL` drives the one run that is there, with the
echo models `small` and `big`.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

from podium import Podium, Price, Settings
from podium.orchestrator import engine
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec


def main(home: str, url: str) -> None:
    engine.BEAT = 0.05
    big = echo_spec("big", price=Price(input=Decimal(10), output=Decimal(20)))
    pool = LocalPool((echo_spec("small"), big), Path(home), create=ECHO)
    with Podium(Settings(home=Path(home), database_url=url, max_parallel=1), pool=pool) as podium:
        print(podium.drive(podium.get("last").id).status)


if __name__ == "__main__":
    main(*sys.argv[1:])
