"""What only Ray's pool does: names in the dashboard, recovery, several processes on one pool."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from podium.memory.errors import ClusterError, ProviderError
from podium.router.types import ModelSpec, Resources
from podium.workers import ray_pool
from podium.workers.cluster import ClusterInfo, cluster_info, connect, disconnect, start_head, stop_head
from podium.workers.ray_pool import RayPool
from podium.workers.testing import ECHO, ask, echo_spec

_numbers = itertools.count()
MakePool = Callable[..., RayPool]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray-pool-home")


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[ClusterInfo]:
    info = start_head(home, num_cpus=4)
    try:
        connect(info)
        yield info
    finally:
        disconnect()
        stop_head(home)


@pytest.fixture
async def make_pool(head: ClusterInfo, home: Path) -> AsyncIterator[MakePool]:
    pools: list[RayPool] = []

    def make(*specs: ModelSpec, **options) -> RayPool:
        pools.append(RayPool(specs, home, ECHO, **options))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


def spec_of(**changes) -> ModelSpec:
    return echo_spec(f"smol-{next(_numbers)}", **({"resources": Resources(cpus=0.1)} | changes))


def _rows(head: ClusterInfo, kind: str, wanted: Callable[[list[dict]], bool]) -> list[dict]:
    """What the dashboard's API lists, once it lists what is wanted (Ray reports once a second)."""
    request = urllib.request.Request(
        f"{head.dashboard_url}/api/v0/{kind}?detail=1",
        headers={"Authorization": f"Bearer {head.token_path.read_text()}"},
    )
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(request, timeout=20) as response:
            rows = json.load(response)["data"]["result"]["result"]
        if wanted(rows):
            return rows
        assert time.monotonic() < deadline, rows
        time.sleep(0.2)


async def test_the_dashboard_shows_calls_by_label_and_workers_by_model(
    make_pool: MakePool, head: ClusterInfo
):
    spec = spec_of()
    pool = make_pool(spec)
    alone = f"run/7 task/brief model={spec.name}"
    streamed = f"run/7 task/chat model={spec.name}"
    await pool.generate(spec.name, ask("a"), label=alone)
    assert [chunk async for chunk in pool.stream(spec.name, ask("a"), label=streamed)]
    await asyncio.gather(
        *(
            pool.generate(spec.name, ask("a"), label=f"run/7 task/notes[{i}] model={spec.name}")
            for i in range(2)
        )
    )
    names = {alone, streamed, f"run/7 2 calls model={spec.name}"}
    tasks = _rows(head, "tasks", lambda rows: names <= {r["name"] for r in rows})
    classes = {r["func_or_class_name"].split(".")[0] for r in tasks if r["name"] in names}
    assert classes == {f"Model:{spec.name}"}
    (actor,) = [r for r in _rows(head, "actors", bool) if r["name"] == f"model:{spec.name}:0"]
    assert (actor["class_name"], actor["state"], actor["ray_namespace"]) == (
        f"Model:{spec.name}",
        "ALIVE",
        "podium",
    )


async def test_a_worker_that_crashes_fails_its_calls_as_sent_and_comes_back(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    first = int((await pool.generate(spec.name, ask("!pid"), label="a")).text)
    with pytest.raises(ProviderError, match="lost") as caught:
        await pool.generate(spec.name, ask("!crash"), label="a")
    assert (caught.value.retryable, caught.value.sent) == (True, True)
    second = int((await pool.generate(spec.name, ask("!pid"), label="a")).text)
    assert first != second
    assert [(r.state, r.pid) for r in await pool.status()] == [("ready", second)]


async def test_a_worker_that_is_killed_in_the_middle_of_a_stream_comes_back(
    make_pool: MakePool, tmp_path: Path
):
    spec = spec_of(concurrency=2)
    pool = make_pool(spec)
    pid = int((await pool.generate(spec.name, ask("!pid"), label="a")).text)
    sent = asyncio.Event()

    async def tell(worker: str) -> None:
        sent.set()

    async def listen() -> None:
        prompt = ask(f"!stall {tmp_path / 'never'}")
        assert [c async for c in pool.stream(spec.name, prompt, label="a", on_dispatch=tell)]

    listening = asyncio.create_task(listen())
    await sent.wait()
    while (await pool.status())[0].running == 0:  # noqa: ASYNC110 - the worker has no event to give
        await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProviderError) as caught:
        await listening
    assert (caught.value.retryable, caught.value.sent) == (True, True)
    assert (await pool.generate(spec.name, ask("b"), label="a")).text == "echo: b"


