"""What the router learned from: examples that show what is to go, notes about them, and every state since.

A state holds vectors and words of the prompts that it was learned from, so that each version goes that has
read an outcome that is erased; the newest one of before is in use then, and what came later is learned anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, or_, select, update

from ..tables import Call, Outcome, RouterState
from .erasure_apply import NO_HASH, Apply
from .erasure_scan import pages
from .erasure_trace import MANY, Trace
from .erasure_words import ERASED


def forget_outcomes(connection: Connection, apply: Apply, trace: Trace, receipt: int) -> None:
    """Erase it. Before the runs' own contents go: by them it is known which calls showed it."""
    tenant, hits = trace.scan.tenant, trace.scan.blobs | trace.copies
    shown = set(_shown(connection, tenant, hits))
    learned = shown | set(_of_calls(connection, tenant, trace))
    apply.examples(shown)
    if learned:
        apply.counts["router_state"] += _empty_states(connection, tenant, min(learned), receipt)
    apply.counts["outcome"] += _silence_notes(connection, tenant, trace, shown)
    _silence_names(connection, apply, trace)


def _shown(connection: Connection, tenant: str, hits: Collection[str]) -> Iterator[int]:
    """Outcomes whose prompt or answer shows it."""
    query = select(Outcome.id, Outcome.prompt_blob, Outcome.answer_blob).where(
        Outcome.tenant == tenant, Outcome.call_id.is_(None)
    )
    if len(hits) > MANY:  # the columns have no index: one look at all rows
        for number, *pair in connection.execute(query):
            if any(digest in hits for digest in pair):
                yield number
        return
    for some in pages(sorted(hits)):
        where = or_(Outcome.prompt_blob.in_(some), Outcome.answer_blob.in_(some))
        yield from connection.execute(query.where(where)).scalars()


def _of_calls(connection: Connection, tenant: str, trace: Trace) -> Iterator[int]:
    """Outcomes of calls whose prompts go."""
    for some in pages(sorted(trace.tasks)):
        query = (
            select(Outcome.id, Call.run_id, Call.task)
            .join(Call, Call.id == Outcome.call_id)
            .where(Outcome.tenant == tenant, Call.run_id.in_(some), Call.request_hash != NO_HASH)
        )
        for number, run, task in connection.execute(query):
            if trace.tasks[run].get(task):
                yield number


def _silence_notes(connection: Connection, tenant: str, trace: Trace, shown: Collection[int]) -> int:
    """Notes that say it, and those about answers that go. Returns how many."""
    query = (
        select(Outcome.id, Outcome.note, Call.run_id, Call.task)
        .outerjoin(Call, Call.id == Outcome.call_id)
        .where(Outcome.tenant == tenant, Outcome.note.is_not(None), Outcome.note != ERASED)
    )
    said = [
        number
        for number, note, run, task in connection.execute(query)
        if number in shown or trace.scan.words.are_in(note or "") or task in trace.tasks.get(run, ())
    ]
    for some in pages(said):
        connection.execute(update(Outcome).where(Outcome.id.in_(some)).values(note=ERASED))
    return len(said)


def _silence_names(connection: Connection, apply: Apply, trace: Trace) -> None:
    """Names of files and tasks, and notes of states, that say it."""
    columns: tuple[Any, ...] = (Outcome.origin, Outcome.task, RouterState.note)
    for column in columns:
        table, mine = column.class_, column.class_.tenant == trace.scan.tenant
        names = connection.execute(select(column).where(mine, column.is_not(None)).distinct()).scalars().all()
        for name in names:
            if trace.scan.words.are_in(name):
                renamed = update(table).where(mine, column == name).values({column.key: ERASED})
                apply.counts[table.__tablename__] += connection.execute(renamed).rowcount


def _empty_states(connection: Connection, tenant: str, first: int, receipt: int) -> int:
    """Empty the states that have read the outcome `first` or a later one. Returns how many."""
    mine = RouterState.tenant == tenant
    values = {"state": b"", "rows": 0, "active": False, "note": f"erased by receipt {receipt}"}
    read = (RouterState.upto >= first, RouterState.state != b"")
    changed = connection.execute(update(RouterState).where(mine, *read).values(values)).rowcount
    if (
        changed
        and not connection.execute(select(RouterState.version).where(mine, RouterState.active)).first()
    ):
        query = select(RouterState.version).where(mine, RouterState.state != b"")
        newest = connection.execute(query.order_by(RouterState.version.desc()).limit(1)).scalar()
        if newest is not None:
            connection.execute(
                update(RouterState).where(mine, RouterState.version == newest).values(active=True)
            )
    return changed
