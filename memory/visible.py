"""What a run sees of task memory: the one place where tenant, scope, forks, versions and time are filtered.

A run sees its own items and, as they were when it was forked, those of the runs that it came from; the items
of its workflow and of its tenant; a task sees its own ones too. Of an item it sees the newest version, unless
that one was retracted or erased, does not hold yet or any more, or the item has expired.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    String,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased
from sqlalchemy.sql.functions import GenericFunction

from .items import revisions
from .tables import Branch, Item, Revision, Run, Task

#: a revision's id, or a moment: what was known then. A datetime without a zone is local time
AsOf = int | datetime
#: runs of forks of forks that are followed
DEEPEST = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """A run whose items are seen, up to its revision `limit`; None: all."""

    run_id: str
    limit: int | None = None


def chain(connection: Connection, tenant: str, run_id: str, *, at: int | None = None) -> list[Seen]:
    """The run itself, then the runs that it was forked from, the nearest first. One query.

    `at`: the newest revision that it sees of its own.
    """
    first = select(Branch.parent, Branch.revision_id, literal(1).label("depth")).where(
        Branch.tenant == tenant, Branch.run_id == run_id
    )
    up = first.cte("up", recursive=True)
    following = (
        select(Branch.parent, Branch.revision_id, up.c.depth + 1)
        .join(up, Branch.run_id == up.c.parent)
        .where(Branch.tenant == tenant, up.c.depth < DEEPEST)
    )
    rows = connection.execute(select(up.union_all(following)).order_by("depth"))
    found, limit = [Seen(run_id, at)], at
    for parent, revision_id, _ in rows:
        limit = revision_id if limit is None else min(limit, revision_id)
        found.append(Seen(parent, limit))
    return found


def workflow_of(connection: Connection, tenant: str, run_id: str) -> str | None:
    """The name of the workflow that a run is of; None: the engine knows no such run."""
    return connection.execute(select(Run.workflow).where(Run.tenant == tenant, Run.id == run_id)).scalar()


def visible(
    tenant: str,
    seen: Sequence[Seen] | None = None,
    *,
    workflow: str | None = None,
    task: str | None = None,
    as_of: AsOf | None = None,
    kinds: Collection[str] | None = None,
    scopes: Collection[str] | None = None,
    keys: Collection[str] | None = None,
    among: Collection[int] | None = None,
) -> Select[Any]:
    """The newest version of each item that is seen, as rows for `items.records`; in no order.

    Each argument narrows it down; the filters of one query, however many items there are.

    Args:
        seen: what `chain` gave; None: a person of the tenant, who sees the items of every run.
        workflow: whose items are seen too; without one, none of a workflow (a person: of every one).
        task: a task of the first run of `seen`, whose items are seen too (a person: of every one).
        as_of: a revision's id: no later ones; a moment: what was said until then and held then.
        kinds, scopes, keys: only items of these.
        among: only these revisions, as far as they are still the newest.
    """
    now = _moment(tenant, as_of)
    wanted: list[ColumnElement[bool]] = [Revision.tenant == tenant]
    wanted.append(or_(Revision.valid_from.is_(None), Revision.valid_from <= now))
    if isinstance(as_of, int):
        wanted.append(Revision.id <= as_of)
    elif as_of is not None:
        wanted.append(Revision.created_at <= now)
    narrow: list[ColumnElement[bool]] = []
    if keys is not None:
        narrow.append(Item.key.in_(sorted(keys)))
    if among is not None:
        narrow.append(_of_revisions(tenant, among, by_key=seen is not None))
    if seen is not None:
        places = _places(tenant, seen, workflow, task)
    else:
        # by the ids alone, where they are given: an index of items would be walked whole
        places = [Item.tenant == tenant if among is None else true()]
    # each place with all that narrows it: so the whole index of items is used
    wanted.append(or_(*(and_(place, *narrow) for place in places)))
    for column, values in ((Item.kind, kinds), (Item.scope, scopes)):
        if values is not None:
            wanted.append(column.in_(sorted(values)))
    rank = func.row_number().over(
        partition_by=[Item.id] if seen is None else [Item.scope, Item.key],
        order_by=[_depth(seen or ()), Revision.id.desc()],
    )
    ranked = revisions().add_columns(rank.label("rank")).where(*wanted).subquery("ranked")
    columns = ranked.c
    query = select(*(column for column in columns if column.name != "rank")).where(
        columns.rank == 1,
        columns.status == "active",
        or_(columns.valid_to.is_(None), columns.valid_to > now),
        or_(columns.expires_at.is_(None), columns.expires_at > now),
    )
    return query if among is None else query.where(columns.id.in_(sorted(among)))


def _moment(tenant: str, as_of: AsOf | None) -> ColumnElement[float]:
    """Seconds, UTC: when validity and expiry are looked at."""
    if as_of is None:
        return literal(time.time(), Float)
    if isinstance(as_of, int):
        said = select(func.max(Revision.created_at)).where(Revision.tenant == tenant, Revision.id == as_of)
        return func.coalesce(said.scalar_subquery(), time.time())
    return literal(as_of.timestamp(), Float)


def _of_revisions(tenant: str, ids: Collection[int], *, by_key: bool) -> ColumnElement[bool]:
    """Items that have one of these revisions; or its key: a fork's own item comes before its parent's."""
    one = aliased(Revision)
    of = select(one.item_id).where(one.tenant == tenant, one.id.in_(sorted(ids)))
    if not by_key:
        return Revision.item_id.in_(of)
    named = aliased(Item)
    return Item.key.in_(select(named.key).where(named.id.in_(of)))


def _places(
    tenant: str, seen: Sequence[Seen], workflow: str | None, task: str | None
) -> list[ColumnElement[bool]]:
    """Each a whole prefix of the index of items."""
    found = [_at(tenant, "tenant", "")]
    if workflow is not None:
        found.append(_at(tenant, "workflow", workflow))
    if task is not None and seen:
        found.append(_at(tenant, "task", f"{seen[0].run_id}/{task}"))
    for depth, one in enumerate(seen):
        own = [_at(tenant, "run", one.run_id)]
        if one.limit is not None:
            own.append(Revision.id <= one.limit)
        if depth:
            own.append(_taken_over([child.run_id for child in seen[:depth]]))
        found.append(and_(*own))
    return found


def _at(tenant: str, scope: str, scope_id: str) -> ColumnElement[bool]:
    return and_(Item.tenant == tenant, Item.scope == scope, Item.scope_id == scope_id)


def _taken_over(children: Sequence[str]) -> ColumnElement[bool]:
    """Of the runs in between, none does the task again that said it: what came of it belongs to the past."""
    again = select(Task.name).where(
        Task.run_id.in_(children),
        Task.parent.is_(None),
        or_(Task.attempts > 0, Task.status != "succeeded"),
    )
    return or_(Revision.task.is_(None), _TopTask(Revision.task).not_in(again))


def _depth(seen: Sequence[Seen]) -> ColumnElement[int]:
    if len(seen) < 2:
        return literal(0)
    return case({one.run_id: depth for depth, one in enumerate(seen)}, value=Item.scope_id, else_=0)


class _TopTask(GenericFunction[str]):
    """The task of the run's own workflow that a task is, or is below: `a` of `a[3]`, `a/b` and `a`."""

    name = "podium_top_task"
    type = String()
    inherit_cache = True


@compiles(_TopTask, "sqlite")
def _top_task_sqlite(element: _TopTask, compiler: Any, **options: Any) -> str:
    name = f"replace({compiler.process(element.clauses, **options)}, '/', '[')"
    return f"substr({name}, 1, instr({name} || '[', '[') - 1)"


@compiles(_TopTask, "postgresql")
def _top_task_postgres(element: _TopTask, compiler: Any, **options: Any) -> str:
    return f"split_part(replace({compiler.process(element.clauses, **options)}, '/', '['), '[', 1)"
