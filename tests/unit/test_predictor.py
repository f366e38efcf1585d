"""The predictor on made-up pools: finds what is there, and keeps to means where nothing is."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from podium.memory.errors import UsageError
from podium.router.learned import LearnedRouter
from podium.router.learning.amounts import AmountModel
from podium.router.learning.predictor import HierarchicalPredictor, Outcome
from podium.router.learning.quality import TaskMeans
from podium.router.learning.ridge import PENALTIES, KernelMap, Ridge, best_penalty, stack
from podium.router.learning.state import pack
from podium.router.learning.within import WithinTasks

MODELS = ("cheap", "middle", "dear")
PRICES = (1e-5, 1e-4, 1e-3)
TOPICS = {
    "sums": "Add {} and {} and tell the total amount in dollars.",
    "poems": "Write a gentle poem about the river and the moon, number {} of {}.",
    "history": "Who was the king of the old country in the year {}{}?",
    "code": "def f(x):\n    return x + {} == {}  # implement the function",
}


def prompt_of(topic: str, rng: np.random.Generator) -> str:
    return TOPICS[topic].format(*rng.integers(10, 99, 2))


def outcomes(
    count: int, skill: dict[str, tuple[float, ...]], seed: int = 0, *, named: bool = True, priced: bool = True
) -> list[Outcome]:
    """One prompt after the other, each answered by all models with the task's chances."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        topic = list(skill)[i % len(skill)]
        prompt = f"{prompt_of(topic, rng)} ({i})"
        for j, model in enumerate(MODELS):
            score = float(rng.random() < skill[topic][j])
            cost = PRICES[j] * len(prompt) if priced else None
            found.append(Outcome(prompt, model, score, topic if named else None, cost, None, 10.0 * (j + 1)))
    return found


EQUAL = dict.fromkeys(TOPICS, (0.4, 0.6, 0.8))
SPLIT = {
    "sums": (0.9, 0.2, 0.9),
    "poems": (0.1, 0.9, 0.9),
    "history": (0.9, 0.2, 0.9),
    "code": (0.1, 0.9, 0.9),
}


def fitted(rows: list[Outcome]) -> HierarchicalPredictor:
    predictor = HierarchicalPredictor(MODELS)
    predictor.fit(rows)
    return predictor


def asked(topics: list[str], seed: int = 99) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{prompt_of(t, rng)} ({900 + i})" for i, t in enumerate(topics)]


class TestThinEvidence:
    def test_without_outcomes_all_models_are_alike(self) -> None:
        found = HierarchicalPredictor(MODELS).predict(["a", ""], ["x", None])
        assert (found.quality == 0.5).all()
        assert not found.cost.any()

    def test_few_outcomes_give_the_models_means_only(self) -> None:
        found = fitted(outcomes(12, SPLIT)).predict(asked(list(TOPICS)), list(TOPICS))
        assert np.ptp(found.quality, axis=0).max() == 0
        assert (found.variance > 0).all()

    def test_where_text_tells_nothing_the_order_of_models_stays(self) -> None:
        predictor = fitted(outcomes(200, EQUAL, named=False))
        found = predictor.predict(asked(list(TOPICS) * 5)).quality
        assert (np.argsort(found, axis=1) == [0, 1, 2]).all()
        assert found.std(0).max() < 0.08

    def test_a_model_without_outcomes_is_given_the_pools_mean(self) -> None:
        rows = [o for o in outcomes(200, EQUAL) if o.model != "dear"]
        found = fitted(rows).predict(asked(["sums"]), ["sums"])
        assert np.isfinite(found.quality).all()
        assert found.quality[0, 2] == pytest.approx(found.quality[0, :2].mean(), abs=0.1)
        assert found.variance[0, 2] > found.variance[0, 0]


