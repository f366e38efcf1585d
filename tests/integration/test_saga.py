"""Compensations: what a failed or cancelled run did is undone, the last first, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, lines, statuses, write_steps
from inline_steps import break_off
from podium import Podium, UsageError, Workflow
from podium.orchestrator import engine

MakePodium = Callable[..., Podium]
ONCE = {"attempts": 1}


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    write_steps(tmp_path)
    return tmp_path


@pytest.fixture
def podium(project: Path, make_podium: MakePodium) -> Podium:
    return make_podium(None)


@pytest.fixture
def anywhere(project: Path, make_podium: MakePodium, database_url: str) -> Podium:
    return make_podium(database_url)


def note(log: Path, text: str) -> dict[str, str]:
    return {"path": str(log), "text": text}


def step(flow: Workflow, log: Path, name: str, undo: str = "note", **options: Any) -> Any:
    """A task that writes its name, and is undone by writing `undo:` and its output."""
    given: dict[str, Any] = note(log, f"undo:{{{name}}}")
    if undo in ("hang", "fail_until"):
        given = {"path": f"{log}.{name}"}
    if undo == "fail_until":
        undo, given = "look", {"path": f"{log}.{name}"}
    compensate = {"python": f"steps:{undo}", "with": given}
    return flow.python(
        name, "steps:note", with_=note(log, name), compensate=compensate, retry=ONCE, **options
    )


def trip(project: Path, **undo: str) -> Workflow:
    """Two bookings, one of them in a sub-workflow, then `pay`, which fails."""
    log = project / "log"
    sub = Workflow("sub")
    step(sub, log, "car", undo.get("car", "note"))
    sub.output("car", "car")
    wf = Workflow("trip")
    step(wf, log, "flight", undo.get("flight", "note"))
    wf.workflow("rent", sub, needs="flight")
    step(wf, log, "hotel", undo.get("hotel", "note"), needs="rent")
    wf.python("pay", "steps:look", with_={"path": str(project / "money")}, needs="hotel", retry=ONCE)
    step(wf, log, "after", needs="pay")
    return wf


DONE = ["flight", "car", "hotel"]
UNDONE = ["undo:hotel", "undo:car", "undo:flight"]


def test_what_succeeded_is_undone_the_last_first(anywhere: Podium, project: Path) -> None:
    run = anywhere.run(trip(project))
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["task"] == "pay"
    assert lines(project / "log") == [*DONE, *UNDONE]
    found = statuses(run)
    assert [found[f"undo:{name}"] for name in ("hotel", "rent/car", "flight")] == ["succeeded"] * 3
    assert "undo:after" not in found
    assert found["after"] == "cancelled"
    (told,) = [e for e in anywhere.events(run.id) if e.kind == "run.patched"]
    assert told.data["tasks"] == ["undo:hotel", "undo:rent/car", "undo:flight"]
    check_books(anywhere, run)


def test_nothing_is_undone_after_success(podium: Podium, project: Path) -> None:
    (project / "money").touch()
    run = podium.run(trip(project))
    assert run.status == "succeeded"
    assert lines(project / "log") == [*DONE, "after"]


def test_a_compensated_run_is_not_retried(podium: Podium, project: Path) -> None:
    run = podium.run(trip(project))
    with pytest.raises(UsageError, match="was undone") as refused:
        podium.retry(run.id)
    assert "fork" in refused.value.mend


def test_an_undo_that_fails_is_told_and_the_others_go_on(anywhere: Podium, project: Path) -> None:
    run = anywhere.run(trip(project, car="fail_until"))
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["message"].endswith("not undone: rent/car")
    assert f"podium retry {run.id}" in run.error["mend"]
    assert lines(project / "log") == [*DONE, "undo:hotel", "undo:flight"]
    assert statuses(run)["undo:rent/car"] == "failed"
    (project / "log.car").touch()
    assert anywhere.retry(run.id) == ["undo:rent/car"]
    run = anywhere.drive(run.id)
    assert (run.status, statuses(run)["undo:rent/car"]) == ("failed", "succeeded")
    assert run.error is not None
    assert "not undone" not in run.error["message"]
    assert lines(project / "log") == [*DONE, "undo:hotel", "undo:flight"]
    check_books(anywhere, run)


def flaky_undo(project: Path, backoff: float) -> Workflow:
    """`flight`, whose undoing fails once, and `pay`, which fails."""
    wf = Workflow("w")
    undo = {"python": "steps:flaky", "with": {"path": str(project / "tries"), "failures": 1}}
    given = note(project / "log", "flight")
    retry = {"attempts": 2, "backoff": backoff, "jitter": 0}
    wf.python("flight", "steps:note", with_=given, compensate=undo, retry=retry)
    wf.python("pay", "steps:look", with_={"path": "nowhere"}, needs="flight", retry=ONCE)
    return wf


def test_an_undo_is_tried_again_after_its_pause(anywhere: Podium, project: Path) -> None:
    run = anywhere.run(flaky_undo(project, 0.3))
    assert run.status == "failed"
    assert [a.status for a in run.attempts if a.task == "undo:flight"] == ["failed", "succeeded"]
    assert run.error is not None
    assert "not undone" not in run.error["message"]
    check_books(anywhere, run)


def test_an_undo_is_tried_again_by_another_engine(
    podium: Podium, make_podium: MakePodium, project: Path
) -> None:
    run = podium.submit(flaky_undo(project, 1.5), detached=False)
    break_off(podium, run, lambda: "task.retrying" in kinds(podium, run))
    run = make_podium(None).drive(run.id)
    assert run.status == "failed"
    assert statuses(run)["undo:flight"] == "succeeded"
    assert [a.status for a in run.attempts if a.task == "undo:flight"] == ["failed", "succeeded"]


def slow_undo(project: Path, **undo: str) -> Workflow:
    """`trip` whose car is undone by an inline function that waits for `go`."""
    wf = trip(project, **undo).to_data()
    go = {"python": "steps:hang_once", "with": {"path": str(project / "car")}}
    wf["tasks"]["rent"]["workflow"]["tasks"]["car"]["compensate"] = go
    return Workflow.from_data(wf)


def test_a_takeover_goes_on_undoing(anywhere: Podium, make_podium: MakePodium, project: Path) -> None:
    run = anywhere.submit(slow_undo(project, hotel="fail_until"), detached=False)
    break_off(anywhere, run, lambda: lines(project / "car"))
    assert statuses(run.refresh())["undo:hotel"] == "failed"
    assert statuses(run)["undo:flight"] == "pending"
    run = make_podium(anywhere.settings.database).drive(run.id)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["task"] == "pay"
    assert run.error["message"].endswith("not undone: hotel")
    assert lines(project / "log") == [*DONE, "undo:flight"]
    assert [a.status for a in run.attempts if a.task == "undo:rent/car"] == ["lost", "succeeded"]
    assert statuses(run)["after"] == "cancelled"
    check_books(anywhere, run)


def cancelled(project: Path) -> Workflow:
    wf = slow_undo(project).to_data()
    wf["tasks"]["pay"] = {"python": "steps:hang", "with": {"path": str(project / "pay")}, "needs": "hotel"}
    return Workflow.from_data(wf)


def test_a_cancelled_run_is_undone(
    anywhere: Podium, make_podium: MakePodium, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled and paused once more while it undoes, and taken over in the middle of that."""
    monkeypatch.setattr(engine, "POLL", 0.01)
    run = anywhere.submit(cancelled(project), detached=False)
    asked: list[str] = []

    def undoing() -> bool:
        if lines(project / "pay") and not asked:
            asked.append(anywhere.cancel(run.id))
        if lines(project / "car"):
            asked.append(anywhere.cancel(run.id))
            anywhere.pause(run.id)
        return len(asked) > 20

    break_off(anywhere, run, undoing)
    assert set(asked) == {"running"}
    second = make_podium(anywhere.settings.database)
    run = second.drive(run.id)
    assert run.status == "cancelled"
    assert run.error is not None
    assert run.error["message"] == "cancelled by a person"
    assert lines(project / "log") == [*DONE, *(u for u in UNDONE if u != "undo:car")]
    assert statuses(run)["pay"] == "cancelled"
    assert [a.status for a in run.attempts if a.task == "undo:rent/car"] == ["lost", "succeeded"]
    check_books(second, run)


