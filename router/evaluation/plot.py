"""The frontier as SVG or PNG, by matplotlib (extra `plot`), which is imported only here and only to draw."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...memory.errors import ConfigError, UsageError
from .chart import usd
from .frontier import Frontier, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]

#: colours after Okabe and Ito (2008), which the colour-blind tell apart; every line also has its own dashes
_INK: dict[Theme, dict[str, str]] = {
    "light": {
        "paper": "#ffffff", "ink": "#1f2328", "grid": "#d8dde3", "model": "#1f2328",
        "zero": "#b35a00", "random": "#6e7781", "oracle": "#007a59",
    },
    "dark": {
        "paper": "#0d1117", "ink": "#e6edf3", "grid": "#30363d", "model": "#e6edf3",
        "zero": "#e69f00", "random": "#9aa4af", "oracle": "#2fc79b",
    },
}  # fmt: skip
_ROUTERS: dict[Theme, tuple[str, ...]] = {
    "light": ("#0072b2", "#a8447f", "#56789b", "#8a6d00"),
    "dark": ("#56b4e9", "#e08ac0", "#a7c4e0", "#f0e442"),
}
_DASHES = {"zero": (0, (5, 2)), "oracle": (0, (1, 1.6))}
_ROUTER_DASHES = ("-", (0, (9, 2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
#: costs at which a line is drawn
_STEPS = 120


def draw(frontier: Frontier, path: str | Path, *, theme: Theme = "light", title: str = "") -> Path:
    """Writes the frontier to `path`, an SVG or a PNG by its name, on a background of its own, so that it
    is legible on any page. The same frontier gives the same bytes.

    Raises:
        UsageError: another kind of file, or it cannot be written.
        ConfigError: matplotlib is not installed.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".svg", ".png"):
        raise UsageError(f"{path.name} is neither SVG nor PNG", mend="end the path with .svg or .png")
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib", mend="pip install 'podium[plot]'") from error
    # text stays text: smaller, and it can be searched; ids from a salt, not from chance
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "podium", "text.parse_math": False}
    with matplotlib.rc_context(options):
        figure = Canvas(figsize=(7.6, 4.8), dpi=160, facecolor=_INK[theme]["paper"], layout="constrained")
        _fill(figure.add_subplot(), frontier, theme, title)
        _legend(figure, _INK[theme])
        metadata = {"Date": None} if kind == ".svg" else {"Software": None}
        try:
            figure.savefig(path, format=kind[1:], metadata=metadata)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error}", mend="give another path") from error
    return path


def _fill(axes: Axes, frontier: Frontier, theme: Theme, title: str) -> None:
    ink = _INK[theme]
    axes.set_facecolor(ink["paper"])
    axes.grid(True, color=ink["grid"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink["ink"], which="both")
    for side in axes.spines.values():
        side.set_color(ink["grid"])
    routers = [s.name for s in frontier.series if s.kind == "router"]
    for series in frontier.series:
        if series.kind == "router":
            number = routers.index(series.name)
            _router(axes, series, _ROUTERS[theme][number % len(_ROUTERS[theme])], number, frontier.log)
        else:
            (_line if series.shape == "line" else _dots)(axes, series, ink[series.kind], frontier.log)
    _scale(axes, frontier.log)
    _name_models(axes, frontier, ink["ink"])
    axes.set_xlabel("mean cost per prompt (USD)", color=ink["ink"])
    axes.set_ylabel("mean quality (score)", color=ink["ink"])
    axes.set_title(title or f"Cost and quality, {frontier.prompts} prompts", color=ink["ink"], loc="left")


def _legend(figure: Figure, ink: Mapping[str, str]) -> None:
    """Below the field, where it covers nothing."""
    figure.legend(
        loc="outside lower center", ncols=3, fontsize=9, facecolor=ink["paper"], edgecolor=ink["grid"],
        labelcolor=ink["ink"],
    )  # fmt: skip


def _scale(axes: Axes, logarithmic: bool) -> None:
    """Costs in plain money; of a logarithmic scale 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda value, _: usd(value))


def _router(axes: Axes, series: Series, colour: str, number: int, logarithmic: bool) -> None:
    """The first router has its interval drawn, and lies over the others."""
    x, y, low, high = zip(*series.between(_STEPS, logarithmic), strict=True)
    name = series.name
    if number == 0:
        name = f"{name} (95 % interval)"
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    style: Any = _ROUTER_DASHES[number % len(_ROUTER_DASHES)]
    axes.plot(x, y, color=colour, linestyle=style, linewidth=2.4, label=name, zorder=5 - 0.1 * number)


def _line(axes: Axes, series: Series, colour: str, logarithmic: bool) -> None:
    x, y, _, _ = zip(*series.between(_STEPS, logarithmic), strict=True)
    style: Any = _DASHES.get(series.kind, "-")
    axes.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=series.name, zorder=3)


def _dots(axes: Axes, series: Series, colour: str, _: bool) -> None:
    x, y = zip(*((p.cost, p.quality) for p in series.points), strict=True)
    mark = "x" if series.kind == "random" else "o"
    axes.scatter(x, y, s=34, color=colour, marker=mark, label=series.name, zorder=6)


def _name_models(axes: Axes, frontier: Frontier, colour: str) -> None:
    """Each name at the first of four places beside its point where it covers no other name."""
    points = [point for series in frontier.series for point in series.points if point.label]
    left, right, floor, top = *axes.get_xlim(), *axes.get_ylim()
    taken: list[_Box] = []
    for point in points:
        name = point.label if len(point.label) <= _LONGEST else point.label[: _LONGEST - 1] + "…"
        x = _part(point.cost, left, right, frontier.log)
        place = x, (point.quality - floor) / (top - floor)
        boxes = [_box(*place, dx, dy, len(name)) for dx, dy in _PLACES]
        inside = [k for k, box in enumerate(boxes) if _inside(box)] or [0]
        best = next((k for k in inside if not any(_meet(boxes[k], b) for b in taken)), inside[-1])
        taken.append(boxes[best])
        dx, dy = _PLACES[best]
        axes.annotate(
            name, (point.cost, point.quality), xytext=(5 * dx, 7 * dy - 3), textcoords="offset points",
            ha="left" if dx > 0 else "right", color=colour, fontsize=7.5, zorder=7,
        )  # fmt: skip


#: left, bottom, right, top in parts of the field
_Box = tuple[float, float, float, float]
#: where a name may stand: right or left, below or above
_PLACES = ((1, -1), (-1, -1), (1, 1), (-1, 1))
#: letters of a name, and the part of the field that one letter and one line take at this size
_LONGEST, _LETTER, _LINE = 32, 0.0088, 0.032


def _part(cost: float, left: float, right: float, logarithmic: bool) -> float:
    """Of the way from `left` to `right`."""
    return log(cost / left) / log(right / left) if logarithmic else (cost - left) / (right - left)


def _box(x: float, y: float, dx: int, dy: int, letters: int) -> _Box:
    wide = letters * _LETTER
    left = x + 0.01 if dx > 0 else x - 0.01 - wide
    bottom = y + 0.024 * dy - _LINE / 2
    return left, bottom, left + wide, bottom + _LINE


def _inside(box: _Box) -> bool:
    return min(box) >= 0 and max(box) <= 1


def _meet(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
