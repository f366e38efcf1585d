"""`memory forget`, `sweep`, `compact`, `vacuum`, `export`, `import`: what becomes of what is remembered."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, client, confirm, emit, is_person, iso, note, table
from .memory_text import KINDS, SCOPES, one_of

if TYPE_CHECKING:
    from ...memory.lifecycle.erasure import Receipt
    from ..client import Podium

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="A file of JSON lines; - for stdin or stdout.")]


def forget(
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="Whom to forget, as `put --subject` named it.")
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Erase all about somebody, and what was derived from it: for good, also from the database's files."""
    from ...memory.lifecycle.erasure import preview

    with client() as podium:
        memory = podium.memory
        found = {kind: n for kind, n in preview(memory.database, memory.tenant, subject).items() if n}
        if not found:
            raise _unknown(podium, subject)
        if dry_run:
            _would_go(subject, found, as_json)
            return
        note(f"to be erased for good: {', '.join(f'{kind} {n:,}' for kind, n in found.items())}")
        if not yes:
            _agreed("erase it?")
        receipt = memory.forget(subject)
    _give(receipt, as_json)


def _unknown(podium: Podium, subject: str) -> Exception:
    from ...memory.errors import NotFound
    from ..problems import did_you_mean

    known = dict.fromkeys(one.subject for one in podium.memory.all() if one.subject is not None)
    mend = did_you_mean(subject, known, "" if known else "`podium memory list` shows what there is")
    return NotFound(f"nothing is known about {subject!r}", mend=mend)


