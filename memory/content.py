"""Content-addressed values: JSON, stored once a tenant by the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from .errors import PodiumError
from .tables import Base, Blob


def canonical(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values have equal bytes.

    Raises:
        TypeError: the value is no JSON.
    """
    return _json(value, sort_keys=True)


def _json(value: Any, *, sort_keys: bool = False) -> bytes:
    text = json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def check_json(value: Any, what: str) -> None:
    """Refuse values that cannot be stored, before anything is written.

    Raises:
        PodiumError: the value is no JSON.
    """
    try:
        canonical(value)
    except (TypeError, ValueError) as error:
        raise PodiumError(
            f"{what} is no JSON: {error}", mend="return plain values: str, int, list, dict …"
        ) from error


def plain_text(text: str) -> str:
    """Text as every database takes it: NUL and lone surrogates become U+FFFD."""
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


def content_hash(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def insert_missing(connection: Connection, table: type[Base], rows: list[dict[str, Any]]) -> int:
    """Insert the rows whose key is not there yet; returns how many were."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    target = table.__table__
    assert isinstance(target, Table)
    done = 0
    for row in rows:
        statement = dialect.insert(target).values(row).on_conflict_do_nothing()
        # psycopg gives no rowcount for such an insert unless it is asked to
        done += connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount
    return done


def put(connection: Connection, tenant: str, value: Any) -> str:
    """Store a JSON value; returns its hash. Keys keep their order: models write a type's fields in it."""
    data = _json(value)
    digest = hashlib.sha256(data).hexdigest()
    insert_missing(connection, Blob, [{"tenant": tenant, "hash": digest, "data": data}])
    return digest


def get(connection: Connection, tenant: str, digest: str) -> Any:
    """The value of a hash.

    Raises:
        PodiumError: there is none, or its bytes are not those that were stored.
    """
    return get_many(connection, tenant, [digest])[digest]


def get_many(connection: Connection, tenant: str, digests: Iterable[str]) -> dict[str, Any]:
    """The values of several hashes, checked against them."""
    wanted = sorted(set(digests))
    found: dict[str, Any] = {}
    for start in range(0, len(wanted), 500):
        query = select(Blob.hash, Blob.data).where(
            Blob.tenant == tenant, Blob.hash.in_(wanted[start : start + 500])
        )
        for digest, data in connection.execute(query):
            if hashlib.sha256(data).hexdigest() != digest:
                raise PodiumError(
                    f"stored content {digest[:12]} is corrupt",
                    mend="restore the database from a backup; `podium db check` lists what is damaged",
                )
            found[digest] = json.loads(data)
    if missing := [d for d in wanted if d not in found]:
        raise PodiumError(
            f"stored content {missing[0][:12]} is missing",
            mend="restore the database from a backup; `podium db check` lists what is damaged",
        )
    return found
