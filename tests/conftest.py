"""Fixtures that every folder of tests uses: a home, both databases, a pool of fakes."""

from __future__ import annotations

import faulthandler
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from podium import Podium, Settings
from podium.memory.database import Database
from podium.router.types import ModelSpec
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec
from services import KILL9, fresh_database, postgres_server
from sqlalchemy import make_url

MakePodium = Callable[..., Podium]
EXIT_SECONDS = 60


def pytest_unconfigure() -> None:
    """Python must end soon after the last test: what keeps it is shown, as all threads' stacks, and fails."""
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=sys.__stderr__)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Podium home of the test's own; no setting of the machine reaches the test."""
    import os

    for name in list(os.environ):
        if name.startswith("PODIUM_") and not name.startswith("PODIUM_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PODIUM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A real PostgreSQL; skipped where it is missing, a failure in CI."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def judged_on_sqlite() -> Iterator[Future[dict[str, Any]]]:
    """What the referee says of fifty random kills on SQLite, for `crash/test_kill9.py`.

    It takes a minute and one core. The tests of `contract/` start it and go on: they leave a core idle.
    """
    from benchmarks.crash.__main__ import judge

    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(judge, KILL9, kills=50, seed=1, per_run=4)


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """A new, empty database on the PostgreSQL server."""
    with fresh_database(postgres_server_url) as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with the current schema, made once and then copied: that is much sooner."""
    file = tmp_path_factory.mktemp("template") / "podium.db"
    _make_schema(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres_server_url: str) -> Iterator[str]:
    """The name of the same on the PostgreSQL server."""
    with fresh_database(postgres_server_url) as url:
        _make_schema(url)
        yield str(make_url(url).database)


def _make_schema(url: str) -> None:
    made = Database(url)
    made.ensure_schema()
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database, once of each kind. It is empty, unless the test asks for `database` in it, too."""
    empty = "database" not in request.fixturenames
    if request.param == "sqlite":
        file = tmp_path / "database" / "podium.db"
        if not empty:
            file.parent.mkdir()
            shutil.copy(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
    elif empty:
        yield request.getfixturevalue("postgres_url")
    else:
        template = request.getfixturevalue("postgres_template")
        with fresh_database(request.getfixturevalue("postgres_server_url"), template) as url:
            yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the current schema, once of each kind."""
    opened = Database(database_url)
    opened.ensure_schema()
    yield opened
    opened.close()


@pytest.fixture
def echo_pool(tmp_path: Path) -> Callable[..., LocalPool]:
    """Makes a LocalPool of `EchoEngine`s; without specs, of one model `echo`."""

    def make(*specs: ModelSpec) -> LocalPool:
        return LocalPool(specs or (echo_spec(),), tmp_path, create=ECHO)

    return make


@pytest.fixture
def make_podium(
    home: Path, echo_pool: Callable[..., LocalPool], sqlite_template: Path
) -> Iterator[MakePodium]:
    """Makes Podiums over echo pools (or over `pool`): `make(url, *specs, **settings)`; url None: SQLite in
    the home. They are closed when the test ends.
    """
    made: list[Podium] = []

    def make(url: str | None, *specs: ModelSpec, pool: LocalPool | None = None, **settings: object) -> Podium:
        chosen = Settings.model_validate({"home": home, "database_url": url or "", **settings})
        file = Path(chosen.database.removeprefix("sqlite:///"))
        if chosen.database.startswith("sqlite:///") and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sqlite_template, file)
        made.append(Podium(chosen, pool=pool or echo_pool(*specs)))
        return made[-1]

    yield make
    for podium in made:
        podium.close()
