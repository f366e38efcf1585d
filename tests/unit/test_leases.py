"""Who is alive: the kernel's lock on one host, the beat counter elsewhere."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from podium.memory.reads import RunRecord
from podium.orchestrator import leases
from podium.orchestrator.leases import EngineLock, Watch


def record(**changes: Any) -> RunRecord:
    return RunRecord(
        **({f.name: None for f in fields(RunRecord)} | {"id": "r", "epoch": 1, "beat": 0} | changes)
    )


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


def test_beats_tell_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    watch = Watch(tmp_path)
    assert watch.is_driven(record(engine="far.home.e", beat=4))
    now += leases.LEASE - 0.1
    assert watch.is_driven(record(engine="far.home.e", beat=4))
    now += 0.2
    assert not watch.is_driven(record(engine="far.home.e", beat=4))
    assert watch.is_driven(record(engine="far.home.e", beat=5))
    now += leases.LEASE + 1
    assert watch.is_driven(record(engine="far.home.e", beat=5, epoch=2))  # someone else has it now


def test_another_home_on_this_host_is_elsewhere(tmp_path: Path) -> None:
    lock = EngineLock(tmp_path / "one")
    lock.close()
    assert Watch(tmp_path / "two").is_driven(record(engine=lock.engine))
