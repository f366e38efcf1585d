"""Routers are asked about prompts that they were not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from podium.memory.errors import UsageError
from podium.router.evaluation.outcomes import Outcomes
from podium.router.evaluation.routers import TaskMeans, cross_validate
from podium.router.evaluation.scoring import score
from podium.router.evaluation.truth import truth_of
from podium.router.learned import LearnedRouter
from podium.router.learning.predictor import Outcome


def outcomes(count: int = 40) -> Outcomes:
    """Task `a` needs the dear model, task `b` does not."""
    rows = []
    for i in range(count):
        task = "ab"[i % 2]
        for model, cost in (("cheap", 1.0), ("dear", 3.0)):
            right = model == "dear" or task == "b"
            rows.append({"prompt": f"p{i}", "task": task, "model": model, "score": right, "cost_usd": cost})
    return Outcomes.of(rows)


class Spy:
    """Keeps what it was trained on, and refuses to be asked about it."""

    made: list[Spy]

    def __init__(self, models: Sequence[str]) -> None:
        self.models = tuple(models)
        self.seen: set[str] = set()
        self.tasks: set[str | None] = set()
        self.asked: list[str] = []
        Spy.made.append(self)

    def fit(self, rows: Iterable[Outcome], /) -> None:
        assert not self.seen
        for row in rows:
            self.seen.add(row.prompt)
            self.tasks.add(row.task)

    def predict(
        self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None, /
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self.seen.isdisjoint(prompts)
        self.asked += prompts
        shape = (len(prompts), len(self.models))
        return np.zeros(shape), np.full(shape, np.nan)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Spy.made = []


def test_no_prompt_is_judged_by_a_router_that_saw_it() -> None:
    found = cross_validate(Spy, outcomes(), folds=4)
    assert len(Spy.made) == 4
    assert sorted(p for spy in Spy.made for p in spy.asked) == sorted(f"p{i}" for i in range(40))
    assert all(len(spy.seen) == 30 for spy in Spy.made)
    # a router without an opinion on costs is given those of its training
    np.testing.assert_allclose(found.cost, np.tile([1.0, 3.0], (40, 1)))
    assert (found.cheapest == 0).all()


def test_one_text_in_two_tasks_is_in_one_fold() -> None:
    rows = [
        {"prompt": f"p{i}", "task": task, "model": m, "score": 1}
        for i in range(10)
        for task in "ab"
        for m in ("x", "y")
    ]
    cross_validate(Spy, Outcomes.of(rows), folds=5)
    cross_validate(
        Spy, Outcomes.of([*rows, {"prompt": "q", "task": "c", "model": "x", "score": 1}]), by="task"
    )
    assert len(Spy.made) == 5 + 3


def test_folds_by_task_make_each_task_new() -> None:
    cross_validate(Spy, outcomes(), by="task")
    assert [spy.tasks for spy in Spy.made] == [{"b"}, {"a"}]


def test_tasks_can_be_kept_from_routers() -> None:
    cross_validate(Spy, outcomes(), with_task=False)
    assert all(spy.tasks == {None} for spy in Spy.made)


def test_the_seed_deals_the_folds() -> None:
    first = cross_validate(TaskMeans, outcomes(), seed=1)
    np.testing.assert_array_equal(first.fold, cross_validate(TaskMeans, outcomes(), seed=1).fold)
    assert (first.fold != cross_validate(TaskMeans, outcomes(), seed=2).fold).any()
    backwards = Outcomes(outcomes().rows[::-1])
    np.testing.assert_array_equal(first.fold[::-1], cross_validate(TaskMeans, backwards, seed=1).fold)


@pytest.mark.parametrize(("rows", "options"), [(4, {"folds": 5}), (4, {"folds": 1}), (1, {"by": "task"})])
def test_too_little_to_fold_is_refused(rows: int, options: dict) -> None:
    with pytest.raises(UsageError):
        cross_validate(TaskMeans, outcomes(rows), **options)


def test_an_answer_of_another_shape_is_refused() -> None:
    class Short(Spy):
        def predict(self, prompts, tasks=None, /):
            return np.zeros(len(prompts)), np.zeros(len(prompts))

    with pytest.raises(UsageError, match="predict"):
        cross_validate(Short, outcomes())


def test_task_means_are_moved_towards_the_mean_of_all() -> None:
    router = TaskMeans(["cheap", "dear"])
    router.fit(outcomes(20).rows)
    quality, cost = router.predict(["x", "y", "z"], ["a", "b", None])
    # ten rows of the task, and fifteen of the mean over both
    np.testing.assert_allclose(quality, [[7.5 / 25, 1], [17.5 / 25, 1], [0.5, 1]])
    np.testing.assert_allclose(cost, np.tile([1.0, 3.0], (3, 1)))
    np.testing.assert_allclose(router.predict(["x"])[0], [[0.5, 1]])


@pytest.mark.parametrize("make", [TaskMeans, LearnedRouter])
def test_routers_that_know_tasks_capture_what_tasks_tell(make) -> None:
    rows = outcomes(120)
    report = score(truth_of(rows.matrix()), {"router": cross_validate(make, rows)}, draws=20)
    assert report.row("router").figures["captured"].value > 0.9
    assert report.row("router").figures["apgr"].value == pytest.approx(0.75, abs=0.02)


def test_prompts_without_all_outcomes_are_trained_on_but_not_judged() -> None:
    rows = [*outcomes(20).rows, Outcome("only", "cheap", 1.0, "a")]
    more = Outcomes(tuple(rows))
    found = cross_validate(TaskMeans, more)
    truth = truth_of(more.matrix())
    assert len(found.quality) == 21
    assert len(truth) == 20
    assert score(truth, {"r": found}, draws=0).prompts == 20
