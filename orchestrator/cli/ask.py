"""`ask`: one question to one model, the answer streamed to stdout."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .common import Json, Pool, client, emit, note
from .runs import Aim, Quality


def ask(
    prompt: Annotated[str, typer.Argument(help="The question; `-` reads it from stdin.")],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Ask this model.")] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="Who the model is to be.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="Tokens of the answer.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="USD", help="What it may cost at most.")] = None,
    aim: Aim = None,
    quality: Quality = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Ask a model, and stream its answer."""
    from ...memory.errors import UsageError
    from ...memory.money import format_usd
    from .drive import routing
    from .render import error_text

    if model is not None and (aim, quality) != (None, None):
        raise UsageError("--model excludes --aim and --quality", mend="leave one of them out")
    if prompt == "-":
        prompt = sys.stdin.read()
    printed: list[str] = []

    def token(text: str) -> None:
        printed.append(text)
        print(text, end="", flush=True)

    with client(pool, routing(None, None, aim, quality)) as podium:
        found = podium.ask(
            prompt,
            model=model,
            system=system,
            max_tokens=max_tokens,
            budget=budget,
            on_token=None if as_json else token,
        )
        if as_json:
            from .convert import run_out

            emit(run_out(found))
        else:
            # an engine that does not stream has said nothing yet
            print("" if printed else found.output or "")
        if found.error is not None:
            note(f"error: {error_text(found)}")
        models = ", ".join(dict.fromkeys(call.model for call in found.calls)) or "no model"
        note(f"run {found.id}: {models}, {format_usd(found.cost_nano)} USD")
        if found.exit_code:
            raise typer.Exit(found.exit_code)
