"""The doubt of answers: learned from graded ones, calibrated, and spent by the rule of expected value."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from podium.memory.errors import UsageError
from podium.router.doubt import FEWEST_ROWS, Doubt, DoubtModel, Graded, decide, outlook
from podium.router.doubt.features import FIGURES, figures
from podium.router.doubt.learner import Logistic, Ridge, Scale, sigmoid
from podium.router.verifiers import Check


class Letters:
    """An embedder: the share of each of some letters."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [[text.count(letter) + 0.01 for letter in "aeiounst"] for text in texts]
        table = np.array(rows, dtype=np.float32)
        return table / np.linalg.norm(table, axis=1, keepdims=True)


def graded(n: int, seed: int = 0) -> list[Graded]:
    """Sums of three numbers; a wrong answer drops one of them four times in five, else it looks right. The
    strong model fails at every question about trains."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        a, b, c = (int(x) for x in rng.integers(2, 90, 3))
        thing = str(rng.choice(["trains", "books"]))
        prompt = f"Ann has {a} {thing}, Bob has {b} and Cleo has {c}. How many {thing} are there?"
        wrong = rng.random() < 0.4
        drops = wrong and rng.random() < 0.8
        steps = f"{a} + {b} = {a + b}" if drops else f"{a} + {b} + {c} = {a + b + c}"
        answer = f"They have {steps} {thing}.\n#### {steps.rpartition(' ')[2]}"
        rows.append(Graded(prompt, answer, 1.0 - wrong, 0.0 if thing == "trains" else 1.0))
    return rows


@pytest.fixture(scope="module")
def learned() -> DoubtModel:
    model = DoubtModel(Letters())
    model.fit(graded(400))
    return model


def ask(model: DoubtModel, rows: Sequence[Graded]) -> Doubt:
    return model.ask([row.prompt for row in rows], [row.weak_answer for row in rows])


def test_wrong_answers_are_doubted_more(learned: DoubtModel) -> None:
    rows = graded(300, seed=1)
    wrong = np.array([row.weak_score == 0 for row in rows])
    doubt = ask(learned, rows).wrong
    above = (doubt[wrong][:, None] > doubt[~wrong][None]).mean()
    assert above > 0.75


@pytest.mark.parametrize("seed", range(6))
def test_few_labels_never_turn_the_order_upside_down(seed: int) -> None:
    model = DoubtModel(Letters())
    model.fit(graded(FEWEST_ROWS + 10, seed))
    rows = graded(200, seed=100)
    wrong = np.array([row.weak_score == 0 for row in rows])
    found = ask(model, rows)
    for doubt in (found.wrong, found.order):
        assert (doubt[wrong][:, None] > doubt[~wrong][None]).mean() > 0.6


def test_the_doubt_is_calibrated(learned: DoubtModel) -> None:
    rows = graded(600, seed=2)
    wrong = np.array([1 - row.weak_score for row in rows])
    doubt = ask(learned, rows).wrong
    for low, high in ((0.0, 0.5), (0.5, 1.0)):
        part = (doubt >= low) & (doubt <= high)
        assert part.sum() > 50
        assert abs(doubt[part].mean() - wrong[part].mean()) < 0.1


def test_the_gain_knows_where_the_strong_model_fails_too(learned: DoubtModel) -> None:
    trains = Graded(
        "Ann has 5 trains, Bob has 9 and Cleo has 8. How many trains are there?",
        "They have 5 + 9 = 14 trains.\n#### 14",
        0.0,
    )
    prompt, answer = (text.replace("trains", "books") for text in (trains.prompt, trains.weak_answer))
    books = Graded(prompt, answer, 0.0)
    found = ask(learned, [trains, books])
    assert abs(found.wrong[0] - found.wrong[1]) < 0.1
    assert found.gain[1] > found.gain[0] + 0.2
    assert found.order[1] > found.order[0]


def test_reasons_name_what_moved_the_doubt(learned: DoubtModel) -> None:
    row = Graded("Ann has 5 books, Bob has 9 and Cleo has 8. How many books?", "5 + 9 = 14\n#### 14", 0)
    reasons = learned.reasons(row.prompt, row.weak_answer, most=4)
    assert "numbers of the question not used" in [reason.what for reason in reasons if reason.log_odds > 0]
    sizes = [abs(reason.log_odds) for reason in reasons]
    assert sizes == sorted(sizes, reverse=True)


def test_the_same_rows_give_the_same_model() -> None:
    rows, asked = graded(80), graded(20, seed=3)
    found = []
    for _ in range(2):
        model = DoubtModel(Letters())
        model.fit(rows)
        found.append(ask(model, asked))
    assert np.array_equal(found[0].gain, found[1].gain)


def test_what_was_learned_survives_as_json(learned: DoubtModel) -> None:
    asked = graded(20, seed=3)
    again = DoubtModel.from_json(json.loads(json.dumps(learned.to_json(), allow_nan=False)), Letters())
    before, after = ask(learned, asked), ask(again, asked)
    assert np.array_equal(before.wrong, after.wrong)
    assert np.array_equal(before.gain, after.gain)
    assert np.array_equal(before.order, after.order)
    nothing = DoubtModel.from_json(json.loads(json.dumps(DoubtModel().to_json())))
    assert nothing.doubt(["q"], ["a"]).tolist() == [0.5]


def test_a_state_of_another_version_or_embedder_is_refused(learned: DoubtModel) -> None:
    state = learned.to_json()
    other = {**state, "learned": {**state["learned"], "figures": ["one"]}}
    for damaged in (other, {}, {**state, "learned": {"figures": state["learned"]["figures"]}}):
        with pytest.raises(UsageError):
            DoubtModel.from_json(damaged, Letters())
    with pytest.raises(UsageError, match="another embedder"):
        ask(DoubtModel.from_json(state), graded(1))


@pytest.mark.parametrize("known", [1, 30, 99])
def test_with_few_strong_scores_the_gain_is_the_doubt_less_a_mean(known: int) -> None:
    rows = [
        Graded(row.prompt, row.weak_answer, row.weak_score, row.strong_score if i < known else None)
        for i, row in enumerate(graded(120))
    ]
    model = DoubtModel(Letters())
    model.fit(rows)
    found = ask(model, rows)
    shortfall = found.wrong - found.gain
    assert np.ptp(shortfall) < 1e-3
    assert -1 < shortfall[0] < 1


def test_a_verifiers_checks_count() -> None:
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(120):
        good = rng.random() < 0.5
        check = Check.of("unit tests", float(good), "they ran")
        rows.append(Graded("Write a function.", "def f(): ...", float(good), checks=(check,)))
    model = DoubtModel()
    model.fit(rows)
    checks = [[Check.of("unit tests", score, "they ran")] for score in (0.0, 1.0)] + [[]]
    failed, passed, unknown = model.ask(["Write a function."] * 3, ["def f(): ..."] * 3, checks).wrong
    assert failed > 0.7 > unknown > 0.3 > passed
    reasons = model.reasons("Write a function.", "def f(): ...", checks[0])
    assert [reason.what for reason in reasons] == ["the check 'unit tests'"]


def test_without_a_strong_models_scores_it_counts_as_always_right() -> None:
    rows = [Graded(row.prompt, row.weak_answer, row.weak_score) for row in graded(100)]
    model = DoubtModel(Letters())
    model.fit(rows)
    found = ask(model, rows)
    assert np.array_equal(found.gain, found.wrong)


@pytest.mark.parametrize("wrong", [0, 3])
def test_with_few_rows_only_their_share_is_known(wrong: int) -> None:
    rows = [Graded("q", "a", float(i >= wrong), 1.0) for i in range(FEWEST_ROWS - 1)]
    model = DoubtModel()
    model.fit(rows)
    found = ask(model, rows[:2])
    assert found.wrong == pytest.approx([(wrong + 1) / (FEWEST_ROWS + 1)] * 2)
    assert found.gain == pytest.approx([wrong / (FEWEST_ROWS - 1)] * 2)
    assert model.reasons("q", "a") == []


def test_an_unfitted_model_is_undecided_and_no_answers_give_none() -> None:
    assert DoubtModel().doubt(["q"], ["a"]).tolist() == [0.5]
    assert DoubtModel().doubt([], []).tolist() == []


def test_answers_that_are_all_right_leave_nothing_to_learn() -> None:
    model = DoubtModel()
    model.fit([Graded("q", "a", 1.0, 1.0)] * 98)
    assert model.doubt(["q"], ["a"]).tolist() == [0.01]


@pytest.mark.parametrize(
    "row", [{"prompt": "q"}, {"prompt": "q", "weak_answer": "a", "weak_score": 2}, {"weak_score": "x"}]
)
def test_a_row_that_cannot_be_read_says_what_to_give(row: dict[str, object]) -> None:
    with pytest.raises(UsageError) as error:
        DoubtModel().fit([row])
    assert error.value.mend


@settings(deadline=None)
@given(st.text(max_size=80), st.text(max_size=200))
def test_any_text_has_finite_figures_and_a_doubt(learned: DoubtModel, prompt: str, answer: str) -> None:
    found = figures(prompt, answer)
    assert len(found) == len(FIGURES)
    assert np.isfinite(found).all()
    doubt = learned.ask([prompt], [answer])
    assert 0 <= doubt.wrong[0] <= 1
    assert -1 <= doubt.gain[0] <= 1
    assert 0 <= doubt.order[0] <= 1


def test_logistic_finds_the_odds() -> None:
    x = Scale.of(np.repeat([[0.0], [1.0]], 500, axis=0))(np.repeat([[0.0], [1.0]], 500, axis=0))
    y = np.repeat([0.2, 0.9], 500)
    assert sigmoid(Logistic.fit(x, y, penalty=1e-6).margin(x[[0, -1]])) == pytest.approx([0.2, 0.9], abs=1e-3)


@pytest.mark.parametrize("shape", [(30, 4), (4, 30)])
def test_ridge_is_the_same_by_either_system(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=shape), rng.normal(size=shape[0])
    z = x - x.mean(0)
    expected = np.linalg.solve(z.T @ z + 2.0 * np.eye(shape[1]), z.T @ (y - y.mean()))
    assert Ridge.fit(x, y, 2.0).weights == pytest.approx(expected)


def test_a_column_that_never_varied_counts_for_nothing() -> None:
    scale = Scale.of(np.ones((5, 1)))
    assert scale(np.array([[7.0]])).tolist() == [[0.0]]


def test_escalates_when_the_gain_is_worth_more_than_it_costs() -> None:
    go, stay = (decide(gain, cost_nano=2_000_000, point_nano=10_000_000) for gain in (0.25, 0.2))
    assert (go.escalate, stay.escalate) == (True, False)
    assert go.billed(100_000) == 2_100_000
    assert stay.billed(100_000) == 100_000
    assert "+0.25 of score, worth 0.0025 USD: more than the 0.002 USD" in go.reason
    assert "no more than" in stay.reason


@given(
    st.lists(st.floats(-1, 1), max_size=20),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**10),
)
def test_the_outlook_is_the_mean_of_the_decisions(
    gains: list[float], weak: int, cost: int, point: int
) -> None:
    made = [decide(gain, cost, point) for gain in gains]
    found = outlook(gains, weak, cost, point)
    if gains:
        assert found.share == pytest.approx(np.mean([d.escalate for d in made]))
        assert found.cost_nano == pytest.approx(np.mean([d.billed(weak) for d in made]))
        assert found.gain == pytest.approx(sum(d.gain for d in made if d.escalate) / len(gains))
    else:
        assert (found.share, found.gain, found.cost_nano) == (0, 0, weak)
