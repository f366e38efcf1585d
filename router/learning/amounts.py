"""What an answer costs, how long it gets and takes: log-linear in the prompt's length, moved by the task.

Amounts of money and tokens spread by factors, so the regression is on logarithms, and the mean of what the
logarithm leaves is put back (Duan's smearing, 1983).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .ridge import Array, Index

#: rows that a task's factor is drawn to 1 by, and an elasticity to the pool's
_PRIOR = 5.0
#: rows that the quantile of all models counts for in that of one
_QUANTILE_ROWS = 20.0
_LEAST = 1e-12


class AmountModel:
    """Positive amounts (USD, tokens, seconds) of each model."""

    def __init__(self, lengths: Array, tasks: Index, amounts: Array) -> None:
        """`lengths` [n] logarithms of prompt sizes; `tasks` [n], -1: none; `amounts` [n, m], nan: not known.

        A model without a single amount is given the pool's mean.
        """
        known = np.isfinite(amounts)
        count = np.maximum(known.sum(0), 1)
        total = np.where(known, amounts, 0.0)
        pool = float(total.sum() / max(known.sum(), 1))
        #: mean of each model [m]
        self.means = np.where(known.any(0), total.sum(0) / count, pool)
        self.any = bool(known.any())
        self._middle = float(lengths.mean())
        x = (lengths - self._middle)[:, None]
        logs = np.log(np.maximum(np.where(known, amounts, 1.0), _LEAST))
        starts = np.where(known, logs, 0.0).sum(0) / count
        rest = np.where(known, logs - starts, 0.0)
        shared = (rest * x).sum() / max(float((known * x * x).sum()) + _PRIOR, _LEAST)
        self._slopes = ((rest * x).sum(0) + _PRIOR * shared) / ((known * x * x).sum(0) + _PRIOR)
        rest = np.where(known, rest - self._slopes * x, 0.0)
        self._factors = _by_task(tasks, rest, known)
        rest = np.where(known, rest - self._factors[tasks], 0.0)
        fitted = np.where(known, np.exp(starts + self._slopes * x + self._factors[tasks]), 0.0)
        # the sums agree with what was paid
        scale = np.where(fitted.sum(0) > 0, total.sum(0) / np.maximum(fitted.sum(0), _LEAST), 1.0)
        self._starts = np.where(
            known.any(0), starts + np.log(np.maximum(scale, _LEAST)), np.log(pool + _LEAST)
        )
        self._high = _high(total / np.maximum(fitted * scale, _LEAST), known)

    def __call__(self, lengths: Array, tasks: Index) -> Array:
        """[n, m]; prompts far longer than any seen count as twenty times the usual at most."""
        x = np.clip(lengths - self._middle, -3.0, 3.0)[:, None]
        return np.exp(self._starts + self._slopes * x + self._factors[tasks])

    def high(self, lengths: Array, tasks: Index) -> Array:
        """[n, m]: what nine in ten stay below."""
        return self(lengths, tasks) * self._high


def _high(ratios: Array, known: NDArray[np.bool_]) -> Array:
    """The 0.9 quantile [m] of each model's amounts over what was expected, drawn to that of all."""
    if not known.any():
        return np.ones(ratios.shape[1])
    pool = float(np.quantile(ratios[known], 0.9))
    own = [float(np.quantile(r[k], 0.9)) if k.any() else pool for r, k in zip(ratios.T, known.T, strict=True)]
    rows = known.sum(0)
    return (rows * np.array(own) + _QUANTILE_ROWS * pool) / (rows + _QUANTILE_ROWS)


def _by_task(tasks: Index, rest: Array, known: NDArray[np.bool_]) -> Array:
    """Mean logarithm of each task [tasks + 1, m], drawn to the task's over all models, and that to 0."""
    count = max(int(tasks.max()) + 1, 1)
    named = (tasks >= 0)[:, None] & known
    sums, sizes = np.zeros((count, rest.shape[1])), np.zeros((count, rest.shape[1]))
    np.add.at(sums, tasks, rest * named)
    np.add.at(sizes, tasks, named)
    shared = sums.sum(1, keepdims=True) / (sizes.sum(1, keepdims=True) + _PRIOR)
    return np.vstack([(sums + _PRIOR * shared) / (sizes + _PRIOR), np.zeros(rest.shape[1])])
