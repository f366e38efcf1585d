"""Loops: what is carried over, how they end, and that a takeover goes on in the middle of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, lines, statuses, write_steps
from inline_steps import break_off
from podium import Podium, Workflow

MakePodium = Callable[..., Podium]


@pytest.fixture
def podium(home: Path, make_podium: MakePodium) -> Podium:
    return make_podium(None)


@pytest.fixture
def anywhere(home: Path, make_podium: MakePodium, database_url: str) -> Podium:
    return make_podium(database_url)


def step_on() -> Workflow:
    """One iteration: `n` rises by `step`."""
    flow = Workflow("round", inputs={"n": "int", "step": "int"})
    flow.python("made", "inline_steps:round_of", with_={"n": "{n}", "step": "{step}"}, inline=True)
    flow.output("n", "made.n")
    flow.output("grade", "made.grade")
    return flow


def counting(**options: Any) -> Workflow:
    wf = Workflow("counting", inputs={"start": "int"})
    options = {"until": ("grade.score", ">=", 70), "with_": {"n": "{start}", "step": 2}} | options
    wf.loop("up", step_on(), **options)
    wf.output("up", "up")
    return wf


def test_outputs_become_inputs_until_the_condition_holds(anywhere: Podium) -> None:
    run = anywhere.run(counting(), start=1)
    assert run.status == "succeeded", run.error
    assert run.output == {"n": 7, "grade": {"score": 70}}
    names = [t.record.name for t in run.tasks]
    assert names == ["up", "up[0]", "up[0]/made", "up[1]", "up[1]/made", "up[2]", "up[2]/made"]
    assert {t.record.status for t in run.tasks} == {"succeeded"}
    assert {t.record.attempts for t in run.tasks} == {1}
    (told,) = [e for e in anywhere.events(run.id) if e.kind == "task.succeeded" and e.task == "up"]
    assert told.data["iterations"] == 3
    assert kinds(anywhere, run, "up").count("task.expanded") == 3
    check_books(anywhere, run)


def test_the_last_iteration_is_accepted(podium: Podium) -> None:
    run = podium.run(counting(max=2), start=1)
    assert (run.status, run.output["n"]) == ("succeeded", 5)
    (told,) = [e for e in podium.events(run.id) if e.kind == "task.succeeded" and e.task == "up"]
    assert told.data["exhausted"] is True


def test_the_last_iteration_fails_the_task(podium: Podium) -> None:
    run = podium.run(counting(max=2, on_max="fail"), start=1)
    assert run.status == "failed"
    assert run.error is not None
    assert "does not hold after 2 iterations" in run.error["message"]
    assert statuses(run)["up"] == "failed"
    assert statuses(run)["up[1]/made"] == "succeeded"
    check_books(podium, run)


def test_a_loop_that_fails_can_be_collected(podium: Podium) -> None:
    run = podium.run(counting(max=1, on_max="fail", on_failure="collect"), start=1)
    assert run.status == "succeeded", run.error
    assert "after 1 iterations" in run.output["error"]["message"]


def test_a_failing_iteration_is_the_loops_to_skip(podium: Podium) -> None:
    flow = Workflow("round", inputs={"n": "int"})
    flow.python("next", "inline_steps:add", with_={"a": "{n}"}, inline=True)
    tried = {"value": "{next}", "bad": [2]}
    flow.python("tried", "inline_steps:fail_for", with_=tried, inline=True, retry={"attempts": 1})
    flow.output("n", "next")
    flow.output("tried", "tried")
    wf = Workflow("w")
    wf.loop("up", flow, until=("n", "==", 5), with_={"n": 0}, on_failure="skip")
    wf.python("end", "inline_steps:same", with_={"value": "{up}"}, inline=True)
    run = podium.run(wf)
    assert run.status == "succeeded", run.error
    found = statuses(run)
    assert (found["up"], found["end"]) == ("skipped", "skipped")
    assert (found["up[0]"], found["up[1]"], found["up[1]/tried"]) == ("succeeded", "cancelled", "failed")
    check_books(podium, run)


def test_loops_in_loops_in_a_mapped_sub_workflow(anywhere: Podium) -> None:
    inner = Workflow("inner", inputs={"n": "int", "by": "int"})
    inner.python("next", "inline_steps:add", with_={"a": "{n}", "b": "{by}"}, inline=True)
    inner.output("n", "next")
    outer = Workflow("outer", inputs={"total": "int", "by": "int"})
    outer.loop("inner", inner, until=("n", ">=", 2), with_={"n": 0, "by": "{by}"})
    more = {"a": "{total}", "b": "{inner.n}"}
    outer.python("sum", "inline_steps:add", with_=more, inline=True)
    outer.output("total", "sum")
    each = Workflow("each", inputs={"by": "int"})
    each.loop("outer", outer, until=("total", ">", 3), with_={"total": 0, "by": "{by}"})
    each.output("total", "outer.total")
    wf = Workflow("w", inputs={"xs": "list[int]"})
    wf.map("all", over="xs", workflow=each, with_={"by": "{item}"})
    wf.output("all", "all")
    run = anywhere.run(wf, xs=[1, 2, 3])
    assert run.status == "succeeded", run.error
    assert run.output == [{"total": 4}, {"total": 4}, {"total": 6}]
    assert statuses(run)["all[0]/outer[1]/inner[1]/next"] == "succeeded"
    assert "all[2]/outer[0]/inner[1]/next" not in statuses(run)
    check_books(anywhere, run)


def test_an_iteration_may_skip_and_carry_null(podium: Podium) -> None:
    flow = Workflow("round", inputs={"n": "int", "last": "int?"})
    flow.python("next", "inline_steps:add", with_={"a": "{n}"}, inline=True)
    flow.python("odd", "inline_steps:double", with_={"x": "{next}"}, inline=True, when=("next", "!=", 2))
    flow.output("n", "next")
    flow.output("last", "odd")
    wf = Workflow("w")
    wf.loop("up", flow, until=("n", "==", 3), with_={"n": 0, "last": None})
    wf.output("up", "up")
    run = podium.run(wf)
    assert run.status == "succeeded", run.error
    assert run.output == {"n": 3, "last": 6}
    assert [statuses(run)[f"up[{n}]/odd"] for n in range(3)] == ["succeeded", "skipped", "succeeded"]


def asking() -> Workflow:
    flow = Workflow("round", inputs={"n": "int"})
    flow.python("next", "inline_steps:add", with_={"a": "{n}"}, inline=True)
    flow.approval("ok", "Is {next} right?")
    flow.output("n", "next")
    flow.output("ok", "ok.approved")
    wf = Workflow("w")
    wf.loop("up", flow, until=("n", "==", 2), with_={"n": 0})
    wf.output("up", "up")
    return wf


def test_each_iteration_asks_and_another_engine_goes_on(anywhere: Podium, make_podium: MakePodium) -> None:
    run = anywhere.run(asking())
    assert [t.record.approval_text for t in run.waiting] == ["Is 1 right?"]
    anywhere.approve(run.id, "up[0]/ok")
    second = make_podium(anywhere.settings.database)
    run = second.drive(run.id)
    assert [t.record.name for t in run.waiting] == ["up[1]/ok"]
    second.approve(run.id, "up[1]/ok")
    run = anywhere.drive(run.id)
    assert (run.status, run.output) == ("succeeded", {"n": 2, "ok": True})
    check_books(anywhere, run)


def test_an_approval_in_a_loop_is_given_beforehand(podium: Podium) -> None:
    assert podium.run(asking(), approve=["up/ok"]).output == {"n": 2, "ok": True}


def test_a_takeover_goes_on_with_the_iteration(
    anywhere: Podium, make_podium: MakePodium, tmp_path: Path
) -> None:
    flow = Workflow("round", inputs={"n": "int"})
    flow.python("next", "inline_steps:add", with_={"a": "{n}"}, inline=True)
    flow.python(
        "noted", "inline_steps:note", with_={"path": str(tmp_path / "log")}, inline=True, needs="next"
    )
    go = {"path": str(tmp_path / "go"), "value": "{next}"}
    flow.python("slow", "inline_steps:gate", with_=go, inline=True, when=("next", "==", 3), needs="noted")
    flow.python(
        "end", "inline_steps:same", with_={"value": "{next}"}, inline=True, needs=["slow", "next"], join="any"
    )
    flow.output("n", "end")
    wf = Workflow("w")
    wf.loop("up", flow, until=("n", "==", 5), with_={"n": 0})
    wf.output("n", "up.n")
    run = anywhere.submit(wf, detached=False)
    break_off(anywhere, run, lambda: lines(tmp_path / "go.at"))
    assert statuses(run.refresh())["up[2]/slow"] == "running"
    (tmp_path / "go").touch()
    run = make_podium(anywhere.settings.database).drive(run.id)
    assert (run.status, run.output) == ("succeeded", 5)
    assert len(lines(tmp_path / "log")) == 5
    assert len(lines(tmp_path / "go.at")) == 2
    assert [a.status for a in run.attempts if a.task == "up[2]/slow"] == ["lost", "succeeded"]
    assert sum(a.status == "lost" for a in run.attempts) == 1
    check_books(anywhere, run)


def test_two_hundred_iterations(podium: Podium) -> None:
    run = podium.run(counting(until=("n", ">=", 401), max=1000), start=1)
    assert (run.status, run.output["n"]) == ("succeeded", 401)
    assert len(run.tasks) == 1 + 2 * 200
    check_books(podium, run)


def test_a_failed_iteration_is_tried_again_by_a_person(podium: Podium, tmp_path: Path) -> None:
    flow = Workflow("round", inputs={"n": "int"})
    flow.python("next", "inline_steps:add", with_={"a": "{n}"}, inline=True)
    go = {"path": str(tmp_path / "go"), "value": "{next}"}
    flow.python("tried", "inline_steps:fail_unless", with_=go, inline=True, retry={"attempts": 1})
    flow.output("n", "tried")
    wf = Workflow("w")
    wf.loop("up", flow, until=("n", "==", 3), with_={"n": 0})
    wf.output("n", "up.n")
    run = podium.run(wf)
    assert (run.status, statuses(run)["up[0]/tried"]) == ("failed", "failed")
    (tmp_path / "go").touch()
    podium.retry(run.id)
    run = podium.drive(run.id)
    assert (run.status, run.output) == ("succeeded", 3)
    check_books(podium, run)


def test_a_loop_may_name_a_file(podium: Podium, tmp_path: Path) -> None:
    write_steps(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "round.yaml").write_text(
        "name: round\ninputs: {n: int}\ntasks:\n"
        "  next: {python: steps:add, with: {a: '{n}', b: 1}}\noutputs: {n: next}\n"
    )
    (tmp_path / "w.yaml").write_text(
        "name: w\ntasks:\n  up:\n    loop:\n      workflow: parts/round.yaml\n"
        "      until: {field: n, op: '==', value: 2}\n    with: {n: 0}\n"
    )
    run = podium.run(tmp_path / "w.yaml")
    assert run.status == "succeeded", run.error
    assert run.output == {"n": 2}
