"""How people name and see what is in the task memory: values, revisions, times, places; narrow tables."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...memory.errors import NotFound, UsageError
from .common import table

if TYPE_CHECKING:
    from ...memory.items import ItemKind, RevisionRecord, Scope
    from ..client import Podium

Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="Only fact, note, artifact or summary; repeatable."),
]
ScopeName = Annotated[
    str | None, typer.Option("--scope", metavar="SCOPE", help="Who sees it: tenant, workflow, run or task.")
]
ScopeId = Annotated[
    str | None, typer.Option("--scope-id", metavar="ID", help="Of the scope: workflow, run or RUN/TASK.")
]
OfRun = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="Of this run: --scope run --scope-id RUN.")
]
OfTask = Annotated[str | None, typer.Option("--task", metavar="TASK", help="With --run: of this task.")]
OfWorkflow = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Of this workflow's runs.")
]

KINDS = ("fact", "note", "artifact", "summary")
SCOPES = ("tenant", "workflow", "run", "task")
LINKS = ("derived_from", "relates", "contradicts", "supersedes")
#: columns of a table, and letters of a text that one always shows
WIDTH, LEAST = 80, 24
#: bytes that a value may have
MAX_BYTES = 16 * 1024 * 1024
_REVISION = re.compile(r"\[?(\d{1,18})\]?\Z")


@dataclass(frozen=True, slots=True)
class Where:
    """A scope and its id: keyword arguments of `TaskMemory`."""

    scope: Scope
    scope_id: str

    def __str__(self) -> str:
        return f"{self.scope} {self.scope_id}".strip()

    @property
    def options(self) -> str:
        """The options that name this place on the command line."""
        short = {"run": "--run ", "workflow": "--workflow ", "tenant": "--scope tenant"}
        found = short.get(self.scope, "--scope task --scope-id ")
        return f"{found}{quote(self.scope_id)}" if self.scope_id else found


def one_of(word: str, known: Sequence[str], what: str) -> Any:
    """`word`, if it is one of the known ones.

    Raises:
        UsageError: it is none; the mend names the nearest.
    """
    from ..problems import did_you_mean

    if word not in known:
        raise UsageError(f"{word!r} is no {what}", mend=did_you_mean(word, known))
    return word


def kinds_of(given: Sequence[str] | None) -> list[ItemKind] | None:
    return [one_of(kind, KINDS, "kind of item") for kind in given] if given else None


def where(
    podium: Podium,
    scope: str | None,
    scope_id: str | None,
    run: str | None,
    workflow: str | None,
    task: str | None = None,
) -> Where:
    """The place that the options name; the tenant's own if they name none.

    Raises:
        UsageError: options that exclude each other, an unknown scope, or one without its id.
    """
    if sum(x is not None for x in (run, workflow, scope_id)) > 1:
        raise UsageError("--run, --workflow and --scope-id exclude each other", mend="leave all but one out")
    if task is not None and run is None:
        raise UsageError("--task needs its run", mend="add --run RUN")
    implied = "workflow" if workflow is not None else None
    if run is not None:
        implied = "run" if task is None else "task"
    found: Scope = one_of(scope or implied or "tenant", SCOPES, "scope")
    if implied is not None and found != implied:
        raise UsageError(f"--scope {found} does not go with what else was given", mend=f"--scope {implied}")
    if run is not None:
        full = run_of(podium, run)
        return Where(found, full if task is None else f"{full}/{task}")
    if found == "tenant" and scope_id:
        raise UsageError("the scope tenant has no id", mend="leave --scope-id out")
    named = workflow if workflow is not None else scope_id
    if found != "tenant" and not named:
        mend = {"run": "--run RUN", "workflow": "--workflow NAME", "task": "--run RUN --task TASK"}[found]
        raise UsageError(f"which {found}?", mend=mend)
    return Where(found, named or "")


def run_of(podium: Podium, name: str) -> str:
    """The full id of a run: one of the engine's, else one that the memory alone knows (`memory fork`).

    Raises:
        NotFound: there is none.
    """
    from ...memory.visible import chain

    try:
        return podium.get(name).id
    except NotFound:
        with podium.database.read() as connection:
            is_fork = len(chain(connection, podium.memory.tenant, name)) > 1
        if is_fork or podium.memory.all(run_id=name, scopes=["run"]):
            return name
        raise


def revision_number(text: str) -> int:
    """The number of "12" or "[12]".

    Raises:
        UsageError: it is no such text.
    """
    found = _REVISION.match(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no revision", mend="name it by its number, e.g. 12; `memory list` has them"
        )
    return int(found[1])


def known_revision(podium: Podium, text: str) -> RevisionRecord:
    """The revision that is named so.

    Raises:
        NotFound: there is none. UsageError: it is no number.
    """
    number = revision_number(text)
    found = podium.memory.revision(number)
    if found is None:
        raise NotFound(f"there is no revision {number}", mend="`podium memory list` shows them")
    return found


def moment(podium: Podium, text: str | None) -> int | datetime | None:
    """A revision's number or an ISO 8601 time, which is UTC if it has no zone.

    A time is the end of the second or millisecond that it names, so that one that was printed means what was
    written then.

    Raises:
        UsageError: it is neither. NotFound: no such revision.
    """
    if text is None:
        return None
    if _REVISION.match(text):
        return known_revision(podium, text).id
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        mend = "give a revision's number, or a time like 2030-01-31T09:00 (UTC)"
        raise UsageError(f"{text!r} is neither a revision nor a time", mend=mend) from error
    if not 1970 < found.year < 9999:
        raise UsageError(f"{text} is no time of this database", mend="give one between 1971 and 9998")
    found += timedelta(microseconds=999 if found.microsecond else 999_999)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def value_of(text: str, *, as_json: bool) -> Any:
    """The value that was given: text, `@file`, `-` for stdin, `@@…` for text that begins with @.

    Raises:
        UsageError: no such file, not UTF-8, too large, or no JSON where it is to be.
    """
    if text == "-":
        said = _decoded(sys.stdin.buffer.read(MAX_BYTES + 1), "stdin")
    elif text.startswith("@") and not text.startswith("@@") and len(text) > 1:
        path = Path(text[1:]).expanduser()
        try:
            with path.open("rb") as file:
                said = _decoded(file.read(MAX_BYTES + 1), str(path))
        except OSError as error:
            mend = "check the path; write @@ for a text that begins with @"
            raise UsageError(f"{path} cannot be read: {error.strerror}", mend=mend) from error
    else:
        said = text[1:] if text.startswith("@@") else text
    if not as_json:
        return said
    try:
        return json.loads(said, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        mend = "write it as JSON, or leave --json-value out to keep it as text"
        raise UsageError(f"the value is no JSON: {error}", mend=mend) from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _decoded(data: bytes, what: str) -> str:
    if len(data) > MAX_BYTES:
        raise UsageError(f"{what} is larger than {MAX_BYTES // 2**20} MiB", mend="keep its path instead")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mend = "keep its path instead, or encode it: base64 FILE | podium memory put KEY -"
        raise UsageError(f"{what} is no UTF-8 text", mend=mend) from error
    if "\0" in text:
        raise UsageError(f"{what} is binary", mend="keep its path instead, or encode it: base64")
    return text


def revision_table(found: Sequence[RevisionRecord], *, places: bool = False, states: bool = False) -> None:
    """Revisions on stdout, a line each: number, version, kind, key, and how the text begins."""
    headers = ["rev", "version", "kind", *(["where"] * places), *(["status"] * states), "key", "text"]
    rows = [
        [
            str(one.id),
            str(one.version),
            one.kind,
            *([str(Where(one.scope, one.scope_id))] if places else []),  # type: ignore[arg-type]
            *([one.status] if states else []),
            one.key,
        ]
        for one in found
    ]
    text_table(headers, rows, [one.text for one in found], right="rev version")


def text_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str], right: str
) -> None:
    """A table whose last column is text, cut so that lines fit into 80 columns if the others leave room."""
    columns = zip(headers[:-1], *rows, strict=True)
    room = max(LEAST, WIDTH - sum(max(len(cell) for cell in column) + 2 for column in columns))
    table(headers, [[*row, short(text, room)] for row, text in zip(rows, texts, strict=True)], right=right)


def short(text: str, room: int) -> str:
    """The text on one line, its beginning if it is longer than `room` letters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= room else f"{line[: room - 1].rstrip()}…"
