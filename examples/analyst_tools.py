"""The tools of analyst.py: they read planets.csv and change nothing, so no call needs a person's approval."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from podium import tool

TABLE = Path(__file__).parent / "data" / "planets.csv"
Planet = Literal["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
Column = Literal["radius_km", "distance_au", "day_hours", "orbit_days", "moons"]


def _rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@tool(effect="read")
def largest(column: Column, count: Literal[1, 2, 3] = 1) -> list[str]:
    """The planets with the largest values of a column, the largest first."""
    rows = sorted(_rows(), key=lambda row: float(row[column]), reverse=True)[:count]
    return [f"{row['name']}: {row[column]}" for row in rows]


@tool(effect="read")
def look_up(planet: Planet, column: Column) -> float:
    """One figure of one planet."""
    return next(float(row[column]) for row in _rows() if row["name"] == planet)