class TestSignal:
    @pytest.mark.parametrize("named", [True, False])
    def test_the_task_or_its_text_tells_which_model_will_do(self, named: bool) -> None:
        topics = list(TOPICS) * 5
        found = fitted(outcomes(300, SPLIT, named=named)).predict(asked(topics), topics if named else None)
        gain = found.quality[:, 1] - found.quality[:, 0]
        wanted = np.array([SPLIT[t][1] - SPLIT[t][0] for t in topics])
        assert (np.sign(gain) == np.sign(wanted)).mean() >= 0.9

    def test_quality_is_calibrated(self) -> None:
        rows, held = outcomes(600, SPLIT), outcomes(400, SPLIT, seed=5)
        prompts = [o.prompt for o in held[::3]]
        found = fitted(rows).predict(prompts, [o.task for o in held[::3]]).quality.ravel()
        scores = np.array([o.score for o in held])
        group = np.digitize(found, np.linspace(0, 1, 6)[1:-1])
        for k in np.unique(group):
            mine = group == k
            if mine.sum() >= 60:
                assert abs(found[mine].mean() - scores[mine].mean()) < 0.1

    def test_one_model_a_prompt_is_enough(self) -> None:
        rng = np.random.default_rng(3)
        full = outcomes(900, SPLIT)
        rows = [full[3 * i + int(rng.integers(3))] for i in range(900)]
        found = fitted(rows).predict(asked(list(TOPICS)), list(TOPICS)).quality
        wanted = np.array([SPLIT[t][1] - SPLIT[t][0] for t in TOPICS])
        assert (np.sign(found[:, 1] - found[:, 0]) == np.sign(wanted)).all()


class TestUnseenTasks:
    def test_a_new_task_keeps_every_model_on_the_frontier_in_order_of_price(self) -> None:
        worse_dear = dict.fromkeys(TOPICS, (0.8, 0.6, 0.4))
        found = fitted(outcomes(200, worse_dear)).predict(["something new"], ["never seen"])
        quality, cost = found.quality[0], found.cost[0]
        assert (np.diff(quality) > 0).all()
        slopes = np.diff(quality) / np.diff(cost)
        assert (np.diff(slopes) < 0).all()

    def test_without_prices_a_new_task_is_left_to_what_transferred(self) -> None:
        found = fitted(outcomes(200, EQUAL, priced=False)).predict(["something new"], ["never seen"])
        assert (np.argsort(found.quality[0]) == [0, 1, 2]).all()
        assert not found.cost.any()


class TestAnswers:
    def test_odd_prompts_get_finite_answers(self) -> None:
        odd = ["", " ", "\x00", "🙂" * 2000, "a" * 100_000, "\n" * 50, "漢字"]
        found = fitted(outcomes(120, SPLIT)).predict(odd, [None, "sums", "new", "", None, "poems", None])
        for part in (found.quality, found.variance, found.cost, found.out_tok):
            assert part.shape == (7, 3)
            assert np.isfinite(part).all()
            assert (part >= 0).all()
        assert (found.quality <= 1).all()

    def test_no_prompts(self) -> None:
        assert fitted(outcomes(120, SPLIT)).predict([]).quality.shape == (0, 3)

    def test_same_outcomes_same_answers_alone_or_together(self) -> None:
        rows, prompts = outcomes(150, SPLIT), asked(list(TOPICS))
        first, second = (fitted(rows).predict(prompts, list(TOPICS)) for _ in range(2))
        assert (first.quality == second.quality).all()
        assert (first.cost == second.cost).all()
        alone = fitted(rows).predict(prompts[1:2], ["poems"])
        assert alone.quality == pytest.approx(first.quality[1:2])

    def test_cost_follows_length_and_tokens_the_model(self) -> None:
        predictor = fitted(outcomes(200, EQUAL))
        found = predictor.predict(["Add 1 and 2.", "Add 1 and 2. " * 20], ["sums", "sums"])
        assert (found.cost[1] > 3 * found.cost[0]).all()
        assert (np.diff(found.cost, axis=1) > 0).all()
        assert found.out_tok[0] == pytest.approx([10, 20, 30], rel=0.05)


