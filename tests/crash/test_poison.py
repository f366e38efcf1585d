"""User code that kills, hangs or eats its process: it is told apart, and its neighbours lose nothing.

What a run makes of two such deaths is the engine's: a task that died twice is quarantined.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from podium.memory.errors import TaskError
from podium.orchestrator.processes import PythonWorkers, WorkerDied
from task_hosts import CODE, alive, call, make_workers, notes, ray_head, until

Make = Callable[..., PythonWorkers]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with ray_head(tmp_path_factory.mktemp("home")) as info:
        yield info


@pytest.fixture(params=["local", "ray"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    if request.param == "ray":
        request.getfixturevalue("head")
    (tmp_path / "usercode.py").write_text(CODE)
    made: list[PythonWorkers] = []

    def make_one(size: int = 2, **limits: int) -> PythonWorkers:
        made.append(make_workers(request.param, size, **limits))
        return made[-1]

    yield make_one
    for workers in made:
        await workers.close()


@pytest.mark.parametrize(("name", "how"), [("vanish", "status 7"), ("segfault", "crashed with SIGSEGV")])
async def test_a_process_that_ends_is_told_and_replaced(
    make: Make, tmp_path: Path, name: str, how: str
) -> None:
    workers = make(1)
    first = await call(workers, tmp_path, "pid")
    with pytest.raises(WorkerDied, match=how) as caught:
        await call(workers, tmp_path, name)
    assert caught.value.retryable
    assert await call(workers, tmp_path, "pid") != first


async def test_only_the_one_that_crashed_is_told_so(make: Make, tmp_path: Path) -> None:
    """In the middle of a batch: what came before is answered, what comes behind runs elsewhere, each once."""
    workers = make(2)
    await asyncio.gather(*(fragile(workers, tmp_path, n, "warm-up") for n in range(50)))
    found = await asyncio.gather(*(fragile(workers, tmp_path, n, "notes") for n in range(300)))
    assert found == [None if n == 150 else n for n in range(300)]
    assert sorted(notes(tmp_path)) == list(range(300))


async def fragile(workers: PythonWorkers, root: Path, n: int, name: str) -> object:
    try:
        return await call(workers, root, "fragile", name=name, n=n, breaks=150)
    except WorkerDied:
        return None


async def test_only_the_one_that_hangs_is_killed(make: Make, tmp_path: Path) -> None:
    """The calls behind it in its process run elsewhere, once, and their time has not begun before."""
    workers = make(1)
    await asyncio.gather(*(sleepy(workers, tmp_path, n, 0.0, "warm-up") for n in range(50)))
    first = await call(workers, tmp_path, "pid")
    hung, *others = await asyncio.gather(
        sleepy(workers, tmp_path, 0, 60.0, "notes"),
        *(sleepy(workers, tmp_path, n, 0.0, "notes") for n in range(1, 20)),
    )
    assert isinstance(hung, WorkerDied)
    assert "did not end within 2 seconds" in str(hung)
    assert others == list(range(1, 20))
    assert sorted(notes(tmp_path)) == list(range(20))  # in whichever order they were handed out again
    assert not alive(first)


async def sleepy(workers: PythonWorkers, root: Path, n: int, nap: float, name: str) -> object:
    try:
        return await call(workers, root, "sleepy", seconds=2, n=n, nap=nap, name=name)
    except TaskError as error:
        return error


async def test_a_process_killed_from_outside_is_a_death_of_what_it_ran(make: Make, tmp_path: Path) -> None:
    """As the kernel does when memory runs out."""
    workers = make(1)
    child = await call(workers, tmp_path, "pid")
    running = asyncio.create_task(call(workers, tmp_path, "sleepy", n=1, nap=60.0))
    await until(lambda: notes(tmp_path) == [1])
    waiting = asyncio.create_task(call(workers, tmp_path, "note", n=2))
    os.kill(child, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="crashed with SIGKILL"):
        await running
    assert await waiting == 2


async def test_an_idle_process_may_die(make: Make, tmp_path: Path) -> None:
    workers = make(1)
    for _ in range(3):
        child = await call(workers, tmp_path, "pid")
        os.kill(child, signal.SIGKILL)
        await asyncio.gather(*(call(workers, tmp_path, "note", n=n) for n in range(5)))
    assert sorted(notes(tmp_path)) == sorted([*range(5)] * 3)


async def test_kills_at_random_repeat_nothing(make: Make, tmp_path: Path) -> None:
    """Every call ends; one that has an answer ran once, one whose process was killed at most once."""
    workers, chance = make(2), random.Random(7)
    await call(workers, tmp_path, "pid")
    tasks = [
        asyncio.create_task(call(workers, tmp_path, "sleepy", n=n, nap=chance.choice([0.0, 0.0, 0.02])))
        for n in range(300)
    ]
    kills = 0
    while not all(task.done() for task in tasks):
        pids = [line.split()[1] for line in await asyncio.to_thread(_lines, tmp_path / "notes")]
        if pids and alive(int(pids[-1])):
            os.kill(int(pids[-1]), signal.SIGKILL)
            kills += 1
        await asyncio.sleep(0.2 + chance.random() / 5)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    ran = notes(tmp_path)
    died = [n for n, one in enumerate(found) if isinstance(one, WorkerDied)]
    assert kills > 0
    assert len(died) <= kills
    assert sorted(set(ran)) == sorted(ran)
    assert {n for n, one in enumerate(found) if one == n} | set(died) == set(range(300))
    assert set(range(300)) - set(died) <= set(ran)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_a_poison_call_is_told_each_time(make: Make, tmp_path: Path) -> None:
    workers = make(2)
    poison = [call(workers, tmp_path, "segfault") for _ in range(4)]
    good = [call(workers, tmp_path, "note", n=n) for n in range(40)]
    found = await asyncio.gather(*poison, *good, return_exceptions=True)
    assert [type(one) for one in found[:4]] == [WorkerDied] * 4
    assert found[4:] == list(range(40))


async def test_the_kernel_takes_user_code_before_the_engine(make: Make, tmp_path: Path) -> None:
    child = await call(make(1), tmp_path, "pid")
    assert await asyncio.to_thread(Path(f"/proc/{child}/oom_score_adj").read_text) == "1000\n"


ENGINE = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from task_hosts import call, make_workers
from podium.workers.cluster import cluster_info, connect

async def main(kind, home, root):
    if kind == "ray":
        connect(cluster_info(Path(home)))
    workers = make_workers(kind, 1)
    print(await call(workers, Path(root), "pid"), flush=True)
    await call(workers, Path(root), "sleepy", n=1)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_user_code_ends_with_its_engine(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """kill -9 of the engine: what it had running must not act beside the engine that takes over."""
    (tmp_path / "usercode.py").write_text(CODE)
    home = request.getfixturevalue("head").token_path.parent if kind == "ray" else tmp_path
    script = ENGINE.format(tests=str(Path(__file__).resolve().parent.parent))
    command = [sys.executable, "-c", script, kind, str(home), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        child = int(engine.stdout.readline())
        assert alive(child)
        engine.kill()
    asyncio.run(until(lambda: not alive(child)))
