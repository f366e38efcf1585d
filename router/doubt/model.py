"""How likely is an answer wrong, and what would a dearer model's answer bring? Learned from answers whose
score is known, asked of new ones before anything dearer is called.

A cascade asks a cheap model first and pays a dear one only where the cheap answer is in doubt (FrugalGPT,
Chen et al., 2023; AutoMix, Aggarwal et al., 2023). Here the doubt comes from free checks: `figures` of
question and answer and the verdicts of any verifiers, weighed by ridge logistic regression and calibrated on
rows that it had not seen (Platt, 1999).

What an escalation brings is not P(wrong): the dear model may be wrong too, or wrong where the cheap one was
right. The gain E[strong − weak] is P(wrong) plus what a ridge on the vectors of question and answer makes of
the rest (stacking, Wolpert, 1992).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...memory.errors import UsageError
from ..verifiers.contract import Check
from .features import FIGURES, LONGEST, figures
from .learner import Array, Logistic, Ridge, Scale, sigmoid
from .state import Learned

#: rows below which only the share of wrong answers is learned
FEWEST_ROWS = 40
#: figures that the distribution of gains is kept in
QUANTILES = 200
#: rows below which the gain is P(wrong) less the strong model's mean shortfall
FEWEST_FOR_GAIN = 100
_FOLDS = 5
_PENALTY, _REST_PENALTY, _ONLY_THE_MEAN = 100.0, 30.0, 1e9
# of the figures beside vectors of length 1, in the ridge of the rest: as a penalty of 1,000 for them alone
_FIGURES_WEIGHT = 0.17


class Embeds(Protocol):
    """Anything that makes vectors of texts, one row of length 1 (or zeros) each."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Graded:
    """A weak model's answer and how good it was, in [0, 1]; the strong model's score where it is known."""

    prompt: str
    weak_answer: str
    weak_score: float
    strong_score: float | None = None
    checks: Sequence[Check] = ()

    @classmethod
    def of(cls, row: Graded | Mapping[str, Any]) -> Graded:
        """Reads a mapping with these names (others are left alone).

        Raises:
            UsageError: a name is missing or a score is not in [0, 1].
        """
        if isinstance(row, Graded):
            return row
        try:
            strong = row.get("strong_score")
            scores = float(row["weak_score"]), None if strong is None else float(strong)
            found = cls(str(row["prompt"]), str(row["weak_answer"]), *scores, tuple(row.get("checks", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"a graded answer cannot be read: {error!r}",
                mend="give each row prompt, weak_answer and weak_score (0 to 1), and strong_score if known",
            ) from error
        if any(score is not None and not 0 <= score <= 1 for score in scores):
            raise UsageError(f"scores {scores} are not in [0, 1]", mend="scale the scores to 0 … 1")
        return found


@dataclass(frozen=True, slots=True)
class Doubt:
    """Of n answers, [n] each. `wrong`: P(wrong), calibrated. `gain`: what the strong model's answer would
    bring, in points of score (−1 … 1); where no strong score was ever seen, as if it were always right.
    `order`: `gain` as a probability of being wrong: who escalates by it gets most from the strong model."""

    wrong: Array
    gain: Array
    order: Array


@dataclass(frozen=True, slots=True)
class Reason:
    """`what` made an answer more (`log_odds` above 0) or less likely to be wrong."""

    what: str
    log_odds: float


class DoubtModel:
    """P(wrong | prompt, answer, checks) and the gain of escalating, from graded answers of one weak model
    (and one strong one). Deterministic: the same rows give the same model."""

    def __init__(self, embedder: Embeds | None = None) -> None:
        """`embedder`: of prompts and answers, for the gain; without one it is learned from the figures."""
        self.embedder = embedder
        self._learned: Learned | None = None
        self._share, self._mean_gain = 0.5, 0.5
        #: what escalating was foretold to bring on training rows, each by a model that had not seen it:
        #: quantiles [at most `QUANTILES`], empty before enough was learned
        self.gains: Array = np.zeros(0)

    def fit(self, rows: Iterable[Graded | Mapping[str, Any]]) -> None:
        """Learns anew. With fewer than `FEWEST_ROWS` rows, or only right or only wrong ones, every answer
        gets the rows' share of wrong ones (shrunk to one half).

        Raises:
            UsageError: a row cannot be read.
        """
        graded = [Graded.of(row) for row in rows]
        wrong = np.array([1 - row.weak_score for row in graded])
        strong = np.array([np.nan if r.strong_score is None else r.strong_score for r in graded])
        known = np.isfinite(strong)
        self._share = float((wrong.sum() + 1) / (len(graded) + 2))
        self._mean_gain = float((strong + wrong - 1)[known].mean()) if known.any() else self._share
        self._learned, self.gains = None, np.zeros(0)
        if len(graded) < FEWEST_ROWS or wrong.std() == 0:
            return
        checks = tuple(sorted({check.name for row in graded for check in row.checks}))
        prompts, answers = [row.prompt for row in graded], [row.weak_answer for row in graded]
        raw = _columns(checks, prompts, answers, [row.checks for row in graded])
        scale = Scale.of(raw)
        x = scale(raw)
        margin = _out_of_fold(x, wrong)
        calibration = Logistic.fit(margin[:, None], wrong, penalty=1.0)
        rest = ordering = None
        gains = p = sigmoid(calibration.margin(margin[:, None]))
        if known.any():
            vectors = self._vectors(x, prompts, answers)[known]
            rest, ordering, gains = _fit_gain(vectors, p[known], wrong[known], (strong + wrong - 1)[known])
        self.gains = np.quantile(gains, np.linspace(0, 1, min(QUANTILES, len(gains))))
        learned = Logistic.fit(x, wrong, _PENALTY)
        self._learned = Learned(checks, scale, learned, calibration, rest, ordering)

    def ask(
        self, prompts: Sequence[str], answers: Sequence[str], checks: Sequence[Sequence[Check]] | None = None
    ) -> Doubt:
        """The doubt of each answer to its prompt; any strings will do. `checks`: of each answer, by the
        verifiers of the training rows; a missing one counts as unknown.

        Raises:
            UsageError: a restored state was learned with another embedder.
        """
        n = len(prompts)
        if self._learned is None or not n:
            return Doubt(np.full(n, self._share), np.full(n, self._mean_gain), np.full(n, self._share))
        x = self._scaled(self._learned, prompts, answers, checks)
        margin = self._learned.wrong.lean(x)
        wrong = sigmoid(self._learned.calibration.margin(margin[:, None]))
        if self._learned.rest is None or self._learned.ordering is None:
            return Doubt(wrong, wrong.copy(), wrong.copy())
        vectors = self._vectors(x, prompts, answers)
        if vectors.shape[1] != len(self._learned.rest.weights):
            raise UsageError("the doubt was learned with another embedder", mend="fit it again with this one")
        gain = np.clip(wrong + self._learned.rest.ask(vectors), -1, 1)
        return Doubt(wrong, gain, sigmoid(self._learned.ordering.margin(gain[:, None])))

    def doubt(self, prompts: Sequence[str], answers: Sequence[str]) -> Array:
        """`Doubt.order` alone, [n]: higher = escalate sooner."""
        return self.ask(prompts, answers).order

    def reasons(self, prompt: str, answer: str, checks: Sequence[Check] = (), most: int = 3) -> list[Reason]:
        """What moved the doubt of an answer most, against the mean of the training rows; empty before
        enough was learned."""
        if self._learned is None:
            return []
        x = self._scaled(self._learned, [prompt], [answer], [checks])[0]
        moved = x * self._learned.wrong.weights
        names = [*FIGURES, *(f"the check {name!r}" for name in self._learned.checks)]
        order = np.argsort(-np.abs(moved), kind="stable")[:most]
        return [Reason(names[j], float(moved[j])) for j in order if moved[j]]

    def to_json(self) -> dict[str, Any]:
        """What was learned, as a value that `json.dumps` takes: for the database."""
        learned = self._learned and self._learned.to_json()
        gains = [float(gain) for gain in self.gains]
        return {"share": self._share, "mean_gain": self._mean_gain, "gains": gains, "learned": learned}

    @classmethod
    def from_json(cls, state: Mapping[str, Any], embedder: Embeds | None = None) -> DoubtModel:
        """The model that gave this state, with the embedder that it had.

        Raises:
            UsageError: the state was written by another version, or is damaged.
        """
        model = cls(embedder)
        try:
            model._share, model._mean_gain = float(state["share"]), float(state["mean_gain"])
            model.gains = np.array([float(gain) for gain in state["gains"]])
            learned = state["learned"]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"a saved doubt cannot be read: {error!r}", mend="learn it again") from error
        model._learned = None if learned is None else Learned.from_json(learned)
        return model

    def _scaled(
        self,
        learned: Learned,
        prompts: Sequence[str],
        answers: Sequence[str],
        checks: Sequence[Sequence[Check]] | None,
    ) -> Array:
        raw = _columns(learned.checks, prompts, answers, checks or [()] * len(prompts))
        return learned.scale(raw)

    def _vectors(self, x: Array, prompts: Sequence[str], answers: Sequence[str]) -> Array:
        parts = [x * _FIGURES_WEIGHT]
        if self.embedder is not None:
            # lone surrogates are no text to a tokenizer
            texts = [t[-LONGEST:].encode("utf-8", "replace").decode() for t in (*prompts, *answers)]
            vectors = np.nan_to_num(np.asarray(self.embedder.embed(texts), dtype=float))
            parts += [vectors[: len(prompts)], vectors[len(prompts) :]]
        return np.hstack(parts)


def _columns(
    names: Sequence[str],
    prompts: Sequence[str],
    answers: Sequence[str],
    checks: Sequence[Sequence[Check]],
) -> Array:
    """[n, figures + checks]; a check is −1 (fails) … 1 (passes), 0 unknown."""
    rows = []
    for prompt, answer, found in zip(prompts, answers, checks, strict=True):
        scores = {check.name: 2 * check.score - 1 for check in found if check.verdict != "unknown"}
        rows.append([*figures(prompt, answer), *(scores.get(name, 0.0) for name in names)])
    return np.array(rows)


def _folds(n: int) -> NDArray[np.int64]:
    """A fold for each of n rows, the same every time."""
    return np.random.default_rng(n).permutation(n) % _FOLDS


def _out_of_fold(x: Array, y: Array) -> Array:
    """Without the bias: that of the other rows is low where this fold's `y` is high, which would turn a weak
    signal upside down."""
    fold, margin = _folds(len(x)), np.zeros(len(x))
    for k in range(_FOLDS):
        margin[fold == k] = Logistic.fit(x[fold != k], y[fold != k], _PENALTY).lean(x[fold == k])
    return margin


def _fit_gain(vectors: Array, p: Array, wrong: Array, gain: Array) -> tuple[Ridge, Logistic, Array]:
    """`(what P(wrong) leaves of the gain, the gain as a probability of being wrong, the gains of these rows
    as foretold by others)`."""
    penalty = _REST_PENALTY if len(p) >= FEWEST_FOR_GAIN else _ONLY_THE_MEAN
    ridge = Ridge.fit(vectors, gain - p, penalty)
    fold, rest = _folds(len(p)), np.full(len(p), ridge.mean)
    for k in set(fold.tolist()) if len(p) >= _FOLDS else ():
        train = fold != k
        part = Ridge.fit(vectors[train], (gain - p)[train], penalty)
        rest[~train] += part.ask(vectors[~train]) - part.mean
    return ridge, Logistic.fit((p + rest)[:, None], wrong, penalty=1.0), np.clip(p + rest, -1, 1)
