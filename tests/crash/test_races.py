"""Two things at the same moment: each race has one winner, and the run is consistent whoever that is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine_project import check_books, kinds, until
from podium import Podium, Run, UsageError, Workflow
from podium.memory import control, runs
from podium.workers.testing import echo_spec
from serving_engines import serving

MakePodium = Callable[..., Podium]
ROUNDS = 24
#: the events that end a run
ENDS = {f"run.{status}" for status in runs.ENDED}


def check_end(podium: Podium, run: Run) -> None:
    """One end, the last event of all, and rows that say the same."""
    told = kinds(podium, run)
    assert [kind for kind in told if kind in ENDS] == [f"run.{run.status}"]
    assert told[-1] == f"run.{run.status}"
    accepted = [a.task for a in run.attempts if a.status == "succeeded"]
    done = [t.record.name for t in run.tasks if t.record.status == "succeeded"]
    assert sorted(accepted) == sorted(done)
    assert all(t.record.status in ("succeeded", "failed", "cancelled", "skipped") for t in run.tasks)
    check_books(podium, run)


# -- cancel and completion


async def test_cancel_races_completion(home: Path, make_podium: MakePodium, database_url: str) -> None:
    """All runs are cancelled and their last calls answered between two looks of the engine."""
    specs = [echo_spec(f"m{number}", concurrency=1) for number in range(ROUNDS)]
    podium = make_podium(database_url, *specs, max_parallel=ROUNDS)
    person = make_podium(database_url)

    async def race(number: int) -> Run:
        gate = home.parent / f"gate{number}"
        workflow = Workflow("race")
        workflow.llm("said", prompt=f"!stall {gate}", model=f"m{number}")
        workflow.output("said", "said")
        run = await asyncio.to_thread(lambda: podium.submit(workflow, detached=False))
        driving = asyncio.create_task(podium.adrive(run.id))
        await asyncio.to_thread(
            until, lambda: [c.status for c in podium.get(run.id).calls] == ["sent"], seconds=60
        )
        # the answer comes before the cancellation, with it, or up to 0.3 s after it
        moment = 0.3 * (number - 6) / (ROUNDS - 6)
        if moment > 0:
            await asyncio.to_thread(person.cancel, run.id)
            await asyncio.sleep(moment)
        gate.touch()
        if moment <= 0:
            with contextlib.suppress(UsageError):  # it is over already
                await asyncio.to_thread(person.cancel, run.id)
        return await driving

    ended = await asyncio.gather(*(race(number) for number in range(ROUNDS)))
    for run in ended:
        assert run.status in ("succeeded", "cancelled")
        assert (run.outputs is None) == (run.status == "cancelled")
        check_end(podium, run)


def test_cancel_races_the_claim(home: Path, make_podium: MakePodium, database_url: str) -> None:
    """A run is cancelled while an engine takes it: it is cancelled, or was over before."""
    podium, person = make_podium(database_url), make_podium(database_url)
    for _ in range(12):
        workflow = Workflow("hello")
        workflow.llm("said", prompt="hello")
        run_id, gate = podium.submit(workflow, detached=False).id, threading.Barrier(2)

        def cancel(run: str = run_id, go: threading.Barrier = gate) -> bool:
            go.wait(20)
            try:
                person.cancel(run)
            except UsageError:
                return False
            return True

        def drive(run: str = run_id, go: threading.Barrier = gate) -> Run:
            go.wait(20)
            return podium.drive(run)

        with ThreadPoolExecutor(2) as threads:
            asked, driven = threads.submit(cancel), threads.submit(drive)
            run = driven.result(60)
            # asked while it was driven, it may be over before its engine looks
            assert run.status == "cancelled" or run.status == "succeeded"
            assert asked.result() or run.status == "succeeded"
        check_end(podium, run.refresh())


# -- an approval and its time


def asking(**options: object) -> Workflow:
    workflow = Workflow("asking")
    workflow.approval("ok", "Go on?", **options)
    workflow.llm("said", prompt="hello", needs=["ok"])
    return workflow


def test_an_approval_races_its_expiry(home: Path, make_podium: MakePodium, database_url: str) -> None:
    podium, person = make_podium(database_url), make_podium(database_url)
    for _ in range(10):
        run_id = podium.run(asking(expires=1000)).id
        assert podium.get(run_id).status == "waiting"
        gate = threading.Barrier(2)

        def approve(run: str = run_id, go: threading.Barrier = gate) -> bool:
            go.wait(20)
            try:
                person.approve(run, "ok")
            except UsageError:
                return False
            return True

        def expire(go: threading.Barrier = gate) -> list[str]:
            go.wait(20)
            return podium.database.transact(lambda c: control.expire_approvals(c, time.time() + 2000))

        with ThreadPoolExecutor(2) as threads:
            one, other = threads.submit(approve), threads.submit(expire)
            approved, expired = one.result(30), other.result(30)
        assert expired == ([] if approved else [run_id])
        run = podium.drive(run_id)
        assert run.status == ("succeeded" if approved else "failed")
        answers = [kind for kind in kinds(podium, run, "ok") if kind in ("task.approved", "task.rejected")]
        assert answers == ["task.approved" if approved else "task.rejected"]
        check_end(podium, run)


def test_a_serving_engine_ends_questions_that_nobody_answers(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    podium = make_podium(database_url)
    with serving(home, database_url) as engine:
        late = podium.submit(asking(expires=0.2))
        kept = podium.submit(asking(expires=1000))
        until(lambda: podium.get(late.id).status in runs.ENDED)
        until(lambda: podium.get(kept.id).status == "waiting")
        podium.approve(kept.id, "ok")
        until(lambda: podium.get(kept.id).status in runs.ENDED)
        engine.end()
    assert podium.get(late.id).status == "failed"
    assert podium.get(late.id).tasks[0].record.approval_comment == "expired"
    assert podium.get(kept.id).status == "succeeded"
    for run in (late, kept):
        check_end(podium, podium.get(run.id))


# -- a completion and a retry


async def test_a_completion_races_the_retry_of_its_attempt(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    """Answers come as the attempts that asked for them run out of time and are given up."""
    specs = [echo_spec(f"m{number}", concurrency=2) for number in range(ROUNDS)]
    podium = make_podium(database_url, *specs, max_parallel=ROUNDS)
    limit = 0.5

    async def race(number: int) -> Run:
        gate = home.parent / f"gate{number}"
        workflow = Workflow("race")
        retry = {"attempts": 5, "backoff": 0.01}
        workflow.llm("said", prompt=f"!stall {gate}", model=f"m{number}", timeout=limit, retry=retry)
        workflow.output("said", "said")
        run = await asyncio.to_thread(lambda: podium.submit(workflow, detached=False))
        driving = asyncio.create_task(podium.adrive(run.id))
        await asyncio.to_thread(until, lambda: podium.get(run.id).attempts, seconds=60)
        begun = podium.get(run.id).attempts[0].started_at
        await asyncio.sleep(max(0.0, begun + limit - time.time() + 0.1 * (number / ROUNDS - 0.5)))
        gate.touch()
        return await driving

    ended = await asyncio.gather(*(race(number) for number in range(ROUNDS)))
    for run in ended:
        assert run.status == "succeeded", run.error
        ends = [
            (e.data["attempt"], e.kind)
            for e in podium.events(run.id)
            if e.kind in ("task.retrying", "task.succeeded")
        ]
        numbers = [number for number, _ in ends]
        assert numbers == list(range(1, len(ends) + 1))  # each attempt ended once, one after the other
        assert [kind for _, kind in ends] == ["task.retrying"] * (len(ends) - 1) + ["task.succeeded"]
        statuses = [a.status for a in run.attempts]
        assert statuses == ["failed"] * (len(ends) - 1) + ["succeeded"]
        check_end(podium, run)