def test_what_was_ready_does_not_start_while_it_is_undone(podium: Podium, project: Path) -> None:
    """`many` are lined up for two slots when `bad` fails; retries that wait are not waited for."""
    log = project / "log"
    wf = Workflow("w", inputs={"xs": "list[int]"})
    step(wf, log, "flight")
    wf.python("bad", "steps:look", with_={"path": str(project / "money")}, needs="flight", retry=ONCE)
    again = {"attempts": 2, "backoff": 60}
    wf.python("later", "steps:look", with_={"path": "nowhere"}, needs="flight", retry=again)
    given = {"a": "{item}", "b": 1}
    wf.map("many", over="xs", python="steps:add", with_=given, needs="flight")
    small = Podium(podium.settings.model_copy(update={"max_parallel": 2}), pool=podium._given_pool)
    try:
        run = small.run(wf, xs=list(range(1000)))
    finally:
        small.close()
    assert run.status == "failed"
    assert lines(log) == ["flight", "undo:flight"]
    begun = {e.task: e.seq for e in podium.events(run.id) if e.kind == "task.started"}
    assert begun["undo:flight"] == max(begun.values())
    assert statuses(run)["many[999]"] == "cancelled"
    check_books(podium, run)


def test_what_failed_and_was_collected_is_not_undone(podium: Podium, project: Path) -> None:
    log = project / "log"
    wf = Workflow("w")
    compensate = {"python": "steps:note", "with": note(log, "undo")}
    given = {"path": "nowhere"}
    wf.python("bad", "steps:look", with_=given, retry=ONCE, on_failure="collect", compensate=compensate)
    wf.python("end", "steps:look", with_={"path": "nowhere"}, retry=ONCE, needs="bad")
    run = podium.run(wf)
    assert statuses(run) == {"bad": "succeeded", "end": "failed"}
    assert lines(log) == []


