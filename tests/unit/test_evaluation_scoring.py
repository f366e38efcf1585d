"""Curves and figures, against values worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.memory.errors import UsageError
from podium.router.evaluation.choices import Pair, Sweep, taken_by
from podium.router.evaluation.curves import Deferral, Ranks, aiq, hull_index
from podium.router.evaluation.routers import Predictions
from podium.router.evaluation.scoring import Report, score, tep
from podium.router.evaluation.truth import Truth

WEAK, STRONG = np.array([0.0, 0, 1, 1]), np.ones(4)


def truth_by_hand(cost: bool = True, tokens: bool = True) -> Truth:
    """The strong model gains on the first two prompts only."""
    scores = np.stack([WEAK, STRONG], 1)
    return Truth(
        ("cheap", "dear"),
        np.arange(4),
        scores,
        np.tile([1.0, 3.0], (4, 1)) if cost else None,
        np.tile([100.0, 200.0], (4, 1)) if tokens else None,
    )


def said(quality: np.ndarray, cost: np.ndarray | None = None, fold: np.ndarray | None = None) -> Predictions:
    count = len(quality)
    price = np.tile([1.0, 3.0], (count, 1)) if cost is None else cost
    none = np.zeros(count, np.intp)
    return Predictions(np.asarray(quality, float), price, none, none if fold is None else fold)


def value(report: Report, row: str, figure: str) -> float:
    return report.row(row).figures[figure].value


def test_the_share_of_strong_calls_by_hand() -> None:
    ranks = Ranks.of(np.array([4.0, 3, 2, 1]))
    found = Deferral.of(ranks, (WEAK, STRONG), (np.ones(4), 3 * np.ones(4)))
    assert found is not None
    assert found.apgr == pytest.approx(0.75)
    assert found.cpt(50) == pytest.approx(0.25)
    assert found.cpt(80) == pytest.approx(0.4)
    assert found.share_for(0.95) == pytest.approx(0.45)
    assert found.cost_for(0.95) == pytest.approx((1 + 0.45 * 2) / 3)
    read = Deferral.of(ranks, (WEAK, STRONG), (np.ones(4), 3 * np.ones(4)), weak_billed=True)
    assert read is not None
    assert read.cost_for(0.95) == pytest.approx((1 + 0.45 * 3) / 3)


def test_equal_ranks_are_shared_out_evenly() -> None:
    found = Deferral.of(Ranks.of(np.zeros(4)), (WEAK, STRONG))
    assert found is not None
    assert (found.apgr, found.cpt(50), found.cpt(80)) == pytest.approx((0.5, 0.5, 0.8))
    assert np.isnan(found.cost_for(0.95))


def test_no_gap_is_no_share() -> None:
    assert Deferral.of(Ranks.of(np.zeros(4)), (STRONG, WEAK)) is None


def test_aiq_by_hand() -> None:
    assert aiq(np.array([1.0, 2]), np.array([0.4, 0.8]), 1, 2) == pytest.approx(0.6)
    assert aiq(np.array([1.0, 2, 3]), np.array([0.4, 0.8, 0.1]), 1, 3) == pytest.approx(0.7)
    assert np.isnan(aiq(np.array([1.0]), np.array([0.4]), 1, 1))


def test_the_hull_leaves_out_what_a_mix_beats() -> None:
    cost, quality = np.array([1.0, 2, 3, 1, 4]), np.array([0.2, 0.25, 0.8, 0.3, 0.7])
    assert hull_index(cost, quality) == [3, 2]


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(
        st.tuples(st.floats(0.01, 9, allow_nan=False), st.floats(0, 1, allow_nan=False)),
        min_size=1,
        max_size=12,
    )
)
def test_no_point_lies_above_the_hull(points: list[tuple[float, float]]) -> None:
    cost, quality = np.array(points).T
    kept = hull_index(cost, quality)
    reached = np.interp(cost, cost[kept], quality[kept])
    assert (np.diff(quality[kept]) >= 0).all()
    assert (np.diff(cost[kept]) > 0).all()
    assert (reached >= quality - 1e-9).all()


def test_the_report_by_hand() -> None:
    good = said(np.array([[0.0, 1], [0, 1], [1, 1], [1, 1]]))
    report = score(truth_by_hand(), {"good": good}, draws=0)
    assert report.points_per_usd == pytest.approx(0.8 * 0.5 / 2)
    assert report.pair == ("cheap", "dear")
    for row in ("good", "oracle"):
        assert value(report, row, "aiq") == pytest.approx(0.875)
        assert value(report, row, "captured") == pytest.approx(1)
        assert value(report, row, "points") == pytest.approx(0.125)
        assert value(report, row, "regret") == pytest.approx(0)
        assert value(report, row, "quality") == 1
        assert value(report, row, "cost_usd") == 2
        assert value(report, row, "tep") == pytest.approx(2)
    # ties of gain are shared evenly: full after two of four prompts
    assert value(report, "good", "apgr") == pytest.approx(0.75)
    assert value(report, "zero", "aiq") == pytest.approx(0.75)
    assert value(report, "zero", "regret") == pytest.approx(0.2)
    assert value(report, "zero", "apgr") == pytest.approx(0.5)
    assert value(report, "cheap", "regret") == pytest.approx(0.3)
    assert value(report, "random", "regret") == pytest.approx(0.25)
    assert value(report, "dear", "tep") == pytest.approx(1)
    assert "tep" not in report.row("cheap").figures
    assert value(report, "dear", "tokens") == 200


def test_a_router_that_knows_nothing_is_the_zero_router() -> None:
    report = score(truth_by_hand(), {"means": said(np.tile([0.5, 1.0], (4, 1)))}, draws=0)
    assert value(report, "means", "captured") == pytest.approx(0)
    assert value(report, "means", "apgr") == pytest.approx(0.5)


def test_a_router_that_is_wrong_is_below_it() -> None:
    wrong = said(np.array([[1.0, 1], [1, 1], [0, 1], [0, 1]]))
    report = score(truth_by_hand(), {"wrong": wrong}, draws=0)
    assert value(report, "wrong", "apgr") == pytest.approx(0.25)
    assert value(report, "wrong", "captured") <= 1e-12


def test_without_costs_quality_alone_is_judged() -> None:
    report = score(truth_by_hand(cost=False, tokens=False), {"r": said(np.tile([1.0, 0.0], (4, 1)))}, draws=0)
    assert value(report, "r", "points") == pytest.approx(-0.5)
    assert report.points_per_usd == 0
    assert "aiq" not in report.row("r").figures
    assert "tep" not in report.row("r").figures
    assert any("no costs" in note for note in report.notes)
    assert any("TEP" in note for note in report.notes)


def test_folds_are_ranked_each_for_itself() -> None:
    """Means of training that differ from fold to fold are no knowledge of prompts."""
    fold = np.array([0, 0, 1, 1])
    constant = said(np.array([[0.0, 0.9], [0, 0.9], [0, 0.1], [0, 0.1]]), fold=fold)
    report = score(truth_by_hand(), {"means": constant}, draws=0)
    assert value(report, "means", "apgr") == pytest.approx(0.5)


def test_estimated_cells_have_no_oracle_and_no_regret() -> None:
    t = truth_by_hand()
    guessed = Truth(t.models, t.index, t.score, t.cost, t.tokens, estimated=True)
    report = score(guessed, {"r": said(t.score)}, draws=0)
    assert [row.name for row in report.rows] == ["r", "cheap", "dear", "zero", "random"]
    assert {"regret", "captured"}.isdisjoint(report.row("r").figures)
    assert value(report, "r", "points") == pytest.approx(0.125)


def big(seed: int = 0, count: int = 400) -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(seed)
    skill = rng.random((count, 2)) * [0.6, 1.0]
    scores = (rng.random((count, 2)) < skill).astype(float)
    cost = np.tile([1.0, 3.0], (count, 1))
    return Truth(("a", "b"), np.arange(count), scores, cost, None), said(skill, cost)


def test_intervals_are_of_the_right_width_and_seeded() -> None:
    truth, router = big()
    report = score(truth, {"r": router}, draws=300, seed=3)
    quality = report.row("a").figures["quality"]
    assert quality.low is not None
    assert quality.high is not None
    right = 2 * 1.96 * np.sqrt(quality.value * (1 - quality.value) / len(truth))
    assert quality.high - quality.low == pytest.approx(right, rel=0.15)
    assert score(truth, {"r": router}, draws=300, seed=3).data() == report.data()
    assert score(truth, {"r": router}, draws=300, seed=4).data() != report.data()


def test_differences_are_paired() -> None:
    truth, router = big()
    noise = said(np.random.default_rng(9).random(truth.score.shape), truth.cost)
    report = score(truth, {"r": router, "same": router, "noise": noise}, draws=200)
    same = report.difference("r", "same", "aiq")
    assert same is not None
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = report.difference("r", "noise", "aiq")
    assert better is not None
    assert better.low is not None
    assert better.low > 0
    assert report.difference("r", "a", "aiq") is None
    with pytest.raises(KeyError):
        report.row("absent")


def test_the_report_is_json() -> None:
    truth, router = big(count=30)
    found = json.loads(json.dumps(score(truth, {"r": router}, draws=5).data(), allow_nan=False))
    assert found["rows"][0]["name"] == "r"
    assert len(found["rows"][0]["aiq"]) == 3


def test_the_pair_is_the_cheapest_and_the_best() -> None:
    scores = np.array([[0.2, 0.9, 0.5]])
    three = Truth(("a", "b", "c"), np.arange(1), scores, np.array([[1.0, 2.0, 9.0]]), None)
    assert Pair.of(three) == Pair(0, 1)
    assert Pair.of(three, ("c", "b")) == Pair(2, 1)
    with pytest.raises(UsageError, match="no model x"):
        Pair.of(three, ("a", "x"))
    best_is_cheapest = Truth(("a", "b", "c"), np.arange(1), scores, np.array([[2.0, 1.0, 9.0]]), None)
    assert Pair.of(best_is_cheapest) is None
    report = score(best_is_cheapest, {}, draws=0)
    assert any("one model is both" in note for note in report.notes)


def test_a_dear_model_that_is_worse_has_no_shares() -> None:
    t = truth_by_hand()
    upside_down = Truth(t.models, t.index, t.score[:, ::-1], t.cost, None)
    report = score(upside_down, {}, draws=0)
    assert "apgr" not in report.row("zero").figures
    assert any("dear is not better than cheap" in note for note in report.notes)


def test_choices_at_a_price_share_ties() -> None:
    taken = taken_by(said(np.zeros((4, 2)), np.zeros((4, 2))), truth_by_hand(), 1.0)
    np.testing.assert_allclose(taken.score, (WEAK + STRONG) / 2)
    assert taken.cost is not None
    np.testing.assert_allclose(taken.cost, 2)


def test_a_sweep_goes_from_the_cheapest_to_the_best() -> None:
    truth, router = big(count=50)
    sweep = Sweep.of(router, truth)
    spent = sweep.cost.mean(1)
    assert spent[0] == 1.0
    assert spent[-1] == 1.0
    assert (np.diff(spent[:-1]) >= 0).all()
    assert np.isnan(sweep.prices[-1])


def test_tep_is_an_elasticity() -> None:
    assert tep(0.5, 0.55, 100, 110) == pytest.approx(1)
    assert tep(0.5, 0.45, 100, 110) == pytest.approx(-1)
    for nothing in ((0.5, 0.6, 100, 100), (0.5, 0.6, 100, 90), (0.0, 0.6, 100, 110), (0.5, 0.6, 0, 110)):
        assert np.isnan(tep(*nothing))
