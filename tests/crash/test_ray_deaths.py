"""SIGKILL for what a run needs of Ray: the worker that answers, the raylet, the GCS, the whole head."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_project import check_books, until
from podium import Podium, Run, Settings, Workflow
from podium.router.types import Resources
from podium.workers import ray_head
from podium.workers.cluster import ClusterInfo, cluster_info, connect, disconnect, start_head, stop_head
from podium.workers.ray_pool import RayPool
from podium.workers.testing import ECHO, echo_spec

MakePodium = Callable[..., Podium]
#: seconds in which a run must be over, well or not, whatever of Ray died
BOUND = 30.0


@pytest.fixture(scope="module")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("ray-deaths")
    start_head(home, num_cpus=2, dashboard=False)
    yield home
    disconnect()
    stop_head(home)


@pytest.fixture
def head(ray_home: Path) -> ClusterInfo:
    """The head, started anew if the test before has left it dead."""
    info = start_head(ray_home, num_cpus=2, dashboard=False)
    connect(info)
    return info


@pytest.fixture
def make(ray_home: Path, head: ClusterInfo, tmp_path: Path) -> Iterator[Callable[..., Podium]]:
    """Makes a Podium whose models `one` and `two` are on Ray."""
    made: list[Podium] = []
    settings = Settings(home=tmp_path / "home", database_url=f"sqlite:///{tmp_path / 'podium.db'}")

    def make(*, revive: bool) -> Podium:
        specs = [echo_spec(name, resources=Resources(cpus=0.1), timeout=20.0) for name in ("one", "two")]
        made.append(Podium(settings, pool=RayPool(specs, ray_home, ECHO, revive=revive)))
        return made[-1]

    yield make
    for podium in made:
        podium.close()


def chain(gate: Path) -> Workflow:
    """A call that waits for the gate, then one to a model that was not used before."""
    wf = Workflow("chain")
    retry = {"attempts": 3, "backoff": 0.1}
    wf.llm("first", prompt=f"!stall {gate}", model="one", retry=retry)
    wf.llm("second", prompt="after {first}", model="two", retry=retry)
    wf.output("answer", "second")
    return wf


class Driven:
    """A run that a thread drives, in the middle of its first call."""

    def __init__(self, podium: Podium, gate: Path) -> None:
        self.podium, self.gate = podium, gate
        self.id = podium.submit(chain(gate), detached=False).id
        self._thread = threading.Thread(target=podium.drive, args=(self.id,), daemon=True)
        self._thread.start()
        until(lambda: [c.status for c in podium.get(self.id).calls] == ["sent"], seconds=60)
        self._since = time.monotonic()

    def over(self) -> Run:
        """The run, once it is over, which takes no longer than `BOUND`."""
        self._thread.join(BOUND)
        assert not self._thread.is_alive(), f"{time.monotonic() - self._since:.1f} s after the kill"
        run = self.podium.get(self.id)
        check_books(self.podium, run)
        accepted = [a.task for a in run.attempts if a.status == "succeeded"]
        assert len(accepted) == len(set(accepted))
        return run


def kill(info: ClusterInfo, name: str) -> None:
    for process in info.processes:
        if Path(f"/proc/{process.pid}/comm").read_text().strip() in (name, name[:15]):
            os.kill(process.pid, signal.SIGKILL)
            until(lambda p=process: not p.alive())
            return
    raise AssertionError(f"the head has no {name}")


def worker_pid(podium: Podium, model: str) -> int:
    pool = podium._given_pool
    assert isinstance(pool, RayPool)
    (pid,) = [row.pid for row in asyncio.run(pool.status()) if row.model == model]
    assert pid is not None
    return pid


def test_a_killed_worker_costs_an_attempt(
    make: Callable[..., Podium], head: ClusterInfo, tmp_path: Path
) -> None:
    podium = make(revive=False)
    driven = Driven(podium, tmp_path / "gate")
    os.kill(worker_pid(podium, "one"), signal.SIGKILL)
    driven.gate.touch()
    run = driven.over()
    assert run.status == "succeeded", run.error
    assert run.output == f"echo: after echo: !stall {driven.gate}"
    # nobody can know whether the first call was answered: it is paid for
    assert [(c.task, c.status) for c in run.calls] == [
        ("first", "unknown"),
        ("first", "settled"),
        ("second", "settled"),
    ]
    assert [(a.task, a.status) for a in run.attempts] == [
        ("first", "failed"),
        ("first", "succeeded"),
        ("second", "succeeded"),
    ]


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_run_ends_well_after_its_head_died_and_was_started_again(
    make: Callable[..., Podium], head: ClusterInfo, ray_home: Path, tmp_path: Path, victim: str
) -> None:
    podium = make(revive=True)
    driven = Driven(podium, tmp_path / "gate")
    kill(head, victim)
    driven.gate.touch()
    run = driven.over()
    assert run.status == "succeeded", run.error
    assert run.output == f"echo: after echo: !stall {driven.gate}"
    found = cluster_info(ray_home)
    assert found is not None
    assert found.address != head.address
    assert found.options == head.options
    again = podium.run(chain(driven.gate))
    assert again.status == "succeeded", again.error
    check_books(podium, again)


def test_without_a_head_a_run_fails_in_time_and_goes_on_when_there_is_one_again(
    make: Callable[..., Podium],
    head: ClusterInfo,
    ray_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_head, "PATIENCE_S", 2.0)
    podium = make(revive=False)
    driven = Driven(podium, tmp_path / "gate")
    kill(head, "raylet")
    kill(head, "gcs_server")
    driven.gate.touch()
    run = driven.over()
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["kind"] == "ClusterError"
    assert "podium up" in run.error["mend"]
    assert run.exit_code == 6
    start_head(ray_home, num_cpus=2, dashboard=False)
    podium.retry(run.id)
    again = podium.drive(run.id)
    assert again.status == "succeeded", again.error
    assert again.output == f"echo: after echo: !stall {driven.gate}"
    check_books(podium, again)
