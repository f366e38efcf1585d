"""The records that `podium router … --json` prints. Costs are numbers: estimates, no money that was paid."""

from __future__ import annotations

from typing import Any

from .records import Record, Usd


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

    #: null: the task memory
    file: str | None
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

    #: null: the task memory
    file: str | None
    weights: dict[str, float]
    models: list[RankedOut]
    notes: list[str]


class FrontierOut(Record):
    """`router frontier`: cost against quality, series by series."""

    #: null: the task memory
    file: str | None
    prompts: int
    #: the picture's file, null if none was asked for
    picture: str | None
    series: list[dict[str, Any]]
    notes: list[str]


class FeedbackOut(Record):
    """`feedback`: the grade that a call's answer got."""

    call_id: str
    run_id: str
    task: str
    model: str
    score: float
    note: str | None


class DoubtOut(Record):
    """A model whose answers can be doubted, and the one that is asked then; null: whichever that is."""

    weak: str
    strong: str | None


class RouterTrainOut(Record):
    """`router train`: a new version of what was learned, in use from now on."""

    version: int
    #: graded answers that it was learned from
    rows: int
    #: of these, taken from the file just now; null: no file was given
    imported: int | None
    models: list[str]
    doubts: list[DoubtOut]
    seconds: float


class RouterVersionOut(Record):
    version: int
    rows: int
    #: the last outcome that it has read
    upto: int
    note: str
    active: bool
    created_at: str


class RouterVersionsOut(Record):
    """`router versions`, the newest first."""

    versions: list[RouterVersionOut]


class RouterRollbackOut(Record):
    """`router rollback`: the new version, which is as `restored` was."""

    version: int
    restored: int


class RouterProfileOut(Record):
    """`router profile`: how a model answered prompts whose good answers are known."""

    model: str
    run_id: str
    prompts: int
    #: prompts that it gave no answer to
    failed: int
    #: mean grade: how far its answers agree with the known ones
    score: float
    #: what a model of the known answers scored there
    reference: float
    cost_usd: Usd
    #: how answers were compared → how many
    compared: dict[str, int]
    #: of what was learned then
    version: int


class RouterDistillOut(Record):
    """`router distill`: the approach behind a task's best answers, as a note of the task memory."""

    task: str
    #: of the note, and its version
    key: str
    version: int
    text: str
    #: good answers that it was written from
    examples: int
    #: who wrote it
    model: str | None
    run_id: str
    cost_usd: Usd


class RouterExportOut(Record):
    """`router export`: good answers as chats, a line each."""

    file: str
    rows: int
    #: task → rows
    tasks: dict[str, int]


class ExplainedModelOut(Record):
    model: str
    fits: bool
    #: expected score 0…1 of its own answer, and the standard deviation of that; null: not judged
    quality: float | None
    sd: float | None
    est_cost_usd: Usd
    #: of what it would be doubted: null if its answers cannot be
    doubt: str | None
    reason: str


class RouterExplainOut(Record):
    """`router explain`: why a call went to its model; or, with --prompt, what would be done now."""

    #: null: no call, but what would be done now
    call_id: str | None
    run_id: str | None
    task: str | None
    #: the model that is asked first, and what stands behind it
    model: str
    then: str | None
    mode: str
    policy: str
    est_quality: float | None
    est_cost_usd: Usd
    #: what a point of score was worth
    point_usd: Usd | None
    propensity: float
    explored: bool
    #: version of what was learned; null: nothing but outcomes, or another policy
    state: int | None
    models: list[ExplainedModelOut]
    #: probability that the answer was wrong, and what another would have brought
    wrong: float | None
    gain: float | None
    verdict: str | None
    #: the whole of it in plain words
    words: list[str]


class EstimateOut(Record):
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


class MeansOut(Record):
    """Means for one call: score, and cost as a number, since it is an estimate."""

    score: EstimateOut
    dollars: EstimateOut


class RouterReplayOut(Record):
    """`router replay`: what another policy would have scored and cost, from graded calls."""

    policy: dict[str, Any]
    #: graded decisions, and those of them that the policy would have taken alike
    decisions: int
    matched: int
    #: how many matched decisions the estimate is worth
    effective: float
    #: as it was
    logged: MeansOut
    #: self-normalised inverse propensity; null: nothing matched
    weighted: MeansOut | None
    doubly_robust: MeansOut
    notes: list[str]
