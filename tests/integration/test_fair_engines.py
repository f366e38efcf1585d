"""Several serving engines on one database: fair shares, nothing given up, the shares of the dead."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, until
from podium import Podium, Run, Workflow
from podium.memory import engines, runs, schedules
from podium.orchestrator import leases, sharing
from podium.orchestrator.engine import CAPACITY, Engine
from podium.orchestrator.leases import EngineLock
from podium.orchestrator.schedules import new_schedule
from podium.orchestrator.submission import Terms
from podium.workers.local import LocalPool
from podium.workers.testing import echo_spec

MakePodium = Callable[..., Podium]


def held(gate: Path, **options: object) -> Workflow:
    """Answers when the gate is there."""
    workflow = Workflow("held")
    workflow.llm("said", prompt=f"!stall {gate}", **options)
    return workflow


def hello(**options: object) -> Workflow:
    workflow = Workflow("hello")
    workflow.llm("said", prompt="hello", **options)
    return workflow


async def submitted(podium: Podium, workflow: Workflow, count: int, **terms: Any) -> list[str]:
    return await asyncio.to_thread(lambda: [podium.submit(workflow, **terms).id for _ in range(count)])


def drivers(podium: Podium, ids: list[str]) -> Counter[str]:
    """engine → how many of these runs it drives now."""
    return Counter(name for run in ids if (name := podium.get(run).record.engine) is not None)


def claims(podium: Podium, run: str) -> list[str]:
    """The engines that claimed a run, in order."""
    return [e.data["engine"] for e in podium.events(run) if e.kind == "run.claimed"]


def are_over(podium: Podium, ids: list[str]) -> bool:
    return all(podium.get(run).status in runs.ENDED for run in ids)


@asynccontextmanager
async def serving(podium: Podium, home: Path, capacity: int = CAPACITY) -> AsyncIterator[Engine]:
    """An engine of a home that serves."""
    pool = podium._given_pool
    assert isinstance(pool, LocalPool)
    async with Engine(podium.database, pool, home, policy={}, lease=podium.settings.lease_seconds) as engine:
        task = asyncio.create_task(engine.serve(podium.settings, capacity=capacity))
        try:
            await wait_for(lambda: engine.capacity is not None)  # the others know of it
            yield engine
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def wait_for(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(until, condition)


async def test_three_engines_on_one_postgres_share_thirty_runs(
    tmp_path: Path, make_podium: MakePodium, postgres_url: str
) -> None:
    podium = make_podium(postgres_url, echo_spec(concurrency=64))
    gate = tmp_path / "gate"
    async with (
        serving(podium, tmp_path / "one") as one,
        serving(podium, tmp_path / "two") as two,
        serving(podium, tmp_path / "three") as three,
    ):
        ids = await submitted(podium, held(gate), 30)
        await wait_for(lambda: drivers(podium, ids).total() == 30)
        found = drivers(podium, ids)
        gate.touch()
        await wait_for(lambda: are_over(podium, ids))
    assert set(found) == {one.name, two.name, three.name}
    assert min(found.values()) >= 6, found  # ten each, if nobody is late
    assert all(len(claims(podium, run)) == 1 for run in ids)
    for run in ids:
        assert podium.get(run).status == "succeeded"
        check_books(podium, podium.get(run))


async def test_an_engine_gives_no_run_up_and_new_ones_go_to_who_has_less(
    tmp_path: Path, make_podium: MakePodium
) -> None:
    podium = make_podium(None, echo_spec(concurrency=64))
    gate = tmp_path / "gate"
    async with serving(podium, podium.settings.home) as first:
        early = await submitted(podium, held(gate), 6)
        await wait_for(lambda: drivers(podium, early) == {first.name: 6})
        async with serving(podium, podium.settings.home) as second:
            late = await submitted(podium, held(gate), 6)
            await wait_for(lambda: drivers(podium, late).total() == 6)
            assert drivers(podium, late) == {second.name: 6}
            assert drivers(podium, early) == {first.name: 6}
            gate.touch()
            await wait_for(lambda: are_over(podium, early + late))
    assert all(len(claims(podium, run)) == 1 for run in early + late)


async def test_an_engine_takes_no_more_than_its_capacity_the_urgent_and_old_ones_first(
    tmp_path: Path, make_podium: MakePodium
) -> None:
    podium = make_podium(None, echo_spec("a"), echo_spec("b"))  # what is batched ends together
    gates = [tmp_path / "a", tmp_path / "b"]
    ordinary = await submitted(podium, held(gates[0], model="a"), 3)
    urgent = await submitted(podium, held(gates[1], model="b"), 2, priority=5)
    async with serving(podium, podium.settings.home, capacity=3) as engine:
        await wait_for(lambda: drivers(podium, urgent + ordinary).total() == 3)
        assert drivers(podium, [*urgent, ordinary[0]]) == {engine.name: 3}
        gates[1].touch()
        await wait_for(lambda: drivers(podium, ordinary).total() == 3)
        gates[0].touch()
        await wait_for(lambda: are_over(podium, urgent + ordinary))


async def test_many_open_runs_do_not_keep_a_later_one_waiting(
    tmp_path: Path, make_podium: MakePodium
) -> None:
    podium = make_podium(None, echo_spec("slow", concurrency=200), echo_spec("quick"), max_parallel=1)
    gate = tmp_path / "gate"
    database, home = podium.database, podium.settings.home
    workflow = Workflow("held")
    workflow.approval("ok", "?")
    workflow.llm("said", prompt=f"!stall {gate}", model="slow", needs=["ok"])
    pool = podium._given_pool
    assert isinstance(pool, LocalPool)
    early = await submitted(podium, workflow, 110, approve=["ok"])
    async with Engine(database, pool, home, policy={}, max_parallel=200) as engine:
        task = asyncio.create_task(engine.serve())
        await wait_for(lambda: drivers(podium, early).total() == 110)
        late = podium.submit(hello(model="quick")).id
        await wait_for(lambda: are_over(podium, [late]))
        gate.touch()
        await wait_for(lambda: are_over(podium, early))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_row_of_an_engine_comes_and_goes_with_its_service(
    home: Path, make_podium: MakePodium
) -> None:
    podium = make_podium(None)

    def rows() -> list[engines.EngineRecord]:
        with podium.database.read() as connection:
            return engines.alive(connection)

    podium.settings.home.mkdir(parents=True, exist_ok=True)
    dead = EngineLock(podium.settings.home)
    dead.close()
    podium.database.transact(lambda c: engines.register(c, dead.engine, 7))
    async with serving(podium, podium.settings.home, capacity=9) as engine:
        await wait_for(lambda: [(row.id, row.capacity) for row in rows()] == [(engine.name, 9)])
        # taken for dead and removed, it is there again with its next beat
        podium.database.transact(lambda c: engines.remove(c, [engine.name]))
        await wait_for(rows)
        await wait_for(lambda: rows()[0].beat >= 1)
    assert rows() == []


async def test_a_run_of_a_dead_in_process_engine_is_taken_over_after_a_grace(
    home: Path, make_podium: MakePodium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "GRACE", 0.3)
    podium = make_podium(None)
    ours = podium.submit(hello(model="echo"), detached=False)
    foreign = podium.submit(hello(model="echo"), detached=False, policy={"kind": "fixed", "model": "theirs"})
    untouched = podium.submit(hello(), detached=False)
    lock = EngineLock(podium.settings.home)
    for run in (ours, foreign):
        podium.database.transact(lambda c, r=run.id: runs.claim(c, r, lock.engine, 0))
    async with serving(podium, podium.settings.home) as engine:
        probe = podium.submit(hello())
        await wait_for(lambda: are_over(podium, [probe.id]))
        assert podium.get(ours.id).record.engine == lock.engine  # it lives
        lock.close()
        await wait_for(lambda: are_over(podium, [ours.id]))
        assert claims(podium, ours.id) == [lock.engine, engine.name]
    # a model that this engine has not, and a run that nobody has begun, are their person's
    assert podium.get(foreign.id).record.engine == lock.engine
    assert podium.get(untouched.id).status == "queued"
    check_books(podium, podium.get(ours.id))


async def test_a_person_who_resumes_in_time_keeps_the_run(
    tmp_path: Path, make_podium: MakePodium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "GRACE", 60.0)
    podium, person = make_podium(None), make_podium(None)
    run = podium.submit(hello(), detached=False)
    lock = EngineLock(podium.settings.home)
    podium.database.transact(lambda c: runs.claim(c, run.id, lock.engine, 0))
    lock.close()
    async with serving(podium, podium.settings.home) as engine:
        for probe in await submitted(podium, hello(), 3):
            await wait_for(lambda p=probe: are_over(podium, [p]))
        assert engine.name not in claims(podium, run.id)
        resumed: Run = await person.adrive(run.id)
    assert resumed.status == "succeeded"
    assert len(claims(podium, run.id)) == 2


async def test_a_new_run_starts_at_once(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    waits = []
    async with serving(podium, podium.settings.home):
        for _ in range(8):
            (run,) = await submitted(podium, hello(), 1)
            await wait_for(lambda r=run: are_over(podium, [r]))
            record = podium.get(run).record
            assert record.started_at is not None
            waits.append(record.started_at - record.created_at)
    assert sorted(waits)[4] < 0.3, waits


async def test_a_serving_engine_starts_the_runs_of_schedules(
    tmp_path: Path, make_podium: MakePodium, database_url: str
) -> None:
    podium = make_podium(database_url)
    once = new_schedule(
        podium.settings, hello(), {}, tmp_path, Terms(), next_at=time.time() + 0.1, every_s=None
    )
    podium.database.transact(lambda c: schedules.add(c, once))
    async with serving(podium, tmp_path / "one"), serving(podium, tmp_path / "two"):
        await wait_for(podium.runs)
        (run,) = podium.runs()
        await wait_for(lambda: are_over(podium, [run.id]))
    (run,) = podium.runs()
    assert (run.status, run.record.schedule_id) == ("succeeded", once.id)
    check_books(podium, run)


def test_a_lease_can_be_set(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from podium.orchestrator.settings import load_settings

    assert load_settings().lease_seconds == leases.LEASE
    monkeypatch.setenv("PODIUM_LEASE_SECONDS", "3")
    assert load_settings().lease_seconds == 3.0
