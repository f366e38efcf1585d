"""Asks routers about prompts that they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...memory.errors import UsageError
from ..learning.predictor import Outcome
from .outcomes import Array, Matrix, Outcomes

#: rows that a mean over all tasks counts for against those of one task
_SHRINK = 15.0


class Router(Protocol):
    """Anything that says beforehand what models will make of prompts. `router.learned.LearnedRouter` is
    one."""

    def fit(self, rows: Iterable[Outcome], /) -> None:
        """Learns from outcomes; called once."""
        ...

    def predict(
        self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None, /
    ) -> tuple[Array, Array]:
        """(quality, cost), each [prompts, models] in the order of the models it was made for. Quality may
        be any preference, higher is better; cost is USD, nan where it has no opinion. Tasks may be new;
        None: not known.
        """
        ...


#: makes an untrained router for these models
Make = Callable[[Sequence[str]], Router]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a router said of each prompt of a matrix, without having seen its rows."""

    #: [prompts, models]
    quality: Array
    #: USD; zeros where no row had a cost
    cost: Array
    #: [prompts]: the model that was cheapest in training
    cheapest: NDArray[np.intp]
    #: [prompts]: routers of different folds were trained on different rows
    fold: NDArray[np.intp]

    def of(self, index: NDArray[np.intp]) -> Predictions:
        """Those of some prompts."""
        return Predictions(self.quality[index], self.cost[index], self.cheapest[index], self.fold[index])


class TaskMeans:
    """The simplest router that knows task types: each model's mean score and cost on the task, moved
    towards its mean over all tasks, which counts as 15 rows. What a learned router has to beat."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = tuple(models)
        self._means: dict[str, tuple[Array, Array]] = {}

    def fit(self, rows: Iterable[Outcome], /) -> None:
        """See `Router.fit`."""
        column = {model: j for j, model in enumerate(self.models)}
        sums: dict[str, Array] = {}
        for row in rows:
            j = column.get(row.model)
            if j is None:
                continue
            for task in {"", row.task or ""}:
                cell = sums.setdefault(task, np.zeros((4, len(column))))
                cell[:2, j] += row.score, 1
                if row.cost_usd is not None:
                    cell[2:, j] += row.cost_usd, 1
        pool = sums.get("", np.zeros((4, len(column))))
        nothing = np.array([[0.5], [0.0]])
        whole = np.where(pool[1::2] > 0, pool[::2] / np.maximum(pool[1::2], 1), nothing)
        for task, cell in sums.items():
            score, cost = (cell[::2] + _SHRINK * whole) / (cell[1::2] + _SHRINK)
            self._means[task] = (score, cost)
        self._means[""] = (whole[0], whole[1])

    def predict(
        self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None, /
    ) -> tuple[Array, Array]:
        """See `Router.predict`. A task that is new or not known has the means over all tasks."""
        named = tasks if tasks is not None else [None] * len(prompts)
        found = [self._means.get(task or "", self._means[""]) for task in named]
        score, cost = np.array(found).reshape(len(prompts), 2, -1).transpose(1, 0, 2)
        return score, cost


def cross_validate(
    make: Make,
    outcomes: Outcomes,
    *,
    models: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    by: Literal["prompt", "task"] = "prompt",
    with_task: bool = True,
) -> Predictions:
    """Predictions for every prompt of `outcomes.matrix(models)`, each by a router that was trained on
    other prompts.

    The prompts are dealt to `folds` by `seed` (one text is in one fold, whatever its tasks); `by="task"`
    makes each task a fold of its own, so that every task is new to its router. `make` is called anew for
    each. Without `with_task` routers are not told tasks. Costs that a router does not know are the
    model's mean in training.

    Raises:
        UsageError: fewer prompts than folds, a single task, or a router's answer that is not of the form.
    """
    matrix = outcomes.matrix(models)
    fold = _folds(matrix, folds, seed, by)
    shape = (len(matrix), len(matrix.models))
    quality, cost, cheapest = np.zeros(shape), np.zeros(shape), np.zeros(len(matrix), np.intp)
    rows = [row for row in outcomes.rows if row.model in matrix.models]
    places = {
        cell: int(k) for cell, k in zip(zip(matrix.prompts, matrix.tasks, strict=True), fold, strict=True)
    }
    for k in range(int(fold.max()) + 1):
        test = np.flatnonzero(fold == k)
        held = {matrix.prompts[i] for i in test}
        router = make(matrix.models)
        # a text may stand in several tasks: none of its rows are trained on where it is judged
        train = [r for r in rows if places[r.prompt, r.task or ""] != k and r.prompt not in held]
        router.fit(train if with_task else [replace(row, task=None) for row in train])
        prices = _prices(matrix, fold != k)
        quality[test], cost[test] = _ask(router, matrix, test, with_task, prices)
        cheapest[test] = np.argmin(prices)
    return Predictions(quality, cost, cheapest, fold)


def _folds(matrix: Matrix, folds: int, seed: int, by: str) -> NDArray[np.intp]:
    """[prompts]: the fold of each."""
    texts = matrix.tasks if by == "task" else matrix.prompts
    names, which = np.unique(np.array(texts, object).astype(str), return_inverse=True)
    if by == "task":
        if len(names) < 2:
            raise UsageError(
                "all rows are of one task", mend="name tasks in the column `task`, or fold by prompt"
            )
        return which.astype(np.intp)
    if not 2 <= folds <= len(names):
        raise UsageError(
            f"{folds} folds of {len(names)} prompts", mend="give 2 folds or more, and more prompts"
        )
    return (np.random.default_rng(seed).permutation(len(names)) % folds)[which].astype(np.intp)


def _prices(matrix: Matrix, train: NDArray[np.bool_]) -> Array:
    """[models]: mean cost in training; zeros where most rows have none; the dearest where one model has
    none."""
    if not matrix.priced:
        return np.zeros(len(matrix.models))
    known = np.isfinite(matrix.cost) & train[:, None]
    number = known.sum(0)
    means = np.where(known, matrix.cost, 0.0).sum(0) / np.maximum(number, 1)
    return np.where(number > 0, means, means.max())


def _ask(
    router: Router, matrix: Matrix, test: NDArray[np.intp], with_task: bool, prices: Array
) -> tuple[Array, Array]:
    prompts = [matrix.prompts[i] for i in test]
    tasks = [matrix.tasks[i] or None for i in test] if with_task else None
    quality, cost = (np.asarray(part, float) for part in router.predict(prompts, tasks))
    shape = (len(test), len(matrix.models))
    if quality.shape != shape or cost.shape != shape or not np.isfinite(quality).all():
        raise UsageError(
            f"the router predicted quality of shape {quality.shape} and cost of shape {cost.shape}",
            mend=f"predict() must give finite numbers of shape {shape}",
        )
    return quality, np.where(np.isfinite(cost), cost, prices)
