"""Content-addressed values: JSON, stored once a tenant by the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select

from .errors import PodiumError
from .hot import run_many
from .sealing import open_bytes, seal_bytes
from .tables import Base, Blob

_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_as_is = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


#: bytes from which on compression is tried
COMPRESS = 256


@dataclass(frozen=True, slots=True)
class Encoded:
    """A JSON value as it is stored. Keys keep their order: models write a type's fields in it."""

    #: UTF-8 JSON
    data: bytes
    #: SHA-256 of it
    hash: str

    @classmethod
    def of(cls, value: Any) -> Encoded:
        """Raises TypeError or ValueError: the value is no JSON."""
        data = _as_is(value).encode("utf-8", "surrogatepass")
        return cls(data, hashlib.sha256(data).hexdigest())

    @property
    def stored(self) -> bytes:
        """The bytes of the row: compressed where that is shorter. No JSON begins with zlib's first byte."""
        if len(self.data) < COMPRESS:
            return self.data
        return min(zlib.compress(self.data, 1), self.data, key=len)


def unpacked(connection: Connection, digest: str, stored: bytes) -> bytes:
    """The JSON of a row, not compared with its hash.

    Raises:
        ConfigError: it is sealed, and its key is not given.
        zlib.error, ValueError: the bytes are damaged.
    """
    opened = open_bytes(connection, stored, digest)
    return zlib.decompress(opened) if opened[:1] == b"x" else opened


def canonical(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values have equal bytes.

    Raises:
        TypeError: the value is no JSON.
    """
    return _sorted(value).encode("utf-8", "surrogatepass")


def encode(value: Any, what: str) -> Encoded:
    """A value ready to be stored; refused before anything is written.

    Raises:
        PodiumError: the value is no JSON.
    """
    try:
        _sorted(value)  # keys that cannot be compared could not be hashed again
        return Encoded.of(value)
    except (TypeError, ValueError, RecursionError) as error:
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
    dialect: Any
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite as dialect
    else:
        from sqlalchemy.dialects import postgresql as dialect
    target = table.__table__
    assert isinstance(target, Table)
    done = 0
    for row in rows:
        statement = dialect.insert(target).values(row).on_conflict_do_nothing()
        # psycopg gives no rowcount for such an insert unless it is asked to
        done += connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount
    return done


_PUT = "INSERT INTO blob (tenant, hash, data) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


def put(connection: Connection, tenant: str, value: Any) -> str:
    """Store a JSON value; returns its hash. Keys keep their order: models write a type's fields in it."""
    encoded = Encoded.of(value)
    put_encoded(connection, tenant, [encoded])
    return encoded.hash


def put_encoded(connection: Connection, tenant: str, values: Iterable[Encoded]) -> None:
    """Store values that are not there yet."""
    rows = {v.hash: (tenant, v.hash, seal_bytes(connection, v.stored, v.hash)) for v in values}
    run_many(connection, _PUT, list(rows.values()))


def get(connection: Connection, tenant: str, digest: str) -> Any:
    """The value of a hash.

    Raises:
        PodiumError: there is none, or its bytes are not those that were stored.
    """
    return get_many(connection, tenant, [digest])[digest]


def _intact(connection: Connection, digest: str, stored: bytes) -> bytes:
    try:
        data = unpacked(connection, digest, stored)
    except (zlib.error, ValueError):
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise PodiumError(
            f"stored content {digest[:12]} is corrupt",
            mend="restore the database from a backup; `podium db check` lists what is damaged",
        )
    return data


def get_many(connection: Connection, tenant: str, digests: Iterable[str]) -> dict[str, Any]:
    """The values of several hashes, checked against them."""
    wanted = sorted(set(digests))
    found: dict[str, Any] = {}
    for start in range(0, len(wanted), 500):
        query = select(Blob.hash, Blob.data).where(
            Blob.tenant == tenant, Blob.hash.in_(wanted[start : start + 500])
        )
        for digest, stored in connection.execute(query):
            found[digest] = json.loads(_intact(connection, digest, stored))
    if missing := [d for d in wanted if d not in found]:
        raise PodiumError(
            f"stored content {missing[0][:12]} is missing",
            mend="restore the database from a backup; `podium db check` lists what is damaged",
        )
    return found
