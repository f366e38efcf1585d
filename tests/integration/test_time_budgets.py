"""Limits of time, for runs and for tasks; questions that expire; pauses; and what comes first."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, lines, statuses, until, write_steps
from inline_steps import break_off, in_background
from podium import Podium, Run, Workflow
from podium.memory import tables
from podium.orchestrator import engine
from sqlalchemy import update

MakePodium = Callable[..., Podium]
ONCE = {"attempts": 1}
HOUR = 3600.0


@pytest.fixture
def podium(home: Path, make_podium: MakePodium) -> Podium:
    return make_podium(None)


@pytest.fixture
def anywhere(home: Path, make_podium: MakePodium, database_url: str) -> Podium:
    return make_podium(database_url)


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def gate(go: Path) -> dict[str, Any]:
    return {"with_": {"path": str(go)}, "inline": True}


def begun(go: Path) -> int:
    return len(lines(Path(f"{go}.at")))


def an_hour_passes(podium: Podium, run: Run) -> None:
    """As if everything of the run so far had been an hour earlier."""

    def shift(connection: Any) -> None:
        for table, names in ((tables.Task, ("started_at", "not_before")), (tables.Attempt, ("started_at",))):
            values = {name: getattr(table, name) - HOUR for name in names}
            connection.execute(update(table).where(table.run_id == run.id).values(values))

    podium.database.transact(shift)


def used_up(run: Run, seconds: str) -> bool:
    return run.error is not None and f"it used up its {seconds} seconds" in run.error["message"]


def test_a_run_stops_when_its_seconds_are_used(anywhere: Podium, go: Path) -> None:
    wf = Workflow("w")
    wf.python("slow", "inline_steps:gate", **gate(go))
    wf.output("slow", "slow")
    run = anywhere.run(wf, seconds=0.3)
    assert (run.status, run.exit_code) == ("stopped", 4)
    assert statuses(run) == {"slow": "pending"}
    assert run.record.used_seconds >= 0.3
    run = anywhere.drive(run.id)
    assert run.status == "stopped"
    anywhere.reopen(run.id, seconds=60)
    go.touch()
    run = anywhere.drive(run.id)
    assert run.status == "succeeded"
    assert run.record.used_seconds > 0.3
    check_books(anywhere, run)


def test_seconds_are_counted_over_engines(podium: Podium, make_podium: MakePodium, go: Path) -> None:
    wf = Workflow("w")
    wf.python("slow", "inline_steps:gate", **gate(go))
    run = podium.submit(wf, detached=False, seconds=60)
    break_off(podium, run, lambda: begun(go))
    assert run.refresh().record.used_seconds > 0
    used = update(tables.Run).where(tables.Run.id == run.id).values(used_seconds=59.9)
    podium.database.transact(lambda c: c.execute(used))
    run = make_podium(None).drive(run.id)
    assert run.status == "stopped"


def test_a_task_has_its_seconds_for_all_attempts(podium: Podium, tmp_path: Path) -> None:
    write_steps(tmp_path)
    wf = Workflow("w")
    given = {"path": str(tmp_path / "n"), "failures": 99}
    retry = {"attempts": 20, "backoff": 0.2, "jitter": 0, "max_backoff": 0.2}
    wf.python("work", "steps:flaky", with_=given, retry=retry, budget={"seconds": 1.0})
    run = podium.run(wf)
    assert run.status == "failed"
    assert used_up(run, "1")
    assert 2 <= len(run.attempts) <= 7


def test_an_attempt_is_cut_when_the_seconds_are_over(podium: Podium, tmp_path: Path) -> None:
    write_steps(tmp_path)
    wf = Workflow("w")
    given = {"path": str(tmp_path / "n")}
    wf.python("work", "steps:hang", with_=given, budget={"seconds": 0.8}, on_failure="collect")
    wf.output("work", "work")
    run = podium.run(wf)
    assert run.status == "succeeded", run.error
    assert run.output["error"]["message"] == "it used up its 0.8 seconds"
    assert len(run.attempts) == 1


def holder(kind: str, go: Path, **options: Any) -> Workflow:
    """`held` of this kind, whose tasks never end."""
    sub = Workflow("sub", inputs={"x": "int"})
    sub.python("slow", "inline_steps:gate", **gate(go))
    sub.python("after", "inline_steps:same", inline=True, needs="slow")
    sub.output("after", "after")
    wf = Workflow("w", inputs={"xs": "list[int]"})
    if kind == "workflow":
        wf.workflow("held", sub, with_={"x": 1}, **options)
    elif kind == "map":
        wf.map("held", over="xs", workflow=sub, with_={"x": "{item}"}, **options)
    elif kind == "leaves":
        wf.map("held", over="xs", python="inline_steps:gate", **gate(go), **options)
    else:
        wf.loop("held", sub, until=("after", "==", 1), with_={"x": 1}, **options)
    wf.python("end", "inline_steps:same", with_={"value": "{held}"}, inline=True)
    wf.output("end", "end")
    return wf


@pytest.mark.parametrize("kind", ["workflow", "map", "leaves", "loop"])
def test_tasks_that_hold_others_have_seconds_for_all_of_them(podium: Podium, go: Path, kind: str) -> None:
    run = podium.run(holder(kind, go, budget={"seconds": 0.4}), xs=[1, 2])
    assert run.status == "failed"
    assert used_up(run, "0.4")
    found = statuses(run)
    assert found["held"] == "failed"
    assert {status for name, status in found.items() if name not in ("held",)} == {"cancelled"}
    assert "running" not in {a.status for a in run.attempts}
    check_books(podium, run)
    run = podium.run(holder(kind, go, budget={"seconds": 0.4}, on_failure="collect"), xs=[1, 2])
    assert run.status == "succeeded", run.error
    assert run.output["error"]["task"] == "held"


@pytest.mark.parametrize("kind", ["workflow", "map", "loop"])
def test_seconds_of_a_task_count_from_its_first_start(
    anywhere: Podium, make_podium: MakePodium, go: Path, kind: str
) -> None:
    run = anywhere.submit(holder(kind, go, budget={"seconds": 1800}), detached=False, xs=[1])
    break_off(anywhere, run, lambda: begun(go))
    an_hour_passes(anywhere, run)
    run = make_podium(anywhere.settings.database).drive(run.id)
    assert run.status == "failed"
    assert used_up(run, "1800")
    anywhere.retry(run.id)
    go.touch()
    again = anywhere.drive(run.id)
    assert again.status == "succeeded", again.error


def test_seconds_of_a_leaf_count_from_its_first_start(
    podium: Podium, make_podium: MakePodium, go: Path
) -> None:
    wf = Workflow("w")
    wf.python("slow", "inline_steps:gate", **gate(go), budget={"seconds": 1800})
    run = podium.submit(wf, detached=False)
    break_off(podium, run, lambda: begun(go))
    an_hour_passes(podium, run)
    run = make_podium(None).drive(run.id)
    assert run.status == "failed"
    assert used_up(run, "1800")
    go.touch()
    podium.retry(run.id)
    assert podium.drive(run.id).status == "succeeded"


def asking(go: Path, expires: float, **options: Any) -> Workflow:
    wf = Workflow("w")
    wf.approval("ok", "May I?", expires=expires, **options)
    wf.python("slow", "inline_steps:gate", **gate(go))
    wf.python("end", "inline_steps:same", with_={"value": "{ok}"}, inline=True, needs="slow")
    wf.output("end", "end")
    return wf


def test_a_question_expires_while_others_run(anywhere: Podium, go: Path) -> None:
    run = anywhere.submit(asking(go, 0.3, on_failure="collect"), detached=False)
    wait = in_background(lambda: anywhere.drive(run.id))
    until(lambda: statuses(run.refresh())["ok"] == "succeeded")
    go.touch()
    run = wait()
    assert run.status == "succeeded", run.error
    assert "expired" in run.output["error"]["message"]
    assert kinds(anywhere, run, "ok")[:3] == ["task.started", "task.waiting", "task.rejected"]


def test_a_question_that_expired_while_nobody_drove(anywhere: Podium, go: Path) -> None:
    go.touch()
    run = anywhere.run(asking(go, 1800))
    assert run.status == "waiting"
    assert anywhere.drive(run.id).status == "waiting"
    an_hour_passes(anywhere, run)
    run = anywhere.drive(run.id)
    assert run.status == "failed"
    assert "expired" in str(run.error)
    assert statuses(run)["end"] == "cancelled"


def test_an_answer_in_time_counts(podium: Podium, go: Path) -> None:
    go.touch()
    run = podium.run(asking(go, 1800))
    podium.approve(run.id, "ok", comment="yes")
    an_hour_passes(podium, run)
    run = podium.drive(run.id)
    assert run.output == {"approved": True, "comment": "yes"}


def test_a_pause_lets_what_runs_end_and_starts_nothing(
    anywhere: Podium, make_podium: MakePodium, go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine goes on; the retry that waited still waits."""
    monkeypatch.setattr(engine, "POLL", 0.01)
    wf = asking(go, 1800)
    given = {"path": f"{go}.not", "value": "tried"}
    retry = {"attempts": 2, "backoff": 1.5, "jitter": 0}
    wf.python("failing", "inline_steps:fail_unless", with_=given, inline=True, retry=retry)
    run = anywhere.submit(wf, detached=False, approve=["ok"])
    wait = in_background(lambda: anywhere.drive(run.id))
    until(lambda: begun(go) and "task.retrying" in kinds(anywhere, run))
    anywhere.pause(run.id)
    looks = count()
    until(lambda: next(looks) > 30)
    go.touch()
    run = wait()
    assert run.status == "paused", run.error
    assert statuses(run) == {"ok": "succeeded", "slow": "succeeded", "end": "pending", "failing": "pending"}
    assert run.record.engine is None
    Path(f"{go}.not").touch()
    anywhere.resume(run.id)
    run = make_podium(anywhere.settings.database).drive(run.id)
    assert run.status == "succeeded", run.error
    first, second = (a for a in run.attempts if a.task == "failing")
    assert second.started_at - (first.finished_at or 0.0) >= 1.4
    check_books(anywhere, run)