class TestState:
    def test_a_state_gives_the_same_answers_and_holds_no_text(self) -> None:
        predictor, prompts = fitted(outcomes(150, SPLIT)), asked(list(TOPICS))
        state = predictor.to_state()
        again = HierarchicalPredictor.from_state(state)
        for tasks in (list(TOPICS), ["new"] * 4, None):
            one, two = predictor.predict(prompts, tasks), again.predict(prompts, tasks)
            assert all((getattr(one, f.name) == getattr(two, f.name)).all() for f in fields(one))
        assert b"gentle poem" not in state
        assert again.to_state() == state

    @pytest.mark.parametrize("state", [b"", b"PK nonsense", pack({"a": 1}, {})])
    def test_what_is_no_state_is_refused_with_a_mend(self, state: bytes) -> None:
        with pytest.raises(UsageError) as caught:
            HierarchicalPredictor.from_state(state)
        assert caught.value.mend

    def test_a_state_of_another_version_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        state = fitted([]).to_state()
        monkeypatch.setattr("podium.router.learning.state.VERSION", 99)
        with pytest.raises(UsageError, match="version 1"):
            HierarchicalPredictor.from_state(state)

    def test_a_state_cannot_hold_what_it_does_not_know(self) -> None:
        with pytest.raises(UsageError):
            pack({"a": object()}, {})


class TestSeconds:
    def test_nine_in_ten_stay_below_the_high_figure(self) -> None:
        rng = np.random.default_rng(8)
        rows = [
            Outcome(f"prompt {i}", m, 1.0, seconds=float(np.exp(rng.normal(j, 0.5))), out_tok=50.0)
            for i in range(300)
            for j, m in enumerate(MODELS)
        ]
        found = fitted(rows).predict([o.prompt for o in rows[::3]])
        seen = np.array([o.seconds for o in rows], float).reshape(-1, 3)
        assert (seen < found.seconds_high).mean(0) == pytest.approx(np.full(3, 0.9), abs=0.04)
        assert (found.seconds < found.seconds_high).all()
        assert found.out_tok_high == pytest.approx(found.out_tok)


