"""Pause, change, expiry, events and schedules, while an engine drives."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, statuses, until, write_steps
from podium import Podium, PodiumError, Run, UsageError, Workflow
from podium.memory import schedules
from podium.orchestrator.engine import Engine
from podium.orchestrator.schedules import fire_due, first_time, parse_duration, parse_time
from podium.workers.local import LocalPool

HOLD = """
import time
from pathlib import Path

def hold(started: str, go: str, linger: float) -> str:
    Path(started).touch()
    end = time.monotonic() + 30
    while not Path(go).exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(linger)
    return "held"
"""


@pytest.fixture
def podium(make_podium: Any, tmp_path: Path) -> Podium:
    write_steps(tmp_path)
    (tmp_path / "holding.py").write_text(HOLD)
    return make_podium(None)


@pytest.fixture
def other(make_podium: Any, podium: Podium) -> Podium:
    """A second client of the same home, as another command is."""
    return make_podium(None)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def held(tmp_path: Path, linger: float = 0.0) -> Workflow:
    """hold, until the file `go` is there and for `linger` seconds more; then three tasks in a row."""
    workflow = Workflow("held")
    with_ = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go"), "linger": linger}
    workflow.python("hold", "holding:hold", with_=with_)
    for number, before in enumerate(("hold", "after0", "after1")):
        workflow.llm(f"after{number}", prompt=f"moon {number}", needs=[before])
    return workflow


def start(
    podium: Podium, threads: ThreadPoolExecutor, tmp_path: Path, **options: Any
) -> tuple[str, Future[Run]]:
    """Drive a `held` run in a thread until its first task holds."""
    # the engine looks at what people ask for some times a second: its first task lasts longer than that
    run = podium.submit(held(tmp_path, linger=1.5), detached=False, **options)
    driving = threads.submit(podium.drive, run.id)
    until(lambda: (tmp_path / "started").exists() or driving.done())
    return run.id, driving


def test_a_paused_run_starts_nothing_more_and_goes_on_where_it_was(
    podium: Podium, other: Podium, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    run_id, driving = start(podium, threads, tmp_path)
    assert other.pause(run_id) == "running"
    assert other.pause(run_id[:7]) == "running"
    (tmp_path / "go").touch()
    run = driving.result(30)
    assert (run.status, run.exit_code) == ("paused", 7)
    assert statuses(run) == {
        "hold": "succeeded", "after0": "pending", "after1": "pending", "after2": "pending",
    }  # fmt: skip
    assert podium.drive(run_id).status == "paused"  # nobody has resumed it
    assert other.follow(run_id, timeout=5).status == "paused"
    assert other.resume(run_id)
    assert not other.resume(run_id)
    done = podium.drive(run_id)
    assert done.status == "succeeded"
    assert {t.record.name: t.record.attempts for t in done.tasks} == dict.fromkeys(statuses(done), 1)
    assert kinds(podium, done).count("run.pause_requested") == 1
    check_books(podium, done)
    with pytest.raises(UsageError, match="succeeded already"):
        podium.pause(run_id)


def test_a_pause_taken_back_in_time_changes_nothing(
    podium: Podium, other: Podium, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    run_id, driving = start(podium, threads, tmp_path)
    other.pause(run_id)
    assert other.resume(run_id)
    (tmp_path / "go").touch()
    done = driving.result(30)
    while done.status == "paused":  # the engine had paused before it heard of that: then it is queued again
        done = podium.drive(run_id)
    assert done.status == "succeeded"
    check_books(podium, done)


def test_more_money_while_it_runs_lets_it_go_on(
    podium: Podium, other: Podium, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    run_id, driving = start(podium, threads, tmp_path, budget="0", tokens=1)
    changed = other.change("last", budget="0.5", tokens=100_000, priority=4)
    assert (changed.record.budget_nano, changed.record.budget_tokens) == (500_000_000, 100_000)
    with pytest.raises(UsageError, match="nothing"):
        other.change(run_id)
    (tmp_path / "go").touch()
    done = driving.result(30)
    assert done.status == "succeeded", done.error
    assert done.record.priority == 4
    check_books(podium, done)


def test_a_run_stopped_by_its_seconds_goes_on_with_more(podium: Podium, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    run = podium.run(held(tmp_path), tokens=1)
    assert (run.status, run.exit_code) == ("stopped", 4)
    podium.change(run.id, tokens=100_000)
    assert podium.get(run.id).status == "stopped"  # only `reopen` goes on
    podium.reopen(run.id)
    assert podium.drive(run.id).status == "succeeded"
    for wrong in ({"tokens": -1}, {"seconds": 0.0}, {"seconds": float("nan")}):
        with pytest.raises(UsageError):
            podium.run(held(tmp_path), **wrong)  # type: ignore[arg-type]


def test_events_are_streamed_in_order_without_gaps_until_the_end(
    podium: Podium, other: Podium, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    run_id, driving = start(podium, threads, tmp_path)
    streams = [threads.submit(lambda n=n: list(other.stream(run_id, after=n, timeout=30))) for n in (0, 2)]
    (tmp_path / "go").touch()
    done = driving.result(30)
    whole, rest = (stream.result(30) for stream in streams)
    assert [event.seq for event in whole] == list(range(1, done.record.event_seq + 1))
    assert whole[2:] == rest
    assert whole[-1].kind == "run.succeeded"
    assert list(other.stream(run_id, after=done.record.event_seq)) == []
    assert [e.seq for e in other.events("last", after=1, limit=2)] == [2, 3]
    # a token from a broken stream goes on where that one ended
    first = other.stream(run_id)
    token = next(first).seq
    first.close()  # type: ignore[attr-defined]
    assert [next(iter(other.stream(run_id, after=token))).seq] == [token + 1]


def test_a_stream_of_a_run_that_stands_gives_up_after_its_timeout(podium: Podium) -> None:
    workflow = Workflow("gated")
    workflow.approval("gate", "Go on?")
    run = podium.run(workflow)
    seen: list[int] = []
    with pytest.raises(PodiumError, match="the run is waiting") as caught:
        seen.extend(event.seq for event in podium.stream(run.id, timeout=0.2))
    assert seen == list(range(1, run.record.event_seq + 1))
    assert f"--after {seen[-1]}" in caught.value.mend


def test_every_verb_takes_the_start_of_an_id(podium: Podium) -> None:
    workflow = Workflow("gated")
    workflow.approval("gate", "Go on?")
    run = podium.run(workflow)
    podium.reject(run.id[:8], "gate", comment="no")
    failed = podium.drive(run.id)
    assert failed.status == "failed"
    assert podium.retry("last") == ["gate"]
    assert podium.drive(run.id).status == "waiting"
    assert podium.cancel(run.id[:8]) == "cancelled"
    podium.reopen("last")
    assert podium.verify("last") is None


# -- a serving engine


@contextlib.contextmanager
def serving(podium: Podium) -> Iterator[None]:
    """An engine that takes detached runs, starts those of schedules and rejects what is late."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        pool, stop = podium._given_pool, asyncio.Event()
        assert isinstance(pool, LocalPool)
        async with Engine(podium.database, pool, podium.settings.home, policy={}) as engine:
            task = asyncio.create_task(engine.serve(podium.settings))
            ready.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, stopped = ready.result(20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(20)


def test_a_question_that_nobody_answers_in_time_is_rejected(podium: Podium) -> None:
    workflow = Workflow("gated")
    workflow.approval("gate", "Go on?", expires=0.2)
    with serving(podium):
        run = podium.submit(workflow)
        until(lambda: podium.get(run.id).status == "failed")
    (gate,) = podium.get(run.id).tasks
    assert (gate.record.approval, gate.record.approval_comment) == ("rejected", "expired")
    assert kinds(podium, run, "gate").count("task.rejected") == 1


def test_an_engine_starts_the_runs_of_a_schedule(podium: Podium) -> None:
    workflow = Workflow("said", inputs={"word": "str"})
    workflow.llm("say", prompt="{word}")
    made = podium.schedule(workflow, every=1.0, budget="0.25", priority=2, word="moon")
    with serving(podium):
        until(lambda: len([r for r in podium.runs() if r.status == "succeeded"]) >= 2)
        podium.remove_schedule(made.id[:5])
    done = podium.runs()[-1]
    assert (done.record.schedule_id, done.record.detached, done.record.priority) == (made.id, True, 2)
    assert (done.record.budget_nano, done.inputs) == (250_000_000, {"word": "moon"})
    assert podium.schedules() == []


def test_schedules_fire_once_whoever_fires(podium: Podium, threads: ThreadPoolExecutor) -> None:
    workflow = Workflow("said")
    workflow.llm("say", prompt="moon")
    made = podium.schedule(workflow, at=time.time() + 100, every=10.0)
    later = time.time() + 1000
    assert fire_due(podium.database, podium.settings, time.time()) == []
    fired = [threads.submit(fire_due, podium.database, podium.settings, later) for _ in range(4)]
    runs = [run_id for future in fired for run_id in future.result(30)]
    assert runs == [podium.get("last").id]
    (found,) = podium.schedules()
    assert (found.id, found.fired) == (made.id, 1)
    assert found.next_at is not None
    assert later < found.next_at <= later + 10


def test_a_schedule_that_cannot_run_is_stopped_and_the_others_go_on(podium: Podium) -> None:
    workflow = Workflow("said")
    workflow.llm("say", prompt="moon")
    podium.schedule(workflow, at=time.time() + 1)
    broken = schedules.NewSchedule(
        "s0",
        podium.settings.tenant,
        "w",
        {"name": "w", "tasks": {"a": {"odd": 1}}},
        {},
        "/",
        {"budget": "1"},
        1.0,
    )
    podium.database.transact(lambda c: schedules.add(c, broken))
    assert len(fire_due(podium.database, podium.settings, time.time() + 5)) == 1
    assert all(s.next_at is None for s in podium.schedules())


def test_schedules_of_the_past_or_of_nothing_are_refused(podium: Podium) -> None:
    workflow = Workflow("said", inputs={"word": "str"})
    workflow.llm("say", prompt="{word}")
    for wrong in ({}, {"at": 1.0}, {"at": float("inf")}, {"every": 0.5}, {"every": 60.0, "tokens": -1}):
        with pytest.raises(UsageError):
            podium.schedule(workflow, word="x", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        podium.schedule(workflow, every=60.0)  # without its input
    assert podium.schedules() == []


def test_times_and_durations() -> None:
    assert [parse_duration(t) for t in ("90s", "10m", "2h", "1d", "1w", "1h30m", "0.5s")] == [
        90, 600, 7200, 86400, 604800, 5400, 0.5,
    ]  # fmt: skip
    assert parse_time("2030-01-31T09:00") == parse_time("2030-01-31T09:00Z") == 1896080400.0
    assert parse_time("2030-01-31T09:00+02:00") == 1896080400.0 - 7200
    assert first_time(None, 60.0, 1000.0) == 1060.0
    assert first_time(2000.0, 60.0, 1000.0) == 2000.0
    for wrong in ("", "10", "m", "-1m", "1x", "1m 2s", "nan", "1e3s", "9" * 20 + "w"):
        with pytest.raises(UsageError):
            parse_duration(wrong)
    for wrong in ("", "soon", "2030-13-01", "09:00"):
        with pytest.raises(UsageError):
            parse_time(wrong)
