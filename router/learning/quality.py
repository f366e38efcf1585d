"""Quality of each model on a prompt, as means that are moved only as far as left-out rows confirm.

Global mean of the model → mean of its task → text, each a candidate for two separate targets:

- the *level*: how hard the prompt is for all models. A kernel ridge on the text, and the task's mean.
- the *difference*: how much better than the others a model does here. Candidates: the task's difference; a
  kernel ridge on the text; and what follows from the level alone, since models part where a prompt is neither
  trivial nor hopeless (an item-response curve per model, Birnbaum's two parameters, over the level).

What a candidate counts for is found by stacking its leave-one-out predictions (Wolpert 1992, Breiman 1996)
with a pull towards 0: the plain means, which are the zero router's mix. For tasks that were never seen, the
shares are those of leave-one-task-out predictions (clusters of text where too few tasks are named).
Means are shrunk as James and Stein's (1961), with the strength that leaves the least error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ridge import PENALTIES, Array, Index, KernelMap, Ridge, best_penalty, stack
from .within import WithinTasks

#: rows a prior counts for, tried for the means of tasks
STRENGTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
#: shares of the training rows between whose novelty (left-out) a text becomes a strange one
USUAL = (0.9, 0.99)
#: novelty up to which no text is strange, however alike the training rows are
NEVER_STRANGE = 0.35
#: shares that stacking draws to: of the level's candidates, and of the difference's (`Mix`). Left-out squared
#: errors say little of candidates that are weak alone but order prompts well
LEVEL_SHARES, DIFFERENCE_SHARES = (1.0, 0.5), (1.0, 0.5, 0.5)
_CLUSTERS = 10
_FOLDS = 5
#: how firmly a model's slope on the level is held to the pool's
_SLOPE_PRIOR = 100.0


@dataclass(frozen=True)
class Curves:
    """Score of each model as a logistic curve of the level."""

    middle: float
    starts: Array
    slopes: Array

    @classmethod
    def of(cls, level: Array, scores: Array) -> Curves:
        """`level` [n], left-out; `scores` [n, m], nan where not known."""
        x = _logit(level)
        middle = float(x.mean())
        x = x - middle
        free = [_curve(x, scores[:, j], 1.0, 1.0) for j in range(scores.shape[1])]
        usual = float(np.mean([slope for _, slope in free]))
        both = np.array([_curve(x, scores[:, j], usual, _SLOPE_PRIOR) for j in range(scores.shape[1])])
        return cls(middle, both[:, 0], both[:, 1])

    def __call__(self, level: Array) -> Array:
        """[n, m] of levels [n]."""
        return _sigmoid(self.starts + self.slopes * (_logit(level) - self.middle)[:, None])


@dataclass(frozen=True)
class TaskMeans:
    """Means of tasks [tasks + 1, k], drawn to 0; the last row is of tasks not seen: 0."""

    table: Array
    left_out: Array

    @classmethod
    def of(cls, tasks: Index, targets: Array, known: Array) -> TaskMeans:
        """`targets` [n, k], mean near 0; `known` [n, k]: 1 or 0; the strength is the best left-out."""
        count = max(int(tasks.max()) + 1, 1)
        known = known * (tasks >= 0)[:, None]
        sums, sizes = np.zeros((count, targets.shape[1])), np.zeros((count, targets.shape[1]))
        np.add.at(sums, tasks, targets * known)
        np.add.at(sizes, tasks, known)
        rest = sums[tasks] - targets * known
        rows = sizes[tasks] - known
        tried = [rest / (rows + strength) for strength in STRENGTHS]
        errors = [(((t - targets) ** 2) * known).sum() for t in tried]
        best = int(np.argmin(errors))
        table = np.vstack([sums / (sizes + STRENGTHS[best]), np.zeros(targets.shape[1])])
        return cls(table, tried[best])


@dataclass(frozen=True)
class Mix:
    """How the level and the difference are put together from their candidates: shares, in their order."""

    #: of the text's level and the task's
    level: Array
    curves: Curves
    #: of the difference that follows from the level, the text's and the task's
    difference: Array


@dataclass(frozen=True)
class Rows:
    """Training rows as arrays."""

    #: [n, features]
    features: Array
    #: [n], -1 where not known
    tasks: Index
    #: [n, m], nan where not known
    scores: Array
    #: [m]
    means: Array

    @property
    def known(self) -> Array:
        return np.isfinite(self.scores).astype(float)


@dataclass(frozen=True)
class Candidates:
    """What is predicted of rows by the text and by the task: levels [n] and differences [n, m]."""

    text_level: Array
    task_level: Array
    text_difference: Array
    task_difference: Array


class QualityModel:
    """Fitted once; answers for vectors, counts and task numbers."""

    def __init__(self, vectors: Array, counts: Array, tasks: Index, scores: Array) -> None:
        """`tasks` [n]: -1 where not known; `scores` [n, m]: nan where not known, one in each row at least."""
        known = np.isfinite(scores)
        self.means = _model_means(scores, known)
        spread = counts.std(0)
        # a count that never varied tells nothing
        self._middle, self._scale = counts.mean(0), np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0)
        rest = np.where(known, scores - self.means, 0.0)
        common = rest.sum(1) / known.sum(1)
        text = _Text(vectors, self._standard(counts), common, rest, known)
        self._map = text.map
        rows = Rows(text.features, tasks, scores, self.means)
        self._tasks_level = TaskMeans.of(tasks, common[:, None], np.ones((len(tasks), 1)))
        self._tasks_difference = TaskMeans.of(tasks, text.difference, rows.known)
        self._level = text.level.fit(text.level_penalty or PENALTIES[-1])
        self._difference = text.differences.fit(text.difference_penalty or PENALTIES[-1])
        low, high = np.quantile(self._level.left_out_novelty(text.features), USUAL)
        low = max(float(low), NEVER_STRANGE)
        self._usual = low, max(float(high), low + 0.2)
        self._learn_mixes(rows, text, common, vectors)

    def _learn_mixes(self, rows: Rows, text: _Text, common: Array, vectors: Array) -> None:
        tasks, known = rows.tasks, rows.known
        seen = Candidates(
            text.level_left_out, self._tasks_level.left_out[:, 0], text.difference_left_out,
            self._tasks_difference.left_out,
        )  # fmt: skip
        nothing = np.zeros_like(common), np.zeros_like(text.difference)
        near = Candidates(seen.text_level, nothing[0], seen.text_difference, nothing[1])
        named = np.unique(tasks[tasks >= 0])
        groups = tasks if len(named) >= 4 else _clusters(rows.features, _CLUSTERS)
        far = Candidates(
            text.level.groups_left_out(text.level_penalty or PENALTIES[-1], groups)[:, 0], nothing[0],
            text.differences.groups_left_out(text.difference_penalty or PENALTIES[-1], groups), nothing[1],
        )  # fmt: skip
        mixes = [_mix(c, common, text.difference, rows, known) for c in (near, far)]
        self._near, self._far = (mix for mix, _ in mixes)
        self._known, left_out = _mix(seen, common, text.difference, rows, known)
        rest = (text.difference - left_out) * rows.known
        self._within = WithinTasks.of(vectors, tasks, rest, rows.known)

    def estimate(
        self, vectors: Array, counts: Array, tasks: Index, named: NDArray[np.bool_]
    ) -> tuple[Array, Array, Array]:
        """`(quality, variance, strangeness)`: [n, m], [n, m], [n].

        `tasks`: -1 where not seen; `named`: the task has a name, seen or not.

        The variance is what the text leaves open of the level and the difference. Strangeness is 1 for a task
        that has a name but was not seen, 0 for one that was; without a name it rises from 0 to 1 where the
        text is further from the training rows than nearly all of these are from each other.
        """
        features = self._map(vectors, self._standard(counts))
        found = Candidates(
            self._level(features)[:, 0], self._tasks_level.table[tasks, 0], self._difference(features),
            self._tasks_difference.table[tasks],
        )  # fmt: skip
        old = tasks >= 0
        quality = np.empty((len(tasks), len(self.means)))
        for mix, mine in ((self._known, old), (self._far, named & ~old), (self._near, ~named & ~old)):
            if mine.any():
                quality[mine] = _put_together(mix, found, self.means)[mine]
        quality = quality + self._within(vectors, tasks)
        novelty = self._level.novelty(features)
        low, high = self._usual
        strange = np.where(named, ~old, np.clip((novelty - low) / (high - low), 0.0, 1.0))
        variance = novelty[:, None] * (self._level.spread + self._difference.spread)
        return np.clip(quality, 0.0, 1.0), variance, strange

    def _standard(self, counts: Array) -> Array:
        return np.clip((counts - self._middle) * self._scale, -3, 3)


class _Text:
    """The regressions on text of the training rows, and what they make of left-out rows."""

    def __init__(self, vectors: Array, counts: Array, common: Array, rest: Array, known: Array) -> None:
        self.map = KernelMap.of(vectors, counts)
        self.features = self.map(vectors, counts)
        self.level = Ridge(self.features, common[:, None])
        self.level_penalty = best_penalty(self.level.errors)
        self.level_left_out = _left_out(self.level, self.level_penalty)[:, 0]
        alone = known.sum(1) == 1
        base = np.where(alone, self.level_left_out, common)
        self.difference = np.where(known, rest - base[:, None], 0.0)
        self.differences = Ridge(self.features, self.difference)
        self.difference_penalty = best_penalty(self.differences.errors)
        self.difference_left_out = _left_out(self.differences, self.difference_penalty)


def _left_out(ridge: Ridge, penalty: float | None) -> Array:
    return np.zeros_like(ridge.left_out(PENALTIES[-1])) if penalty is None else ridge.left_out(penalty)


def _mix(found: Candidates, common: Array, difference: Array, rows: Rows, known: Array) -> tuple[Mix, Array]:
    """The shares that left-out candidates deserve, and the left-out differences that they give [n, m]."""
    level = stack([found.text_level, found.task_level], common, np.ones_like(common), LEVEL_SHARES)
    curves = Curves.of(_level(level, found, rows.means), rows.scores)
    own = _left_out_curves(_level(level, found, rows.means), rows) - rows.means
    parts = [own - own.mean(1, keepdims=True), found.text_difference, found.task_difference]
    shares = stack(parts, difference, known, DIFFERENCE_SHARES)
    left_out = sum(share * part for share, part in zip(shares, parts, strict=True))
    return Mix(level, curves, shares), np.asarray(left_out)


def _left_out_curves(level: Array, rows: Rows) -> Array:
    """Scores [n, m] by curves of other folds: none is praised for rows that it was drawn through."""
    fold = np.arange(len(level)) % _FOLDS
    found = np.empty_like(rows.scores)
    for k in range(_FOLDS):
        found[fold == k] = Curves.of(level[fold != k], rows.scores[fold != k])(level[fold == k])
    return found


def _level(shares: Array, found: Candidates, means: Array) -> Array:
    return means.mean() + shares[0] * found.text_level + shares[1] * found.task_level


def _differences(curves: Curves, shares: Array, found: Candidates, means: Array) -> list[Array]:
    base = curves(_level(shares, found, means)) - means
    return [base - base.mean(1, keepdims=True), found.text_difference, found.task_difference]


def _put_together(mix: Mix, found: Candidates, means: Array) -> Array:
    base = mix.curves(_level(mix.level, found, means))
    parts = _differences(mix.curves, mix.level, found, means)
    moved = sum(share * part for share, part in zip(mix.difference, parts, strict=True))
    return base.mean(1, keepdims=True) + (means - means.mean()) + moved


def _clusters(features: Array, count: int) -> Index:
    """Groups of like rows, by k-means from evenly spread rows."""
    centres = features[np.linspace(0, len(features) - 1, min(count, len(features))).astype(int)]
    group = np.zeros(len(features), np.intp)
    for _ in range(15):
        group = np.argmin((centres**2).sum(1) - 2 * features @ centres.T, 1)
        centres = np.array(
            [features[group == k].mean(0) if (group == k).any() else c for k, c in enumerate(centres)]
        )
    return group


def _model_means(scores: Array, known: NDArray[np.bool_]) -> Array:
    """Mean of each model, drawn to the pool's with the weight of two rows."""
    pool = scores[known].mean()
    return (np.where(known, scores, 0.0).sum(0) + 2 * pool) / (known.sum(0) + 2)


def _curve(x: Array, scores: Array, usual: float, strength: float) -> tuple[float, float]:
    """Start and slope of the logistic curve through the known scores, by Newton's steps."""
    known = np.isfinite(scores)
    x, y = x[known], scores[known]
    mean = float(np.clip((y.sum() + 1) / (len(y) + 2), 0.02, 0.98))
    start, slope = float(np.log(mean / (1 - mean))), usual
    for _ in range(25):
        p = _sigmoid(start + slope * x)
        w, r = p * (1 - p), y - p
        matrix = np.array([[w.sum() + 0.5, w @ x], [w @ x, w @ (x * x) + strength]])
        step = np.linalg.solve(matrix, [r.sum(), r @ x - strength * (slope - usual)])
        start, slope = start + float(np.clip(step[0], -2, 2)), slope + float(np.clip(step[1], -2, 2))
        if np.abs(step).max() < 1e-8:
            break
    return start, slope


def _logit(p: Array) -> Array:
    p = np.clip(p, 0.03, 0.97)
    return np.log(p / (1 - p))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
