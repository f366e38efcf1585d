"""`show`, `watch`, `logs`: what a run is, what happens to it, and what has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...memory.errors import UsageError
from .common import Json, RunId, client, emit, emit_line, note

if TYPE_CHECKING:
    from ..client import Podium
    from ..views import Run
    from .records import ChainOut

_INTERRUPTED = 130


def show(
    run_id: RunId,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every element, call and alternative.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every element and task of a sub-workflow, not only their sums.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check the event chain.")] = False,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="With --prompt: of this task.")
    ] = None,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="The exact prompts of --task, what they cite, what was left out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a run: tasks, routes with their reasons, tool calls, questions, outputs."""
    if prompt != (task is not None):
        raise UsageError("--task and --prompt go together", mend="podium show RUN --task TASK --prompt")
    with client() as podium:
        found = podium.get(run_id)
        if task is not None:
            from .prompts import show_prompts

            show_prompts(found, task, as_json=as_json)
            return
        chain = _chain(podium, found) if verify else None
        if as_json:
            from .convert import show_out

            emit(show_out(found, chain, everything=everything or verbose))
        else:
            from . import render

            render.show(found, verbose=verbose, everything=everything or verbose)
        if chain is not None:
            _tell_chain(chain, as_json)


def _chain(podium: Podium, found: Run) -> ChainOut:
    from .records import ChainOut

    bad = podium.verify(found.id)
    return ChainOut(ok=bad is None, events=podium.get(found.id).record.event_seq, first_bad=bad)


def _tell_chain(chain: ChainOut, as_json: bool) -> None:
    if chain.ok:
        if not as_json:
            print(f"\nEvents: the chain of {chain.events} holds")
        return
    note(
        f"error: event {chain.first_bad} does not fit the chain: the record was changed\n  → restore a backup"
    )
    raise typer.Exit(1)


def watch(
    run_id: RunId,
    after: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Only events with a higher number.")] = 0,
    as_json: Json = False,
) -> None:
    """Follow a run until it is over, waits for a person or is paused; exits with the run's code.

    --json prints one event a line; the `seq` of the last one is what --after takes.
    """
    with client() as podium:
        found = podium.get(run_id)
        try:
            found = _follow(podium, found, after, as_json)
        except KeyboardInterrupt:
            note(f"\nnobody watches any more; the run is left as it is\n  → podium watch {found.id}")
            raise typer.Exit(_INTERRUPTED) from None
        if not as_json:
            verb = "resume" if found.status == "paused" else "show"
            note(f"run {found.id} {found.status}\n  → podium {verb} {found.id}")
        if found.exit_code:
            raise typer.Exit(found.exit_code)


def logs(
    run_id: RunId,
    after: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Only events with a higher number.")] = 0,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="Only this task, with everything below it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What has happened in a run so far, on stdout; `podium watch` follows it.

    --json prints one event a line; the `seq` of the last one is what --after takes.
    """
    import sys

    from .convert import event_out
    from .live import PlainView

    lines = PlainView(sys.stdout)
    with client() as podium:
        full = podium.get(run_id).id
        while found := podium.events(full, after=after):
            after = found[-1].seq
            for event in found:
                if (
                    task is None
                    or (event.task or "").startswith((f"{task}[", f"{task}/"))
                    or event.task == task
                ):
                    emit_line(event_out(event)) if as_json else lines.event(event)


def _follow(podium: Podium, found: Run, after: int, as_json: bool) -> Run:
    if as_json:
        from .convert import event_out

        return podium.follow(found.id, after=after, on_event=lambda event: emit_line(event_out(event)))
    import sys

    from .live import PlainView, view

    if not sys.stdout.isatty():
        # on a pipe the lines are the data
        lines = PlainView(sys.stdout)
        return podium.follow(found.id, after=after, on_event=lines.event)
    with view(found) as shown:
        return podium.follow(found.id, after=max(after, found.record.event_seq), on_event=shown.event)
