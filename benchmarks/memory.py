"""Task memory's figures against their limits, the referees' own baselines beside them: `make bench`.

    python -m benchmarks.memory [--quick] [--only SECTION …] [--referee FOLDER]

Prints one table, below it the context figures over all dials (hidden edges, typed and text writes, branches),
and writes both to `benchmarks/results/memory.json`. Sections: context, retrieval, writers, fork, residue,
leaks. The referees are looked for in `../shared/referee`. `--quick` takes fewer workflows, dials, questions
and operations. What is missing on this machine is said in its row. Timings mean something on a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import memory_referees as referees
from benchmarks.figures import Figure, measure, table
from benchmarks.memory_figures import AtLeast
from benchmarks.memory_referees import Asked, Dials
from benchmarks.peers import NotThere

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
HIDES = (0.0, 0.25, 0.5, 1.0)
BUDGET = 256
SECTIONS = ("context", "retrieval", "writers", "fork", "residue", "leaks")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One figure of the context referee that has limits."""

    name: str
    source: str
    #: whose column is ours: "ours, text" or "ours, typed"
    ours: str
    hide: float
    metric: str
    reach: float
    beat: float
    more: bool = True


TEXT, TYPED = "ours, text", "ours, typed"
NEEDED = f"recall@{BUDGET}"
#: percent, but for the ratio
CONTEXT = (
    Wanted("needed facts, SGD ×8, text, all edges", "sgd/8", TEXT, 0.0, NEEDED, 99.3, 99.8),
    Wanted("needed facts, SGD ×8, text, 50 % of the edges hidden", "sgd/8", TEXT, 0.5, NEEDED, 80, 92),
    Wanted("needed facts, SGD ×8, text, all edges hidden", "sgd/8", TEXT, 1.0, NEEDED, 70, 85),
    Wanted("needed facts, SGD ×32, text, 50 % of the edges hidden", "sgd/32", TEXT, 0.5, NEEDED, 70, 88),
    Wanted("superseded values shown, SGD ×8, text", "sgd/8", TEXT, 0.0, f"stale@{BUDGET}", 5, 1, more=False),
    Wanted(
        "superseded values shown, SGD ×8, typed", "sgd/8", TYPED, 0.0, f"stale@{BUDGET}", 5, 1, more=False
    ),
    Wanted("lines of other branches, SGD ×8, text", "sgd/8", TEXT, 0.0, f"leak@{BUDGET}", 0, 0, more=False),
    Wanted("lines of other branches, SGD ×32, text", "sgd/32", TEXT, 0.0, f"leak@{BUDGET}", 0, 0, more=False),
    Wanted("needed facts, WfInstances, typed", "wfinstances", TYPED, 0.0, NEEDED, 98.3, 98.9),
    Wanted("needed facts, NESTFUL, text", "nestful", TEXT, 0.0, NEEDED, 99.3, 99.8),
)
RATIO = (
    Wanted("tokens to full recall, times fewer than linear, SGD, text", "sgd", TEXT, 0.0, "ratio", 40, 80),
    Wanted("tokens to full recall, times fewer than linear, SGD, typed", "sgd", TYPED, 0.0, "ratio", 40, 80),
)
#: run of the retrieval referee → (name, reach, beat) of R@10 in percent
EVIDENCE = {
    "quality": ("evidence in the first 10, a conversation", 80, 86),
    "scale 10000": ("evidence in the first 10, among 10,000", 72, 80),
    "scale 100000": ("evidence in the first 10, among 100,000", 62, 72),
}


