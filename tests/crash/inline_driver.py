"""What tests kill: `python inline_driver.py HOME DATABASE_URL [EVENTS]` drives the one run that is there.

With EVENTS the process kills itself when the run has that many events. Prints what came of the run, and by
how many MiB the process grew meanwhile at most.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from podium import Podium, Settings
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec


def size() -> float:
    """MiB that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def kill_at(podium: Podium, run_id: str, events: int) -> None:
    while podium.get(run_id).record.event_seq < events:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


def main(home: str, url: str, events: str = "") -> None:
    pool = LocalPool([echo_spec()], Path(home), create=ECHO)
    with Podium(Settings(home=Path(home), database_url=url), pool=pool) as podium:
        run = podium.get("last")
        if events:
            threading.Thread(target=kill_at, args=(podium, run.id, int(events)), daemon=True).start()
        before = size()
        run = podium.drive(run.id)
        print(run.status, round(size() - before, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
