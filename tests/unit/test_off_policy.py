"""Estimates of a policy from another one's log, against the truth of a simulated world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from podium.memory.errors import UsageError
from podium.router.evaluation.off_policy import Logged, off_policy

ACTIONS = 3
COSTS = np.array([0.001, 0.004, 0.02])


def chance_of_right(kind: np.ndarray) -> np.ndarray:
    """[n, actions]: how likely each action's answer is right; the first is bad at the second kind."""
    table = np.array([[0.8, 0.85, 0.9], [0.2, 0.6, 0.9]])
    return table[kind]


def log_of(
    seed: int, n: int = 600, *, guess: str = "good", explore: float = 0.3
) -> tuple[Logged, float, float]:
    """A log of a policy that mostly takes the first action, of one that takes the third on the second kind;
    with what that one truly scores and costs on these decisions."""
    dice = np.random.default_rng(seed)
    kind = dice.integers(0, 2, n)
    right = chance_of_right(kind)
    chances = np.full((n, ACTIONS), explore / (ACTIONS - 1))
    chances[:, 0] = 1 - explore
    taken = np.array([dice.choice(ACTIONS, p=row) for row in chances])
    other = np.where(kind == 1, 2, 0)
    rows = np.arange(n)
    score = (dice.random(n) < right[rows, taken]).astype(float)
    cost = COSTS[taken] * dice.uniform(0.8, 1.2, n)
    said = right if guess == "good" else np.full((n, ACTIONS), 0.5)
    price = COSTS if guess == "good" else np.full(ACTIONS, COSTS.mean())
    made = Logged(
        score, cost, score, cost, chances[rows, taken], (taken == other).astype(float),
        said[rows, taken], price[taken], said[rows, other], price[other],
    )  # fmt: skip
    return made, float(right[rows, other].mean()), float(COSTS[other].mean())


@pytest.mark.parametrize("guess", ["good", "none"])
def test_intervals_hold_the_truth(guess: str) -> None:
    hits, errors = np.zeros(4), []
    for seed in range(200):
        rows, score, cost = log_of(seed, guess=guess)
        found = off_policy(rows)
        assert found.weighted is not None
        told = (
            found.weighted.score, found.weighted.cost, found.doubly_robust.score, found.doubly_robust.cost,
        )  # fmt: skip
        for i, (one, truth) in enumerate(zip(told, (score, cost, score, cost), strict=True)):
            hits[i] += one.low <= truth <= one.high
        errors.append([told[0].value - score, told[2].value - score])
    assert (hits >= 0.9 * 200).all(), hits
    assert np.abs(np.mean(errors, 0)).max() < 0.01  # neither leans to a side


def test_good_guesses_make_the_doubly_robust_estimate_sharper() -> None:
    rows, score, _ = log_of(3)
    found = off_policy(rows)
    assert found.weighted is not None
    sharp, wide = found.doubly_robust.score, found.weighted.score
    assert sharp.high - sharp.low < wide.high - wide.low
    assert found.effective < found.matched < found.decisions == 600
    assert found.logged.score.value == pytest.approx(rows.score.mean())
    assert found.logged.score.value < score


def test_wrong_chances_are_made_up_for_by_right_guesses() -> None:
    values = []
    for seed in range(60):
        rows, score, _ = log_of(seed)
        wrong = replace(rows, propensity=np.minimum(1.0, 2 * rows.propensity))
        values.append(off_policy(wrong).doubly_robust.score.value - score)
    assert abs(np.mean(values)) < 0.01


def test_nothing_alike_rests_on_the_guesses_alone() -> None:
    rows, _, _ = log_of(1)
    found = off_policy(replace(rows, target=np.zeros_like(rows.target)))
    assert found.weighted is None
    assert (found.matched, found.effective) == (0, 0.0)
    assert found.doubly_robust.score.value == pytest.approx(rows.then_score.mean())
    few = np.zeros_like(rows.target)
    few[:2] = 1
    for one in (found, off_policy(replace(rows, target=few))):  # no sharper than 600 answers of its own
        assert one.doubly_robust.score.high - one.doubly_robust.score.low > 4 * (0.25 * 0.4 / 600) ** 0.5


def test_the_logging_policy_itself_is_its_own_mean_and_never_certain() -> None:
    ones = np.ones(5)
    same = off_policy(Logged(*(ones for _ in range(10))))
    assert same.weighted is not None
    assert same.weighted.score.value == same.logged.score.value == 1
    assert same.weighted.score.low < 0.7 < same.weighted.score.high
    assert same.effective == pytest.approx(5)


def test_a_first_answer_that_several_ways_give_counts_once() -> None:
    """Two ways with one chance in two each begin with the same model: all its answers count as they are."""
    dice = np.random.default_rng(2)
    score = (dice.random(400) < 0.7).astype(float)
    rows = [(s, 0.01, s, 0.01, 0.5, 1.0, 0.5, 0.01, 0.5, 0.01) for s in score]
    found = off_policy(Logged.of(rows))
    assert found.doubly_robust.score.value == pytest.approx(score.mean())
    assert found.doubly_robust.score.low > 0.6
    half = [row if i % 2 else (*row[:5], 0.0, *row[6:]) for i, row in enumerate(rows)]
    assert off_policy(Logged.of(half)).effective == pytest.approx(200)
    with pytest.raises(UsageError):
        Logged.of([])


@pytest.mark.parametrize(
    "change", [{"propensity": np.zeros(600)}, {"target": np.full(600, 2.0)}, {"cost": np.ones(3)}]
)
def test_what_is_no_log_is_refused(change: dict[str, np.ndarray]) -> None:
    rows, _, _ = log_of(0)
    with pytest.raises(UsageError):
        replace(rows, **change)
    with pytest.raises(UsageError):
        Logged(*(np.zeros(0) for _ in range(10)))