class Bench:
    """Runs the measurements of one table."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        #: measurements that could not be made, said below the table
        self.missing: list[str] = []
        #: (source, hide) → memory → metrics, for the table of all dials
        self.dials: dict[tuple[str, float], dict[str, dict[str, Any]]] = {}

    def miss(self, missing: NotThere) -> None:
        if str(missing) not in self.missing:
            self.missing.append(str(missing))

    # -- sections

    def context(self) -> Iterator[Figure]:
        """What a coming step is shown of the facts that it needs, at 256 tokens."""
        hides = HIDES[::2] + HIDES[3:] if self.quick else HIDES
        limit = 3 if self.quick else None
        split = referees.context(Asked(("context_sgd",), hides, limit=limit), self.miss)
        pooled = Asked(("context_nestful", "context_wfinstances"), hides, pool=True, limit=limit)
        whole = referees.context(pooled, self.miss)
        found = {name: split.get(name, {}) | whole.get(name, {}) for name in split | whole}
        for name, dials in found.items():
            for key, row in dials.items():
                self.dials.setdefault(key, {})[name] = row
        yield from (_context_figure(found, wanted) for wanted in CONTEXT)
        ladder = Asked(("context_sgd",), (0.0,), pool=True, sample=12, limit=limit)
        ratios = referees.context(ladder, self.miss)
        yield from (_context_figure(ratios, wanted) for wanted in RATIO)
        for name in (TEXT, TYPED):
            slowest = [row["p95"] for row in found.get(name, {}).values() if row["p95"] is not None]
            if slowest:
                title = f"a context, {name.removeprefix('ours, ')} writes: p95 of the slowest dial"
                yield Figure(title, "ms", (max(slowest),))

    def retrieval(self) -> Iterator[Figure]:
        """Evidence among the first ten of a search, and how long a search takes."""
        scales = [10_000, 100_000]
        found = referees.retrieval(scales, 60 if self.quick else 200, self.miss)
        for run, (name, reach, beat) in EVIDENCE.items():
            values = {who: 100 * rows[run]["R@10"] for who, rows in found.items() if run in rows}
            yield AtLeast(name, "%", _own(values, "ours"), reach, beat, _others(values))
        values = {who: rows[f"scale {scales[-1]}"]["p95"] for who, rows in found.items()}
        yield Figure("a search among 100,000, p95", "ms", _own(values, "ours"), 40, 15, _others(values))

    def writers(self) -> Iterator[Figure]:
        """Sixteen processes that write at the same time."""
        from benchmarks import memory_store

        yield from memory_store.writers(quick=self.quick)

    def fork(self) -> Iterator[Figure]:
        """A fork of a run with 10,000 items."""
        from benchmarks import memory_store

        yield from memory_store.fork()

    def residue(self) -> Iterator[Figure]:
        """What the database files still hold of a subject that was forgotten."""
        from benchmarks import memory_store

        yield from memory_store.residue()

    def leaks(self) -> Iterator[Figure]:
        """Random operations of several tenants, each of which looks for what is another's."""
        from benchmarks import memory_store

        yield from memory_store.leaks(quick=self.quick)


def _context_figure(found: Mapping[str, Dials], wanted: Wanted) -> Figure:
    scale = 1.0 if wanted.metric == "ratio" else 100.0
    values = {}
    for name, dials in found.items():
        value = dials.get((wanted.source, wanted.hide), {}).get(wanted.metric)
        if value is not None:
            values[name] = scale * value
    kind = AtLeast if wanted.more else Figure
    unit = "×" if wanted.metric == "ratio" else "%"
    own = _own(values, wanted.ours)
    notes = []
    for name in (TEXT, TYPED):
        row = found.get(name, {}).get((wanted.source, wanted.hide), {})
        wrong = row.get("rejected", 0) + row.get("errors", 0)
        if name == wanted.ours and wrong:
            notes.append(f"{wrong} of our contexts were over budget or failed")
    return kind(wanted.name, unit, own, wanted.reach, wanted.beat, _others(values), "; ".join(notes))


def _own(values: Mapping[str, float], name: str) -> tuple[float, ...]:
    return (values[name],) if name in values else ()


def _others(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not name.startswith("ours")}


def dial_table(dials: Mapping[tuple[str, float], Mapping[str, Mapping[str, Any]]]) -> str:
    """One line a source and share of hidden edges: percent of each memory, `recall / stale / leak`."""
    names = [name for name in referees.CONTEXT if any(name in row for row in dials.values())]
    rows = [("source", "hidden", *names)]
    for (source, hide), found in sorted(dials.items()):
        cells = (_three(found.get(name, {})) for name in names)
        rows.append((source, f"{hide:.0%}", *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-+-".join("-" * w for w in widths), *lines[1:]])


def _three(row: Mapping[str, Any]) -> str:
    values = [row.get(f"{metric}@{BUDGET}") for metric in ("recall", "stale", "leak")]
    return " / ".join("–" if value is None else f"{100 * value:.1f}" for value in values)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer workflows, dials and operations")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--referee", metavar="FOLDER", help="where the referees are; else PODIUM_REFEREE")
    asked = parser.parse_args()
    if asked.referee:
        os.environ["PODIUM_REFEREE"] = asked.referee
    bench, load = Bench(quick=asked.quick), [os.getloadavg()]
    figures = measure(bench, asked.only)
    load.append(os.getloadavg())
    ours = {name: importlib.metadata.version(name) for name in ("podium", "sqlalchemy", "numpy")}
    versions = {**ours, "sqlite": sqlite3.sqlite_version, "python": platform.python_version()}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}"
    print(table(figures))
    if bench.dials:
        print(f"\nevery dial at {BUDGET} tokens, % recall / superseded shown / lines of other branches")
        print(dial_table(bench.dials))
    for line in bench.missing:
        print(f"not beside it: {line}")
    print(f"{machine}; load average before {load[0][0]:.1f}, after {load[1][0]:.1f}")
    print(", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "load": load, "versions": versions, "quick": asked.quick}
    dials = [
        {"source": source, "hide": hide, "memories": memories}
        for (source, hide), memories in sorted(bench.dials.items())
    ]
    entries = [figure.as_data() for figure in figures]
    RESULTS.write_text(json.dumps(found | {"figures": entries, "dials": dials}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
