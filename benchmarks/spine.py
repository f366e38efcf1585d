"""The spine's figures against their limits: start-up, first token, the pool's readiness and its memory.

    python -m benchmarks.spine [--quick]

Prints one table and writes it to `benchmarks/results/spine.json`. Medians over repeats; timings mean
something on a quiet machine only, so the load average stands below the table. `--quick` leaves out the base
install and the demo.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.install_size import base_install_bytes
from benchmarks.processes import Nursery, Process

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "spine.json"
PODIUM = str(Path(sys.executable).with_name("podium"))
MODEL = "smollm2-135m"
HEAVY = ("ray", "torch", "transformers", "networkx", "sqlalchemy", "xllamacpp", "numpy")
BRIEF = ("run", "examples/brief.yaml", "-i", "docs=@examples/data/federalist", "--approve", "publish")


@dataclass(frozen=True)
class Figure:
    name: str
    unit: str
    #: at most this much; None: for information
    limit: float | None
    samples: tuple[float, ...]

    @property
    def measured(self) -> float:
        return statistics.median(self.samples)

    @property
    def ok(self) -> bool | None:
        return None if self.limit is None else self.measured <= self.limit


def help_figures(nursery: Nursery) -> Iterator[Figure]:
    """`podium --help`: wall time, with a bare interpreter beside it, and the heavy modules it imports."""
    helps, bares = [], []
    for _ in range(11):
        helps.append(nursery.run([PODIUM, "--help"]) * 1e3)
        bares.append(nursery.run([sys.executable, "-c", "pass"]) * 1e3)
    yield Figure("podium --help", "ms", 300, tuple(helps))
    yield Figure("a bare interpreter, beside it", "ms", None, tuple(bares))
    yield Figure("heavy modules that podium --help imports", "", 0, (float(len(heavy_imports())),))


def heavy_imports() -> set[str]:
    command = [sys.executable, "-X", "importtime", PODIUM, "--help"]
    trace = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    loaded = re.findall(r"^import time:.*\|\s*([\w.]+)$", trace, re.MULTILINE)
    return {name.split(".")[0] for name in loaded} & set(HEAVY)


def first_token_figures(nursery: Nursery) -> Iterator[Figure]:
    """`podium ask` without a pool: seconds to the first byte of the answer, less a bare interpreter start."""
    ask = [PODIUM, "ask", "What is a republic?"]
    seconds = []
    _first_byte(nursery, ask)
    for _ in range(5):
        bare = nursery.run([sys.executable, "-c", "pass"])
        seconds.append(_first_byte(nursery, ask) - bare)
    yield Figure("warm podium ask, to the first token", "s", 3, tuple(seconds))


def _first_byte(nursery: Nursery, command: list[str]) -> float:
    begin = time.perf_counter()
    process = nursery.start(command)
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    seconds = time.perf_counter() - begin
    process.terminate()
    process.communicate(timeout=60)
    if not first:
        raise RuntimeError(f"{' '.join(command)}: ended without an answer")
    return seconds


def pool_figures(nursery: Nursery) -> Iterator[Figure]:
    """`podium up`: seconds until it is ready, and the memory of what then runs, before and after a run."""
    ups, heads, pools, runs = [], [], [], []
    for _ in range(3):
        ups.append(nursery.run([PODIUM, "up", "--json"]))
        try:
            heads.append(_megabytes([p for p in nursery.descendants() if _role(p) == "head"]))
            runs.append(nursery.run([PODIUM, *BRIEF, "--json"], cwd=ROOT))
            pools.append(_megabytes(nursery.descendants()))
            _show_processes(nursery)
        finally:
            nursery.run([PODIUM, "down"])
    yield Figure("podium up, ready", "s", 15, tuple(ups))
    yield Figure("Ray's head with dashboard, PSS", "MB", 800, tuple(heads))
    yield Figure(f"the whole pool with {MODEL}, PSS", "MB", 1300, tuple(pools))
    yield Figure("examples/brief.yaml on the pool", "s", None, tuple(runs))


def _role(process: Process) -> str:
    """Podium's own processes and Ray's workers apart from the daemons that every Ray head has."""
    if process.command.startswith("ray::") or "default_worker.py" in process.command:
        return "worker"
    return "engine" if re.search(r"-m podium|bin/podium |podium\.orchestrator", process.command) else "head"


def _megabytes(processes: list[Process]) -> float:
    return sum(process.pss for process in processes) / 1e6


def _show_processes(nursery: Nursery) -> None:
    for process in sorted(nursery.descendants(), key=lambda p: -p.pss):
        print(f"  {process.pss / 1e6:7.1f} MB {_role(process):7} {process.command[:90]}", file=sys.stderr)


def install_figures(nursery: Nursery) -> Iterator[Figure]:
    """The base install in a fresh environment, without `.pyc` files."""
    yield Figure("base install", "MB", 650, (sum(base_install_bytes().values()) / 1e6,))


def demo_figures(nursery: Nursery) -> Iterator[Figure]:
    """`make demo` in a fresh copy of the checkout, with whatever package cache this machine has."""
    with tempfile.TemporaryDirectory(prefix="podium-demo-") as scratch:
        copy = Path(scratch, "podium")
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "results")
        )
        yield Figure(
            "make demo in a fresh copy", "s", 180, (nursery.run(["make", "demo"], cwd=copy, timeout=600),)
        )


def measure(nursery: Nursery, parts: list[Callable[[Nursery], Iterator[Figure]]]) -> list[Figure]:
    figures = []
    for part in parts:
        print(f"measuring: {(part.__doc__ or '').splitlines()[0]}", file=sys.stderr)
        figures += part(nursery)
    return figures


def table(figures: list[Figure]) -> str:
    rows = [("figure", "limit", "measured", "from … to", "ok")]
    for figure in figures:
        limit = "" if figure.limit is None else f"≤ {figure.limit:g} {figure.unit}"
        spread = f"{min(figure.samples):.4g} … {max(figure.samples):.4g}" if len(figure.samples) > 1 else ""
        verdict = {True: "yes", False: "NO", None: ""}[figure.ok]
        rows.append((figure.name, limit, f"{figure.measured:.4g} {figure.unit}", spread, verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    rows.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(r, widths, strict=True)) for r in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out the install and the demo")
    quick = parser.parse_args().quick
    load = [os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="podium-bench-") as home:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PODIUM_", "RAY_"))
        }
        with Nursery({**clean, "PODIUM_HOME": home}) as nursery:
            nursery.run([PODIUM, "models", "pull", MODEL], timeout=600)
            parts = [help_figures, first_token_figures, pool_figures]
            figures = measure(nursery, parts if quick else [*parts, install_figures, demo_figures])
    load.append(os.getloadavg())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(table(figures))
    print(f"{machine}; load average before {load[0][0]:.1f}, after {load[1][0]:.1f}")
    entries = [{**asdict(figure), "measured": figure.measured, "ok": figure.ok} for figure in figures]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "load": load, "figures": entries}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
