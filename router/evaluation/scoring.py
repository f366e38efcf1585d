"""A report: every router beside each single model, the zero router, random and the oracle, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .choices import Pair, Sweep, Taken, constant, exchange_rate, resamples, taken_by
from .curves import NOTHING, Ranks, aiq
from .routers import Predictions
from .truth import Array, Truth

Kind = Literal["router", "model", "zero", "random", "oracle"]
Values = dict[str, float]

#: names of the figures, in the order in which they are shown
FIGURES: Mapping[str, str] = {
    "quality": "mean score at the stated worth of a dollar",
    "cost_usd": "mean USD a prompt, likewise",
    "tokens": "mean tokens a prompt, likewise",
    "regret": "best utility per prompt less the one that was got, in points of quality, likewise",
    "tep": "relative gain of quality over relative growth of tokens, against the cheapest model alone",
    "aiq": "mean quality between the costs of the cheapest and the dearest model (RouterBench)",
    "points": "AIQ less the zero router's; without costs: quality less the best single model's",
    "captured": "points as a part of the oracle's",
    "apgr": "mean share of the gap between weak and strong model that is recovered (RouteLLM)",
    "share95": "least share of strong calls for 95 % of the strong model's quality",
    "cost95": "cost at that share, as a part of the strong model alone",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval (percentiles of a bootstrap over prompts)."""

    value: float
    low: float | None
    high: float | None
    draws: Array = field(repr=False, compare=False)

    @classmethod
    def of(cls, values: Sequence[float] | Array) -> Figure | None:
        """The first of `values` is the figure, the others are its bootstrap; None if it is undefined."""
        all_ = np.array(values, float)
        if not np.isfinite(all_[0]):
            return None
        known = all_[1:][np.isfinite(all_[1:])]
        low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (None, None)
        return cls(float(all_[0]), _float(low), _float(high), all_[1:])


@dataclass(frozen=True, slots=True)
class Row:
    """One router or model. A figure that is undefined here is absent."""

    name: str
    kind: Kind
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Report:
    """Rows in the order: routers, models, zero, random, oracle."""

    rows: tuple[Row, ...]
    #: points of quality that one USD is worth in quality, cost, tokens, regret and TEP
    points_per_usd: float
    #: (weak, strong) of APGR, CPT and shares
    pair: tuple[str, str] | None
    prompts: int
    notes: tuple[str, ...]

    def row(self, name: str) -> Row:
        """
        Raises:
            KeyError: no such row.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def difference(self, name: str, other: str, figure: str) -> Figure | None:
        """`name` less `other`, paired prompt by prompt: where the interval leaves out 0, it is no chance."""
        a, b = (self.row(row).figures.get(figure) for row in (name, other))
        if a is None or b is None:
            return None
        return Figure.of([a.value - b.value, *(a.draws - b.draws)])

    def data(self) -> dict[str, Any]:
        """For JSON: each figure as [value, low, high]."""
        rows = [
            {"name": r.name, "kind": r.kind, **{k: [f.value, f.low, f.high] for k, f in r.figures.items()}}
            for r in self.rows
        ]
        return {
            "rows": rows, "prompts": self.prompts, "points_per_usd": self.points_per_usd,
            "pair": self.pair, "notes": list(self.notes),
        }  # fmt: skip


@dataclass(frozen=True)
class _Scorer:
    """Works out the figures of one row for one weight of the prompts."""

    truth: Truth
    pair: Pair | None
    worth: float
    levels: Sequence[float]
    #: the oracle's sweep, None without costs or where cells were estimated
    top: Sweep | None
    #: the oracle's best score and best utility by prompt, None where cells were estimated
    best: tuple[Array, Array] | None

    def taken(self, taken: Taken, w: Array) -> Values:
        """Figures of one fixed choice a prompt."""
        out = {"quality": float(w @ taken.score)}
        utility = taken.score
        if taken.cost is not None:
            out["cost_usd"] = float(w @ taken.cost)
            utility = utility - self.worth * taken.cost
        if taken.tokens is not None:
            out["tokens"] = float(w @ taken.tokens)
            out["tep"] = self._tep(out["quality"], out["tokens"], w)
        if self.best is not None:
            out["regret"] = float(w @ (self.best[1] - utility))
        return out

    def curve(self, sweep: Sweep | None, taken: Taken, w: Array) -> Values:
        """Figures over all prices of quality; without costs those of the choice itself."""
        singles = w @ self.truth.score
        if sweep is None or self.truth.cost is None:
            top = float("nan") if self.best is None else float(w @ self.best[0])
            return _lead(float(w @ taken.score), float(singles.max()), top)
        price = w @ self.truth.cost
        low, high = float(price.min()), float(price.max())
        top = float("nan") if self.top is None else self.top.aiq(w, low, high)
        got = sweep.aiq(w, low, high)
        return {"aiq": got, **_lead(got, self.zero(w), top)}

    def zero(self, w: Array) -> float:
        """AIQ of the best static mix, with hindsight; without costs the best single model."""
        single = w @ self.truth.score
        if self.truth.cost is None:
            return float(single.max())
        price = w @ self.truth.cost
        return aiq(price, single, float(price.min()), float(price.max()))

    def shares(self, ranks: Ranks, w: Array) -> Values:
        """APGR, CPT and what 95 % of the strong model's quality takes."""
        deferral = None if self.pair is None else self.pair.deferral(ranks, self.truth, w)
        if deferral is None:
            return {}
        cpt = {f"cpt{level:g}": deferral.cpt(level) for level in self.levels}
        return {
            "apgr": deferral.apgr, **cpt,
            "share95": deferral.share_for(0.95), "cost95": deferral.cost_for(0.95),
        }  # fmt: skip

    def _tep(self, quality: float, tokens: float, w: Array) -> float:
        assert self.truth.tokens is not None
        spent = w @ self.truth.tokens
        plain = int(np.argmin(spent if self.truth.cost is None else w @ self.truth.cost))
        return tep(float(w @ self.truth.score[:, plain]), quality, float(spent[plain]), tokens)


