"""Services that tests need beside the package: a real PostgreSQL, and databases of their own in it."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / ".ci" / "postgres"
#: the referee of random kills
KILL9 = ROOT / "tests" / "crash" / "referee" / "kill9.py"
IN_CI = os.environ.get("CI", "").lower() == "true"


def missing(service: str, mend: str) -> None:
    """Skip the test where a person runs it, fail it in CI: there every service is there."""
    if IN_CI:
        pytest.fail(f"{service} is missing, and CI=true: {mend}", pytrace=False)
    pytest.skip(f"{service} is missing: {mend}")


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL whose user may create databases.

    It is the one named by PODIUM_TEST_POSTGRES_URL, else one that `.ci/postgres` starts; a server that was
    started here is stopped here.
    """
    given = os.environ.get("PODIUM_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    was_running = _script("status").returncode == 0
    started = _script("start")
    if started.returncode != 0:
        missing("PostgreSQL", started.stderr.strip())
    try:
        yield started.stdout.split("'")[1]
    finally:
        if not was_running:
            _script("stop")


@contextmanager
def fresh_database(server: str, template: str = "template1") -> Iterator[str]:
    """The address of a new database on `server`, empty or a copy; dropped afterwards, connected or not."""
    name = f"podium_{secrets.token_hex(6)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        admin.dispose()


def _script(verb: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), verb],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
    )
