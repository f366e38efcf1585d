"""What the text tells within one task: a Gaussian process a task, on what is left of the targets.

Which prompts of a task are hard is not what makes prompts hard in general; where a task has rows of its own,
they say so. The left-out predictions are those of the closed form (Rasmussen and Williams 2006, 5.4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ridge import Array, Index

#: newest rows of a task that are kept
MOST_ROWS = 300
#: noise of a row for each target, in units of the kernel's diagonal: the best of many gathers their noise
NOISE = 8.0
#: what squared distances of unit vectors (0…2) are multiplied by
WIDTH = 1.0


@dataclass(frozen=True)
class WithinTasks:
    """By task: the vectors of its rows [rows, d] and their weights [rows, k]."""

    rows: dict[int, tuple[Array, Array]]
    #: [n, k]: what each row is predicted to be from the others of its task; 0 without a task
    left_out: Array

    @classmethod
    def of(cls, vectors: Array, tasks: Index, targets: Array, known: Array) -> WithinTasks:
        """`targets` [n, k], mean near 0; `known` [n, k]: 1 or 0; `tasks` [n]: -1 for none."""
        rows: dict[int, tuple[Array, Array]] = {}
        noise = NOISE * targets.shape[1]
        left_out = np.zeros_like(targets)
        for task in np.unique(tasks[tasks >= 0]):
            mine = np.flatnonzero(tasks == task)[-MOST_ROWS:]
            kernel = _kernel(vectors[mine], vectors[mine])
            weights = np.zeros((len(mine), targets.shape[1]))
            for columns, seen in _patterns(known[mine] > 0):
                at = np.ix_(mine[seen], columns)
                inverse = np.linalg.inv(kernel[np.ix_(seen, seen)] + noise * np.eye(len(seen)))
                found = inverse @ targets[at]
                left_out[at] = targets[at] - found / np.diag(inverse)[:, None]
                weights[np.ix_(seen, columns)] = found
            rows[int(task)] = vectors[mine], weights
        return cls(rows, left_out)

    def __call__(self, vectors: Array, tasks: Index) -> Array:
        """[n, k]; 0 for tasks without rows."""
        found = np.zeros((len(vectors), self.left_out.shape[1]))
        for task in np.unique(tasks):
            if int(task) in self.rows:
                mine = tasks == task
                seen, weights = self.rows[int(task)]
                found[mine] = _kernel(vectors[mine], seen) @ weights
        return found


def _kernel(a: Array, b: Array) -> Array:
    return np.exp(-WIDTH * ((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T))


def _patterns(known: np.ndarray) -> list[tuple[Index, Index]]:
    """`(columns, rows)`: columns that are known in the same rows go together."""
    groups: dict[bytes, list[int]] = {}
    for column in range(known.shape[1]):
        groups.setdefault(known[:, column].tobytes(), []).append(column)
    found = [(np.array(c), np.flatnonzero(known[:, c[0]])) for c in groups.values()]
    return [(columns, rows) for columns, rows in found if len(rows)]
