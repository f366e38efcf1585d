"""Plain SQL for what an engine writes a thousand times a second: no statement is built, rows go in lots.

Statements are written with `?` and run on both dialects, on the driver's own cursor: what SQLAlchemy does
around a statement costs five times the statement. Everything else in this room uses its expressions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, CursorResult
from sqlalchemy.exc import DBAPIError

Row = tuple[Any, ...]

# ASCII only: Postgres takes neither NUL nor lone surrogates in text
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def json_column(value: Any) -> str | None:
    """A value as a JSON column holds it; None is NULL."""
    return None if value is None else _encode(value)


def fetch_one(connection: Connection, sql: str, row: Row) -> Row | None:
    """The first row of a query."""
    cursor = _run(connection, sql, [row])
    try:
        return cursor.fetchone()
    finally:
        cursor.close()


def fetch_all(connection: Connection, sql: str, row: Row) -> list[Row]:
    """All rows of a query."""
    cursor = _run(connection, sql, [row])
    try:
        return list(cursor.fetchall())
    finally:
        cursor.close()


def run_sql(connection: Connection, sql: str, row: Row) -> CursorResult[Any]:
    """Run one statement where its time does not count."""
    return connection.exec_driver_sql(sql if connection.dialect.name == "sqlite" else _pyformat(sql), row)


def run_many(connection: Connection, sql: str, rows: Sequence[Row]) -> int:
    """Run one statement for each row, in one go; returns how many rows of the table it touched."""
    if not rows:
        return 0
    cursor = _run(connection, sql, rows)
    touched: int = cursor.rowcount
    cursor.close()
    return touched


def _run(connection: Connection, sql: str, rows: Sequence[Row]) -> Any:
    """The cursor after it ran.

    Raises:
        DBAPIError: as SQLAlchemy raises it.
    """
    dialect = connection.dialect
    text = sql if dialect.name == "sqlite" else _pyformat(sql)
    try:
        cursor = connection.connection.cursor()
        if len(rows) == 1:
            cursor.execute(text, rows[0])
        else:
            cursor.executemany(text, rows)
    except dialect.loaded_dbapi.Error as error:
        base = dialect.loaded_dbapi.Error
        raise DBAPIError.instance(text, rows[0], error, base, dialect=dialect) from error
    return cursor


@lru_cache(maxsize=256)
def _pyformat(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")
