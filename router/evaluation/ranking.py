"""A ranking of models by quality, by what refinement adds, and by cost.

After PeRFICS (Performance, Refinement and Inference Cost Score; Shashidhar et al., Findings of EMNLP
2023), which joins the same three parts for self-refined open models. The parts, their scale and the
default weights are ours: they need no memory footprint, and a model's own parts do not change when an
unrelated model joins the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...memory.errors import UsageError
from .choices import resamples
from .outcomes import Array, Matrix, Outcomes
from .scoring import Figure, tep
from .truth import Missing, Truth, truth_of


@dataclass(frozen=True, slots=True)
class Weights:
    """Importance of each part; only their proportions matter."""

    quality: float = 0.5
    refinement: float = 0.2
    cost: float = 0.3

    def shares(self, refined: bool, priced: bool) -> Mapping[str, float]:
        """Summing to 1 over the parts that are known.

        Raises:
            UsageError: a weight below 0, or none above 0 that is known.
        """
        given = {"quality": self.quality}
        given |= {"refinement": self.refinement} if refined else {}
        given |= {"cost": self.cost} if priced else {}
        total = sum(given.values())
        if min(self.quality, self.refinement, self.cost) < 0 or total <= 0:
            raise UsageError(f"weights {self} do not rank", mend="give weights of 0 or more, one above 0")
        return {part: weight / total for part, weight in given.items()}


@dataclass(frozen=True, slots=True)
class Ranked:
    """One model's place. Parts that are not known are absent."""

    place: int
    model: str
    #: weighted sum of quality, gain and cheapness
    score: Figure
    #: share of bootstrap samples in which it is first
    first: float
    #: mean score of the first answer, 0…1
    quality: Figure
    #: mean score of the refined answer less that of the first one, over prompts that have both
    gain: Figure | None
    #: mean USD a prompt
    cost: Figure | None
    #: 1 for the cheapest model, a third less for every tenfold of its cost, 0 from the thousandfold on
    cheapness: Figure | None
    #: relative gain of quality over relative growth of tokens that refinement brings
    gain_tep: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Models, best first, by `weights` (summing to 1)."""

    models: tuple[Ranked, ...]
    weights: Mapping[str, float]
    notes: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        """For JSON: each figure as [value, low, high]."""
        parts = ("score", "quality", "gain", "cost", "cheapness")
        rows = [
            {"place": r.place, "model": r.model, "first": r.first, "gain_tep": r.gain_tep}
            | {name: None if (f := getattr(r, name)) is None else [f.value, f.low, f.high] for name in parts}
            for r in self.models
        ]
        return {"models": rows, "weights": dict(self.weights), "notes": list(self.notes)}


@dataclass(frozen=True)
class _Gains:
    """What refinement added, [prompts, models]; 0 where `both` is 0."""

    both: Array
    added: Array
    tep: tuple[float | None, ...]

    def mean(self, weight: Array) -> Array:
        """[models]: nan where no prompt has both."""
        number = weight @ self.both
        return np.where(number > 0, weight @ self.added / np.where(number > 0, number, 1.0), np.nan)


def rank(
    outcomes: Outcomes,
    weights: Weights | None = None,
    *,
    missing: Missing = "auto",
    draws: int = 200,
    seed: int = 0,
) -> Ranking:
    """Orders the models of `outcomes`. Score = quality · w + gain from refinement · w + cheapness · w,
    where a model whose refinement was never tried has no gain, and weights of parts that no model has go
    to the others.

    Raises:
        UsageError: see `truth_of` and `Weights.shares`.
    """
    matrix = outcomes.matrix()
    truth = truth_of(matrix, missing)
    gains = _gains(matrix, outcomes, truth)
    shares = (weights or Weights()).shares(gains is not None, truth.cost is not None)
    samples = resamples(len(truth), draws, seed)
    parts = {"quality": np.array([w @ truth.score for w in samples])}
    if truth.cost is not None:
        parts["cost"] = np.array([w @ truth.cost for w in samples])
        parts["cheapness"] = _cheapness(parts["cost"])
    if gains is not None:
        parts["gain"] = np.array([gains.mean(w) for w in samples])
    named = {"quality": "quality", "refinement": "gain", "cost": "cheapness"}
    total = np.sum([w * np.nan_to_num(parts[named[part]]) for part, w in shares.items()], 0)
    teps = (None,) * len(truth.models) if gains is None else gains.tep
    rows = _placed(truth.models, total, parts, teps)
    return Ranking(rows, shares, truth.notes + tuple(_said(parts.get("gain"), truth)))


def _cheapness(cost: Array) -> Array:
    """See `Ranked.cheapness`. Models that cost nothing are all the cheapest."""
    known = np.maximum(cost, 1e-12)
    return np.clip(1 - np.log10(known / known.min(1, keepdims=True)) / 3, 0.0, 1.0)


def _placed(
    models: Sequence[str], total: Array, parts: Mapping[str, Array], teps: Sequence[float | None]
) -> tuple[Ranked, ...]:
    """Best first; `total` and `parts` are [1 + draws, models]."""
    best = total[1:] if len(total) > 1 else total
    first = np.bincount(best.argmax(1), minlength=len(models)) / len(best)
    rows = []
    for place, j in enumerate(map(int, np.argsort(-total[0], kind="stable")), 1):
        each = {name: Figure.of(part[:, j]) for name, part in parts.items()}
        score, quality = Figure.of(total[:, j]), each.pop("quality")
        assert score is not None
        assert quality is not None
        gain, cost, cheapness = (each.get(name) for name in ("gain", "cost", "cheapness"))
        rows.append(Ranked(place, models[j], score, float(first[j]), quality, gain, cost, cheapness, teps[j]))
    return tuple(rows)


def _gains(matrix: Matrix, outcomes: Outcomes, truth: Truth) -> _Gains | None:
    """None without refined rows of prompts that were also answered directly."""
    refined = [row for row in outcomes.refined if row.model in matrix.models]
    if not refined:
        return None
    again = Matrix.of(refined, sorted({row.model for row in refined}))
    place = {cell: i for i, cell in enumerate(zip(again.prompts, again.tasks, strict=True))}
    score, tokens = (np.full(matrix.score.shape, np.nan) for _ in range(2))
    columns = [matrix.models.index(model) for model in again.models]
    for i, cell in enumerate(zip(matrix.prompts, matrix.tasks, strict=True)):
        if cell in place:
            score[i, columns] = again.score[place[cell]]
            tokens[i, columns] = again.tokens[place[cell]]
    added = score - matrix.score
    both = np.isfinite(added)
    if not both.any():
        return None
    teps = tuple(_tep(matrix, score, tokens, j) for j in range(len(matrix.models)))
    kept = truth.index
    return _Gains(both[kept].astype(float), np.nan_to_num(added[kept]), teps)


def _tep(matrix: Matrix, score: Array, tokens: Array, j: int) -> float | None:
    """Over the prompts of which all four numbers are known."""
    parts = (matrix.score[:, j], score[:, j], matrix.tokens[:, j], tokens[:, j])
    known = np.isfinite(parts).all(0)
    if not known.any():
        return None
    value = tep(*(float(part[known].mean()) for part in parts))
    return value if np.isfinite(value) else None


def _said(gain: Array | None, truth: Truth) -> list[str]:
    notes = []
    if gain is None:
        notes.append(
            "no refined rows (action `refine`): gain from refinement is absent, its weight is shared out"
        )
    else:
        untried = [m for m, known in zip(truth.models, np.isfinite(gain[0]), strict=True) if not known]
        if untried:
            notes.append(f"refinement was not tried with {', '.join(untried)}: no gain is counted there")
    if truth.cost is None:
        notes.append("no costs: cheapness is absent, its weight is shared out")
    return notes
