"""Many processes write to one memory: what a write takes, how many get through, and whether any fails.

    python -m benchmarks.writers [--writers N] [--seconds S] [--postgres URL]

Each writer is a process that makes revisions of 20 words: new items and new versions, with blob, full text
and terms, durable when the call returns (`synchronous=FULL`). Three loads:

- `steady`: all writers together ask for 3,200 revisions a second, in `put_many` of 10, at random moments; a
  write's time counts from the moment when it was due, so that waiting for an earlier one counts too;
- `full`: each writes the next 10 as soon as it can;
- `single`: as `full`, one `put` a transaction.

On SQLite each load is run with the gate (`memory/gate.py`) and without it, in turns. Also printed: the rate
of one writer alone and the disk's own rate of a 4 KiB append with fsync. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from podium.memory.database import Database
from podium.memory.items import NewRevision, Place
from podium.memory.store import TaskMemory

ROOT = Path(__file__).resolve().parent.parent
BATCH = 10
#: revisions a second of all writers together, in the load `steady`
STEADY = 3200
WORDS = [f"word{number}" for number in range(20_000)]
LOADS = ("steady", "full", "single")


def revisions(chance: random.Random, run: str, count: int) -> list[NewRevision]:
    """Every fifth is a new version of one of 100 items, the rest are new items."""
    made = []
    for _ in range(count):
        key = f"k{chance.randrange(100)}" if chance.random() < 0.2 else f"n{chance.getrandbits(60):x}"
        words = " ".join(chance.choices(WORDS, k=20))
        made.append(NewRevision(Place("bench", "run", run, key), "note", words))
    return made


def work(url: str, number: int, writers: int, load: str, seconds: float, gate: bool) -> None:
    """One writer: says that it is ready, reads when to start, prints what each write took, and the errors."""
    database = Database(url, gate=gate)
    memory, chance = TaskMemory(database, "bench"), random.Random(number)
    memory.get("nothing")
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    took, failed, due = [], [], start
    time.sleep(max(0.0, start - time.time()))
    while time.time() < start + seconds:
        if load == "steady":
            due += chance.expovariate(STEADY / BATCH / writers)
            time.sleep(max(0.0, due - time.time()))
        else:
            due = time.time()
        batch = revisions(chance, f"w{number}", 1 if load == "single" else BATCH)
        due = due if load == "steady" else time.time()
        try:
            if load == "single":
                memory.put(batch[0].place.key, batch[0].value, scope="run", scope_id=f"w{number}")
            else:
                memory.put_many(batch)
        except Exception as error:  # noqa: BLE001 - each failure is what is measured
            failed.append(f"{type(error).__name__}: {error}")
        took.append(time.time() - due)
    end = time.time()
    database.close()
    print(json.dumps({"took": took, "failed": failed, "end": end}))


def measure(url: str, writers: int, load: str, seconds: float, *, gate: bool = True) -> dict[str, Any]:
    """All writers at once on a new database."""
    database = Database(url)
    database.ensure_schema()
    database.close()
    command = [sys.executable, "-m", "benchmarks.writers", "--url", url, "--load", load]
    command += ["--seconds", str(seconds), "--writers", str(writers)]
    command += [] if gate else ["--no-gate"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    began = [subprocess.Popen([*command, "--number", str(n)], cwd=ROOT, **pipes) for n in range(writers)]
    for process in began:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "a writer did not come up"
    start = time.time() + 0.5
    for process in began:
        assert process.stdin is not None
        process.stdin.write(f"{start}\n")
        process.stdin.flush()
    found = [json.loads(process.communicate(timeout=seconds + 120)[0]) for process in began]
    took = sorted(one for each in found for one in each["took"])
    errors = [error for each in found for error in each["failed"]]
    wall = max(each["end"] for each in found) - start
    made = (len(took) - len(errors)) * (1 if load == "single" else BATCH)
    return {
        "load": load,
        "writers": writers,
        "gate": gate,
        "writes": len(took),
        "failed": len(errors),
        "p50_ms": round(took[len(took) // 2] * 1000, 2),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1000, 2),
        "max_ms": round(took[-1] * 1000, 2),
        "revisions_per_s": round(made / wall),
        "errors": errors[:3],
    }


def fsyncs(folder: Path, count: int = 200) -> float:
    """Appends of 4 KiB a second, each made durable."""
    with open(folder / "fsync", "wb") as file:
        begin = time.perf_counter()
        for _ in range(count):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    return count / (time.perf_counter() - begin)


def show(kind: str, row: dict[str, Any]) -> None:
    gate = "" if kind == "postgres" else ("gate" if row["gate"] else "no gate")
    print(
        f"{kind:8} {gate:7} {row['load']:6} {row['writers']:3} writers  failed {row['failed']}"
        f"  p50 {row['p50_ms']:7.2f} ms  p99 {row['p99_ms']:7.2f} ms  max {row['max_ms']:7.1f} ms"
        f"  {row['revisions_per_s']:6} revisions/s",
        flush=True,
    )


def compare(writers: int, seconds: float, loads: list[str], postgres: str | None) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {"sqlite": [], "postgres": []}
    with tempfile.TemporaryDirectory(dir=os.environ.get("PODIUM_BENCH_DIR")) as folder:
        disk = fsyncs(Path(folder))
        print(f"disk: {disk:.0f} appends with fsync a second")
        alone = [(1, "full", True), (1, "full", False), (1, "single", True), (1, "single", False)]
        together = [(writers, load, gate) for load in loads for gate in (True, False)]
        for number, (count, load, gate) in enumerate(alone + together):
            url = f"sqlite:///{folder}/{number}.db"
            rows["sqlite"].append(measure(url, count, load, seconds if count > 1 else 2.0, gate=gate))
            show("sqlite", rows["sqlite"][-1])
        for load in loads if postgres else ():
            rows["postgres"].append(measure(str(postgres), writers, load, seconds))
            show("postgres", rows["postgres"][-1])
    return {"fsyncs_per_s": round(disk), **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--postgres", help="address of an empty PostgreSQL database")
    for hidden in ("--url", "--load"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--no-gate", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.url:
        gate = not asked.no_gate
        work(asked.url, asked.number, asked.writers, asked.load, asked.seconds, gate)
    else:
        print(json.dumps(compare(asked.writers, asked.seconds, asked.loads.split(","), asked.postgres)))


if __name__ == "__main__":
    main()