def test_a_tries_again_task_is_undone(podium: Podium, project: Path) -> None:
    """It failed once before it succeeded: what it did is undone all the same."""
    log, tries = project / "log", str(project / "tries")
    wf = Workflow("w")
    compensate = {"python": "steps:note", "with": note(log, "undo:{first}")}
    wf.python(
        "first", "steps:flaky", with_={"path": tries, "failures": 1}, compensate=compensate,
        retry={"attempts": 2, "backoff": 0},
    )  # fmt: skip
    wf.python("end", "steps:look", with_={"path": "nowhere"}, retry=ONCE, needs="first")
    assert podium.run(wf).status == "failed"
    assert lines(log) == ["undo:2"]


def test_a_deadline_that_passes_undoes_and_does_not_stop_the_undoing(
    podium: Podium, make_podium: MakePodium, project: Path
) -> None:
    wf = cancelled(project)
    run = podium.submit(wf, detached=False, deadline=3.0)
    break_off(podium, run, lambda: lines(project / "car"))
    run = make_podium(None).drive(run.id)
    assert run.status == "failed"
    assert run.error is not None
    assert lines(project / "log") == [*DONE, "undo:hotel", "undo:flight"]
    assert "deadline" in run.error["message"]


def test_a_run_that_died_between_its_failure_and_the_undoing(
    anywhere: Podium, make_podium: MakePodium, project: Path
) -> None:
    """`pay` has failed for good while another task ran on; the next engine undoes in the end."""
    wf = trip(project)
    go = {"path": str(project / "go")}
    wf.python("slow", "steps:hang_once", with_=go)
    run = anywhere.submit(wf, detached=False)
    break_off(anywhere, run, lambda: statuses(run.refresh())["pay"] == "failed")
    assert lines(project / "log") == DONE
    run = make_podium(anywhere.settings.database).drive(run.id)
    assert run.status == "failed"
    assert lines(project / "log") == [*DONE, *UNDONE]
    check_books(anywhere, run)
