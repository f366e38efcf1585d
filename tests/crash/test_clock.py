"""The wall clock jumps by an hour while runs run: no retry stalls, no lease is lost, no deadline moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crash.outage_project import check_accepted_once, in_background, pausing, project
from engine_project import kinds, lines, one, until
from podium import Podium, Run, Settings
from podium.memory import reads
from podium.orchestrator.leases import Watch

MakePodium = Callable[..., Podium]
HOUR = 3600.0


class Clock:
    """This process's wall clock, as if somebody set it. The monotonic clock goes on as it is."""

    def __init__(self) -> None:
        self._real = time.time
        self.offset = 0.0

    def __call__(self) -> float:
        return self._real() + self.offset

    def jump(self, seconds: float) -> None:
        self.offset += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def podium(make_podium: MakePodium, tmp_path: Path) -> Podium:
    project(tmp_path)
    return make_podium(None)


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_the_clock_jumps_while_a_task_runs(podium: Podium, clock: Clock, tmp_path: Path, jump: float) -> None:
    thread, found = in_background(lambda: podium.run(pausing(0.5), deadline=60))
    until(lambda: "begun" in lines(tmp_path / "log"))
    clock.jump(jump)
    thread.join(20)
    assert isinstance(found[0], Run), found
    check_accepted_once(podium, found[0], ("one", "two", "three"))
    assert lines(tmp_path / "log") == ["one", "begun", "two", "three"]


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_the_clock_jumps_during_a_backoff(podium: Podium, clock: Clock, tmp_path: Path, jump: float) -> None:
    retry = {"attempts": 2, "backoff": 1}
    workflow = one(python="steps:flaky", with_={"path": "tries", "failures": 1}, retry=retry)
    start = time.monotonic()
    thread, found = in_background(lambda: podium.run(workflow))
    until(lambda: podium.runs() and "task.retrying" in kinds(podium, podium.get("last")))
    clock.jump(jump)
    thread.join(20)
    if thread.is_alive():
        podium.cancel("last")
        thread.join(20)
    run = found[0]
    assert isinstance(run, Run)
    assert run.status == "succeeded", "the backoff waited for the wall clock"
    assert time.monotonic() - start >= 0.75  # nor was the pause skipped
    assert len(lines(tmp_path / "tries")) == 2


def test_the_clock_was_set_back_between_two_engines(
    make_podium: MakePodium, clock: Clock, tmp_path: Path
) -> None:
    """The stored time of a retry is an hour away: it is no reason to wait longer than the backoff."""
    project(tmp_path)
    retry = {"attempts": 2, "backoff": 2, "max_backoff": 2}
    workflow = one(python="steps:flaky", with_={"path": "tries", "failures": 1}, retry=retry)
    first = make_podium(None)
    driving, closed = in_background(lambda: first.run(workflow))
    until(lambda: first.runs() and "task.retrying" in kinds(first, first.get("last")))
    run_id = first.get("last").id
    first.close()
    driving.join(20)
    assert "closed by another thread" in str(closed[0])
    clock.jump(-HOUR)
    second = make_podium(None)
    thread, found = in_background(lambda: second.drive(run_id))
    thread.join(20)
    if thread.is_alive():
        second.cancel(run_id)
        thread.join(20)
    assert isinstance(found[0], Run)
    assert found[0].status == "succeeded", "the retry waited for the wall clock"


def test_a_deadline_is_not_passed_by_setting_the_clock(podium: Podium, clock: Clock, tmp_path: Path) -> None:
    """Set forward in mid-run, the clock takes no time from a run: the next look must not see it late."""
    thread, found = in_background(lambda: podium.run(pausing(1), deadline=60))
    until(lambda: "begun" in lines(tmp_path / "log"))
    clock.jump(HOUR)
    podium.change("last", priority=3)  # the engine reads the run again
    thread.join(20)
    assert isinstance(found[0], Run)
    assert found[0].status == "succeeded", found[0].error


def test_a_deadline_stays_where_it_was(podium: Podium, clock: Clock, tmp_path: Path) -> None:
    """Set back in mid-run, the clock gives a run no hour more."""
    thread, found = in_background(lambda: podium.run(pausing(60), deadline=2))
    until(lambda: "begun" in lines(tmp_path / "log"))
    clock.jump(-HOUR)
    thread.join(20)
    if thread.is_alive():
        podium.cancel("last")
        thread.join(20)
    run = found[0]
    assert isinstance(run, Run)
    assert run.status == "failed", "the deadline moved with the wall clock"
    assert "deadline" in str(run.error)


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_lease_is_not_judged_by_the_wall_clock(
    podium: Podium, echo_pool: Callable[..., object], clock: Clock, tmp_path: Path, jump: float
) -> None:
    """An engine on another host (here: of another home) sees the run driven, and leaves it alone."""
    thread, found = in_background(lambda: podium.run(pausing(1.5)))
    until(lambda: "begun" in lines(tmp_path / "log"))
    elsewhere = tmp_path / "elsewhere"
    other = Podium(Settings(home=elsewhere, database_url=podium.settings.database), pool=echo_pool())  # type: ignore[arg-type]
    with other:
        watch = Watch(elsewhere)
        run = other.get("last")
        assert watch.is_driven(run.record)
        clock.jump(jump)
        with other.database.read() as connection:
            assert watch.is_driven(reads.run(connection, run.id))
        seen = other.drive(run.id)  # follows it
        assert seen.status == "succeeded"
    thread.join(20)
    assert isinstance(found[0], Run), found
    check_accepted_once(podium, found[0], ("one", "two", "three"))
    assert found[0].record.epoch == 1
    assert kinds(podium, found[0]).count("run.claimed") == 1
