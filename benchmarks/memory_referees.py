"""What the neutral referees say of task memory: their own baselines and ours, on the same data in one run.

Each report is one command with `--json`, so that a crash or the memory of one touches no other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import NotThere, referee

ROOT = Path(__file__).resolve().parent.parent
#: seconds that one report may take
LIMIT = 3600.0

#: name in the table → adapter and kinds of writes. What ignores typed values is measured once
CONTEXT = {
    "ours, text": ("benchmarks.adapters:context", "text"),
    "ours, typed": ("benchmarks.adapters:context", "typed"),
    "linear": ("ref:linear", "text"),
    "ancestors": ("ref:ancestors", "text"),
    "typed facts": ("ref:facts", "typed"),
    "oracle": ("ref:oracle", "text"),
}
RETRIEVAL = {
    "ours": "benchmarks.adapters:retrieval",
    "fts": "ref:fts",
    "window": "ref:window",
}

#: (source, share of hidden edges) → metrics of one memory
Dials = dict[tuple[str, float], dict[str, Any]]
#: called with what could not be measured
Missing = Callable[[NotThere], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What of `context.py` is asked of each memory."""

    files: tuple[str, ...]
    hides: tuple[float, ...]
    #: one row a data set
    pool: bool = False
    #: steps a workflow on the ladder of budgets, for the tokens to full recall; 0: none
    sample: int = 0
    #: workflows a source; None: all
    limit: int | None = None
    budget: int = 256


def context(asked: Asked, missing: Missing) -> dict[str, Dials]:
    """The referee's report on each memory of `CONTEXT`; one that failed is left out and told to `missing`.

    Raises:
        NotThere: the referee or its data is missing.
    """
    command = [sys.executable, str(referee("context.py")), "--json", "--data", *_data(asked.files)]
    command += ["--budget", str(asked.budget), "--hide-edges", *map(str, asked.hides)]
    command += ["--sample", str(asked.sample)]
    command += ["--pool"] if asked.pool else []
    command += ["--limit", str(asked.limit)] if asked.limit else []
    found = {}
    for name, (adapter, writes) in CONTEXT.items():
        try:
            rows = _report([*command, "--adapter", adapter, "--writes", writes], name)
        except NotThere as failed:
            missing(failed)
            continue
        found[name] = {(row["source"], row["hide"]): row for row in rows}
    return found


def retrieval(scales: Sequence[int], queries: int, missing: Missing) -> dict[str, dict[str, dict[str, Any]]]:
    """Name → "quality", "scale 10000", … → the referee's report on that index.

    Raises:
        NotThere: as for `context`.
    """
    command = [sys.executable, str(referee("retrieval.py")), "--json", "--data", *_data(["locomo"])]
    command += ["--queries", str(queries), "--scale", *map(str, scales)]
    found = {}
    for name, adapter in RETRIEVAL.items():
        try:
            rows = _report([*command, "--adapter", adapter], name)
        except NotThere as failed:
            missing(failed)
            continue
        found[name] = {row["run"]: row for row in rows}
    return found


def _data(files: Sequence[str]) -> list[str]:
    folder = referee("..", "data", "memory")
    found = [str(path) for name in files for path in sorted(folder.glob(f"*{name}*.jsonl.gz"))]
    if len(found) < len(files):
        raise NotThere(f"{folder} lacks one of {', '.join(files)}: restore the data beside the referees")
    return found


def _report(command: list[str], name: str) -> list[dict[str, Any]]:
    shown = f"{Path(command[1]).name}, {name}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PODIUM_")}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=clean | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise NotThere(f"{shown}: not done after {LIMIT:g} s") from None
    print(f"  {time.monotonic() - begin:6.1f} s  {shown}", file=sys.stderr)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotThere(f"{shown}: exit {done.returncode}: {last[:160]}")
    return json.loads(done.stdout)