async def test_a_worker_that_died_counts_when_it_is_back(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    assert await pool.count(spec.name, ["one two"]) == [2]
    (row,) = await pool.status()
    assert row.state == "ready"
    assert row.pid is not None
    os.kill(row.pid, signal.SIGKILL)
    assert await pool.count(spec.name, ["one two three"]) == [3]
    (again,) = await pool.status()
    assert (again.state, again.calls) == ("ready", 0)
    assert again.pid != row.pid


async def test_counting_where_no_worker_can_be_placed_is_a_cluster_error(make_pool: MakePool, monkeypatch):
    monkeypatch.setattr(ray_pool, "START_TIMEOUT_S", 0.5)
    spec = spec_of(resources=Resources(cpus=64))
    with pytest.raises(ClusterError, match="needs 64 CPUs"):
        await make_pool(spec).count(spec.name, ["a"])


async def test_a_worker_that_hangs_is_restarted(make_pool: MakePool, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ray_pool, "HUNG_AFTER_S", 0.1)
    spec = spec_of(timeout=1.0, concurrency=1)
    pool = make_pool(spec)
    await pool.start()
    first = (await pool.status())[0].pid
    with pytest.raises(ProviderError, match="no answer") as caught:
        await pool.generate(spec.name, ask(f"!stall {tmp_path / 'never'}"), label="a")
    assert caught.value.sent
    second = int((await pool.generate(spec.name, ask("!pid"), label="a")).text)
    assert second != first


async def test_a_worker_that_ray_cannot_place_is_a_cluster_error_that_says_what_it_needs(
    make_pool: MakePool, monkeypatch
):
    monkeypatch.setattr(ray_pool, "START_TIMEOUT_S", 0.5)
    spec = spec_of(resources=Resources(cpus=64))
    pool = make_pool(spec)
    with pytest.raises(ClusterError, match="needs 64 CPUs"):
        await pool.generate(spec.name, ask("a"), label="a")


async def test_torch_sees_no_gpu_that_ray_did_not_grant(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    assert (await pool.generate(spec.name, ask("!env CUDA_VISIBLE_DEVICES"), label="a")).text == "''"


SECOND_PROCESS = """
import asyncio, sys
from pathlib import Path
from podium.router.types import Resources
from podium.workers.cluster import cluster_info, connect
from podium.workers.ray_pool import RayPool
from podium.workers.testing import ECHO, ask, echo_spec

async def main(home, name):
    connect(cluster_info(home))
    pool = RayPool([echo_spec(name, resources=Resources(cpus=0.1))], home, ECHO)
    (row,) = await pool.status()
    print(row.state, row.pid, (await pool.generate(name, ask("!pid"), label="second")).text)
    await pool.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_a_second_process_uses_the_detached_workers_and_leaves_them(make_pool: MakePool, home: Path):
    spec = spec_of()
    starter = make_pool(spec, detached=True)
    await starter.start()
    pid = (await starter.status())[0].pid
    await starter.close()

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SECOND_PROCESS, str(home), spec.name],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ready", str(pid), str(pid)]

    (row,) = await make_pool(spec).status()
    assert (row.state, row.pid, row.calls) == ("ready", pid, 1)

    changed = make_pool(spec.model_copy(update={"context": 99}))
    with pytest.raises(ClusterError, match="older pool file"):
        await changed.generate(spec.name, ask("a"), label="a")


async def test_a_pool_that_is_closed_ends_the_workers_it_started(make_pool: MakePool, head: ClusterInfo):
    spec = spec_of()
    pool = make_pool(spec)
    pid = int((await pool.generate(spec.name, ask("!pid"), label="a")).text)
    assert pid in {p.pid for p in head.members()}
    await pool.close()
    (row,) = await make_pool(spec).status()
    assert row.state in ("stopped", "failed")
    deadline = time.monotonic() + 20
    while pid in {p.pid for p in head.members()}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_two_pools_on_one_worker_keep_its_concurrency(make_pool: MakePool, tmp_path: Path):
    spec = spec_of(concurrency=2)
    one, two = make_pool(spec, detached=True), make_pool(spec)
    await one.start()
    held = tmp_path / "go"
    first = [asyncio.create_task(one.generate(spec.name, ask(f"!stall {held}"), label="a")) for _ in range(2)]
    while (await one.status())[0].running < 2:  # noqa: ASYNC110 - the worker has no event to give
        await asyncio.sleep(0.01)
    second = asyncio.create_task(two.generate(spec.name, ask("!batches"), label="b"))
    held.touch()
    await asyncio.gather(*first)
    assert (await second).text == "2 1"


def test_without_a_cluster_the_error_names_the_mend(home: Path, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from podium.workers.ray_pool import RayPool\n"
        "from podium.memory.errors import ClusterError\n"
        "try: RayPool([], Path('.'))\n"
        "except ClusterError as error: print(error.mend)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "podium up", done.stderr
    assert cluster_info(tmp_path) is None
