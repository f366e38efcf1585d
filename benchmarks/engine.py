"""Milliseconds per no-op task: a chain and a fan-out on a fresh SQLite database, with the whole engine.

    python -m benchmarks.engine [--mode inline|isolated|ray] [--runs 3] [--chain 200] [--fan 1000] [--dir DIR]

Prints one JSON line in the form of the peers' scripts; see `alternate.py` among the referees. What is timed
goes from submitting the workflow, its validation included, to the checked result; `chain_run_ms` and
`fan_run_ms` leave submission out, as the peers' figures leave out that their graph is compiled. Client,
engine and database are open before, and a short run has warmed them, as with the peers. CPU is that of the
engine's process.

The modes differ in where the tasks run: in the engine's process, as LangGraph's nodes do; in worker
processes, as tasks do unless they say `inline`; in these with a Ray pool connected.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podium import Podium, Settings, Workflow
from sqlalchemy import text

from benchmarks import noop  # imported, so that its folder is found

MODES = ("inline", "isolated", "ray")
PACKAGES = ("podium", "sqlalchemy", "pydantic", "ray")
Sample = tuple[float, float]


@dataclass
class Samples:
    """(wall, CPU) in milliseconds per task, by metric."""

    by_metric: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, metric: str, wall: float, cpu: float, tasks: int) -> None:
        self.by_metric.setdefault(metric, []).append((wall / tasks * 1e3, cpu / tasks * 1e3))

    def summary(self) -> dict[str, Any]:
        return {metric: _stats(samples) for metric, samples in self.by_metric.items()}


def chain(tasks: int, *, inline: bool) -> Workflow:
    """Each task adds one to what the one before gave; the output is their number."""
    workflow, before = Workflow("chain"), "0"
    for i in range(tasks):
        given = {"x": before if i else 0}
        before = str(workflow.python(f"n{i}", noop.plus_one, with_=given, inline=inline))
    workflow.output("result", f"n{tasks - 1}")
    return workflow


def fan(*, inline: bool) -> Workflow:
    """A map over `xs` that gives `xs` back."""
    workflow = Workflow("fan")
    xs = workflow.input("xs", list[int])
    workflow.output("result", workflow.map("each", over=xs, python=noop.same, inline=inline))
    return workflow


def measure(make: Callable[[], Podium], chain_tasks: int, fan_tasks: int, *, inline: bool) -> Samples:
    """One sample of each metric, each on a fresh database."""
    samples = Samples()
    numbers = list(range(fan_tasks))
    for name, workflow, inputs, tasks, expected in (
        ("chain", chain(chain_tasks, inline=inline), {}, chain_tasks, chain_tasks),
        ("fan", fan(inline=inline), {"xs": numbers}, fan_tasks, numbers),
    ):
        with make() as podium:
            podium.run(chain(5, inline=inline))
            begin = _now()
            run = podium.submit(workflow, detached=False, inputs=inputs)
            stored = _now()
            run = podium.drive(run.id)
            assert run.output == expected, f"{name}: {run.status}, {run.error}"
            end = _now()
        for metric, start in ((f"{name}_ms", begin), (f"{name}_run_ms", stored)):
            samples.add(metric, end[0] - start[0], end[1] - start[1], tasks)
    return samples


def _now() -> Sample:
    return time.perf_counter(), time.process_time()


def _stats(samples: list[Sample]) -> dict[str, Any]:
    wall = [sample[0] for sample in samples]
    return {
        "median": round(statistics.median(wall), 4),
        "min": round(min(wall), 4),
        "max": round(max(wall), 4),
        "cpu_median": round(statistics.median(cpu for _, cpu in samples), 4),
        "all": [round(value, 4) for value in wall],
    }


def durability(podium: Podium) -> str:
    with podium.database.read() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous")
        }
    return f"sqlite {found}, each result committed before its successors start"


@contextlib.contextmanager
def opener(mode: str, folder: Path) -> Iterator[Callable[[], Podium]]:
    """Makes Podiums, each with a home and a database of its own."""
    from benchmarks.crash.ray_head import ray_head, ray_pool

    homes = iter(range(1_000_000))

    def make() -> Podium:
        home = folder / f"home-{next(homes)}"
        return Podium(Settings(home=home), pool=ray_pool(folder / "ray") if mode == "ray" else None)

    if mode != "ray":
        yield make
        return
    with ray_head(folder / "ray"):
        yield make


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mode", choices=MODES, default="inline")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--chain", type=int, default=200)
    parser.add_argument("--fan", type=int, default=1000)
    parser.add_argument("--dir", help="where the databases go; default: a fresh temporary folder")
    asked = parser.parse_args()
    load, inline, all_samples = os.getloadavg()[0], asked.mode == "inline", Samples()
    with (
        tempfile.TemporaryDirectory(prefix="podium-", dir=asked.dir) as folder,
        opener(asked.mode, Path(folder)) as make,
    ):
        for _ in range(asked.runs):
            for metric, found in measure(make, asked.chain, asked.fan, inline=inline).by_metric.items():
                all_samples.by_metric.setdefault(metric, []).extend(found)
        with make() as podium:
            durable = durability(podium)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    report = {
        "peer": f"podium {asked.mode}",
        "durable": durable,
        "unit": "ms/step",
        "chain": asked.chain,
        "fan": asked.fan,
        "runs": asked.runs,
        **all_samples.summary(),
        "versions": versions | {"python": platform.python_version()},
        "load1_before": round(load, 2),
        "load1_after": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
