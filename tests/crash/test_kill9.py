"""Random SIGKILLs through the neutral referee: nothing is lost, nothing is accepted twice.

`referee/kill9.py` is an unchanged copy, so that the checkout alone is enough; its docstring says what it
checks, and `benchmarks/crash` is the workflow that it kills.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from podium import Podium, Workflow
from services import KILL9 as SCRIPT
from sqlalchemy import text

from benchmarks.crash.__main__ import judge
from benchmarks.crash.driver import accepted
from benchmarks.crash.ray_head import ray_head
from benchmarks.peers import NotThere, referee

#: extra attempts a kill; on a busy machine both worker processes may be caught between effect and commit
EXTRA = 1.5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("ray")
    with ray_head(home):
        yield home


@pytest.fixture(scope="module")
def on_postgres(postgres_server_url: str) -> Iterator[Future[dict[str, Any]]]:
    """What the referee says of twenty kills on PostgreSQL; it judges beside the test on Ray."""
    given = {"CRASH_POSTGRES_URL": postgres_server_url}
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(judge, SCRIPT, kills=20, seed=3, per_run=4, environment=given)


def check(report: Mapping[str, Any], kills: int) -> None:
    assert report["ok"], report["examples"]
    assert report["kills"] == kills
    assert report["keys"] == 30
    assert report["attempt_labels_reused"] == 0
    assert report["extra_attempts_per_kill"] <= EXTRA


@pytest.mark.timeout(400)
def test_twenty_kills_of_the_engine_on_ray(home: Path, cluster: Path, request: pytest.FixtureRequest) -> None:
    with suppress(pytest.skip.Exception):  # without PostgreSQL it is the other test that is skipped
        request.getfixturevalue("on_postgres")
    given = {"CRASH_RAY_HOME": str(cluster)}
    check(judge(SCRIPT, kills=20, seed=2, per_run=4, environment=given), 20)


@pytest.mark.timeout(400)
def test_twenty_kills_on_postgres(on_postgres: Future[dict[str, Any]]) -> None:
    check(on_postgres.result(), 20)


@pytest.mark.timeout(400)
def test_fifty_kills_in_process_on_sqlite(judged_on_sqlite: Future[dict[str, Any]]) -> None:
    check(judged_on_sqlite.result(), 50)


def test_the_copy_is_the_referee() -> None:
    try:
        original = referee("kill9.py")
    except NotThere as missing:
        pytest.skip(str(missing))
    assert SCRIPT.read_bytes() == original.read_bytes()


def test_the_driver_would_show_what_is_accepted_twice(home: Path) -> None:
    workflow = Workflow("one")
    workflow.when("gate", "ready", "==", True)
    workflow.input("ready", bool)
    with Podium(home=home) as podium:
        run = podium.run(workflow, ready=True)
        assert [row["step"] for row in accepted(podium, run)] == ["gate"]
        again = (
            "INSERT INTO event SELECT run_id, seq + 100, tenant, kind, task, data, at, hash FROM event"
            " WHERE kind = 'task.succeeded'"
        )
        with podium.database.write() as connection:
            connection.execute(text(again))
        assert [row["step"] for row in accepted(podium, run)] == ["gate", "gate"]
