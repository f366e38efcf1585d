"""The frontier as text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log

from .frontier import Frontier, Point, Series

#: marks of lines by kind: (unicode, ASCII)
_MARKS = {"oracle": ("·", "."), "zero": ("░", "-"), "random": ("×", "x")}
_ROUTERS = (("█", "#"), ("▓", "%"), ("▒", "="))
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: columns left of the field: a tick such as `0.812 ┤`
_MARGIN = 8


@dataclass
class _Canvas:
    """Cells [rows][columns]; row 0 is the best quality."""

    frontier: Frontier
    columns: int
    rows: int
    cells: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = [[" "] * self.columns for _ in range(self.rows)]
        left, right, _, _ = self.frontier.box()
        self._left, self._width = self._x(left), max(self._x(right) - self._x(left), 1e-12)
        # intervals are not drawn here, so they take no room
        quality = [p.quality for series in self.frontier.series for p in series.points]
        self.low, self.high = min(quality), max(quality)

    def _x(self, cost: float) -> float:
        return log(cost) if self.frontier.log else cost

    def put(self, cost: float, quality: float, mark: str) -> None:
        """The mark at a place."""
        x = (self._x(cost) - self._left) / self._width
        y = (quality - self.low) / max(self.high - self.low, 1e-12)
        row = self.rows - 1 - round(y * (self.rows - 1))
        self.cells[row][round(x * (self.columns - 1))] = mark

    def quality(self, row: int) -> float:
        """What a row stands for."""
        return self.high - (self.high - self.low) * row / max(self.rows - 1, 1)


def text_chart(frontier: Frontier, *, width: int = 80, height: int = 20, ascii_only: bool = False) -> str:
    """The frontier, `width` columns by `height` rows of field, with axes and legend; the same for the
    same input.

    Models are letters; of what falls on one cell, models are shown before routers, and routers before the
    rest.
    """
    canvas = _Canvas(frontier, max(width, 40) - _MARGIN, max(height, 5))
    order = {"oracle": 0, "zero": 1, "random": 2, "router": 3, "model": 4}
    over = sorted(enumerate(frontier.series), key=lambda pair: (order[pair[1].kind], -pair[0]))
    marks = _marks(frontier, ascii_only)
    letters = _letters(frontier)
    for _, series in over:
        if series.shape == "line":
            for cost, quality, *_ in series.between(4 * canvas.columns, frontier.log):
                canvas.put(cost, quality, marks[series.name])
        for point in series.points if series.shape == "points" else ():
            canvas.put(point.cost, point.quality, letters.get(point.label) or marks[series.name])
    lines = ["quality", *_field(canvas, ascii_only), *_axis(canvas, width, ascii_only), ""]
    return "\n".join([*lines, *_legend(frontier, marks, letters, max(width, 40))]) + "\n"


def _marks(frontier: Frontier, ascii_only: bool) -> dict[str, str]:
    routers = [s.name for s in frontier.series if s.kind == "router"]
    found = {name: _ROUTERS[i % len(_ROUTERS)][ascii_only] for i, name in enumerate(routers)}
    return found | {s.name: _MARKS[s.kind][ascii_only] for s in frontier.series if s.kind in _MARKS}


def _models(frontier: Frontier) -> list[Point]:
    return [p for s in frontier.series if s.kind == "model" for p in s.points]


def _letters(frontier: Frontier) -> dict[str, str]:
    """By rising cost; more models than letters share the last one."""
    return {p.label: _LETTERS[min(i, len(_LETTERS) - 1)] for i, p in enumerate(_models(frontier))}


def _field(canvas: _Canvas, ascii_only: bool) -> list[str]:
    tick, wall = ("+", "|") if ascii_only else ("┤", "│")
    every = max(1, (canvas.rows - 1) // 4)
    lines = []
    for row, cells in enumerate(canvas.cells):
        named = row % every == 0
        label = f"{canvas.quality(row):6.3f}" if named else " " * 6
        lines.append(f"{label} {tick if named else wall}{''.join(cells)}".rstrip())
    return lines


def _axis(canvas: _Canvas, width: int, ascii_only: bool) -> list[str]:
    left, right, _, _ = canvas.frontier.box()
    corner, floor = ("+", "-") if ascii_only else ("└", "─")
    scale = "cost per prompt, log scale" if canvas.frontier.log else "cost per prompt"
    first, last = usd(left), usd(right)
    middle = scale.center(max(width, 40) - _MARGIN - len(first) - len(last))
    return [" " * 7 + corner + floor * canvas.columns, " " * _MARGIN + first + middle + last]


def _legend(frontier: Frontier, marks: dict[str, str], letters: dict[str, str], width: int) -> list[str]:
    lines = [f"  {marks[s.name]}  {_about(s)}" for s in frontier.series if s.name in marks]
    for point in _models(frontier):
        lines.append(f"  {letters[point.label]}  {point.label}: {_where(point)}")
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


def _about(series: Series) -> str:
    if series.shape == "points":
        return f"{series.name}: {_where(series.points[0])}"
    best = series.points[-1]
    return f"{series.name}: up to {_where(best)}"


def _where(point: Point) -> str:
    return f"{point.quality:.3f} [{point.low:.3f}, {point.high:.3f}] for {usd(point.cost)}"


def usd(amount: float) -> str:
    """USD with three digits that count: `$0.00123`, `$12.3`; below a ten-millionth as `$3.21e-09`."""
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:.2f}"
    if abs(amount) < 1e-7:
        return f"${amount:.3g}"
    return f"${float(f'{amount:.3g}'):.12f}".rstrip("0")
