"""Databases on a PostgreSQL server: one for each run that the crash referee judges."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import errors

SCRIPT = Path(__file__).resolve().parent.parent.parent / ".ci" / "postgres"
#: what the databases' names begin with
PREFIX = "crash_"


class NoServer(Exception):
    """There is no PostgreSQL on this machine; says why."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a server on loopback that `.ci/postgres` starts and this stops, unless it ran before.

    Raises:
        NoServer: none can be started.
    """
    ran = _script("status").returncode == 0
    started = _script("start")
    if started.returncode != 0:
        raise NoServer(started.stderr.strip())
    url = started.stdout.split("'")[1]
    try:
        yield url
    finally:
        if ran:
            drop_databases(url)
        else:
            _script("stop")


def _script(verb: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), verb]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=170)


def ensure_database(server: str, key: str) -> str:
    """The address of the database on `server` that belongs to `key`, made if it is not there."""
    name = PREFIX + hashlib.sha256(key.encode()).hexdigest()[:16]
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if not known:  # else a killed process is making it at this moment
            with suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                connection.execute(f"CREATE DATABASE {name}".encode())
    return server.rpartition("/")[0] + "/" + name


def drop_databases(server: str) -> None:
    """Drop what `ensure_database` made on `server`, connected or not."""
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        for (name,) in connection.execute(query, (PREFIX,)).fetchall():
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
