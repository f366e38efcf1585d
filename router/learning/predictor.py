"""Predicts, for each model of a pool, how good its answer to a prompt will be and what it will cost.

`HierarchicalPredictor` is the one in use. Quality: `quality`; cost and length: `amounts`;
both move a model's plain mean only as far as rows that were left out confirm. With thin evidence nothing is
confirmed, and choices are those of the zero router: the best static mix of models (RouterBench, Hu 2024).

On a task that has a name but was never seen, or (without names) for text unlike all that was seen, and where
prices are known, no model is struck off for what it did on other tasks: quality is a curve over the price
alone (`_price_curve`), so that a sweep of the price of quality passes through every model, which is the zero
router's mix. Neither text nor the order of models carries over to new tasks well enough to do better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ...memory.errors import UsageError
from ..features import Featurizer
from .amounts import AmountModel
from .quality import Curves, Mix, QualityModel, TaskMeans
from .ridge import Fitted, KernelMap
from .state import pack, unpack
from .within import WithinTasks

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: rows of one prompt's scores below which nothing is learned but each model's mean
LEAST_ROWS = 20
#: quality of a model that nothing is known of, and the weight of that in rows
_GUESS, _GUESS_ROWS = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one model made of one prompt."""

    prompt: str
    model: str
    #: quality of the answer, 0…1
    score: float
    #: type of the task, None if not known
    task: str | None = None
    cost_usd: float | None = None
    in_tok: float | None = None
    out_tok: float | None = None
    #: from the call's start to its whole answer
    seconds: float | None = None
    #: what it answered; None where only its score is known
    answer: str | None = None

    @classmethod
    def of(cls, row: Outcome | Mapping[str, Any]) -> Outcome:
        """The Outcome itself, or that of a mapping with the same names (other names are left out).

        Raises:
            UsageError: no prompt, model or score, or a score that is not in 0…1.
        """
        if isinstance(row, Outcome):
            return row
        try:
            score = float(row["score"])
            prompt, model = str(row["prompt"]), str(row["model"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"an outcome without {error}", mend="give each outcome a prompt, a model and a score in 0…1"
            ) from error
        if not 0 <= score <= 1:
            raise UsageError(f"an outcome with score {score}", mend="scale scores to 0…1")
        amounts = {name: _amount(row.get(name)) for name in ("cost_usd", "in_tok", "out_tok", "seconds")}
        return cls(prompt, model, score, row.get("task") or None, **amounts, answer=row.get("answer") or None)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Columns in the order of the predictor's models; rows as asked. All finite."""

    #: expected score, 0…1
    quality: Array
    #: variance of the *expected* score: what is not known of it (the spread of single answers comes on top)
    variance: Array
    #: expected USD; 0 where no outcome had a cost
    cost: Array
    #: expected tokens of the answer, and what nine in ten stay below; 0 where no outcome had them
    out_tok: Array
    out_tok_high: Array
    #: the same of the seconds until the answer is whole, without waiting for a free replica
    seconds: Array
    seconds_high: Array


class Predictor(Protocol):
    """Anything that learns from outcomes what models will make of prompts."""

    @property
    def models(self) -> Sequence[str]: ...

    def fit(self, outcomes: Sequence[Outcome]) -> None:
        """Learns anew. A prompt may have outcomes of some models only; unknown models are left out."""
        ...

    def predict(self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None) -> Prediction:
        """One row a prompt. A task may be new; None: not known."""
        ...


class HierarchicalPredictor:
    """Model mean → task mean → text, as far as confirmed. Deterministic; about a second for 1,500 prompts."""

    LEFT_OUT: ClassVar[tuple[str, ...]] = ("_featurizer",)

    def __init__(self, models: Sequence[str], featurizer: Featurizer | None = None) -> None:
        self.models = tuple(models)
        self._featurizer = featurizer or Featurizer()
        self._learn(_Table.of((), self.models))

    def fit(self, outcomes: Sequence[Outcome]) -> None:
        """See `Predictor.fit`. Without outcomes: every model alike, at no cost."""
        self._learn(_Table.of(outcomes, self.models))

    def predict(self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None) -> Prediction:
        """See `Predictor.predict`."""
        places, named = self._places(tasks, len(prompts))
        lengths = _lengths(prompts)
        cost = self._cost(lengths, places)
        quality = np.tile(self._means, (len(prompts), 1))
        variance = np.tile(self._doubt, (len(prompts), 1))
        if self._quality is not None and len(prompts):
            text = self._featurizer(prompts)
            quality, novel, strange = self._quality.estimate(text.vectors, text.counts, places, named)
            variance = variance + novel
            if self._curve is not None and strange.any():
                share = strange[:, None]
                quality = (1 - share) * quality + share * self._curve
                cost = (1 - share) * cost + share * self._cost.means
        out_tok, seconds = self._out_tok, self._seconds
        return Prediction(
            quality, variance, cost * self._cost.any,
            out_tok(lengths, places) * out_tok.any, out_tok.high(lengths, places) * out_tok.any,
            seconds(lengths, places) * seconds.any, seconds.high(lengths, places) * seconds.any,
        )  # fmt: skip

    def to_state(self) -> bytes:
        """All that was learned, without any text; `from_state` gives a predictor with the same answers."""
        return pack(self, PREDICTOR_CLASSES)

    @classmethod
    def from_state(cls, state: bytes, featurizer: Featurizer | None = None) -> HierarchicalPredictor:
        """
        Raises:
            UsageError: no state, or one of another version.
        """
        made = unpack(state, PREDICTOR_CLASSES)
        if not isinstance(made, cls):
            raise UsageError("this is another router's state", mend="give the state of a predictor")
        return made.ready(featurizer)

    def ready(self, featurizer: Featurizer | None = None) -> HierarchicalPredictor:
        """Itself, made whole after it was read as a part of a larger state."""
        self._featurizer = featurizer or Featurizer()
        return self

    def _learn(self, table: _Table) -> None:
        self._names = dict(table.names)
        self._cost = AmountModel(table.lengths, table.tasks, table.cost)
        self._out_tok = AmountModel(table.lengths, table.tasks, table.out_tok)
        self._seconds = AmountModel(table.lengths, table.tasks, table.seconds)
        counts = np.isfinite(table.scores).sum(0)
        sums = np.nansum(table.scores, 0)
        pool = (sums.sum() + _GUESS_ROWS * _GUESS) / (counts.sum() + _GUESS_ROWS)
        self._means = (sums + _GUESS_ROWS * pool) / (counts + _GUESS_ROWS)
        self._doubt = self._means * (1 - self._means) / (counts + _GUESS_ROWS)
        self._quality, self._curve = None, None
        if len(table.prompts) >= LEAST_ROWS:
            text = self._featurizer(table.prompts)
            self._quality = QualityModel(text.vectors, text.counts, table.tasks, table.scores)
            if self._cost.any:
                self._curve = _price_curve(self._means, self._cost.means)

    def _places(self, tasks: Sequence[str | None] | None, count: int) -> tuple[Index, NDArray[np.bool_]]:
        """Numbers of the tasks (-1: not seen or not named), and which have a name."""
        given = tasks if tasks is not None else [None] * count
        places = np.array([self._names.get(t, -1) if t else -1 for t in given], np.intp).reshape(count)
        return places, np.array([bool(t) for t in given], bool).reshape(count)


@dataclass(frozen=True)
class _Table:
    """Outcomes by prompt: scores, cost, tokens, seconds are [prompts, models], nan where there are none."""

    prompts: Sequence[str]
    #: [prompts], -1: without a task
    tasks: Index
    lengths: Array
    #: task names and their numbers
    names: Mapping[str, int]
    scores: Array
    cost: Array
    out_tok: Array
    seconds: Array

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], models: Sequence[str]) -> _Table:
        """Several outcomes of one model on one prompt count as their mean."""
        column = {model: j for j, model in enumerate(models)}
        kept = [o for o in outcomes if o.model in column]
        rows: dict[tuple[str, str | None], int] = {}
        for o in kept:
            rows.setdefault((o.prompt, o.task), len(rows))
        names: dict[str, int] = {}
        for _, task in rows:
            if task:
                names.setdefault(task, len(names))
        found = np.zeros((4, 2, max(len(rows), 1), len(models)))
        for o in kept:
            i, j = rows[o.prompt, o.task], column[o.model]
            for part, value in zip(found, (o.score, o.cost_usd, o.out_tok, o.seconds), strict=True):
                if value is not None:
                    part[0, i, j] += value
                    part[1, i, j] += 1
        sums, counts = found[:, 0], found[:, 1]
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        prompts = [prompt for prompt, _ in rows] or [""]
        tasks = np.array([names[t] if t else -1 for _, t in rows] or [-1], np.intp)
        return cls(prompts, tasks, _lengths(prompts), names, *means)


def _price_curve(means: Array, prices: Array) -> Array:
    """Quality [models] as an increasing line over the logarithm of the price, through the models' means."""
    x = np.log(np.maximum(prices, 1e-12))
    x = x - x.mean()
    rise = float(x @ (means - means.mean()) / max(float(x @ x), 1e-9))
    spread = float(x.max() - x.min())
    # where dear models were no better, the order of prices still decides, by a tenth of a point in all
    rise = max(rise, 0.001 / max(spread, 1e-9))
    return np.clip(means.mean() + rise * x, 0.0, 1.0)


def _lengths(prompts: Sequence[str]) -> Array:
    return np.log([len(prompt) + 10.0 for prompt in prompts])


def _amount(value: object) -> float | None:
    """A finite number that is not negative, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if np.isfinite(value) and value >= 0 else None


PREDICTOR_CLASSES = {
    "predictor": HierarchicalPredictor, "quality": QualityModel, "amounts": AmountModel, "curves": Curves,
    "mix": Mix, "means": TaskMeans, "fitted": Fitted, "map": KernelMap, "within": WithinTasks,
}  # fmt: skip