def test_of_ready_tasks_the_higher_priority_comes_first(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None, max_parallel=1)
    wf = Workflow("w")
    for name, priority in (("low", -5), ("none", 0), ("high", 7), ("higher", 50)):
        wf.python(name, "inline_steps:same", inline=True, priority=priority)
    wf.python("after", "inline_steps:same", inline=True, priority=100, needs="low")
    run = podium.run(wf)
    order = [e.task for e in podium.events(run.id) if e.kind == "task.started"]
    assert order == ["higher", "high", "none", "low", "after"]


def test_waits_between_attempts_are_bounded_and_left_to_chance(podium: Podium) -> None:
    wf = Workflow("w", inputs={"xs": "list[int]"})
    retry = {"attempts": 4, "backoff": 0.1, "max_backoff": 0.15, "jitter": 0.5}
    wf.map("each", over="xs", python="inline_steps:fail", inline=True, retry=retry, on_failure="skip")
    run = podium.run(wf, xs=[1, 2, 3, 4])
    waits: dict[int, list[float]] = {}
    for event in podium.events(run.id):
        if event.kind == "task.retrying":
            waits.setdefault(event.data["attempt"], []).append(event.data["not_before"] - event.at)
    assert [len(found) for found in waits.values()] == [4, 4, 4]
    assert all(wait <= 0.15 + 0.01 for wait in waits[1])
    assert all(wait <= 0.225 + 0.01 for wait in (*waits[2], *waits[3]))
    assert len({round(wait, 4) for found in waits.values() for wait in found}) > 3
