"""`podium router …` on a file of outcomes: two kinds of task, of which the cheap model can do one."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

COLUMNS = ["prompt", "task", "model", "score", "cost_usd", "in_tok", "out_tok"]


@pytest.fixture
def project(project: Any, warm: Any) -> Any:
    return project.warmly(warm)


@pytest.fixture
def rows(project: Any) -> Path:
    """120 prompts of two tasks, two models: the small one fails at sums."""
    dice = random.Random(3)
    path = project.folder / "outcomes.csv"
    with path.open("w", newline="") as handle:
        write = csv.writer(handle)
        write.writerow(COLUMNS)
        for number in range(120):
            task = "sum" if number % 2 else "greet"
            prompt = f"Add {number} and {number + 7}." if number % 2 else f"Greet guest {number} politely."
            for model, cost, chance in (("small", 0.001, 0.1 if number % 2 else 0.9), ("large", 0.02, 0.9)):
                score = float(dice.random() < chance)
                write.writerow([prompt, task, model, score, cost, 20, 10 if model == "small" else 30])
    return path


def test_eval_puts_routers_beside_models_and_bounds(project: Any, rows: Path) -> None:
    found = project.json("router", "eval", str(rows), "--pair", "small,large", verb="router eval")
    by = {row["name"]: row["figures"] for row in found["rows"]}
    assert list(by) == ["podium", "task means", "large", "small", "zero", "random", "oracle"]
    assert by["podium"]["aiq"]["value"] > by["zero"]["aiq"]["value"]
    assert by["oracle"]["captured"]["value"] == 1
    assert by["podium"]["captured"]["low"] <= by["podium"]["captured"]["value"] < 1
    assert by["podium"]["apgr"]["value"] > 0.6 > by["random"]["apgr"]["value"]
    assert found["pair"] == ["small", "large"]
    blind = project.json("router", "eval", str(rows), "--by", "task", verb="router eval")
    new = {row["name"]: row["figures"] for row in blind["rows"]}
    assert new["podium"]["captured"]["value"] < by["podium"]["captured"]["value"]


def test_eval_prints_a_table_with_what_its_columns_mean(project: Any, rows: Path) -> None:
    done = project.podium("router", "eval", str(rows))
    head, first, *_ = done.stdout.splitlines()
    assert head.split()[:3] == ["QUALITY", "USD/1K", "AIQ"]
    assert first.split()[0] == "podium"
    assert "podium less task means, aiq:" in done.stderr
    assert "captured: points as a part of the oracle's" in done.stderr


def test_rank_weighs_quality_against_cost(project: Any, rows: Path) -> None:
    dear = project.json("router", "rank", str(rows), "--weights", "1,0,0", verb="router rank")
    cheap = project.json("router", "rank", str(rows), "--weights", "0,0,1", verb="router rank")
    assert [m["model"] for m in dear["models"]] == ["large", "small"]
    assert [m["model"] for m in cheap["models"]] == ["small", "large"]
    assert "refine" in dear["notes"][-1]
    assert project.podium("router", "rank", str(rows)).stdout.splitlines()[1].split()[0] == "1"


def test_frontier_is_text_and_a_picture(project: Any, rows: Path) -> None:
    done = project.podium("router", "frontier", str(rows), "--save", "frontier.svg")
    assert "zero router" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "oracle" in (project.folder / "frontier.svg").read_text()
    found = project.json("router", "frontier", str(rows), "--models", "small,large", verb="router frontier")
    assert {s["kind"] for s in found["series"]} >= {"router", "model", "zero", "oracle"}


def test_wrong_input_says_where_and_what_to_do(project: Any, rows: Path) -> None:
    project.write("bad.csv", "prompt,model,score\nhello,small,7\n")
    error = project.podium("router", "eval", "bad.csv", code=2).stderr
    assert "line 2, column score: 7 is not in 0…1" in error
    assert "no file" in project.podium("router", "rank", "none.csv", code=2).stderr
    for wrong in (
        ["eval", str(rows), "--by", "day"],
        ["eval", str(rows), "--pair", "small"],
        ["eval", str(rows), "--models", "huge"],
        ["rank", str(rows), "--weights", "1,2"],
        ["frontier", str(rows), "--save", "frontier.gif"],
    ):
        said = json.loads(project.podium("router", *wrong, "--json", code=2).stdout)
        assert said["error"]["mend"], wrong
