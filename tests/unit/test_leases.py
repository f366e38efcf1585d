"""Who is alive: the kernel's lock on one host, the beat counter elsewhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from podium.memory.reads import RunRecord
from podium.orchestrator import leases
from podium.orchestrator.leases import EngineLock, Watch


def record(**changes: Any) -> RunRecord:
    nothing: dict[str, Any] = {f.name: None for f in fields(RunRecord)}
    return RunRecord(**(nothing | {"id": "r", "epoch": 1, "beat": 0} | changes))


def test_a_run_of_nobody_is_not_driven(tmp_path: Path) -> None:
    assert not Watch(tmp_path).is_driven(record(engine=None))


def test_the_lock_tells_on_one_host(tmp_path: Path) -> None:
    lock, watch = EngineLock(tmp_path), Watch(tmp_path)
    mine = record(engine=lock.engine)
    assert watch.is_driven(mine)
    lock.close()
    assert not watch.is_driven(mine)
    lock.close()


def test_observers_do_not_take_each_other_for_the_owner(tmp_path: Path) -> None:
    lock = EngineLock(tmp_path)
    (path,) = (tmp_path / "engines").glob("*.lock")
    lock._file.close()  # the process died: the file stays, the lock is free
    dead = record(engine=lock.engine)
    with open(path) as other:
        leases.fcntl.flock(other, leases.fcntl.LOCK_SH)
        assert not Watch(tmp_path).is_driven(dead)
    with ThreadPoolExecutor(8) as threads:
        looks = threads.map(lambda _: Watch(tmp_path).is_driven(dead), range(400))
    assert not any(looks)


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from podium.orchestrator.leases import EngineLock\n"
        "print(EngineLock(Path(sys.argv[1])).engine, flush=True); time.sleep(60)"
    )
    # the lock must be held by a name, or the collector frees it
    program = program.replace(
        "print(EngineLock(Path(sys.argv[1])).engine", "x = EngineLock(Path(sys.argv[1])); print(x.engine"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        theirs = record(engine=process.stdout.readline().strip())
        assert Watch(tmp_path).is_driven(theirs)
        process.kill()
    assert not Watch(tmp_path).is_driven(theirs)
    EngineLock(tmp_path).close()  # a new engine sweeps the locks of dead ones away
    assert list((tmp_path / "engines").iterdir()) == []


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(leases.time, "monotonic", lambda: self.now)

    def observe(self, watch: Watch, run: RunRecord, seconds: float) -> bool:
        """Look every second; what the last look told."""
        for _ in range(int(seconds)):
            self.now += 1.0
            watch.is_driven(run)
        self.now += seconds % 1.0
        return watch.is_driven(run)


def test_beats_tell_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(monkeypatch), Watch(tmp_path)
    still = record(engine="far.home.e", beat=4)
    assert watch.is_driven(still)
    assert clock.observe(watch, still, leases.LEASE - 0.1)
    assert not clock.observe(watch, still, 0.2)
    assert watch.is_driven(record(engine="far.home.e", beat=5))
    assert clock.observe(watch, record(engine="far.home.e", beat=5), leases.LEASE - 0.1)
    assert watch.is_driven(record(engine="far.home.e", beat=5, epoch=2))  # someone else has it now


def test_on_one_host_a_stopped_engine_that_holds_its_lock_is_dead_after_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, lock, watch = Clock(monkeypatch), EngineLock(tmp_path), Watch(tmp_path, lease=5.0)
    still = record(engine=lock.engine, beat=4)
    assert watch.is_driven(still)
    assert clock.observe(watch, still, 4.9)
    assert not clock.observe(watch, still, 0.2)
    assert watch.is_driven(record(engine=lock.engine, beat=5))  # it goes on
    lock.close()
    assert not watch.is_driven(record(engine=lock.engine, beat=6))


def test_an_observer_that_did_not_look_for_a_while_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped itself, or had no database: what it saw before says nothing of the time between."""
    clock, watch = Clock(monkeypatch), Watch(tmp_path)
    still = record(engine="far.home.e", beat=4)
    assert watch.is_driven(still)
    clock.now += 1000
    assert watch.is_driven(still)
    assert clock.observe(watch, still, leases.LEASE - 0.1)
    assert not clock.observe(watch, still, 0.2)


def test_a_watch_forgets_what_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(monkeypatch), Watch(tmp_path)
    still = record(engine="far.home.e", beat=4)
    assert watch.is_alive("far.home.e", 1)
    assert clock.observe(watch, still, 11)
    watch.keep({"far.home.e"})
    assert clock.observe(watch, still, 1.5)  # its lease has begun anew
    assert clock.now > 112
    clock.now += 1
    assert watch.is_alive("far.home.e", 2)


def test_a_heart_beats_while_the_event_loop_is_blocked_and_survives_errors() -> None:
    beats: list[int] = []
    enough = threading.Event()

    def beat() -> None:
        beats.append(len(beats))
        if len(beats) == 1:
            raise OSError("no database")
        if len(beats) == 4:
            enough.set()

    async def blocked() -> bool:
        return enough.wait(20)  # blocks the loop, as inline user code may

    heart = leases.Heart(beat, 0.01)
    assert asyncio.run(blocked())
    heart.close()
    assert "podium-beats" not in {thread.name for thread in threading.enumerate()}


def test_another_home_on_this_host_is_elsewhere(tmp_path: Path) -> None:
    lock = EngineLock(tmp_path / "one")
    lock.close()
    assert Watch(tmp_path / "two").is_driven(record(engine=lock.engine))
