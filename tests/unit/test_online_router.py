"""Choosing while learning: reproducible, restartable, within its budget, and no worse than the best model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.memory.errors import UsageError
from podium.router.learned import LearnedRouter
from podium.router.learning.drift import Drift
from podium.router.learning.linear import Posterior, Sums
from podium.router.learning.online import Choice, OnlineRouter
from podium.router.learning.prices import RunningCost

MODELS = ("cheap", "dear")
COSTS = np.array([1e-4, 1e-3])
PROMPTS = [
    f"Question {i} of the {'long ' * (i % 7)}list, about {'apples' if i % 2 else 'pears'}?" for i in range(64)
]
Skill = Callable[[int, int], float]


def play(
    router: OnlineRouter, steps: int, skill: Skill, seed: int = 0, task: str | None = "t", price: float = 1.0
) -> tuple[list[Choice], np.ndarray]:
    """The choices, and the expected utility of each of them."""
    rng = np.random.default_rng(seed)
    choices, got = [], []
    for i in range(steps):
        prompt = PROMPTS[int(rng.integers(len(PROMPTS)))]
        choice = router.choose(prompt, task)
        j = MODELS.index(choice.model)
        chance = skill(i, j)
        router.learn(prompt, task, choice.model, float(rng.random() < chance), COSTS[j] * price)
        choices.append(choice)
        got.append(chance - router.price * COSTS[j] * price)
    return choices, np.array(got)


def steady(cheap: float, dear: float) -> Skill:
    return lambda _, j: (cheap, dear)[j]


@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=5, deadline=None)
def test_same_seed_same_choices_and_a_restart_changes_nothing(
    seed: int, split: int, cheap: float, dear: float
) -> None:
    first, second = (OnlineRouter(MODELS, 50.0, seed=seed) for _ in range(2))
    skill = steady(cheap, dear)
    play(first, split, skill)
    play(second, split, skill)
    second = OnlineRouter.from_state(second.to_state())
    assert play(first, 25, skill, 7)[0] == play(second, 25, skill, 7)[0]
    assert first.to_state() == second.to_state()


@given(st.integers(0, 10_000), st.sampled_from([(0.9, 0.4), (0.4, 0.9), (0.6, 0.6), (0.2, 0.25), (1, 0)]))
@settings(max_examples=5, deadline=None)
def test_on_text_that_tells_nothing_it_comes_near_the_best_single_model(
    seed: int, skills: tuple[float, float]
) -> None:
    router = OnlineRouter(MODELS, 50.0, seed=seed)
    _, got = play(router, 300, steady(*skills), seed)
    best = max(np.array(skills) - router.price * COSTS)
    # after the first third: sampling noise of ranks costs little, and a wrong model much
    assert got[100:].mean() >= best - 0.05


@pytest.mark.parametrize("adverse", [True, False])
def test_a_new_task_that_turns_everything_round_is_no_worse_than_the_floor(adverse: bool) -> None:
    """What was learned on other tasks is wrong on this one; the best single model is the floor."""
    router, losses = OnlineRouter(MODELS, 50.0, seed=3), []
    play(router, 300, lambda _, j: (0.3, 0.8)[j], task="old")
    flip = (0.8, 0.3) if adverse else (0.3, 0.8)
    for k in range(3):
        _, got = play(router, 150, lambda _, j: flip[j], seed=k, task=f"new {k}")
        losses.append(max(np.array(flip) - router.price * COSTS) - got.mean())
    assert losses[0] < 0.2
    assert np.mean(losses) < 0.1


def test_it_tells_tasks_apart() -> None:
    router, rng, right = OnlineRouter(MODELS, 10.0), np.random.default_rng(0), []
    skills = {"easy": (0.9, 0.9), "hard": (0.1, 0.9)}
    for i in range(500):
        task = ("easy", "hard")[i % 2]
        choice = router.choose(PROMPTS[i % 64], task)
        j = MODELS.index(choice.model)
        router.learn(
            PROMPTS[i % 64], task, choice.model, float(rng.random() < skills[task][j]), 50 * COSTS[j]
        )
        right.append(choice.model == ("cheap" if task == "easy" else "dear"))
    assert np.mean(right[300:]) > 0.85


def test_a_model_that_gets_worse_is_left() -> None:
    router = OnlineRouter(MODELS, 1.0)
    choices, _ = play(router, 700, lambda i, j: (0.6, 0.9 if i < 300 else 0.3)[j])
    taken = np.array([c.model == "dear" for c in choices])
    assert taken[200:300].mean() > 0.8
    assert taken[400:].mean() < 0.2
    assert router.alarms


def test_a_price_that_jumps_is_believed_at_once() -> None:
    router = OnlineRouter(MODELS, 100.0)
    play(router, 200, steady(0.5, 0.9))
    choices, _ = play(router, 60, steady(0.5, 0.9), price=8.0)
    assert sum(c.model == "dear" for c in choices[10:]) <= 5


def test_trying_dearer_models_stays_within_its_share() -> None:
    router = OnlineRouter(MODELS, 0.0, explore=0.05)
    for i in range(400):
        choice = router.choose(PROMPTS[i % 64], None)
        router.learn(PROMPTS[i % 64], None, choice.model, 0.5, COSTS[MODELS.index(choice.model)])
        assert router.tried <= router.credit + 0.05 * router.spent + COSTS.max()


def test_propensities_are_those_of_the_draws() -> None:
    router = OnlineRouter(("a", "b", "c"), seed=5)
    chances = {}
    counts = dict.fromkeys(router.models, 0)
    for _ in range(3000):
        choice = router.choose("the same prompt", None)
        counts[choice.model] += 1
        chances[choice.model] = choice.propensity
    assert sum(chances.values()) == pytest.approx(1)
    for model, chance in chances.items():
        assert counts[model] / 3000 == pytest.approx(chance, abs=0.04)


def test_only_allowed_models_are_taken() -> None:
    router = OnlineRouter(("a", "b", "c"))
    assert {router.choose(p, None, {"b"}).model for p in PROMPTS} == {"b"}
    with pytest.raises(UsageError):
        router.choose("p", None, set())


def test_nonsense_is_refused_and_odd_prompts_are_not() -> None:
    router = OnlineRouter(MODELS)
    for model, score in (("alien", 1.0), ("cheap", 1.5), ("cheap", float("nan"))):
        with pytest.raises(UsageError):
            router.learn("p", None, model, score, None)
    for prompt in ("", "\x00", "\ud800", "x" * 50_000):
        router.learn(prompt, "", router.choose(prompt, "").model, 1.0, 0.0)
    with pytest.raises(UsageError):
        OnlineRouter.from_state(LearnedRouter(MODELS).predictor.to_state())  # pyright: ignore


def test_outcomes_may_come_late_and_in_any_order() -> None:
    router = OnlineRouter(MODELS, 1.0)
    made = [(p, router.choose(p, "t").model) for p in PROMPTS]
    for prompt, model in reversed(made):
        router.learn(prompt, "t", model, float(model == "dear"), COSTS[MODELS.index(model)])
    late = [router.choose(p, "t").model for p in PROMPTS]
    assert late.count("dear") > made.count("dear")


def test_many_tasks_and_the_first_ones_keep_their_places() -> None:
    router = OnlineRouter(MODELS)
    for i in range(140):
        router.learn("p", f"task {i}", "cheap", 1.0, None)
    assert router.choose("p", "task 139").model in MODELS
    assert OnlineRouter.from_state(router.to_state()).outcomes == 140


class TestParts:
    def test_the_posterior_is_that_of_the_whole_system(self) -> None:
        rng = np.random.default_rng(0)
        m, d, noise = 3, 4, 0.2
        common, own = rng.uniform(0.1, 1, d), rng.uniform(0.1, 1, d)
        sums, rows, targets = Sums.empty(m, d), [], []
        for _ in range(40):
            j, x, y = int(rng.integers(m)), rng.normal(size=d), rng.normal()
            sums.add(j, x, y)
            row = np.zeros((m + 1, d))
            row[0] = row[j + 1] = x
            rows.append(row.ravel())
            targets.append(y)
        design, prior = np.array(rows), np.concatenate([common, *[own] * m])
        precision = design.T @ design / noise + np.diag(1 / prior)
        whole = np.linalg.solve(precision, design.T @ np.array(targets) / noise).reshape(m + 1, d)
        covariance = np.linalg.inv(precision).reshape(m + 1, d, m + 1, d)
        found = Posterior.of(sums, common, own, noise)
        assert found.weights == pytest.approx(whole[0] + whole[1:])
        mine = covariance[0, :, 0] + covariance[2, :, 2] + covariance[0, :, 2] + covariance[2, :, 0]
        assert found.covariance[1] == pytest.approx(mine)

    def test_drift_sees_a_shift_and_leaves_noise_alone(self) -> None:
        rng, drift = np.random.default_rng(1), Drift(10.0)
        assert not any(drift.see(e, 1.0) for e in rng.normal(0, 1, 2000))
        alarms = [drift.see(e, 1.0) for e in rng.normal(-1.5, 1, 60)]
        assert 5 < alarms.index(True) < 40

    def test_one_outlier_is_no_drift(self) -> None:
        drift = Drift(8.0)
        assert not any(drift.see(e, 1.0) for e in (0, 0, 1e9, 0, 0))

    def test_costs_follow_length_model_and_task(self) -> None:
        cost, rng = RunningCost(2), np.random.default_rng(2)
        assert (cost(100, None) == 0).all()
        for _ in range(300):
            size, j, task = int(rng.integers(20, 2000)), int(rng.integers(2)), rng.choice(["brief", "long"])
            paid = (1e-6, 1e-5)[j] * size**0.8 * (4 if task == "long" else 1)
            cost.learn(size, task, j, paid * float(np.exp(rng.normal(0, 0.1))))
        assert cost(500, "long") == pytest.approx(np.array([1e-6, 1e-5]) * 500**0.8 * 4, rel=0.25)
        assert cost(50, "brief") == pytest.approx(np.array([1e-6, 1e-5]) * 50**0.8, rel=0.35)