def tep(quality: float, new_quality: float, tokens: float, new_tokens: float) -> float:
    """Relative gain of quality over relative growth of tokens, an elasticity: 1 means that 10 % more
    tokens bring 10 % more quality. nan where tokens do not grow, or where there is no quality or no token
    to relate to."""
    if not (quality > 0 and tokens > 0 and new_tokens / tokens - 1 > NOTHING):
        return float("nan")
    return (new_quality / quality - 1) / (new_tokens / tokens - 1)


def score(
    truth: Truth,
    predictions: Mapping[str, Predictions],
    *,
    pair: tuple[str, str] | None = None,
    points_per_usd: float | None = None,
    cpt: Sequence[float] = (50, 80),
    draws: int = 200,
    seed: int = 0,
) -> Report:
    """Scores routers on the prompts of `truth` (`predictions`: name → `cross_validate` of the whole matrix).

    `pair` names the weak and the strong model (else see `Pair.of`), `points_per_usd` what a dollar is
    worth (else `exchange_rate`), `cpt` the percentages of the gap. Random and zero are exact
    expectations, not draws. Intervals cover the choice of prompts, not that of training rows: for those,
    repeat with other seeds of the folds.

    Raises:
        UsageError: `pair` names no model of the rows.
    """
    two = Pair.of(truth, pair)
    worth = exchange_rate(truth) if points_per_usd is None else points_per_usd
    known = None if truth.estimated else _oracle(truth)
    scorer = _Scorer(truth, two, worth, cpt, *_tops(truth, known, worth))
    weights = resamples(len(truth), draws, seed)
    rows = [
        _router(scorer, name, "router", said.of(truth.index), weights) for name, said in predictions.items()
    ]
    rows += [_static(scorer, name, j, weights) for j, name in enumerate(truth.models)]
    rows += [_zero(scorer, weights), _random(scorer, weights)]
    if known is not None:
        rows.append(_router(scorer, "oracle", "oracle", known, weights))
    names = None if two is None else (truth.models[two.weak], truth.models[two.strong])
    return Report(tuple(rows), worth, names, len(truth), truth.notes + tuple(_absent(truth, two)))


