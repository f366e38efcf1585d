"""A tenant's memory as a file of JSON lines, and back: nothing is lost, nothing damaged comes in.

    {"podium": "memory", "format": 1, "tenant": …, "exported_at": …, "counts": {…}}
    {"item": {…}} {"revision": {…, "value": …}} {"link": {…}} {"embedding": {…}} {"branch": {…}}
    {"erasure": {…}}
    {"end": {"lines": …, "sha256": …}}

An item comes before its first revision, revisions in the order in which they were made. The last line has
the number of lines before it and the SHA-256 of their bytes, where the first line counts without its date.
The same memory gives the same lines, whatever database it is in. Sealed contents are opened.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exists, func, select

from ..content import get_many
from ..database import Database
from ..errors import UsageError
from ..sealing import is_sealed, open_text
from ..tables import Branch, Embedding, Erasure, Item, Link, Revision

#: of the lines; a file of a newer one is refused
FORMAT = 1
#: columns as they are in the file, in its order; the tenant is the header's
ITEM = ("id", "kind", "scope", "scope_id", "key", "subject", "expires_at", "created_at")
REVISION = (
    "id", "item_id", "version", "value_type", "text", "digest", "tokens", "status", "valid_from", "valid_to",
    "run_id", "task", "attempt", "call_id", "model", "prompt_hash", "cost_nano", "created_at",
)  # fmt: skip
LINK = ("src", "dst", "kind", "created_at")
BRANCH = ("run_id", "parent", "revision_id")
ERASURE = ("id", "subject_hash", "at", "counts")
#: revisions that are read at once
PAGE = 500

dump = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def export(database: Database, tenant: str, path: Path, *, embeddings: bool = True) -> int:
    """Write everything that the tenant's memory holds, as it is at one moment; returns how many revisions.

    The file appears when it is whole. `embeddings`: False leaves out the vectors, which can be made again.

    Raises:
        UsageError: the file cannot be written.
        PodiumError: a value in the database is damaged.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with database.read() as connection, open(part, "wb") as file:
            embeddings = embeddings and not is_sealed(connection)  # sealed ones are made again
            counts = _counts(connection, tenant, embeddings)
            digest, lines = hashlib.sha256(), 0
            header = {"podium": "memory", "format": FORMAT, "tenant": tenant, "counts": counts}
            for line in _lines(connection, tenant, header, embeddings):
                data = dump(line).encode() + b"\n"
                digest.update(data)
                if not lines:
                    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                    data = dump(header | {"exported_at": now}).encode() + b"\n"
                file.write(data)
                lines += 1
            file.write(dump({"end": {"lines": lines, "sha256": digest.hexdigest()}}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", mend="name a file in a folder you may write to"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return counts["revision"]


def _counts(connection: Connection, tenant: str, embeddings: bool) -> dict[str, int]:
    tables = {"item": Item, "revision": Revision, "link": Link, "branch": Branch, "erasure": Erasure}
    if embeddings:
        tables["embedding"] = Embedding
    return {
        name: connection.execute(
            select(func.count()).select_from(table).where(table.tenant == tenant)
        ).scalar_one()
        for name, table in tables.items()
    }


def _lines(
    connection: Connection, tenant: str, header: dict[str, Any], embeddings: bool
) -> Iterator[dict[str, Any]]:
    yield header
    ids: list[int] = []
    known: set[str] = set()
    for page in _pages(connection, tenant):
        yield from _page(connection, tenant, page, known)
        ids += [row["id"] for row in page]
    empty = select(Item).where(Item.tenant == tenant, ~exists().where(Revision.item_id == Item.id))
    for row in sorted(connection.execute(empty).mappings(), key=lambda row: row["id"]):
        yield {"item": {name: row[name] for name in ITEM}}
    links = select(Link).where(Link.tenant == tenant).order_by(Link.src, Link.dst, Link.kind)
    for row in connection.execute(links).mappings():
        yield {"link": {name: row[name] for name in LINK}}
    if embeddings:
        yield from _embeddings(connection, tenant)
    branches = connection.execute(select(Branch).where(Branch.tenant == tenant)).mappings().all()
    for row in sorted(branches, key=lambda row: row["run_id"]):
        # its limit may be another tenant's revision: the newest one here that it covers says the same
        yield {
            "branch": {name: row[name] for name in BRANCH} | {"revision_id": floor(ids, row["revision_id"])}
        }
    erasures = select(Erasure).where(Erasure.tenant == tenant).order_by(Erasure.id)
    for row in connection.execute(erasures).mappings():
        yield {"erasure": {name: row[name] for name in ERASURE}}


def floor(ids: Sequence[int], limit: int) -> int:
    """The last of the ascending `ids` that is not above `limit`; 0: none is."""

    place = bisect_right(ids, limit)
    return ids[place - 1] if place else 0


def _pages(connection: Connection, tenant: str) -> Iterator[Sequence[Any]]:
    after = 0
    while True:
        query = select(Revision).where(Revision.tenant == tenant, Revision.id > after)
        page = connection.execute(query.order_by(Revision.id).limit(PAGE)).mappings().all()
        if not page:
            return
        yield page
        after = page[-1]["id"]


def _page(
    connection: Connection, tenant: str, page: Sequence[Any], known: set[str]
) -> Iterator[dict[str, Any]]:
    missing = sorted({row["item_id"] for row in page} - known)
    query = select(Item).where(Item.tenant == tenant, Item.id.in_(missing))
    items = {row["id"]: row for row in connection.execute(query).mappings()}
    values = get_many(connection, tenant, [row["content_blob"] for row in page])
    for row in page:
        if row["item_id"] not in known:
            known.add(row["item_id"])
            yield {"item": {name: items[row["item_id"]][name] for name in ITEM}}
        data = {name: row[name] for name in REVISION}
        data |= {name: open_text(connection, row[name]) for name in ("text", "digest")}
        yield {"revision": data | {"hash": row["content_blob"], "value": values[row["content_blob"]]}}


def _embeddings(connection: Connection, tenant: str) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        query = select(Embedding).where(Embedding.tenant == tenant, Embedding.revision_id > after)
        ids = select(query.subquery().c.revision_id).distinct().order_by("revision_id").limit(PAGE)
        page = list(connection.execute(ids).scalars())
        if not page:
            return
        rows = connection.execute(
            query.where(Embedding.revision_id <= page[-1]).order_by(Embedding.revision_id)
        )
        for _, group in groupby(rows.mappings(), key=lambda row: row["revision_id"]):
            for row in sorted(group, key=lambda row: row["model"]):
                about = {name: row[name] for name in ("revision_id", "model", "dimensions")}
                yield {"embedding": about | {"vector": base64.b64encode(row["vector"]).decode()}}
        after = page[-1]


def import_(database: Database, tenant: str, path: Path) -> int:
    """Read a file that `export` wrote, all or nothing; returns how many revisions are new.

    All of the file is checked before anything is written. Ids stay as they are where all of them are free
    and above those of the tenant; else every new revision gets an id above those that are there, and links
    and forks follow. What is there already stays: reading a file twice changes nothing.

    Raises:
        UsageError: the file is damaged, cut short, no export or of a newer Podium; or it says something else
            of a version that is there.
    """
    from .importing import load
    from .transcript import read

    for _ in read(path):
        pass  # the whole file is checked first: nothing of a damaged one is even tried
    return database.transact(lambda connection: load(connection, tenant, lambda: read(path)))
