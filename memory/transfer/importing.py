"""Writes the lines of an exported memory into a tenant's, in one transaction.

First it is seen what of it is there already, and which ids are free; then the rest is written.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, func, select, text

from ..content import Encoded, put_encoded
from ..errors import UsageError
from ..hot import fetch_all, fetch_one, json_column, run_many
from ..indexing import Indexed, index
from ..items import indexed_text
from ..sealing import is_sealed, seal_text
from ..tables import Revision
from ..texts import has_words, text_of
from .exchange import PAGE, REVISION, floor
from .transcript import Line

_FIND_ITEM = "SELECT id, kind FROM item WHERE tenant = ? AND scope = ? AND scope_id = ? AND key = ?"
_FIND_VERSIONS = "SELECT version, id, content_blob, created_at, status FROM revision WHERE item_id = ?"
_ITEM = """INSERT INTO item (id, tenant, kind, scope, scope_id, key, subject, expires_at, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_COLUMNS = ("id", "item_id", "tenant", "content_blob", *REVISION[2:])
_REVISION = f"INSERT INTO revision ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_LINK = """INSERT INTO link (src, dst, kind, tenant, created_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING"""
_EMBEDDING = """INSERT INTO embedding (revision_id, model, tenant, dimensions, vector) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING"""
_BRANCH = "INSERT INTO branch (run_id, tenant, parent, revision_id) VALUES (?, ?, ?, ?)"
_ERASURE = "INSERT INTO erasure ({}tenant, subject_hash, at, counts) VALUES ({}?, ?, ?, ?)"
_KNOWN_ERASURE = "SELECT 1 FROM erasure WHERE tenant = ? AND subject_hash = ? AND at = ?"
_SEQUENCE = """SELECT setval(pg_get_serial_sequence('{0}', 'id'), GREATEST((SELECT MAX(id) FROM {0}),
nextval(pg_get_serial_sequence('{0}', 'id'))))"""


def load(connection: Connection, tenant: str, lines: Callable[[], Iterator[Line]]) -> int:
    """Write what is not there yet; returns how many revisions were new. `lines` have been checked.

    Raises:
        UsageError: a version or a fork is there that says something else, or an item of another kind.
    """
    postgres = connection.dialect.name != "sqlite"
    if postgres:  # ids are given out here: nobody else may take them meanwhile
        connection.execute(text("LOCK TABLE item, revision, erasure IN SHARE ROW EXCLUSIVE MODE"))
    plan = _Plan(connection, tenant)
    for kind, data in lines():
        plan.look(kind, data)
    ids = plan.ids()
    writer = _Writer(connection, tenant, plan, ids)
    for kind, data in lines():
        writer.add(kind, data)
    writer.flush()
    for table in ("revision", "erasure") if postgres and plan.new else ():
        connection.execute(text(_SEQUENCE.format(table)))
    return len(plan.new)


class _Plan:
    """What of the file is there already."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection, self._tenant = connection, tenant
        #: the file's items that are here → their id here
        self.items: dict[str, str] = {}
        #: the file's revisions that are here → their id here
        self.known: dict[int, int] = {}
        #: the file's revisions that are not, ascending
        self.new: list[int] = []
        self._versions: dict[str, dict[int, tuple[Any, ...]]] = {}
        #: a new version keeps its place behind the older ones only with another id
        self._behind = False

    def look(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "item":
            self._item(data)
        elif kind == "revision":
            self._revision(data)

    def _item(self, data: dict[str, Any]) -> None:
        place = (self._tenant, data["scope"], data["scope_id"], data["key"])
        row = fetch_one(self._connection, _FIND_ITEM, place)
        if row is None:
            return
        if row[1] != data["kind"]:
            raise _contradiction(data["key"], f"is of the kind {row[1]} here, and {data['kind']} in the file")
        self.items[data["id"]] = row[0]
        versions = fetch_all(self._connection, _FIND_VERSIONS, (row[0],))
        self._versions[data["id"]] = {version: tuple(rest) for version, *rest in versions}

    def _revision(self, data: dict[str, Any]) -> None:
        here = self._versions.get(data["item_id"], {})
        found = here.get(data["version"])
        if found is not None:
            same = found[1:3] == (data["hash"], data["created_at"]) or found[3] == "erased"
            if not same:  # what was erased since stays erased
                raise _contradiction(data["item_id"], f"has another version {data['version']} here")
            self.known[data["id"]] = found[0]
            return
        if here and data["version"] < max(here):
            raise _contradiction(data["item_id"], f"has no version {data['version']} here, but newer ones")
        self._behind |= any(row[0] >= data["id"] for row in here.values())
        self.new.append(data["id"])

    def ids(self) -> dict[int, int]:
        """The file's revisions → their ids here."""
        taken = self._behind or any(
            fetch_all(
                self._connection,
                f"SELECT id FROM revision WHERE id IN ({', '.join('?' * len(page))}) LIMIT 1",
                tuple(page),
            )
            for page in (self.new[start : start + PAGE] for start in range(0, len(self.new), PAGE))
        )
        mine = select(func.max(Revision.id)).where(Revision.tenant == self._tenant)
        newest = self._connection.execute(mine).scalar() or 0
        # below the tenant's newest one, what follows it by id would not notice them
        if not taken and (not self.new or self.new[0] > newest):
            return self.known | {one: one for one in self.new}
        top = self._connection.execute(select(func.max(Revision.id))).scalar() or 0
        return self.known | {one: top + number for number, one in enumerate(self.new, 1)}


class _Writer:
    """Writes what is new, a page at a time."""

    def __init__(self, connection: Connection, tenant: str, plan: _Plan, ids: dict[int, int]) -> None:
        self._connection, self._tenant, self._plan, self._ids = connection, tenant, plan, ids
        self._order = sorted(ids)
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._values: list[Encoded] = []
        self._index: list[Indexed] = []
        self._items: dict[str, tuple[str, str, str]] = {}

    def add(self, kind: str, data: dict[str, Any]) -> None:
        getattr(self, f"_{kind}")(data)
        if len(self._rows.get(_REVISION, ())) >= PAGE or len(self._rows.get(_EMBEDDING, ())) >= PAGE:
            self.flush()

    def flush(self) -> None:
        """In the order in which rows refer to each other."""
        put_encoded(self._connection, self._tenant, self._values)
        for sql in (_ITEM, _REVISION, _LINK, _EMBEDDING, _BRANCH):
            run_many(self._connection, sql, self._rows.get(sql, []))
        index(self._connection, self._tenant, self._index)
        self._rows, self._values, self._index = {}, [], []

    def _put(self, sql: str, *row: Any) -> None:
        self._rows.setdefault(sql, []).append(row)

    def _item(self, data: dict[str, Any]) -> None:
        item = self._plan.items.get(data["id"])
        if item is None:
            item = data["id"]
            if fetch_one(self._connection, "SELECT 1 FROM item WHERE id = ?", (item,)) is not None:
                item = uuid.uuid4().hex
            place = (data["scope"], data["scope_id"], data["key"])
            rest = (data["subject"], data["expires_at"], data["created_at"])
            self._put(_ITEM, item, self._tenant, data["kind"], *place, *rest)
        self._items[data["id"]] = (item, data["kind"], data["key"])

    def _revision(self, data: dict[str, Any]) -> None:
        if data["id"] in self._plan.known:
            return
        item, kind, key = self._items[data["item_id"]]
        revision, value = self._ids[data["id"]], Encoded.of(data["value"])
        sealed = {name: seal_text(self._connection, data[name]) for name in ("text", "digest")}
        rest = [(data | sealed)[name] for name in REVISION[2:]]
        self._put(_REVISION, revision, item, self._tenant, data["hash"], *rest)
        self._values.append(value)
        if data["status"] == "active" and (kind != "artifact" or has_words(value.data)):
            said = text_of(data["value"]) if data["text"] is None else data["text"]
            self._index.append(Indexed(revision, indexed_text(kind, key, said)))

    def _link(self, data: dict[str, Any]) -> None:
        ends = (self._ids[data["src"]], self._ids[data["dst"]])
        self._put(_LINK, *ends, data["kind"], self._tenant, data["created_at"])

    def _embedding(self, data: dict[str, Any]) -> None:
        if is_sealed(self._connection):  # they are made again, and tell what the text says
            return
        revision, vector = self._ids[data["revision_id"]], base64.b64decode(data["vector"])
        self._put(_EMBEDDING, revision, data["model"], self._tenant, data["dimensions"], vector)

    def _branch(self, data: dict[str, Any]) -> None:
        limit = self._ids.get(floor(self._order, data["revision_id"]), 0)
        query = "SELECT tenant, parent FROM branch WHERE run_id = ?"
        row = fetch_one(self._connection, query, (data["run_id"],))
        if row is None:
            self._put(_BRANCH, data["run_id"], self._tenant, data["parent"], limit)
        elif tuple(row) != (self._tenant, data["parent"]):
            raise _contradiction(data["run_id"], "is another fork here")

    def _erasure(self, data: dict[str, Any]) -> None:
        row = (self._tenant, data["subject_hash"], data["at"])
        if fetch_one(self._connection, _KNOWN_ERASURE, row) is not None:
            return
        row = (*row, json_column(data["counts"]))
        if fetch_one(self._connection, "SELECT 1 FROM erasure WHERE id = ?", (data["id"],)) is None:
            run_many(self._connection, _ERASURE.format("id, ", "?, "), [(data["id"], *row)])
        else:
            run_many(self._connection, _ERASURE.format("", ""), [row])


def _contradiction(name: str, problem: str) -> UsageError:
    return UsageError(
        f"what is remembered here contradicts the file: {name!r} {problem}",
        mend="import it into another tenant; nothing was written",
    )