def _would_go(subject: str, found: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        from .memory_records import ForgetPreviewOut

        emit(ForgetPreviewOut(subject=subject, counts=dict(found)))
        return
    _counts(found)
    note("nothing was erased: this was a dry run")


def _give(receipt: Receipt, as_json: bool) -> None:
    """The receipt on stdout."""
    if as_json:
        from .convert_memory import receipt_out

        emit(receipt_out(receipt))
        return
    print(f"receipt {receipt.id}, {(iso(receipt.at) or '')[:19]} UTC")
    print(f"subject {receipt.subject_hash}")
    if receipt.salt is not None:
        print(f"key     {receipt.salt}")
    _counts(receipt.counts)
    if receipt.bytes_cleared:
        note("no byte of it is left in the database's files")
    if receipt.salt is not None:
        note("the key proves whom the receipt is for, and is kept nowhere else")
    if receipt.note:
        note(f"left to do: {receipt.note}")


def _counts(counts: Mapping[str, int]) -> None:
    table(["what", "count"], [[kind, f"{n:,}"] for kind, n in counts.items()], right="count")


def sweep(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Also items that got no new version for so long: 90d, 12h."),
    ] = None,
    keep_versions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Also old versions, all but the newest N.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Of the above only items of this kind.")
    ] = None,
    scope: Annotated[
        str | None, typer.Option("--scope", metavar="SCOPE", help="Of the above only items of this scope.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase what has expired, and what you say is too old. What was made from it stays."""
    from ...memory.errors import UsageError
    from ...memory.lifecycle.retention import Retention
    from ...memory.lifecycle.retention import sweep as erase
    from ..schedules import parse_duration

    rules = []
    if older_than is not None or keep_versions is not None:
        age = parse_duration(older_than) if older_than is not None else None
        chosen = one_of(kind, KINDS, "kind of item") if kind is not None else None
        limit = one_of(scope, SCOPES, "scope") if scope is not None else None
        rules.append(Retention(chosen, limit, age, keep_versions))
    elif kind is not None or scope is not None:
        raise UsageError("--kind and --scope need a limit", mend="add --older-than AGE or --keep-versions N")
    if rules and not yes:
        _agreed("erase what is older for good?")
    with client() as podium:
        done = erase(podium.database, podium.memory.tenant, rules=rules)
    _told({"items": done.items, "revisions": done.revisions, "contents": done.blobs}, as_json)


def _agreed(question: str) -> None:
    """Raises UsageError: nobody can be asked. typer.Exit: the person said no."""
    from ...memory.errors import UsageError

    if not is_person():
        raise UsageError("nobody is there to agree to it", mend="add --yes; `forget --dry-run` only looks")
    if not confirm(question):
        note("nothing was erased")
        raise typer.Exit(0)


def _told(counts: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        from .memory_records import CountsOut

        emit(CountsOut(counts=dict(counts)))
    else:
        _counts(counts)


def compact(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's id, the start of it, or `last`.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="All runs that ended longer ago than that: 30d, 12h.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put one summary in place of what an ended run remembers; it keeps the hashes of what goes."""
    from ...memory.errors import UsageError
    from ...memory.lifecycle.compaction import compact as summarise

    if (run is None) == (older_than is None):
        raise UsageError("give a run or --older-than, one of them", mend="podium memory compact RUN")
    with client() as podium:
        names = [podium.get(run).id] if run is not None else _old_runs(podium, older_than or "")
        done = [summarise(podium.database, podium.memory.tenant, name) for name in names]
    if as_json:
        from .memory_records import CompactedOut, CompactOut

        emit(
            CompactOut(
                runs=[CompactedOut(run_id=d.run_id, revision=d.revision, originals=d.originals) for d in done]
            )
        )
        return
    for one in done:
        print(f"{one.run_id} {one.revision}")
    note(f"{len(done)} runs have a summary, in place of {sum(d.originals for d in done):,} revisions")


def _old_runs(podium: Podium, age: str) -> list[str]:
    from ...memory.lifecycle.compaction import compactable
    from ..schedules import parse_duration

    before = time.time() - parse_duration(age)
    with podium.database.read() as connection:
        return compactable(connection, podium.memory.tenant, before)


def vacuum(as_json: Json = False) -> None:
    """Overwrite what deleting left in the database's files."""
    from ...memory.errors import PodiumError
    from ...memory.lifecycle.erasure import vacuum as overwrite
    from .memory_records import VacuumOut

    with client() as podium:
        cleared = overwrite(podium.database)
    if cleared is False:
        raise PodiumError(
            "somebody reads or writes the database: some deleted bytes are still there",
            mend="run it again when they are done",
        )
    if as_json:
        emit(VacuumOut(bytes_cleared=cleared))
    elif cleared:
        print("no deleted byte is left in the database's files")
    else:
        note("Postgres keeps its files itself\n  → run VACUUM FULL on the database")


def export(file: File, as_json: Json = False) -> None:
    """Write all that the tenant remembers to a file, one JSON object a line."""
    with _file(file, as_json, writes=True) as path, client() as podium:
        count = podium.memory.export(path)
    _moved(file, count, as_json, f"{count} revisions were written")


def import_(file: File, as_json: Json = False) -> None:
    """Read what `memory export` wrote, all of it or nothing."""
    with _file(file, as_json, writes=False) as path, client() as podium:
        count = podium.memory.import_(path)
    _moved(file, count, as_json, f"{count} revisions are new")


@contextmanager
def _file(name: str, as_json: bool, *, writes: bool) -> Iterator[Path]:
    """The file itself, or one that stands for stdin or stdout while it is worked on."""
    from ...memory.errors import UsageError

    if name != "-":
        yield Path(name).expanduser()
        return
    if writes and as_json:
        raise UsageError("stdout takes the export or its --json, not both", mend="export to a file")
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        path = Path(folder) / "memory.jsonl"
        if writes:
            yield path
            with path.open("rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with path.open("wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target)
        yield path


def _moved(file: str, count: int, as_json: bool, text: str) -> None:
    if as_json:
        from .memory_records import TransferOut

        emit(TransferOut(file=file, revisions=count))
        return
    note(text)
    if file != "-":
        print(os.fspath(Path(file).expanduser()))
