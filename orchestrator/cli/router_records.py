"""The records that `podium router … --json` prints. Costs are numbers: estimates, no money that was paid."""

from __future__ import annotations

from typing import Any

from .records import Record


class FigureOut(Record):
    """A figure with its 95 % interval, null where there is none."""

    value: float
    low: float | None
    high: float | None


class RouterRowOut(Record):
    name: str
    #: router, model, zero, random or oracle
    kind: str
    figures: dict[str, FigureOut]


class RouterEvalOut(Record):
    """`router eval`: what a router that had not seen a prompt would have chosen for it."""

    file: str
    prompts: int
    models: list[str]
    #: points of quality that a dollar is worth in quality, cost_usd, tokens, regret and tep
    points_per_dollar: float
    #: weak and strong model of apgr, cpt and shares
    pair: list[str] | None
    rows: list[RouterRowOut]
    notes: list[str]


class RankedOut(Record):
    place: int
    model: str
    score: FigureOut
    #: share of the bootstrap's samples in which it is first
    first: float
    quality: FigureOut
    #: what refinement adds to the score
    gain: FigureOut | None
    #: mean dollars a prompt
    cost: FigureOut | None


class RouterRankOut(Record):
    """`router rank`: models by quality, gain from refinement and cost."""

    file: str
    weights: dict[str, float]
    models: list[RankedOut]
    notes: list[str]


class FrontierOut(Record):
    """`router frontier`: cost against quality, series by series."""

    file: str
    prompts: int
    #: the picture's file, null if none was asked for
    picture: str | None
    series: list[dict[str, Any]]
    notes: list[str]
