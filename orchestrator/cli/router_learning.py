"""`router train|versions|rollback|profile|export`: what the router learns, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, Pool, client, emit, iso, note, table

if TYPE_CHECKING:
    from ..client import Podium
    from ..routing import Trained


def train(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.csv]", help="Graded answers to take over first: prompt, model, score, …"
        ),
    ] = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Learn anew from all graded answers of the task memory, and use that from now on.

    A FILE's rows are kept in the task memory; taken over again, they replace those of last time.
    """
    from time import monotonic

    from .router_records import DoubtOut, RouterTrainOut

    with client(pool) as podium:
        taken = None if file is None else _import(podium, file)
        start = monotonic()
        made = learn(podium, "by hand" if file is None else f"by hand, with {file.name}")
        seconds = monotonic() - start
    if as_json:
        doubts = [DoubtOut(weak=weak, strong=strong or None) for weak, strong in made.doubts]
        emit(
            RouterTrainOut(
                version=made.version, rows=made.rows, imported=taken, models=list(made.models), doubts=doubts,
                seconds=seconds,
            )
        )  # fmt: skip
        return
    if taken is not None:
        note(f"{taken} rows taken over from {file}")
    print(f"version {made.version}: {made.rows} graded answers, {len(made.models)} models, {seconds:.1f} s")
    print(f"models: {', '.join(made.models)}")
    weak = sorted({one for one, _ in made.doubts})
    print(f"answers that can be doubted: {', '.join(f'those of {one}' for one in weak) or 'none yet'}")
    note(
        "running engines take it up within seconds\n  → podium run --policy learned, or `policy:` of the pool"
    )


def learn(podium: Podium, said: str) -> Trained:
    """A new version, of all outcomes and the pool's models. Raises: see `routing.train`."""
    from .. import routing

    return routing.train(podium.database, podium.settings.tenant, list(podium.pool_file().models), said)


def _import(podium: Podium, file: Path) -> int:
    """Rows of the file that were taken over; those of an earlier time are set aside.

    Raises:
        UsageError: see `read_csv`.
    """
    from ...memory import learning
    from ...router.evaluation.outcomes import read_csv

    found = read_csv(file)
    rows = [
        learning.NewExample(
            one.prompt, one.model, one.score, one.task, one.answer, one.cost_usd,
            None if one.in_tok is None else round(one.in_tok),
            None if one.out_tok is None else round(one.out_tok), one.seconds,
        )
        for one in found.rows
    ]  # fmt: skip
    if found.refined:
        note(f"{len(found.refined)} rows of refined answers are left out: single answers are learned from")
    if found.unscored:
        note(f"{found.unscored} rows without a score are left out")
    origin, tenant = str(file.expanduser().absolute()), podium.settings.tenant
    return podium.database.transact(lambda c: learning.put_examples(c, tenant, origin, rows))


def versions(as_json: Json = False) -> None:
    """List what was learned, version by version, the newest first."""
    from ...memory import learning
    from .router_records import RouterVersionOut, RouterVersionsOut

    with client() as podium:
        found = podium.database.query(lambda c: learning.states(c, podium.settings.tenant))
    if as_json:
        rows = [
            RouterVersionOut(
                version=s.version, rows=s.rows, upto=s.upto, note=s.note, active=s.active,
                created_at=iso(s.created_at) or "",
            )
            for s in found
        ]  # fmt: skip
        emit(RouterVersionsOut(versions=rows))
        return
    if not found:
        note("nothing was learned yet\n  → podium router train")
        return
    cells = [
        [str(s.version), "in use" if s.active else "", str(s.rows), iso(s.created_at) or "", s.note]
        for s in found
    ]
    table(["version", "state", "rows", "created", "note"], cells, right="version rows")


def rollback(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="As it was then; `versions` lists them.")],
    as_json: Json = False,
) -> None:
    """Go back to an earlier version. Outcomes that came after it are set aside, and not deleted."""
    from ...memory import learning
    from .router_records import RouterRollbackOut

    with client() as podium:
        tenant = podium.settings.tenant
        made = podium.database.transact(lambda c: learning.roll_back(c, tenant, version))
    if as_json:
        emit(RouterRollbackOut(version=made, restored=version))
        return
    print(f"version {made} is as version {version} was; outcomes since then are set aside")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Where the chats go.")],
    least: Annotated[
        float, typer.Option(metavar="SCORE", min=0, max=1, help="Score that an answer needs at least.")
    ] = 0.8,
    as_json: Json = False,
) -> None:
    """Write the best graded answer to each prompt as a chat, to teach a model of your own (JSONL)."""
    from ..distillation import best_chats
    from .drive import write
    from .router_records import RouterExportOut

    with client() as podium:
        made = best_chats(podium.database, podium.settings.tenant, least)
    write(file, "".join(f"{chat.line()}\n" for chat in made))
    tasks: dict[str, int] = {}
    for chat in made:
        tasks[chat.task or ""] = tasks.get(chat.task or "", 0) + 1
    if as_json:
        emit(RouterExportOut(file=str(file), rows=len(made), tasks=tasks))
        return
    print(f"{len(made)} chats in {file}")
    for task, count in sorted(tasks.items()):
        note(f"{task or 'no task'}: {count}")


def profile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of the pool.")],
    calls: Annotated[int, typer.Option("--calls", metavar="N", min=1, help="Prompts at most.")] = 24,
    budget: Annotated[str | None, typer.Option(metavar="USD", help="What it may cost at most.")] = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Get to know a new model: have it answer prompts whose good answers are known, and learn anew.

    Its grade is how far its answers agree with those: the same number, the same words, or how near in
    meaning. It says less than a person's or a check's.
    """
    from ...memory.money import format_usd
    from ..profile import profile as made_of
    from .router_records import RouterProfileOut

    with client(pool) as podium:
        found = made_of(podium, model, calls, budget)
        made = learn(podium, f"after a profile of {model}")
    if as_json:
        emit(
            RouterProfileOut(
                model=model, run_id=found.run_id, prompts=found.prompts, failed=found.failed,
                score=found.score, reference=found.reference, cost_usd=format_usd(found.cost_nano),
                compared=dict(found.compared), version=made.version,
            )
        )  # fmt: skip
        return
    print(f"{model}: {found.score:.2f} on {found.prompts} prompts; the known answers: {found.reference:.2f}")
    ways = ", ".join(f"{count} by {way}" for way, count in found.compared.items())
    note(f"compared: {ways}")
    if found.failed:
        note(f"{found.failed} prompts got no answer\n  → podium show {found.run_id}")
    note(f"run {found.run_id}: {format_usd(found.cost_nano)} USD; learned as version {made.version}")
