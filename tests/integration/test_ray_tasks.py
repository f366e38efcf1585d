"""What only Ray's hosts of user code do: names in the dashboard, and what a lost actor or cluster costs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from podium.memory.errors import ClusterError
from podium.orchestrator.processes import python_workers
from podium.workers.cluster import ClusterInfo
from podium.workers.ray_pool import RayPool
from podium.workers.testing import ECHO, echo_spec
from task_hosts import CODE, alive, call, make_workers, notes, ray_head, until

TESTS = str(Path(__file__).resolve().parents[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterInfo]:
    with ray_head(tmp_path_factory.mktemp("home"), dashboard=True) as info:
        yield info


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usercode.py").write_text(CODE)
    return tmp_path


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _batches(head: ClusterInfo, run: str, total: int) -> list[int]:
    """How many tasks each of the run's actor calls brought, by their names in Ray's dashboard, once it has
    `total` of them (Ray reports once a second)."""
    request = urllib.request.Request(
        f"{head.dashboard_url}/api/v0/tasks?detail=1&limit=10000",
        headers={"Authorization": f"Bearer {head.token_path.read_text()}"},
    )
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(request, timeout=20) as response:
            names = [row["name"] for row in json.load(response)["data"]["result"]["result"]]
        found = [int(name.split()[1]) for name in names if name.startswith(run)]
        if sum(found) >= total:
            return found
        assert time.monotonic() < deadline, names
        time.sleep(0.2)


async def test_a_thousand_calls_are_a_few_of_rays_named_after_the_run(head: ClusterInfo, root: Path) -> None:
    workers = make_workers("ray")
    for count in (1, 50, 1000):
        ask = partial(workers.call, str(root), "usercode:note", {"n": 1}, seconds=20, label="run/abc")
        await asyncio.gather(*(ask() for _ in range(count)))
    assert len(notes(root)) == 1051
    batches = await asyncio.to_thread(_batches, head, "run/abc ", 1051)
    assert sum(batches) == 1051
    assert len(batches) < 200
    assert max(batches) > 20
    await workers.close()


async def test_a_ray_pool_gets_workers_in_ray(head: ClusterInfo, root: Path, tmp_path: Path) -> None:
    pool = RayPool([echo_spec("never-started")], tmp_path, ECHO)
    workers = python_workers(pool, 1)
    host = _parent(await call(workers, root, "pid"))
    assert host != os.getpid()
    await workers.close()
    await until(lambda: not alive(host))
    await pool.close()


async def test_a_killed_actor_loses_what_it_had_and_nothing_more(head: ClusterInfo, root: Path) -> None:
    """What it had may have run: only who asked can say whether it may run again. What waited here runs."""
    workers = make_workers("ray", 1)
    child = await call(workers, root, "pid")
    running = asyncio.create_task(call(workers, root, "sleepy", n=1))
    await until(lambda: notes(root) == [1])
    waiting = [asyncio.create_task(call(workers, root, "note", n=n)) for n in range(2, 5)]
    await asyncio.sleep(0)
    begun = time.monotonic()
    os.kill(_parent(child), signal.SIGKILL)
    with pytest.raises(ClusterError) as caught:
        await running
    assert caught.value.retryable
    assert time.monotonic() - begun < 10
    assert await asyncio.gather(*waiting) == [2, 3, 4]
    assert notes(root) == [1, 2, 3, 4]
    await until(lambda: not alive(child))
    await workers.close()


async def test_answers_that_are_large_come_in_several_exchanges(head: ClusterInfo, root: Path) -> None:
    workers = make_workers("ray", 2)
    found = await asyncio.gather(*(call(workers, root, "big", n=6_000_000 + n) for n in range(6)))
    assert [len(text) for text in found] == [6_000_000 + n for n in range(6)]
    await workers.close()


GONE = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from podium.memory.errors import ClusterError
from task_hosts import CODE, call, make_workers, notes, ray_head, until

async def seconds(asked):
    begun = time.monotonic()
    try:
        await asked
    except ClusterError:
        return time.monotonic() - begun
    return 1e9

async def main(root, info):
    workers = make_workers("ray", 1)
    await call(workers, root, "pid")
    running = asyncio.create_task(seconds(call(workers, root, "sleepy", n=1)))
    await until(lambda: notes(root) == [1])
    waiting = [asyncio.create_task(seconds(call(workers, root, "note", n=n))) for n in range(2, 5)]
    await asyncio.sleep(0)
    for pid in info.pids:
        os.kill(pid, signal.SIGKILL)
    found = [await running, *await asyncio.gather(*waiting)]
    found += await asyncio.gather(*(seconds(call(workers, root, "note", n=n)) for n in range(5, 8)))
    await workers.close()
    print(json.dumps(found))

root = Path(sys.argv[1])
with ray_head(root / "home") as info:
    asyncio.run(main(root, info))
"""


async def test_a_cluster_that_is_gone_is_told_within_ten_seconds(root: Path) -> None:
    """The call that ran, those that waited, and later ones. In a process with a head of its own."""
    script = GONE.format(tests=TESTS)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(root), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    seconds = json.loads(out.splitlines()[-1])
    assert len(seconds) == 7
    assert max(seconds) < 10
    assert notes(root) == [1]
