"""User code in processes of its own, beside the engine and behind Ray: one contract.

What deaths and hangs do to it is in `tests/crash/test_poison.py`.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.memory.errors import TaskError
from podium.orchestrator.processes import PythonWorkers, python_workers
from podium.orchestrator.python_worker import exact, exact_arguments, plain
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
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


async def test_one_process_is_kept(make: Make, tmp_path: Path) -> None:
    workers = make(1)
    first = await call(workers, tmp_path, "pid")
    assert await call(workers, tmp_path, "loud") == "quiet"
    assert await call(workers, tmp_path, "later", x=1) == 2
    assert await call(workers, tmp_path, "promised", x=1) == 2
    assert await call(workers, tmp_path, "own_loop", x=1) == 2
    with pytest.raises(TaskError, match="SystemExit: 3"):
        await call(workers, tmp_path, "leave")
    with pytest.raises(TaskError, match="EOFError"):
        await call(workers, tmp_path, "curious")
    assert await call(workers, tmp_path, "pid") == first


async def test_arguments_are_converted_to_the_types(make: Make, tmp_path: Path) -> None:
    workers = make(1)
    found = await call(workers, tmp_path, "shift", point={"x": 1}, day="2024-02-28", by=2)
    assert found == {"point": {"x": 3}, "day": "2024-03-01"}
    with pytest.raises(TaskError, match="valid integer") as caught:
        await call(workers, tmp_path, "big", n="many")
    assert not caught.value.retryable
    with pytest.raises(TaskError, match="Missing required"):
        await call(workers, tmp_path, "big")
    with pytest.raises(TaskError, match="Unexpected keyword"):
        await call(workers, tmp_path, "big", n=1, m=2)


async def test_an_answer_that_is_too_large_spoils_no_later_one(make: Make, tmp_path: Path) -> None:
    workers = make(1, max_answer=1000)
    first = await call(workers, tmp_path, "pid")
    with pytest.raises(TaskError, match="larger than 1000 bytes") as caught:
        await call(workers, tmp_path, "big", n=500_000)
    assert not caught.value.retryable
    assert await call(workers, tmp_path, "big", n=10) == "x" * 10
    assert await call(workers, tmp_path, "pid") == first


async def test_large_requests_and_answers_pass(make: Make, tmp_path: Path) -> None:
    workers = make(2)
    text = "y" * 3_000_000
    answers = await asyncio.gather(
        *(call(workers, tmp_path, "big", n=2_000_000 + n) for n in range(4)),
        workers.call(str(tmp_path), "builtins:len", {"obj": text}, seconds=20),
        return_exceptions=True,
    )
    assert [len(answer) for answer in answers[:4] if isinstance(answer, str)] == [
        2_000_000 + n for n in range(4)
    ]
    assert isinstance(answers[4], TaskError)  # len takes no argument by name: but it was read


@pytest.mark.parametrize("name", ["wrong", "nan"])
async def test_a_result_that_is_no_json_is_told(make: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match="JSON cannot hold") as caught:
        await call(make(), tmp_path, name)
    assert not caught.value.retryable


async def test_a_function_that_is_not_there_is_told(make: Make, tmp_path: Path) -> None:
    workers = make()
    with pytest.raises(TaskError, match="has no 'bgi'") as caught:
        await call(workers, tmp_path, "bgi")
    assert "'big'" in caught.value.mend
    with pytest.raises(TaskError, match="No such file"):
        await workers.call(str(tmp_path / "gone"), "usercode:pid", {}, seconds=20)


async def test_many_calls_get_each_its_own_answer(make: Make, tmp_path: Path) -> None:
    workers = make(2)
    found = await asyncio.gather(*(call(workers, tmp_path, "note", n=n) for n in range(1000)))
    assert found == list(range(1000))
    assert sorted(notes(tmp_path)) == list(range(1000))
    assert len({line.split()[1] for line in (tmp_path / "notes").read_text().splitlines()}) <= 2


async def test_a_slow_call_delays_none_that_another_process_could_run(make: Make, tmp_path: Path) -> None:
    """Also when nothing told that it would be slow: the function was quick a hundred times."""
    workers = make(2)
    await asyncio.gather(*(call(workers, tmp_path, "sleepy", n=0, nap=0.0) for _ in range(100)))
    slow = asyncio.create_task(call(workers, tmp_path, "sleepy", n=1, nap=60.0))
    quick = [asyncio.create_task(call(workers, tmp_path, "sleepy", n=2, nap=0.0)) for _ in range(40)]
    await asyncio.gather(*quick)
    assert sorted(notes(tmp_path)[100:]) == [1] + [2] * 40
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_waiting_does_not_count_as_the_functions_time(make: Make, tmp_path: Path) -> None:
    workers = make(1)
    await call(workers, tmp_path, "pid")
    naps = [call(workers, tmp_path, "sleepy", seconds=1.0, n=n, nap=0.4) for n in range(4)]
    assert await asyncio.gather(*naps) == [0, 1, 2, 3]


async def test_a_cancelled_call_is_ended_and_a_waiting_one_never_begins(make: Make, tmp_path: Path) -> None:
    workers = make(1)
    first = await call(workers, tmp_path, "pid")
    running = asyncio.create_task(call(workers, tmp_path, "sleepy", n=1, nap=60.0))
    await until(lambda: notes(tmp_path) == [1])
    waiting = asyncio.create_task(call(workers, tmp_path, "note", n=2))
    await asyncio.sleep(0)
    waiting.cancel()
    running.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert await call(workers, tmp_path, "note", n=3) == 3
    await until(lambda: not alive(first))
    assert notes(tmp_path) == [1, 3]


async def test_memory_run_out_under_a_limit_is_an_ordinary_failure(make: Make, tmp_path: Path) -> None:
    workers = make(1, memory_bytes=1 << 30)
    first = await call(workers, tmp_path, "pid")
    with pytest.raises(TaskError, match="MemoryError"):
        await call(workers, tmp_path, "hoard", megabytes=2048)
    assert await call(workers, tmp_path, "hoard", megabytes=1) == 1 << 20
    assert await call(workers, tmp_path, "pid") == first


async def test_a_process_that_has_grown_is_replaced(make: Make, tmp_path: Path) -> None:
    workers = make(1, grown_bytes=50 << 20)
    first = await call(workers, tmp_path, "grow", megabytes=60)  # a first call may load what it keeps
    assert await call(workers, tmp_path, "pid") == first
    assert await call(workers, tmp_path, "grow", megabytes=60) == first

    async def replaced() -> bool:
        return await call(workers, tmp_path, "pid") != first

    deadline = time.monotonic() + 20
    while not await replaced():
        assert time.monotonic() < deadline
    await until(lambda: not alive(first))


async def test_tools_are_described(make: Make, tmp_path: Path) -> None:
    (tool,) = await make().describe(str(tmp_path), ["usercode:big"])
    assert tool.ref == "usercode:big"
    assert tool.parameters["properties"] == {"n": {"type": "integer"}}


async def test_closed_workers_leave_nothing_behind(make: Make, tmp_path: Path) -> None:
    workers = make(1)
    child = await call(workers, tmp_path, "pid")
    running = asyncio.create_task(call(workers, tmp_path, "sleepy", n=1, nap=60.0))
    waiting = asyncio.create_task(call(workers, tmp_path, "note", n=2))
    await until(lambda: notes(tmp_path) == [1])
    await workers.close()
    await until(lambda: not alive(child))
    for task in (running, waiting):
        with pytest.raises(TaskError):
            await asyncio.wait_for(task, 10)
    with pytest.raises(TaskError, match="closed"):
        await call(workers, tmp_path, "pid")
    assert notes(tmp_path) == [1]


async def test_a_warm_process_is_there_before_the_first_call(make: Make, tmp_path: Path) -> None:
    workers = make(1)
    workers.warm(str(tmp_path))
    assert await call(workers, tmp_path, "pid") > 0


def test_a_local_pool_gets_local_workers(echo_pool: Callable[..., Any]) -> None:
    from podium.workers.local_tasks import LocalTaskHosts

    assert isinstance(python_workers(echo_pool())._hosts, LocalTaskHosts)


ANNOTATIONS = [
    Any, str, int, float, bool, None, list, dict, list[int], dict[str, float], str | None,
    list[str | int], dict[str, list[bool]], int | float, list[dict[str, int] | None],
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(ANNOTATIONS), JSON)
def test_what_passes_as_it_is_would_pass_pydantic_unchanged(annotation: Any, value: Any) -> None:
    check = exact(annotation)
    assert check is not None
    if check(value):
        assert repr(TypeAdapter(annotation).validate_python(value)) == repr(value)
    else:
        try:  # then pydantic refuses or converts it, or it is of no exact type
            TypeAdapter(annotation).validate_python(value, strict=True)
        except ValidationError:
            return
        assert type(value) is int or isinstance(value, list | dict)  # an int is a strict float


@given(JSON)
def test_a_plain_result_is_what_pydantic_makes_of_it(value: Any) -> None:
    assert plain(value)
    assert repr(to_jsonable_python(value)) == repr(value)
    assert not plain([value, (1, 2)])
    assert not plain({"a": {1: value}})


@pytest.mark.parametrize(
    "annotation", [datetime.date, list[datetime.date], dict[int, str], tuple[int, str], bytes]
)
def test_only_pydantic_knows_the_other_types(annotation: Any) -> None:
    assert exact(annotation) is None

    def function(x) -> None: ...

    function.__annotations__["x"] = annotation
    assert exact_arguments(function) is None
