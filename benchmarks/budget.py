"""Budgets under a race: how far they are overshot (never), and how much of them can be used.

    python -m benchmarks.budget

64 tasks at a time, of a workflow that would cost more than its budget, ask an echo model whose calls cost
less than they reserve. Prints one JSON line: `overshoot_nano` is the most by which any committed state that
was seen passed the budget, `usable_percent` what part of the budget was spent when the run stopped.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium import Podium, Settings, Workflow
from podium.memory import reads
from podium.memory.database import Database
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec

TASKS = 64
#: calls that there are to make, and about how many of them the budget pays for
CALLS = 512
PAID = 256
#: nano-dollars of an answer to the prompt below, and of its worst case: 256 tokens of answer
WORDS = 60
COST = 64 * 100 + 65 * 200
LIMITS = {"overshoot_nano": 0, "usable_percent": 95.0}


@dataclass(slots=True)
class Seen:
    """What a watcher on a connection of its own has seen of a run's books."""

    states: int = 0
    #: nano-dollars above the budget
    overshoot: int = 0
    #: nano-dollars reserved at the same time
    most_reserved: int = 0


def measure(folder: Path, url: str = "") -> dict[str, Any]:
    """One run against its budget; see the module for what comes back."""
    settings = Settings(home=folder, database_url=url, max_parallel=TASKS)
    pool = LocalPool([echo_spec(concurrency=TASKS, context=8192)], folder, create=ECHO)
    with Podium(settings, pool=pool) as podium:
        workflow = Workflow("race", inputs={"numbers": "list[str]"})
        workflow.map("ask", over="numbers", prompt="{item} " + "word " * WORDS)
        budget = COST * PAID
        run = podium.submit(
            workflow,
            detached=False,
            budget=f"{budget / 1e9:.9f}",
            numbers=[str(number) for number in range(CALLS)],
        )
        seen, done = Seen(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(settings.database, run.id, seen, done))
        watcher.start()
        begun = time.perf_counter()
        try:
            run = podium.drive(run.id)
        finally:
            seconds = time.perf_counter() - begun
            done.set()
            watcher.join()
        record = run.record
        if run.status != "stopped":
            raise RuntimeError(f"the budget was to stop the run, but it {run.status}: {run.error}")
        return {
            "overshoot_nano": max(seen.overshoot, _overshoot(record)),
            "usable_percent": round(100 * record.settled_nano / record.budget_nano, 2),
            "tasks": TASKS,
            "calls": sum(call.status == "settled" for call in run.calls),
            "budget_nano": record.budget_nano,
            "settled_nano": record.settled_nano,
            "states_seen": seen.states,
            "most_reserved_percent": round(100 * seen.most_reserved / record.budget_nano, 1),
            "seconds": round(seconds, 3),
        }


def _watch(url: str, run_id: str, seen: Seen, done: threading.Event) -> None:
    database = Database(url)
    try:
        while not done.wait(0.002):
            with database.read() as connection:
                record = reads.run(connection, run_id)
            seen.states += 1
            seen.overshoot = max(seen.overshoot, _overshoot(record))
            seen.most_reserved = max(seen.most_reserved, record.reserved_nano)
    finally:
        database.close()


def _overshoot(record: reads.RunRecord) -> int:
    return max(0, record.reserved_nano + record.settled_nano - record.budget_nano)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="podium-budget-") as folder:
        found = measure(Path(folder))
    ok = (
        found["overshoot_nano"] <= LIMITS["overshoot_nano"]
        and found["usable_percent"] >= LIMITS["usable_percent"]
    )
    line = {"figure": "budget", "ok": ok, **found, "limits": LIMITS, "load": round(os.getloadavg()[0], 2)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
