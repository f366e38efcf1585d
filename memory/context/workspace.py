"""What a run remembers, read from SQL into a `Workspace` (`assembly.py`) and kept up with as the run goes on.

A step of the workspace is a task that has an artifact, with its edges as parents. A fact that someone else
changed afterwards follows the task that had stated it. Notes, summaries and what agents keep hang on the
tasks that said them. Of the workflow's and the tenant's items those come in that a search for the ask finds.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, func, select

from .. import items
from ..content import get
from ..database import Database
from ..errors import NotFound
from ..hot import fetch_one
from ..items import RevisionRecord
from ..tables import Branch, Edge, Item, Link, Revision, Run
from ..texts import text_of, token_estimate
from ..visible import chain, visible
from .assembly import Citation, Context, Need, Piece, Step, Workspace
from .facts import extract

#: runs whose workspaces are kept
KEPT = 8
#: characters of one output that are read
LONGEST = 65_536
#: the step that stands for a run's inputs
INPUTS = "inputs"
#: of the budget, at most this part goes to the workflow's and the tenant's items
SHARED = 1 / 8
#: items of the workflow and the tenant that are looked at
SHARED_HITS = 8
#: tokens of a citation mark, about
MARK = 4
#: seconds by which a transaction of Postgres may come later than one with a greater id
LATE = 60.0


class Workspaces:
    """The workspaces of one tenant's runs. Safe to use from any thread."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant
        self._runs: OrderedDict[str, _Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Read everything again when it is next asked for."""
        with self._lock:
            self._runs.clear()

    def context(
        self, run_id: str, task: str, budget: int, *, ask: str = "", count: Callable[[str], int] | None = None
    ) -> Context:
        """See `TaskMemory.context`."""
        count = count or token_estimate
        if budget <= 0:
            return Context("")
        shared = self._shared(run_id, ask, int(budget * SHARED), count)
        with self._lock:
            loaded = self._loaded(run_id)
            with self._database.read() as connection:
                loaded.catch_up(connection)
            parents = loaded.parents_of(task)
            left = budget - (count(shared.text + "\n\n") if shared.text else 0)
            needed = loaded.needed_by(task, max(0, left), count)
            made = loaded.workspace.context(task, parents, ask, max(0, left), count, needed=needed)
        return _joined(made, shared, budget, count)

    def _loaded(self, run_id: str) -> _Loaded:
        loaded = self._runs.pop(run_id, None) or _Loaded(self._tenant, run_id)
        self._runs[run_id] = loaded
        while len(self._runs) > KEPT:
            self._runs.popitem(last=False)
        return loaded

    def _shared(self, run_id: str, ask: str, budget: int, count: Callable[[str], int]) -> Context:
        """What the workflow's and the tenant's memory says to the ask: a line each, the best first."""
        if not ask.strip() or budget < 8:
            return Context("")
        from ..retrieval.search import search

        scopes = ("workflow", "tenant")
        hits = search(self._database, self._tenant, ask, k=SHARED_HITS, run_id=run_id, scopes=scopes)
        text, pieces = "", []
        for hit in hits:
            record = hit.revision
            said = " ".join((record.digest or record.text).split())
            line = f"{record.key}: {said} [{record.id}]"
            if count(f"{text}\n{line}") > budget:
                continue
            text = f"{text}\n{line}" if text else line
            pieces.append(Piece(line, f"{record.scope}:{record.key}", record.id, "raw"))
        marks = tuple(Citation(piece.revision or 0, piece.step, piece.revision) for piece in pieces)
        return Context(text, marks, (), tuple(pieces))


def _joined(own: Context, shared: Context, budget: int, count: Callable[[str], int]) -> Context:
    if not shared.text:
        return own
    if not own.text:
        return shared
    text = f"{shared.text}\n\n{own.text}"
    if count(text) > budget:  # tokens of a joint text are not the sum of those of its parts
        return own
    citations, pieces = shared.citations + own.citations, shared.pieces + own.pieces
    return replace(own, text=text, citations=citations, pieces=pieces)


@dataclass(slots=True)
class _Loaded:
    """One run, as far as it is read."""

    tenant: str
    run_id: str
    workspace: Workspace = field(default_factory=lambda: _workspace())
    #: item's key → what is shown of it
    records: dict[tuple[str, str], RevisionRecord] = field(default_factory=dict)
    edges: dict[str, tuple[str, ...]] = field(default_factory=dict)
    graph: int = -1
    #: erasures change revisions that are there
    erasure: int = 0
    #: seconds, UTC: when something begins or ceases to hold; None: never
    turns_at: float | None = None
    #: (time, newest revision then), the oldest first
    marks: list[tuple[float, int]] = field(default_factory=list)
    #: task → steps that correct it or that it keeps for itself
    after: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def parents_of(self, task: str) -> tuple[str, ...]:
        """The tasks before it; with those who corrected what they or the tasks before them said."""
        direct = self.edges.get(task, ())
        seen, todo = set(direct), list(direct)
        while todo:
            for parent in self.edges.get(todo.pop(), ()):
                if parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        later = [step for one in sorted(seen) for step in self.after.get(one, ())]
        return (*(direct or (INPUTS,)), *later, *self.after.get(f"task:{task}", ()))

    def needed_by(self, task: str, budget: int, count: Callable[[str], int]) -> list[Need]:
        """Outputs that the task takes directly come first and whole, as far as half the budget goes."""
        found: list[Need] = []
        left = budget // 2
        for source in self.edges.get(task, ()):
            record = self.records.get(("", source))
            size = count(record.text) + MARK if record is not None else 0
            if record is not None and size <= left:
                left -= size
                found.append(Need(source))
        return found

    def catch_up(self, connection: Connection) -> None:
        """Read what is new; everything again where something that was read is so no more."""
        now = time.time()
        state = fetch_one(connection, _STATE, (self.tenant, self.tenant, self.run_id))
        erasure, newest, graph = state if state is not None else (0, 0, None)
        if graph is None and not self._is_memory_only(connection):
            raise NotFound(f"there is no run {self.run_id}", mend="`podium runs` lists them")
        stale = erasure != self.erasure or (self.turns_at is not None and self.turns_at <= now)
        regrown = graph != self.graph
        if regrown:
            self._read_graph(connection, graph)
        if stale or not self.marks:
            fresh = self._read(connection, None)
            changed = None
        else:
            late = 0.0 if connection.dialect.name == "sqlite" else LATE
            after = max((mark for at, mark in self.marks if at <= now - late), default=0)
            if after >= newest and not regrown:
                return
            changed = self._changed(connection, after)
            fresh = self._read(connection, changed) if changed else []
        self.erasure = erasure
        kept = [mark for mark in self.marks if mark[0] > now - 2 * LATE]
        self.marks = [*kept[-64:], (now, newest)]
        self._take(connection, fresh, changed, regrown)

    def _is_memory_only(self, connection: Connection) -> bool:
        """Whether it is a run of no engine: someone has put items for it, or forked it."""
        own = select(Item.id).where(
            Item.tenant == self.tenant, Item.scope == "run", Item.scope_id == self.run_id
        )
        fork = select(Branch.run_id).where(Branch.tenant == self.tenant, Branch.run_id == self.run_id)
        return any(connection.execute(q.limit(1)).first() is not None for q in (own, fork))

    def _read_graph(self, connection: Connection, graph: int | None) -> None:
        query = select(Edge.src, Edge.dst).where(Edge.run_id == self.run_id, Edge.tenant == self.tenant)
        before: dict[str, list[str]] = defaultdict(list)
        for src, dst in connection.execute(query.order_by(Edge.dst, Edge.src)):
            before[dst].append(src)
        self.edges = {task: tuple(sources) for task, sources in before.items()}
        self.graph = -1 if graph is None else graph

    def _changed(self, connection: Connection, after: int) -> list[str]:
        """Keys of items that have newer revisions."""
        query = (
            select(Item.key)
            .distinct()
            .join(Revision, Revision.item_id == Item.id)
            .where(Revision.id > after, Revision.tenant == self.tenant)
            .where(Item.scope.in_(("run", "task")))
        )
        return list(connection.execute(query).scalars())

    def _read(self, connection: Connection, keys: Sequence[str] | None) -> list[RevisionRecord]:
        seen = chain(connection, self.tenant, self.run_id)
        found: list[RevisionRecord] = []
        lots = [None] if keys is None else [keys[n : n + 1000] for n in range(0, len(keys), 1000)]
        for lot in lots:
            query = visible(self.tenant, seen, scopes=["run"], keys=lot)
            found += items.records(connection, self.tenant, query)
        own = items.revisions().where(
            Item.tenant == self.tenant, Item.scope == "task", Item.scope_id.startswith(f"{self.run_id}/")
        )
        newest: dict[tuple[str, str], RevisionRecord] = {}
        for record in items.records(connection, self.tenant, own.order_by(Revision.id)):
            newest[record.scope_id, record.key] = record
        found += [record for record in newest.values() if record.status == "active" and _holds(record)]
        return sorted(found, key=lambda record: record.id)

    def _take(
        self,
        connection: Connection,
        fresh: Sequence[RevisionRecord],
        changed: Sequence[str] | None,
        regrown: bool,
    ) -> None:
        known = self.records
        place = {(_owner(record), record.key): record for record in fresh}
        if changed is None:
            now = place
        else:
            keys = set(changed)
            now = {at: record for at, record in known.items() if at[1] not in keys} | place
        self.records = now
        self.turns_at = self._turn(connection)
        new = [record for at, record in place.items() if at not in known or known[at].id != record.id]
        grown = all(at in now and now[at].id == record.id for at, record in known.items())
        rebuilt = not grown or regrown or changed is None
        if rebuilt:
            self.workspace, self.after = _workspace(), defaultdict(list)
            self._add_inputs(connection)
            new = list(now.values())
        self._add(connection, sorted(new, key=lambda record: record.id))

    def _turn(self, connection: Connection) -> float | None:
        """When the next item begins or ceases to hold."""
        now = time.time()
        times = [t for r in self.records.values() for t in (r.expires_at, r.valid_to) if t is not None]
        query = (
            select(func.min(Revision.valid_from))
            .join(Item, Item.id == Revision.item_id)
            .where(Item.tenant == self.tenant, Item.scope == "run", Item.scope_id == self.run_id)
            .where(Revision.valid_from > now)
        )
        begins = connection.execute(query).scalar()
        return min([*times, *([begins] if begins is not None else [])], default=None)

    def _add_inputs(self, connection: Connection) -> None:
        query = select(Run.inputs_blob).where(Run.id == self.run_id, Run.tenant == self.tenant)
        blob = connection.execute(query).scalar()
        if blob is None:
            return
        value = get(connection, self.tenant, blob)
        if value:
            self.workspace.add(Step(INPUTS, text_of(value)[:LONGEST], writes=_writes(value)))

    def _add(self, connection: Connection, new: Sequence[RevisionRecord]) -> None:
        links = _linked(connection, self.tenant, [r.id for r in new if r.kind in ("note", "summary")])
        tasks = {key for owner, key in self.records if owner == ""}
        for record in new:
            self._add_one(record, tasks, links.get(record.id, ()))

    def _add_one(self, record: RevisionRecord, tasks: set[str], linked: Iterable[str]) -> None:
        text, by = record.text[:LONGEST], record.producer.task
        if record.scope == "run" and record.kind == "artifact":
            parents = self.edges.get(record.key, ()) or ((INPUTS,) if record.key != INPUTS else ())
            writes = _writes(record.value)
            self.workspace.add(Step(record.key, text, parents, writes=writes, revision=record.id))
        elif record.scope == "task":
            task = record.scope_id.partition("/")[2]
            step = f"{record.scope_id}:{record.key}"
            self.after[f"task:{task}"].append(step)
            self.workspace.add(Step(step, f"{record.key}: {text}", revision=record.id))
        elif record.kind == "fact" and (task := _stated_by(record.key, tasks)) is not None:
            if by == task:  # the artifact says it
                return
            self.after[task].append(record.key)
            writes = ((record.key.removeprefix(f"{task}."), record.value),) if _scalar(record.value) else None
            said = f"{record.key}: {text}"
            self.workspace.add(Step(record.key, said, (task,), writes=writes, revision=record.id))
        else:
            about = tuple(dict.fromkeys(linked if by is None else [by, *linked]))
            said = text if record.kind == "note" else f"{record.key}: {text}"
            self.workspace.add(
                Step(f"{record.kind}:{record.key}", said, revision=record.id, note=True, links=about)
            )


_STATE = """SELECT COALESCE((SELECT MAX(id) FROM erasure WHERE tenant = ?), 0),
COALESCE((SELECT MAX(id) FROM revision), 0),
(SELECT graph_version FROM run WHERE tenant = ? AND id = ?)"""


def _workspace() -> Workspace:
    from ..retrieval.vectors import default_embedder

    return Workspace(marks=True, fenced=True, embed=default_embedder().embed)


def _owner(record: RevisionRecord) -> str:
    """Whose the key is: a task's, or the run's."""
    return record.scope_id if record.scope == "task" else ""


def _holds(record: RevisionRecord) -> bool:
    now = time.time()
    ends = [t for t in (record.expires_at, record.valid_to) if t is not None]
    return all(t > now for t in ends) and (record.valid_from is None or record.valid_from <= now)


def _stated_by(key: str, tasks: set[str]) -> str | None:
    """The task whose field a fact's key names: `a.b` of `a.b.c`, if there is such a task."""
    parts = key.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
    return next((name for name in names if name in tasks), None)


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _writes(value: Any) -> tuple[tuple[str, Any], ...] | None:
    """The typed fields of a value; None: it is a text."""
    if not isinstance(value, dict | list):
        return None
    return tuple((fact.key, fact.value) for fact in extract(value, "") if fact.durable and fact.key) or None


def _linked(connection: Connection, tenant: str, revisions: Sequence[int]) -> dict[int, list[str]]:
    """Notes → the tasks whose revisions they are linked with."""
    found: dict[int, list[str]] = defaultdict(list)
    for start in range(0, len(revisions), 500):
        lot = revisions[start : start + 500]
        for mine, far in ((Link.src, Link.dst), (Link.dst, Link.src)):
            query = select(mine, Revision.task).join(Revision, Revision.id == far)
            query = query.where(Link.tenant == tenant, mine.in_(lot), Revision.task.is_not(None))
            for note, task in connection.execute(query.order_by(mine, far)):
                found[note].append(str(task))
    return found