def _tops(
    truth: Truth, known: Predictions | None, worth: float
) -> tuple[Sweep | None, tuple[Array, Array] | None]:
    if known is None:
        return None, None
    utility = truth.score if truth.cost is None else truth.score - worth * truth.cost
    sweep = None if truth.cost is None else Sweep.of(known, truth)
    return sweep, (truth.score.max(1), utility.max(1))


def _oracle(truth: Truth) -> Predictions:
    """Knows every score and cost."""
    cost = np.zeros_like(truth.score) if truth.cost is None else truth.cost
    none = np.zeros(len(truth), np.intp)
    return Predictions(truth.score, cost, none + int(np.argmin(cost.mean(0))), none)


def _router(scorer: _Scorer, name: str, kind: Kind, said: Predictions, weights: Sequence[Array]) -> Row:
    taken = taken_by(said, scorer.truth, scorer.worth)
    sweep = None if scorer.truth.cost is None else Sweep.of(said, scorer.truth)
    ranks = constant(scorer.truth) if scorer.pair is None else scorer.pair.ranks(said)
    return _row(
        name, kind, weights,
        lambda w: scorer.taken(taken, w) | scorer.curve(sweep, taken, w) | scorer.shares(ranks, w),
    )  # fmt: skip


def _static(scorer: _Scorer, name: str, model: int, weights: Sequence[Array]) -> Row:
    taken = Taken(*scorer.truth.columns(model))
    return _row(name, "model", weights, lambda w: scorer.taken(taken, w))


def _zero(scorer: _Scorer, weights: Sequence[Array]) -> Row:
    """The best static mix of models, known with hindsight (RouterBench's zero router)."""
    truth = scorer.truth
    utility = truth.score if truth.cost is None else truth.score - scorer.worth * truth.cost
    taken = Taken(*truth.columns(int(np.argmax(utility.mean(0)))))
    ranks = constant(truth)

    def figures(w: Array) -> Values:
        out = scorer.taken(taken, w) | scorer.shares(ranks, w)
        return out if truth.cost is None else out | {"aiq": scorer.zero(w)}

    return _row("zero", "zero", weights, figures)


def _random(scorer: _Scorer, weights: Sequence[Array]) -> Row:
    """Each model with the same chance."""
    truth = scorer.truth
    taken = Taken.of(np.full(truth.score.shape, 1 / len(truth.models)), truth)
    ranks, sweep = constant(truth), None
    if taken.cost is not None and truth.cost is not None:
        score, cost, _ = truth.columns(int(np.argmin(truth.cost.mean(0))))
        assert cost is not None
        sweep = Sweep(np.full(2, np.nan), np.array([taken.score, score]), np.array([taken.cost, cost]))
    return _row(
        "random", "random", weights,
        lambda w: scorer.taken(taken, w) | scorer.curve(sweep, taken, w) | scorer.shares(ranks, w),
    )  # fmt: skip


def _row(name: str, kind: Kind, weights: Sequence[Array], figures: Callable[[Array], Values]) -> Row:
    each = [figures(w) for w in weights]
    found = {key: Figure.of([values.get(key, float("nan")) for values in each]) for key in each[0]}
    return Row(name, kind, {key: figure for key, figure in found.items() if figure is not None})


def _lead(got: float, zero: float, top: float) -> Values:
    lead = got - zero
    return {"points": lead, "captured": lead / (top - zero) if top - zero > NOTHING else float("nan")}


def _absent(truth: Truth, pair: Pair | None) -> list[str]:
    """Which figures are absent, and why."""
    notes = []
    if truth.cost is None:
        notes.append("no costs: AIQ, regret in money and cost figures are absent; quality alone is judged")
    if truth.tokens is None:
        notes.append("tokens are not known of all outcomes: TEP is absent")
    if pair is None:
        notes.append("one model is both the cheapest and the best: APGR, CPT and share95 are absent")
    elif not truth.score[:, pair.strong].mean() > truth.score[:, pair.weak].mean():
        weak, strong = truth.models[pair.weak], truth.models[pair.strong]
        notes.append(f"{strong} is not better than {weak}: APGR, CPT and share95 are absent")
    return notes


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
