"""`router eval|rank|frontier`: how well models and routers would do on rows of one's own, calling none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from .common import Json, client, emit, is_person, note, table

if TYPE_CHECKING:
    from ...router.evaluation.outcomes import Outcomes
    from ...router.evaluation.ranking import Ranked, Weights
    from ...router.evaluation.routers import Predictions
    from ...router.evaluation.scoring import Figure, Report, Row
    from ...router.evaluation.truth import Truth
    from .router_records import FigureOut, RankedOut

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]",
        help="A CSV: prompt, model, score, and task, cost_usd, in_tok, out_tok. Default: the task memory.",
    ),
]
Models = Annotated[
    str | None, typer.Option("--models", metavar="A,B", help="Only these models; default: all of the file.")
]
By = Annotated[
    str, typer.Option("--by", metavar="prompt|task", help="What is new to the router: a prompt, or its task.")
]
Folds = Annotated[
    int, typer.Option("--folds", metavar="N", min=2, help="Parts, of which each is judged once.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Deals the prompts to the parts.")]
NoTask = Annotated[bool, typer.Option("--no-task", help="Routers are not told the task.")]

#: columns of the table: figure, heading, factor, digits
_SHOWN = (
    ("quality", "quality", 100, 1), ("cost_usd", "usd/1k", 1000, 3), ("aiq", "aiq", 100, 1),
    ("points", "points", 100, 1), ("captured", "captured", 100, 0), ("regret", "regret", 100, 1),
    ("apgr", "apgr", 1, 3), ("share95", "share95", 100, 0), ("tep", "tep", 1, 2),
)  # fmt: skip

router_app = typer.Typer(
    help="The router: what it learned, why it chose, and how good it is on rows of your own.",
    rich_markup_mode=None,
    subcommand_metavar="VERB ...",
)


@router_app.callback(invoke_without_command=True)
def router(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@router_app.command("eval")
def evaluate(
    file: File = None,
    models: Models = None,
    by: By = "prompt",
    folds: Folds = 5,
    seed: Seed = 0,
    no_task: NoTask = False,
    pair: Annotated[
        str | None, typer.Option("--pair", metavar="WEAK,STRONG", help="Two models of apgr and share95.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge the learned router on prompts that it has not seen, beside models, random and the oracle."""
    from ...router.evaluation.scoring import FIGURES, score
    from .router_records import RouterEvalOut, RouterRowOut

    outcomes, truth, said = _predicted(file, models, by, folds, seed, not no_task)
    report = score(truth, said, pair=None if pair is None else _two(pair))
    if as_json:
        rows = [
            RouterRowOut(name=r.name, kind=r.kind, figures={k: _out(f) for k, f in r.figures.items()})
            for r in report.rows
        ]
        emit(
            RouterEvalOut(
                file=None if file is None else str(file), prompts=report.prompts, models=list(truth.models),
                points_per_dollar=report.points_per_usd, rows=rows, notes=list(report.notes),
                pair=None if report.pair is None else list(report.pair),
            )
        )  # fmt: skip
        return
    shown = [s for s in _SHOWN if any(s[0] in row.figures for row in report.rows)]
    heads = [heading for _, heading, _, _ in shown]
    table(["", *heads], [_cells(row, shown) for row in report.rows], right=" ".join(heads))
    _lead(report, outcomes)
    for name, heading, factor, _ in shown:
        note(f"{heading}: {FIGURES[name]}{_unit(factor, name)}")
    for text in report.notes:
        note(text)


@router_app.command("rank")
def rank(
    file: File = None,
    weights: Annotated[
        str,
        typer.Option("--weights", metavar="Q,R,C", help="Of quality, gain from refinement, and cheapness."),
    ] = "0.5,0.2,0.3",
    as_json: Json = False,
) -> None:
    """Order the models of a file by quality, by what refinement adds, and by cost."""
    from ...router.evaluation.ranking import rank as ranked
    from .router_records import RouterRankOut

    found = ranked(_outcomes(file), _weights(weights))
    if as_json:
        rows = [_ranked(m) for m in found.models]
        emit(
            RouterRankOut(
                file=None if file is None else str(file), weights=dict(found.weights), models=rows,
                notes=list(found.notes),
            )
        )  # fmt: skip
        return
    heads = ["#", "model", "score", "first in", "quality", "refinement", "usd/1k"]
    table(heads, [_place(m) for m in found.models], right="# score quality refinement usd/1k")
    note("weights: " + ", ".join(f"{part} {share:.2f}" for part, share in found.weights.items()))
    for text in found.notes:
        note(text)


