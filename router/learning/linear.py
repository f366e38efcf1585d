"""Linear models of several targets that share what they have in common, from sufficient statistics alone.

Score of model j on features x: (common + own_j) · x plus noise, with Gaussian priors on both parts: a model
of which little is known borrows from the others (Lindley and Smith 1972). The posterior is exact: one solve
of the size of the features a model, by elimination of the own parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ridge import Array


@dataclass
class Sums:
    """`gram` [m, d, d] and `along` [m, d] of what was seen of each model."""

    gram: Array
    along: Array

    @classmethod
    def empty(cls, models: int, width: int) -> Sums:
        return cls(np.zeros((models, width, width)), np.zeros((models, width)))

    def add(self, model: int, x: Array, y: float) -> None:
        self.gram[model] += np.outer(x, x)
        self.along[model] += y * x

    def forget(self, kept: float) -> None:
        """Everything seen so far counts `kept` times as much."""
        self.gram *= kept
        self.along *= kept

    def reset(self, model: int) -> None:
        self.gram[model] = 0.0
        self.along[model] = 0.0

    def widened(self, width: int) -> Sums:
        """The same, with features that were 0 so far added at the end."""
        made = Sums.empty(len(self.gram), width)
        old = self.along.shape[1]
        made.gram[:, :old, :old], made.along[:, :old] = self.gram, self.along
        return made


@dataclass
class Posterior:
    """`weights` [m, d] and their `covariance` [m, d, d] (each model's own; not between models)."""

    weights: Array
    covariance: Array

    @classmethod
    def of(cls, sums: Sums, common: Array, own: Array, noise: float) -> Posterior:
        """`common`, `own` [d]: prior variances of the two parts; `noise`: variance of one outcome."""
        width = len(common)
        inverse = np.linalg.inv(sums.gram + np.diag(noise / own))
        share = inverse @ sums.gram
        inside = np.diag(noise / common) + (sums.gram - sums.gram @ share).sum(0)
        aim = (sums.along - np.einsum("mde,me->md", sums.gram, _times(inverse, sums.along))).sum(0)
        centre = np.linalg.inv(inside)
        middle = centre @ aim
        weights = middle + _times(inverse, sums.along - sums.gram @ middle)
        rest = np.eye(width) - share
        return cls(weights, noise * (rest @ centre @ rest.transpose(0, 2, 1) + inverse))

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """`(mean, variance)` [m] of the expected score at features x [d]."""
        return self.weights @ x, np.maximum(np.einsum("d,mde,e->m", x, self.covariance, x), 0.0)


def _times(matrices: NDArray[np.floating], vectors: Array) -> Array:
    return np.einsum("mde,me->md", matrices, vectors)
