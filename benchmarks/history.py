"""Bytes of history: 400 tasks in a row, each of which adds 1 KB to what a run holds.

    python -m benchmarks.history [--appends 400]

Prints one JSON line. `history_bytes` is the size of the database's files after a checkpoint, less that of an
empty database. `langgraph_history.py` does the same with LangGraph, in its own environment.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from podium import Podium, Settings, Workflow
from sqlalchemy import text

from benchmarks import noop


def appends(count: int) -> Workflow:
    """A chain: each task waits for the one before and gives one entry."""
    workflow = Workflow("history")
    for i in range(count):
        needs = [f"n{i - 1}"] if i else []
        workflow.python(f"n{i}", noop.entry, with_={"number": i}, needs=needs, inline=True)
    workflow.output("last", f"n{count - 1}")
    return workflow


def measure(count: int, home: Path) -> dict[str, int]:
    """Run `count` appends on a fresh database in `home`; sizes in bytes."""
    with Podium(Settings(home=home)) as podium:
        empty = _stored(podium, home)
        run = podium.run(appends(count))
        assert run.output == noop.entry(count - 1), run.error
        assert sum(len(task.output()) for task in run.tasks) == 1024 * count, "an entry is missing"
        total = _stored(podium, home)
    return {"history_bytes": total - empty, "total_bytes": total, "empty_bytes": empty, "appends": count}


def _stored(podium: Podium, home: Path) -> int:
    """Bytes of all files of the database, its log written back into it."""
    with podium.database.engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    return sum(path.stat().st_size for path in home.glob("podium.db*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--appends", type=int, default=400)
    count = parser.parse_args().appends
    with tempfile.TemporaryDirectory(prefix="podium-history-") as home:
        print(json.dumps(measure(count, Path(home))))


if __name__ == "__main__":
    main()
