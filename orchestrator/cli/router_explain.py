"""`router explain|replay`: why a model was chosen, and what another policy would have made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, Pool, client, emit, note, table
from .runs import Aim, Quality

if TYPE_CHECKING:
    from ...router.evaluation.off_policy import Estimate, Means
    from ..explaining import Explanation
    from ..off_policy import WhatIf
    from .router_records import EstimateOut, MeansOut


def explain(
    call: Annotated[
        str | None, typer.Argument(metavar="[CALL]", help="A call's id or the start of it.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instead of a call: what would be done with this now.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --prompt: the task that asks it.")
    ] = None,
    aim: Aim = None,
    quality: Quality = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Say in plain words why a model was chosen, what the next best was, and what it would have cost."""
    from ...memory.errors import UsageError
    from ..explaining import explain_call, explain_prompt
    from .drive import routing

    if (call is None) == (prompt is None):
        raise UsageError(
            "name a call, or give a --prompt", mend="podium router explain CALL, or --prompt TEXT"
        )
    if call is not None and (task, aim, quality) != (None, None, None):
        raise UsageError("--task, --aim and --quality go with --prompt", mend="leave them out")
    with client(pool) as podium:
        tenant = podium.settings.tenant
        if call is not None:
            found = podium.database.query(lambda c: explain_call(c, tenant, call))
        else:
            assert prompt is not None
            file = podium.pool_file()
            spec = routing(None, None, aim, quality) or file.policy.data()
            models = list(file.models.values())
            found = podium.database.query(lambda c: explain_prompt(c, tenant, spec, models, prompt, task))
    if as_json:
        _emit(found)
        return
    for line in found.words:
        print(line)
    if call is None:
        _show_models(found)


def _show_models(found: Explanation) -> None:
    from ...memory.money import format_usd

    rows = [
        [
            m.name,
            "-" if m.quality is None else f"{m.quality:.2f}",
            "-" if m.sd is None else f"{m.sd:.2f}",
            format_usd(m.cost_nano),
            m.doubt or "-",
            m.reason,
        ]
        for m in found.models
    ]
    print()
    table(["model", "expected score", "±", "USD", "doubted for", "reason"], rows, right="± USD")


def _emit(found: Explanation) -> None:
    from ...memory.money import format_usd
    from .router_records import ExplainedModelOut, RouterExplainOut

    route, call = found.route, found.call
    models = [
        ExplainedModelOut(
            model=m.name, fits=m.fits, quality=m.quality, sd=m.sd, est_cost_usd=format_usd(m.cost_nano),
            doubt=m.doubt, reason=m.reason,
        )
        for m in found.models
    ]  # fmt: skip
    emit(
        RouterExplainOut(
            call_id=None if call is None else call.id,
            run_id=found.run_id,
            task=found.task,
            model=route["model"],
            then=route.get("then"),
            mode=route.get("mode", "direct"),
            policy=route.get("policy", ""),
            est_quality=route.get("est_quality")
            if route.get("way_quality") is None
            else route["way_quality"],
            est_cost_usd=route.get("way_usd") or route.get("est_cost_usd", "0"),
            point_usd=route.get("point_usd"),
            propensity=route.get("propensity", 1.0),
            explored=bool(route.get("explored")),
            state=route.get("state"),
            models=models,
            wrong=found.review.get("wrong"),
            gain=found.review.get("gain"),
            verdict=None if call is None else call.verdict,
            words=list(found.words),
        )
    )


def replay(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="cheapest, fixed:MODEL, learned, learned:cheap, a file or JSON."
        ),
    ],
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only calls of this run.")] = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Estimate what another policy would have scored and cost, from your own graded calls. Calls no model."""
    from ...memory import reads
    from ..off_policy import what_if
    from ..policies import parse_policy
    from .router_records import RouterReplayOut

    with client(pool) as podium:
        models, tenant = list(podium.pool_file().models.values()), podium.settings.tenant
        spec = parse_policy(policy)
        only = None
        if run is not None:
            only = podium.database.query(lambda c: reads.resolve(c, tenant, run))
        found = podium.database.query(lambda c: what_if(c, tenant, spec, models, only))
    if as_json:
        made = found.estimate
        emit(
            RouterReplayOut(
                policy=dict(spec), decisions=made.decisions, matched=made.matched, effective=made.effective,
                logged=_means_out(made.logged),
                weighted=None if made.weighted is None else _means_out(made.weighted),
                doubly_robust=_means_out(made.doubly_robust), notes=list(found.notes),
            )
        )  # fmt: skip
        return
    _show(found, policy)


def _show(found: WhatIf, policy: str) -> None:
    made = found.estimate
    named = [("as it was", made.logged), (f"{policy}, weighted", made.weighted)]
    way = "doubly robust" if made.matched else "predicted only"
    rows = [
        [name, _spread(means.score, 1), _spread(means.cost, 1000)]
        for name, means in [*named, (f"{policy}, {way}", made.doubly_robust)]
        if means is not None
    ]
    table(["", "score", "usd/1k"], rows)
    note(f"{made.decisions} graded decisions, {made.matched} alike, worth {made.effective:.1f}")
    for text in found.notes:
        note(text)


def _spread(one: Estimate, factor: float) -> str:
    digits = 3 if factor == 1 else 4
    low, high = (f"{factor * bound:.{digits}g}" for bound in (one.low, one.high))
    return f"{factor * one.value:.{digits}g} [{low}, {high}]"


def _means_out(means: Means) -> MeansOut:
    from .router_records import MeansOut

    return MeansOut(score=_estimate_out(means.score), dollars=_estimate_out(means.cost))


def _estimate_out(one: Estimate) -> EstimateOut:
    from .router_records import EstimateOut

    return EstimateOut(value=one.value, low=one.low, high=one.high)