class TestParts:
    def test_more_rows_move_a_tasks_mean_further(self) -> None:
        targets = np.random.default_rng(0).normal(0, 1, (400, 1))
        tasks = np.repeat([0, 1], [380, 20])
        targets[tasks == 0] += 1 - targets[tasks == 0].mean()
        targets[tasks == 1] += 1 - targets[tasks == 1].mean()
        table = TaskMeans.of(tasks, targets, np.ones_like(targets)).table[:, 0]
        assert 0 < table[1] < table[0] < 1
        assert table[2] == 0

    def test_left_out_errors_are_those_of_fitting_again(self) -> None:
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
        ridge, penalty = Ridge(x, y), 3.0
        left = ridge.left_out(penalty)
        middle, mean = x.mean(0), y.mean(0)
        a, b = x - middle, y - mean
        keep = np.arange(30) != 7
        # the penalty does not fall on the intercept
        one = np.hstack([np.ones((30, 1)), a])
        weights = np.linalg.solve(
            one[keep].T @ one[keep] + np.diag([0, *[penalty] * 4]), one[keep].T @ b[keep]
        )
        assert left[7] == pytest.approx(one[7] @ weights + mean)

    def test_left_out_groups_are_not_seen(self) -> None:
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))
        groups = np.repeat(np.arange(4), 10)
        left = Ridge(x, y).groups_left_out(2.0, groups)
        a, b, keep = x - x.mean(0), y - y.mean(0), groups != 2
        weights = np.linalg.solve(a[keep].T @ a[keep] + 2 * np.eye(3), a[keep].T @ b[keep])
        assert left[groups == 2] == pytest.approx(a[groups == 2] @ weights + y.mean(0))

    def test_left_out_rows_of_a_task_are_those_of_fitting_again(self) -> None:
        rng = np.random.default_rng(9)
        x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
        tasks, known = np.repeat([0, 1, -1], 10), np.ones((30, 2))
        known[3, 1] = 0
        left = WithinTasks.of(x, tasks, y * known, known).left_out
        keep = np.arange(30) != 13
        again = WithinTasks.of(x[keep], tasks[keep], (y * known)[keep], known[keep])
        assert left[13] == pytest.approx(again(x[13:14], tasks[13:14])[0])
        assert not left[20:].any()
        assert left[3, 1] == 0

    def test_noise_gets_the_mean(self) -> None:
        errors = np.vstack([np.full((len(PENALTIES), 1), 2.0), [[1.0]]])
        assert best_penalty(errors) is None
        assert best_penalty(errors[::-1]) == PENALTIES[0]

    def test_stacked_shares_go_to_what_explains(self) -> None:
        rng = np.random.default_rng(4)
        truth, noise = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
        shares = stack([truth, noise, -truth], truth + rng.normal(size=(300, 2)), np.ones((300, 2)))
        assert shares[0] > 0.9
        assert shares[1] < 0.15
        assert shares[2] == 0

    def test_features_reproduce_the_kernel_and_novelty_grows_with_distance(self) -> None:
        rng = np.random.default_rng(5)
        vectors, counts = rng.normal(size=(50, 8)) * 0.3, rng.normal(size=(50, 4))
        features = KernelMap.of(vectors, counts)
        assert (features(vectors, counts) ** 2).sum(1) == pytest.approx(np.ones(50), abs=1e-3)
        made = Ridge(features(vectors, counts), rng.normal(size=(50, 1))).fit(1.0)
        near = made.novelty(features(vectors[:5], counts[:5]))
        far = made.novelty(features(vectors[:5] + 20, counts[:5]))
        assert (near < far).all()
        assert far == pytest.approx(np.ones(5), abs=0.2)

    def test_amounts_sum_to_what_was_paid(self) -> None:
        rng = np.random.default_rng(6)
        lengths, tasks = rng.normal(5, 1, 200), rng.integers(-1, 3, 200)
        amounts = np.exp(0.7 * lengths + rng.normal(0, 0.3, 200))[:, None] * [1.0, 10.0]
        amounts[::3, 0] = np.nan
        model = AmountModel(lengths, tasks, amounts)
        known = np.isfinite(amounts[:, 0])
        assert model(lengths, tasks)[known, 0].sum() == pytest.approx(amounts[known, 0].sum(), rel=0.02)


class TestOutcomes:
    def test_read_from_a_mapping(self) -> None:
        row = {
            "prompt": "p",
            "model": "m",
            "score": 1,
            "task": "",
            "cost_usd": float("nan"),
            "out_tok": 5,
            "x": 1,
        }
        assert Outcome.of(row) == Outcome("p", "m", 1.0, None, None, None, 5.0)

    @pytest.mark.parametrize("row", [{"prompt": "p"}, {"prompt": "p", "model": "m", "score": 1.2},
                                     {"prompt": "p", "model": "m", "score": None}])  # fmt: skip
    def test_nonsense_is_refused_with_a_mend(self, row: dict[str, object]) -> None:
        with pytest.raises(UsageError) as caught:
            Outcome.of(row)
        assert caught.value.mend

    def test_other_models_are_left_out_and_samples_are_averaged(self) -> None:
        router = LearnedRouter(MODELS)
        router.fit(
            [{"prompt": "p", "model": m, "score": s} for m, s in (("cheap", 0), ("cheap", 1), ("alien", 1))]
        )
        quality, cost = router.predict(["p"])
        assert quality[0, 0] == pytest.approx(0.5)
        assert cost.tolist() == [[0, 0, 0]]
