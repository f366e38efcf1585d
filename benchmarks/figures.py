"""Figures with their limits and peers, and the table that shows them."""

from __future__ import annotations

import statistics
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers import NotThere

COLUMNS = ("figure", "ours", "from … to", "reach", "beat", "verdict", "peers in this run")


@dataclass(frozen=True)
class Figure:
    """One measured figure; less is better."""

    name: str
    unit: str
    samples: tuple[float, ...] = ()
    #: what it has to be at most, and what it is meant to become; None: for information
    reach: float | None = None
    beat: float | None = None
    #: the same figure of others, from the same run
    peers: Mapping[str, float] = field(default_factory=dict)
    #: why it was not measured, or what else is to be known
    note: str = ""

    @property
    def measured(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def verdict(self) -> str:
        """`beats`, `reaches` or `NO`; empty where there is no limit."""
        if self.reach is None:
            return ""
        if self.measured is None:
            return "not measured"
        if self.beat is not None and self.measured <= self.beat:
            return "beats"
        return "reaches" if self.measured <= self.reach else "NO"

    def as_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "measured": self.measured,
            "samples": list(self.samples),
            "reach": self.reach,
            "beat": self.beat,
            "verdict": self.verdict,
            "peers": dict(self.peers),
            "note": self.note,
        }

    def cells(self) -> tuple[str, ...]:
        shown = "–" if self.measured is None else f"{self.measured:.3g} {self.unit}".strip()
        spread = f"{min(self.samples):.3g} … {max(self.samples):.3g}" if len(self.samples) > 1 else ""
        others = ", ".join(f"{name} {value:.3g}" for name, value in self.peers.items())
        told = "; ".join(text for text in (others, self.note) if text)
        return (self.name, shown, spread, _limit(self.reach), _limit(self.beat), self.verdict, told)


def _limit(value: float | None) -> str:
    return "" if value is None else f"≤ {value:g}"


def table(figures: Sequence[Figure]) -> str:
    """All figures, one a line, under their columns' names."""
    rows = [COLUMNS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
    lines = [
        " | ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    rule = "-+-".join("-" * width for width in [*widths, len(COLUMNS[-1])])
    return "\n".join([lines[0], rule, *lines[1:]])


def measure(bench: object, sections: Sequence[str]) -> list[Figure]:
    """The figures of some methods of `bench`; one that fails says so, and costs no other's figures."""
    figures: list[Figure] = []
    for name in sections:
        section = getattr(bench, name)
        print(f"measuring {name}: {(section.__doc__ or '').splitlines()[0]}", file=sys.stderr)
        try:
            figures += section()
        except NotThere as missing:
            figures.append(Figure(name, "", reach=0, note=str(missing)))
        except Exception as error:  # noqa: BLE001 - said in the table, the traceback on stderr
            traceback.print_exc()
            figures.append(Figure(name, "", reach=0, note=f"failed: {type(error).__name__}: {error}"))
    return figures
