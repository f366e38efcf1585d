"""What every verb needs: settings, the client, and the two channels. stdout is data, stderr is progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from ..client import Podium
    from ..settings import Settings

#: the options that many verbs share
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, of the published schema.")]
Pool = Annotated[Path | None, typer.Option("--pool", metavar="FILE", help="Pool file to use.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the start of it, or `last`.")]


@dataclass(slots=True)
class Flags:
    """The options before the verb; they win over everything else."""

    home: Path | None = None
    tenant: str | None = None


#: set once, by the callback of the whole program
FLAGS = Flags()


def settings(pool: Path | None = None) -> Settings:
    """The settings in force: flag > environment > project file > user file."""
    from ..settings import load_settings

    if pool is not None:
        pool = pool.expanduser().absolute()
    return load_settings(home=FLAGS.home, tenant=FLAGS.tenant, pool=pool)


@contextmanager
def client(pool: Path | None = None, policy: Mapping[str, Any] | None = None) -> Iterator[Podium]:
    """The client with the settings in force, closed at the end."""
    from ..client import Podium

    with Podium(settings(pool), policy=policy) as podium:
        yield podium


def emit(record: BaseModel) -> None:
    """One record as JSON on stdout, indented."""
    print(record.model_dump_json(indent=2), flush=True)


def emit_line(record: BaseModel) -> None:
    """One record as a line of NDJSON on stdout."""
    print(record.model_dump_json(), flush=True)


def told(podium: Podium, run_id: str, tasks: list[str], as_json: bool) -> None:
    """The state of a run that was changed, on stdout."""
    status = podium.get(run_id).status
    if as_json:
        from .records import ActionOut

        emit(ActionOut.model_validate({"run_id": run_id, "status": status, "tasks": tasks}))
    else:
        print(f"{run_id} {status}")


def note(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def is_person() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def prompt(question: str) -> str:
    """Ask on the terminal for a line, which may be empty. Nothing of it goes to stdout, which is data.

    Raises:
        EOFError: the person ended the input.
    """
    print(f"{question} ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def confirm(question: str) -> bool:
    """Ask yes or no on the terminal, until it is one of them. Raises EOFError as `prompt`."""
    while True:
        answer = prompt(f"{question} [y/n]").lower()
        if answer in ("y", "yes", "n", "no"):
            return answer.startswith("y")


def console(*, err: bool = False) -> Console:
    """A rich console on stdout or stderr. It honours NO_COLOR and writes no markup of ours into a pipe."""
    from rich.console import Console

    return Console(stderr=err, highlight=False)


def as_text(value: Any) -> str:
    """An output as a person wants to read it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as an ISO 8601 time in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, err: bool = False, right: str = ""
) -> None:
    """A table: drawn on a terminal, in plain aligned columns that are never cut on a pipe.

    `right` names the columns whose cells end at the right, separated by spaces.
    """
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        _draw(headers, rows, err, right.split())
        return
    cells = [[h.upper() for h in headers], *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    for row in cells:
        parts = [
            cell.rjust(width) if header in right.split() else cell.ljust(width)
            for cell, width, header in zip(row, widths, headers, strict=True)
        ]
        print("  ".join(parts).rstrip(), file=stream)
    stream.flush()


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]], err: bool, right: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        drawn.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console(err=err).print(drawn)
