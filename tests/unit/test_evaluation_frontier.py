"""The frontier, as points, as text and as a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from podium.memory.errors import ConfigError, UsageError
from podium.router.evaluation.chart import text_chart, usd
from podium.router.evaluation.frontier import Frontier, frontier
from podium.router.evaluation.plot import draw
from podium.router.evaluation.routers import Predictions
from podium.router.evaluation.truth import Truth


def made(dear: float = 3.0, estimated: bool = False) -> Frontier:
    """The strong model gains on the first half of the prompts only, and the router knows."""
    weak = np.repeat([0.0, 1.0], 50)
    scores = np.stack([weak, np.ones(100)], 1)
    cost = np.tile([1.0, dear], (100, 1))
    truth = Truth(("small model", "large model"), np.arange(100), scores, cost, None, estimated)
    none = np.zeros(100, np.intp)
    return frontier(truth, {"podium": Predictions(scores, cost, none, none)}, draws=30)


def test_points_by_hand() -> None:
    found = {s.name: s for s in made().series}
    reached = {name: [(p.cost, pytest.approx(p.quality)) for p in s.points] for name, s in found.items()}
    assert reached["podium"] == [(1, 0.5), (2, 1)]
    assert reached["models"] == [(1, 0.5), (3, 1)]
    assert [p.label for p in found["models"].points] == ["small model", "large model"]
    assert reached["zero router"] == [(1, 0.5), (3, 1)]
    assert reached["random"] == [(2, 0.75)]
    assert reached["oracle"] == reached["podium"]
    best = found["podium"].points[-1]
    assert best.price is not None
    assert best.price >= 2
    first = found["podium"].points[0]
    assert 0.35 < first.low < 0.5 < first.high < 0.65


def test_lines_between_points_are_mixes() -> None:
    zero = next(s for s in made().series if s.kind == "zero")
    drawn = zero.between(5, log=False)
    assert [(round(x, 6), round(y, 6)) for x, y, *_ in drawn] == [
        (1, 0.5), (1.5, 0.625), (2, 0.75), (2.5, 0.875), (3, 1),
    ]  # fmt: skip
    assert all(0.5 + (x - 1) / 4 == pytest.approx(y) for x, y, *_ in zero.between(40, log=True))


def test_estimated_cells_have_no_oracle_and_no_costs_no_frontier() -> None:
    assert "oracle" not in {s.name for s in made(estimated=True).series}
    with pytest.raises(UsageError, match="no costs"):
        frontier(Truth(("a",), np.arange(1), np.ones((1, 1)), None, None), {})


def test_costs_far_apart_are_shown_by_their_logarithm() -> None:
    assert not made(dear=3).log
    assert made(dear=30).log


def test_the_frontier_is_json() -> None:
    found = json.loads(json.dumps(made().data(), allow_nan=False))
    assert found["series"][0]["points"][0]["cost_usd"] == 1


@pytest.mark.parametrize("dear", [3.0, 300.0])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_text_fits_a_terminal(dear: float, ascii_only: bool) -> None:
    text = text_chart(made(dear), ascii_only=ascii_only)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert text == text_chart(made(dear), ascii_only=ascii_only)
    field = lines[1:21]
    assert field[0].startswith(" 1.000 ")
    # the cheapest model is at the left of the lowest row, the dearest at the right of the highest
    assert field[-1][8] == "A"
    assert field[0].rstrip().endswith("B")
    assert len(field[0]) == 80
    assert "$1.00" in text
    assert ("log scale" in text) == (dear == 300)
    assert "A  small model: 0.500 [" in text
    if ascii_only:
        assert text.isascii()


def test_a_narrow_terminal_has_short_names() -> None:
    lines = text_chart(made(), width=40, height=8).splitlines()
    assert max(map(len, lines)) <= 40
    assert any(line.endswith("…") for line in lines)


def test_one_model_alone_is_drawn() -> None:
    truth = Truth(("only",), np.arange(2), np.ones((2, 1)), np.ones((2, 1)), None)
    assert "A  only: 1.000" in text_chart(frontier(truth, {}, draws=3))


def test_money_has_the_digits_that_count() -> None:
    found = [usd(x) for x in (0, 12.25, 0.00123456, 0.5, 3.21e-9)]
    assert found == ["$0.00", "$12.25", "$0.00123", "$0.5", "$3.21e-09"]


@pytest.mark.parametrize("dear", [3.0, 300.0])
def test_pictures_in_light_and_dark(tmp_path: Path, dear: float) -> None:
    pytest.importorskip("matplotlib", reason="extra `plot`")
    drawn = {}
    for theme in ("light", "dark"):
        svg = draw(made(dear), tmp_path / f"{theme}.svg", theme=theme, title="Cost and quality")
        png = draw(made(dear), tmp_path / f"{theme}.png", theme=theme)
        texts = {e.text for e in ElementTree.parse(svg).iter() if e.tag.endswith("}text")}
        assert {"Cost and quality", "small model", "large model", "zero router", "random", "oracle"} <= texts
        assert png.read_bytes().startswith(b"\x89PNG")
        drawn[theme] = svg.read_bytes()
        again = draw(made(dear), tmp_path / "again.svg", theme=theme, title="Cost and quality")
        assert again.read_bytes() == drawn[theme]
    assert b"#0d1117" in drawn["dark"]
    assert b"#0d1117" not in drawn["light"]


def test_a_picture_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="neither SVG nor PNG"):
        draw(made(), tmp_path / "plot.pdf")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="matplotlib") as error:
        draw(made(), tmp_path / "plot.svg")
    assert "podium[plot]" in error.value.mend


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="extra `plot`")
    with pytest.raises(UsageError, match="cannot be written"):
        draw(made(), tmp_path / "absent" / "plot.svg")
