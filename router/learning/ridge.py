"""Kernel ridge regression on landmarks, with its leave-one-out and leave-group-out errors in closed form.

Sources: Nyström features (Williams and Seeger 2001); leave-one-out by the hat matrix (Allen's PRESS, 1974); a
column whose best penalty is infinite predicts its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: most landmarks of a map: more were slower and no better
LANDMARKS = 400
#: what squared distances of vectors (0…2) and of standardised counts are multiplied by, a Gaussian each
WIDTHS = ((0.35, 0.0115), (0.25, 0.0165), (0.1, 0.008), (0.05, 0.025))
#: strength of the pull to the usual shares, in units of the residual variance
_PULL = 8.0
#: penalties tried, in units of the kernel's diagonal (1): how many rows' worth of noise
PENALTIES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True)
class KernelMap:
    """Rows to features whose inner products are near a kernel's, exact at the landmarks.

    The kernel is the mean of Gaussians of `WIDTHS`: near neighbours, fields and forms each have a say, and no
    width has to be chosen.
    """

    #: landmarks [r, …], and the lengths of their rows, squared
    vectors: Array
    counts: Array
    vector_squares: Array
    count_squares: Array
    whiten: Array

    @classmethod
    def of(cls, vectors: Array, counts: Array) -> KernelMap:
        """From training rows [n, …]. Landmarks are spread evenly over the rows."""
        chosen = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), LANDMARKS)).astype(int))
        vectors, counts = vectors[chosen], counts[chosen]
        raw = cls(vectors, counts, (vectors**2).sum(1), (counts**2).sum(1), np.eye(len(chosen)))
        values, turn = np.linalg.eigh(raw._kernel(vectors, counts))
        kept = values > 1e-6 * values[-1]
        return replace(raw, whiten=turn[:, kept] / np.sqrt(values[kept]))

    def __call__(self, vectors: Array, counts: Array) -> Array:
        """[n, features]."""
        return self._kernel(vectors, counts) @ self.whiten

    def _kernel(self, vectors: Array, counts: Array) -> Array:
        by_vector = (vectors**2).sum(1)[:, None] + self.vector_squares - 2 * (vectors @ self.vectors.T)
        by_count = (counts**2).sum(1)[:, None] + self.count_squares - 2 * (counts @ self.counts.T)
        found = np.zeros_like(by_vector)
        for vector, count in WIDTHS:
            found += np.exp(-vector * by_vector - count * by_count)
        return found / len(WIDTHS)


class Ridge:
    """Ridge of many targets on the same features; the penalty is chosen afterwards, from all of a path."""

    def __init__(self, features: Array, targets: Array) -> None:
        """`features` [n, d], `targets` [n, k]; both are centred here."""
        self._middle, self.mean = features.mean(0), targets.mean(0)
        self._features, self._rest = features - self._middle, targets - self.mean
        values, self._turn = np.linalg.eigh(self._features.T @ self._features)
        self._values = np.maximum(values, 0.0)
        self._turned = self._features @ self._turn
        self._along = self._turned.T @ self._rest

    def left_out(self, penalty: float) -> Array:
        """[n, k]: what each row is predicted to be from all others."""
        fitted = self._turned @ (self._along / (self._values + penalty)[:, None])
        hat = (self._turned**2) @ (1 / (self._values + penalty)) + 1 / len(self._turned)
        rest = (self._rest - fitted) / np.maximum(1 - hat, 1e-6)[:, None]
        return self._rest - rest + self.mean

    def groups_left_out(self, penalty: float, groups: Index) -> Array:
        """[n, k]: what each row is predicted to be from the rows of other groups."""
        found = np.empty_like(self._rest)
        gram, along = np.diag(self._values + penalty), self._along
        for group in np.unique(groups):
            held = groups == group
            mine = self._turned[held]
            weights = np.linalg.solve(gram - mine.T @ mine, along - mine.T @ self._rest[held])
            found[held] = mine @ weights
        return found + self.mean

    def fit(self, penalty: float) -> Fitted:
        """The weights with one penalty."""
        weights = self._turn @ (self._along / (self._values + penalty)[:, None])
        noise = ((self._rest - self._features @ weights) ** 2).mean(0)
        unsure = penalty / (self._values + penalty)
        return Fitted(self._middle, self.mean, weights, self._turn, unsure, penalty, noise / penalty)

    @cached_property
    def errors(self) -> Array:
        """Squared leave-one-out errors of each target [penalties + 1, k]; the last row is of plain means."""
        n = len(self._rest)
        rows = [((self.left_out(p) - self.mean - self._rest) ** 2).mean(0) for p in PENALTIES]
        return np.array([*rows, (self._rest**2).mean(0) * (n / max(n - 1, 1)) ** 2])


@dataclass(frozen=True)
class Fitted:
    """A ridge with its penalty."""

    middle: Array
    mean: Array
    weights: Array
    turn: Array
    unsure: Array
    penalty: float
    #: variance of each target's prior [k]: what a row like nothing seen may be off by
    spread: Array

    def __call__(self, features: Array) -> Array:
        """[n, k] for features [n, d]."""
        return (features - self.middle) @ self.weights + self.mean

    def left_out_novelty(self, features: Array) -> Array:
        """Novelty [n] of training rows, each as if it had not been one."""
        inside = self._inside(features)
        # what the row itself had made sure of is given back; what is beyond the landmarks it never touched
        inside = inside * self.penalty / np.maximum(self.penalty - inside, 1e-3)
        return np.clip(1 - (features**2).sum(1) + inside, 0.0, 1.0)

    def novelty(self, features: Array) -> Array:
        """[n]: how much of a row's own kernel value the rows of training leave open; 1: all of it."""
        return np.clip(1 - (features**2).sum(1) + self._inside(features), 0.0, 1.0)

    def _inside(self, features: Array) -> Array:
        return (((features - self.middle) @ self.turn) ** 2) @ self.unsure


