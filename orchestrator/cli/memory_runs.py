"""`memory context`, `memory fork`, `memory diff`: what tasks are told, and what runs know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, RunId, client, emit, note
from .memory_text import run_of, short, text_table

if TYPE_CHECKING:
    from ...memory.context.assembly import Context

#: letters of what was dropped that are shown
SHOWN = 60


def context(
    run_id: RunId,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task that is to be told.")],
    budget: Annotated[int, typer.Option("--budget", metavar="N", min=1, help="Tokens at most.")],
    ask: Annotated[
        str, typer.Option("--ask", metavar="TEXT", help="What the task is to do: its prompt.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Print what a task would be told of what came before. What it cites and leaves out goes to stderr."""
    from ...memory.errors import NotFound
    from ...memory.texts import token_estimate
    from ..problems import did_you_mean

    with client() as podium:
        found = podium.get(run_id)
        names = [one.name for one in found.tasks]
        if task not in names:
            raise NotFound(f"run {found.id} has no task {task!r}", mend=did_you_mean(task, names))
        made = podium.memory.context(found.id, task, budget, ask=ask)
    if as_json:
        from .convert_memory import context_out

        emit(context_out(found.id, task, budget, token_estimate(made.text), made))
        return
    if made.text:
        print(made.text.rstrip("\n"))
    explain(made, token_estimate(made.text), budget)


def explain(made: Context, tokens: int, budget: int) -> None:
    """What a context cites and what was left out of it, on stderr."""
    citations = dict.fromkeys(made.citations)
    note(f"about {tokens} of {budget} tokens, {len(citations)} citations, {len(made.dropped)} left out")
    for cited in citations:
        where = "no revision" if cited.revision is None else f"revision {cited.revision}"
        note(f"  [{cited.mark or cited.step}] {cited.step}, {where}")
    for gone in made.dropped:
        number = "" if gone.revision is None else f" [{gone.revision}]"
        note(f"  left out: {gone.step}{number}, {gone.reason}: {short(gone.text, SHOWN)}")


def fork(
    run_id: RunId,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Id of the new run.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="REV|TIME", help="Only what was known then; default: now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a new run see what another one knows, from here on apart. Nothing is copied, no task runs."""
    from .memory_records import MemoryForkOut
    from .memory_text import moment

    with client() as podium:
        full = run_of(podium, run_id)
        podium.memory.fork(full, new, at=moment(podium, at))
    if as_json:
        emit(MemoryForkOut(run_id=new, forked_from=full))
    else:
        print(new)


def diff(
    left: RunId,
    right: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare with.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    as_json: Json = False,
) -> None:
    """Compare what two runs know: items that only one has, and those with another value."""
    from .convert_memory import memory_diff_out

    with client() as podium:
        first, second = run_of(podium, left), run_of(podium, right)
        found = memory_diff_out(first, second, podium.memory.diff(first, second))
    if as_json:
        emit(found)
    elif found.same:
        note("they know the same")
    else:
        rows = [["+", str(x.revision), x.kind, x.key] for x in found.added]
        rows += [["-", str(x.revision), x.kind, x.key] for x in found.removed]
        rows += [["~", str(x.right.revision), x.right.kind, x.key] for x in found.changed]
        texts = [x.text for x in (*found.added, *found.removed)]
        texts += [f"{short(x.left.text, 24)} → {x.right.text}" for x in found.changed]
        text_table(["", "rev", "kind", "key", "text"], rows, texts, "rev")
    if exit_code and not found.same:
        raise typer.Exit(1)
