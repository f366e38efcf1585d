"""`memory`: what runs and people have had remembered. Items here; runs, erasure and files beside.

Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from . import memory_care, memory_runs
from .common import Json, client, emit, note
from .memory_text import (
    KINDS,
    LINKS,
    Kinds,
    OfRun,
    OfTask,
    OfWorkflow,
    ScopeId,
    ScopeName,
    Where,
    kinds_of,
    known_revision,
    moment,
    one_of,
    revision_number,
    revision_table,
    run_of,
    text_table,
    value_of,
    where,
)

if TYPE_CHECKING:
    from ...memory.items import RevisionRecord
    from ...memory.retrieval.search import Hit
    from ..client import Podium

Key = Annotated[str, typer.Argument(metavar="KEY", help="The item's key.")]
Revision = Annotated[str, typer.Argument(metavar="REV", help="A revision's number.")]

memory_app = typer.Typer(
    help="What is remembered: put, find, compare, take back, erase.",
    rich_markup_mode=None,
    subcommand_metavar="VERB ...",
)


@memory_app.callback(invoke_without_command=True)
def memory(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@memory_app.command("put")
def put(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Text; @FILE, or - for stdin.")],
    json_value: Annotated[bool, typer.Option("--json-value", help="The value is JSON, not text.")] = False,
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="fact, note, artifact or summary.")
    ] = "note",
    scope: ScopeName = None,
    scope_id: ScopeId = None,
    run: OfRun = None,
    task: OfTask = None,
    workflow: OfWorkflow = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="WHO", help="Whom it is about: `forget` erases by it.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="AGE", help="How long it stays: 12h, 30d.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remember a value under a key; it supersedes the one that the key had."""
    from ..schedules import parse_duration

    seconds = parse_duration(ttl) if ttl is not None else None
    chosen = one_of(kind, KINDS, "kind of item")
    said = value_of(value, as_json=json_value)
    with client() as podium:
        place = where(podium, scope, scope_id, run, workflow, task)
        made = podium.memory.put(
            key, said, kind=chosen, scope=place.scope, scope_id=place.scope_id, subject=subject, ttl=seconds
        )
    _tell(made, as_json, f"{key}: version {made.version}, for the {place}")


