"""What choices are judged by: dense scores and costs, from a matrix in which cells may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...memory.errors import UsageError
from .outcomes import Array, Matrix

Missing = Literal["auto", "drop", "estimate"]

#: rows that a mean one level up counts for
_SHRINK = 15.0
#: the least chance that a cell was seen: bounds how often one outcome counts
_LEAST_CHANCE = 0.01


@dataclass(frozen=True, slots=True)
class Truth:
    """Scores and costs of every model on every prompt that counts."""

    models: tuple[str, ...]
    #: which prompts of the matrix these are
    index: NDArray[np.intp]
    #: [prompts, models]; single cells mean nothing where `estimated`, means do
    score: Array
    #: USD, None without costs
    cost: Array | None
    #: tokens read and written, None where they are not known of all cells
    tokens: Array | None
    #: cells were filled: best-per-prompt figures (oracle, regret) are absent then
    estimated: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.score)

    def columns(self, model: int) -> tuple[Array, Array | None, Array | None]:
        """Score, cost and tokens of one model."""
        return (
            self.score[:, model],
            None if self.cost is None else self.cost[:, model],
            None if self.tokens is None else self.tokens[:, model],
        )


def truth_of(matrix: Matrix, missing: Missing = "auto") -> Truth:
    """What choices among the matrix's models are judged by.

    `drop` keeps the prompts that all models answered (and that have all costs, where most are known).
    `estimate` keeps all prompts and fills cells by a doubly robust estimate (Dudík, Langford, Li 2011):
    the model's mean on the task, plus what an outcome that was seen differs from it, divided by the
    chance that it was seen. Means of the filled matrix are right where the asked model depended on the
    task and not on the prompt. `auto` drops while that leaves half of the prompts.

    Raises:
        UsageError: nothing is left to judge by.
    """
    full = np.isfinite(matrix.score).all(1)
    if matrix.priced:
        full &= np.isfinite(matrix.cost).all(1)
    if missing == "drop" or (missing == "auto" and 2 * full.sum() >= len(matrix)):
        return _dropped(matrix, np.flatnonzero(full))
    return _estimated(matrix)


def _dropped(matrix: Matrix, index: NDArray[np.intp]) -> Truth:
    if not len(index):
        raise UsageError(
            "no prompt has an outcome of every model",
            mend="give `missing=estimate`, fewer models, or rows of all models for some prompts",
        )
    left = len(matrix) - len(index)
    told = f"{left} of {len(matrix)} prompts lack an outcome of some model and are not judged"
    tokens = matrix.tokens[index]
    return Truth(
        matrix.models, index, matrix.score[index], matrix.cost[index] if matrix.priced else None,
        tokens if np.isfinite(tokens).all() else None, notes=matrix.notes + ((told,) if left else ()),
    )  # fmt: skip


def _estimated(matrix: Matrix) -> Truth:
    names, groups = np.unique(np.array(matrix.tasks), return_inverse=True)
    tokens = matrix.tokens if np.isfinite(matrix.tokens).any(0).all() else None
    costs = matrix.cost if matrix.priced and np.isfinite(matrix.cost).any(0).all() else None
    fill = lambda values: None if values is None else _doubly_robust(values, groups, len(names))  # noqa: E731
    score = _doubly_robust(matrix.score, groups, len(names))
    seen = np.isfinite(matrix.score).sum(0)
    thin = [f"{name} ({k})" for name, k in zip(matrix.models, seen, strict=True) if k < 30]
    notes = [
        "scores of cells without an outcome are estimated from the task: best-per-prompt figures are absent"
    ]
    notes += [f"few outcomes: {', '.join(thin)}"] if thin else []
    index = np.arange(len(matrix))
    return Truth(matrix.models, index, score, fill(costs), fill(tokens), True, (*matrix.notes, *notes))


def _doubly_robust(values: Array, groups: NDArray[np.intp], count: int) -> Array:
    """[prompts, models] without gaps, such that means over prompts are those of all prompts."""
    seen = np.isfinite(values)
    known = np.where(seen, values, 0.0)
    total, number = known.sum(0), seen.sum(0)
    by_group = np.zeros((2, count, values.shape[1]))
    np.add.at(by_group[0], groups, known)
    np.add.at(by_group[1], groups, seen)
    # a row's own outcome does not count in the mean that it is compared with
    rest = np.maximum(number - seen, 1)
    mean = np.where(number - seen > 0, (total - known) / rest, total / np.maximum(number, 1))
    base = (by_group[0][groups] - known + _SHRINK * mean) / (by_group[1][groups] - seen + _SHRINK)
    size = np.bincount(groups, minlength=count)[groups][:, None]
    chance = (by_group[1][groups] + _SHRINK * number / len(values)) / (size + _SHRINK)
    return base + np.where(seen, (known - base) / np.maximum(chance, _LEAST_CHANCE), 0.0)