def best_penalty(errors: Array | Sequence[Array]) -> float | None:
    """The penalty of least error over all targets, or None where plain means are as good."""
    total = np.asarray(errors).reshape(len(PENALTIES) + 1, -1).sum(1)
    best = int(np.argmin(total))
    return None if best == len(PENALTIES) else PENALTIES[best]


def stack(
    candidates: Sequence[Array], target: Array, weights: Array, usual: Sequence[float] | None = None
) -> Array:
    """Non-negative shares [candidates] whose sum of candidates is nearest to `target`, drawn to `usual`.

    Stacked regressions (Breiman 1996) with a ridge to usual shares (None: to no candidate at all).
    All arrays have one shape, rows first; `weights` are 0 where the target is not known.
    """
    table = np.stack([c.reshape(len(target), -1) for c in candidates])
    wanted, weights = target.reshape(len(target), -1), weights.reshape(len(target), -1)
    kept = [i for i in range(len(table)) if table[i].any()]
    return _shares(table, wanted, weights, kept, np.zeros(len(table)) if usual is None else np.array(usual))


def _shares(table: Array, wanted: Array, weights: Array, kept: list[int], usual: Array) -> Array:
    shares = np.zeros(len(table))
    if not kept:
        return shares
    columns = np.stack([(table[i] * np.sqrt(weights)).ravel() for i in kept], 1)
    aim = (wanted * np.sqrt(weights)).ravel()
    noise = float((aim**2).sum() / max(weights.sum(), 1.0))
    gram = columns.T @ columns + _PULL * noise * np.eye(len(kept))
    along, found = columns.T @ aim + _PULL * noise * usual[kept], np.zeros(len(kept))
    for _ in range(200):
        before = found.copy()
        for i in range(len(found)):
            found[i] = max(0.0, (along[i] - gram[i] @ found) / gram[i, i] + found[i])
        if np.abs(found - before).max() < 1e-7:
            break
    shares[kept] = np.minimum(found, 1.0)
    return shares