@memory_app.command("get")
def get(
    key: Key,
    scope: ScopeName = None,
    scope_id: ScopeId = None,
    run: OfRun = None,
    task: OfTask = None,
    workflow: OfWorkflow = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="REV|TIME", help="As it was after that revision, or then."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the newest value of an item."""
    from .common import as_text

    with client() as podium:
        place = where(podium, scope, scope_id, run, workflow, task)
        at = moment(podium, as_of)
        found = podium.memory.get(key, scope=place.scope, scope_id=place.scope_id, as_of=at)
        if found is None:
            raise _no_item(podium, key, place, was=as_of)
    if as_json:
        _emit(found)
        return
    note(_about(found))
    print(as_text(found.value))


@memory_app.command("history")
def history(
    key: Key,
    scope: ScopeName = None,
    scope_id: ScopeId = None,
    run: OfRun = None,
    task: OfTask = None,
    workflow: OfWorkflow = None,
    as_json: Json = False,
) -> None:
    """List all versions of an item, the oldest first."""
    with client() as podium:
        place = where(podium, scope, scope_id, run, workflow, task)
        found = podium.memory.history(key, scope=place.scope, scope_id=place.scope_id)
        if not found:
            raise _no_item(podium, key, place)
    if as_json:
        from .convert_memory import revisions_out

        emit(revisions_out(found))
        return
    from .common import iso

    rows = [[str(r.id), str(r.version), r.status, _by(r), (iso(r.created_at) or "")[:19]] for r in found]
    text_table(
        ["rev", "version", "status", "by", "at (UTC)", "text"], rows, [r.text for r in found], "rev version"
    )


@memory_app.command("search")
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A few words, or a question.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many at most.")] = 10,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only what this run sees, by any scope.")
    ] = None,
    kind: Kinds = None,
    as_json: Json = False,
) -> None:
    """Find what fits a question best."""
    from ...memory.errors import UsageError

    if not query.strip():
        raise UsageError("the query is empty", mend="give a few words of what you look for")
    with client() as podium:
        run_id = run_of(podium, run) if run is not None else None
        found = podium.memory.search(query, k=k, run_id=run_id, kinds=kinds_of(kind))
    if as_json:
        from .convert_memory import hits_out

        emit(hits_out(query, found))
    elif found:
        _hits(query, found)
    else:
        note("nothing was found\n  → try other words; `podium memory list` shows all there is")


@memory_app.command("list")
def list_(
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="What this run sees, by any scope.")
    ] = None,
    kind: Kinds = None,
    scope: ScopeName = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="WHO", help="Only what is about it.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most, the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """List items, each with its newest version; the newest last."""
    from .memory_text import SCOPES

    scopes = [one_of(scope, SCOPES, "scope")] if scope is not None else None
    with client() as podium:
        run_id = run_of(podium, run) if run is not None else None
        found = podium.memory.all(run_id=run_id, kinds=kinds_of(kind), scopes=scopes)
    if subject is not None:
        found = [one for one in found if one.subject == subject]
    shown = found[-limit:]
    if as_json:
        from .convert_memory import revisions_out

        emit(revisions_out(shown))
    elif shown:
        revision_table(shown, places=True)
    else:
        note("nothing is remembered there\n  → podium memory put KEY VALUE")
    if len(shown) < len(found):
        note(f"{len(found) - len(shown)} older ones are not shown\n  → --limit {len(found)}")


@memory_app.command("link")
def link(
    src: Revision,
    dst: Annotated[str, typer.Argument(metavar="REV", help="The revision that it is linked to.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help=f"{', '.join(LINKS)}.")] = "relates",
    as_json: Json = False,
) -> None:
    """Link two revisions: SRC is derived from, relates to, contradicts or supersedes DST."""
    from .memory_records import LinkOut

    chosen = one_of(kind, LINKS, "kind of link")
    first, second = revision_number(src), revision_number(dst)
    with client() as podium:
        podium.memory.link(first, second, chosen)
    if as_json:
        emit(LinkOut(src=first, dst=second, kind=chosen))
    else:
        print(f"{first} {chosen} {second}")


@memory_app.command("links")
def links(revision: Revision, as_json: Json = False) -> None:
    """List the links from and to a revision."""
    with client() as podium:
        one = known_revision(podium, revision)
        found = podium.memory.links(one.id)
        others = {x: podium.memory.revision(x) for edge in found for x in (edge.src, edge.dst)}
    if as_json:
        from .convert_memory import links_out

        emit(links_out(one.id, found))
        return
    if not found:
        note(f"no link leads from or to revision {one.id}\n  → podium memory link REV REV --kind relates")
        return
    rows, texts = [], []
    for edge in found:
        other = others[edge.dst if edge.src == one.id else edge.src]
        rows.append([str(edge.src), edge.kind, str(edge.dst), other.key if other else ""])
        texts.append(other.text if other else "")
    text_table(["src", "kind", "dst", "other", "text"], rows, texts, "src dst")


@memory_app.command("rollback")
def rollback(
    key: Key,
    version: Annotated[
        int, typer.Argument(metavar="VERSION", min=1, help="The version that is to hold again.")
    ],
    scope: ScopeName = None,
    scope_id: ScopeId = None,
    run: OfRun = None,
    task: OfTask = None,
    workflow: OfWorkflow = None,
    as_json: Json = False,
) -> None:
    """Make an old version the newest again. Nothing is lost: a version is added."""
    with client() as podium:
        place = where(podium, scope, scope_id, run, workflow, task)
        if not podium.memory.history(key, scope=place.scope, scope_id=place.scope_id):
            raise _no_item(podium, key, place)
        made = podium.memory.rollback(key, version, scope=place.scope, scope_id=place.scope_id)
    _tell(made, as_json, f"{key}: version {made.version} says what version {version} said")


@memory_app.command("retract")
def retract(
    key: Key,
    scope: ScopeName = None,
    scope_id: ScopeId = None,
    run: OfRun = None,
    task: OfTask = None,
    workflow: OfWorkflow = None,
    as_json: Json = False,
) -> None:
    """Take an item out of view. Its history stays, and `rollback` brings it back."""
    with client() as podium:
        place = where(podium, scope, scope_id, run, workflow, task)
        newest = podium.memory.get(key, scope=place.scope, scope_id=place.scope_id)
        if newest is None:
            raise _no_item(podium, key, place)
        made = podium.memory.retract(key, scope=place.scope, scope_id=place.scope_id)
    again = f"podium memory rollback {quote(key)} {newest.version}{_flags(place)}"
    _tell(made, as_json, f"{key} is out of view\n  → {again} brings it back")


memory_app.command("context")(memory_runs.context)
memory_app.command("fork")(memory_runs.fork)
memory_app.command("diff")(memory_runs.diff)
memory_app.command("forget")(memory_care.forget)
memory_app.command("sweep")(memory_care.sweep)
memory_app.command("compact")(memory_care.compact)
memory_app.command("vacuum")(memory_care.vacuum)
memory_app.command("export")(memory_care.export)
memory_app.command("import")(memory_care.import_)


def _flags(place: Where) -> str:
    return "" if place.scope == "tenant" else f" {place.options}"


def _tell(made: RevisionRecord, as_json: bool, text: str) -> None:
    """The revision that was written: its number on stdout."""
    note(text)
    if as_json:
        _emit(made)
    else:
        print(made.id)


def _emit(found: RevisionRecord) -> None:
    from .convert_memory import revision_out

    emit(revision_out(found))


def _about(found: RevisionRecord) -> str:
    from .common import iso

    place = Where(found.scope, found.scope_id)  # type: ignore[arg-type]
    said = f"[{found.id}] version {found.version}, {found.kind} for the {place}"
    return f"{said}, by {_by(found)}, {(iso(found.created_at) or '')[:19]} UTC"


def _by(found: RevisionRecord) -> str:
    by = found.producer
    return f"{by.run_id}/{by.task}" if by.task is not None else "a person"


def _hits(query: str, found: list[Hit]) -> None:
    from ...agents.memory_tools import passage
    from .memory_text import LEAST, WIDTH

    rows = [[str(h.revision.id), f"{h.score:.3g}", h.revision.kind, h.revision.key] for h in found]
    texts = [passage(h.revision.text, query, max(LEAST, WIDTH // 2)) for h in found]
    text_table(["rev", "score", "kind", "key", "text"], rows, texts, "rev score")


def _no_item(podium: Podium, key: str, place: Where, was: str | None = None) -> Exception:
    """That there is none of this key: the nearest key there, or where else it is."""
    from ...memory.errors import NotFound
    from ..problems import did_you_mean

    items = podium.memory.all()
    here = [one for one in items if (one.scope, one.scope_id) == (place.scope, place.scope_id)]
    elsewhere = [one for one in items if one.key == key and one not in here]
    if any(one.key == key for one in here):
        mend = f"`podium memory history {quote(key)}{_flags(place)}` shows when it was said"
    elif elsewhere:
        other = Where(elsewhere[-1].scope, elsewhere[-1].scope_id)  # type: ignore[arg-type]
        mend = f"the {other} has one: {other.options}"
    elif podium.memory.history(key, scope=place.scope, scope_id=place.scope_id):
        mend = f"it is out of view; `podium memory history {quote(key)}{_flags(place)}` shows it"
    else:
        keys = dict.fromkeys(one.key for one in here)
        mend = did_you_mean(key, keys, "" if keys else "`podium memory list` shows what there is")
    when = f" as of {was}" if was is not None else ""
    return NotFound(f"the {place} has no item {key!r}{when}", mend=mend)
