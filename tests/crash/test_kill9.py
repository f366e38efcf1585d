"""Random SIGKILLs through the neutral referee: nothing is lost, nothing is accepted twice.

`referee/kill9.py` is an unchanged copy, so that the checkout alone is enough; its docstring says what it
checks, and `benchmarks/crash` is the workflow that it kills.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from podium import Podium, Workflow
from sqlalchemy import text

from benchmarks.crash.__main__ import judge
from benchmarks.crash.driver import accepted
from benchmarks.crash.ray_head import ray_head
from benchmarks.peers import NotThere, referee

SCRIPT = Path(__file__).parent / "referee" / "kill9.py"
#: extra attempts a kill; on a busy machine both worker processes may be caught between effect and commit
EXTRA = 1.5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("ray")
    with ray_head(home):
        yield home


def check(kills: int, environment: dict[str, str], seed: int) -> None:
    report = judge(SCRIPT, kills=kills, seed=seed, per_run=4, environment=environment)
    assert report["ok"], report["examples"]
    assert report["kills"] == kills
    assert report["keys"] == 30
    assert report["attempt_labels_reused"] == 0
    assert report["extra_attempts_per_kill"] <= EXTRA


@pytest.mark.timeout(400)
def test_fifty_kills_in_process_on_sqlite(home: Path) -> None:
    check(50, {}, seed=1)


@pytest.mark.timeout(400)
def test_twenty_kills_of_the_engine_on_ray(home: Path, cluster: Path) -> None:
    check(20, {"CRASH_RAY_HOME": str(cluster)}, seed=2)


@pytest.mark.timeout(400)
def test_twenty_kills_on_postgres(home: Path, postgres_server_url: str) -> None:
    check(20, {"CRASH_POSTGRES_URL": postgres_server_url}, seed=3)


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