@router_app.command("frontier")
def frontier(
    file: File = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Draw it as .svg or .png (extra `plot`).")
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Draw for a dark page.")] = False,
    models: Models = None,
    by: By = "prompt",
    folds: Folds = 5,
    seed: Seed = 0,
    no_task: NoTask = False,
    as_json: Json = False,
) -> None:
    """Show what quality can be had for what money: routers, models, their mixes, and the oracle."""
    from ...router.evaluation.chart import text_chart
    from ...router.evaluation.frontier import frontier as drawn
    from .router_records import FrontierOut

    _, truth, said = _predicted(file, models, by, folds, seed, not no_task)
    found = drawn(truth, said)
    if save is not None:
        from ...router.evaluation.plot import draw

        draw(
            found, save, theme="dark" if dark else "light", title="task memory" if file is None else file.name
        )
    if as_json:
        data = found.data()
        emit(
            FrontierOut(
                file=None if file is None else str(file), prompts=found.prompts,
                picture=None if save is None else str(save),
                series=data["series"], notes=list(found.notes),
            )
        )  # fmt: skip
        return
    print(text_chart(found))
    if save is not None:
        note(f"drawn to {save}")
    for text in found.notes:
        note(text)


def _predicted(
    file: Path | None, models: str | None, by: str, folds: int, seed: int, with_task: bool
) -> tuple[Outcomes, Truth, dict[str, Predictions]]:
    """The rows, and what each router said of the prompts that it had not seen."""
    from ...memory.errors import UsageError
    from ...router.evaluation.routers import Make, TaskMeans, cross_validate
    from ...router.evaluation.truth import truth_of
    from ...router.learned import LearnedRouter

    if by not in ("prompt", "task"):
        raise UsageError(f"--by {by}", mend="--by prompt, or --by task")
    outcomes = _outcomes(file)
    names = None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    truth = truth_of(outcomes.matrix(names))
    makers: dict[str, Make] = {"podium": LearnedRouter, "task means": TaskMeans}
    if is_person():
        note(
            f"{len(truth)} prompts, {len(truth.models)} models; each prompt is judged by who has not seen it"
        )
    of = cast("Literal['prompt', 'task']", by)
    said = {
        name: cross_validate(make, outcomes, models=names, folds=folds, seed=seed, by=of, with_task=with_task)
        for name, make in makers.items()
    }
    return outcomes, truth, said


def _outcomes(file: Path | None) -> Outcomes:
    """The rows of a CSV, or the graded answers of the task memory."""
    if file is not None:
        from ...router.evaluation.outcomes import read_csv

        return read_csv(file)
    from ..off_policy import own_outcomes

    with client() as podium:
        return own_outcomes(podium.database, podium.settings.tenant)


def _two(pair: str) -> tuple[str, str]:
    from ...memory.errors import UsageError

    weak, comma, strong = pair.partition(",")
    if not (comma and weak.strip() and strong.strip()):
        raise UsageError(f"--pair {pair} names no two models", mend="--pair WEAK,STRONG")
    return weak.strip(), strong.strip()


def _weights(text: str) -> Weights:
    from ...memory.errors import UsageError
    from ...router.evaluation.ranking import Weights

    try:
        quality, refinement, cost = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--weights {text} are no three numbers", mend="--weights 0.5,0.2,0.3") from error
    return Weights(quality, refinement, cost)


def _out(figure: Figure) -> FigureOut:
    from .router_records import FigureOut

    return FigureOut(value=figure.value, low=figure.low, high=figure.high)


def _ranked(one: Ranked) -> RankedOut:
    from .router_records import RankedOut

    return RankedOut(
        place=one.place,
        model=one.model,
        score=_out(one.score),
        first=one.first,
        quality=_out(one.quality),
        gain=None if one.gain is None else _out(one.gain),
        cost=None if one.cost is None else _out(one.cost),
    )


def _place(one: Ranked) -> list[str]:
    return [
        str(one.place),
        one.model,
        f"{one.score.value:.3f}",
        f"{100 * one.first:.0f} %",
        _spread(one.quality, 100, 1),
        "-" if one.gain is None else _spread(one.gain, 100, 1),
        "-" if one.cost is None else f"{1000 * one.cost.value:.4g}",
    ]


def _cells(row: Row, shown: Sequence[tuple[str, str, int, int]]) -> list[str]:
    found = [row.name]
    for name, _, factor, digits in shown:
        figure = row.figures.get(name)
        found.append("-" if figure is None else f"{factor * figure.value:.{digits}f}")
    return found


def _lead(report: Report, outcomes: Outcomes) -> None:
    """Whether the router is better than the simplest one that knows tasks, with the interval."""
    for figure in ("aiq", "quality"):
        less = report.difference("podium", "task means", figure)
        if less is not None:
            said = (
                "no difference that is no chance" if (less.low or 0) <= 0 <= (less.high or 0) else "no chance"
            )
            note(f"podium less task means, {figure}: {_spread(less, 100, 1)}: {said}")
            return


def _spread(figure: Figure, factor: float, digits: int) -> str:
    value = f"{factor * figure.value:.{digits}f}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} [{factor * figure.low:.{digits}f}, {factor * figure.high:.{digits}f}]"


def _unit(factor: int, name: str) -> str:
    if name == "cost_usd":
        return "; here for 1,000 prompts"
    return "; in percent" if factor == 100 else ""
