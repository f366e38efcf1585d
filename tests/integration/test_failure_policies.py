"""`on_failure`: what a task that failed means to the map, sub-workflow, loop or run that it is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, lines, statuses, until
from inline_steps import break_off, in_background
from podium import Podium, Run, Workflow

MakePodium = Callable[..., Podium]
ONCE = {"attempts": 1}


@pytest.fixture
def podium(home: Path, make_podium: MakePodium) -> Podium:
    return make_podium(None)


@pytest.fixture
def anywhere(home: Path, make_podium: MakePodium, database_url: str) -> Podium:
    return make_podium(database_url)


def python(flow: Workflow, name: str, function: str, **options: Any) -> Any:
    return flow.python(name, f"inline_steps:{function}", inline=True, retry=ONCE, **options)


def mapped(policy: str, bad: list[int]) -> Workflow:
    wf = Workflow("mapped", inputs={"xs": "list[int]"})
    given = {"value": "{item}", "bad": bad}
    wf.map(
        "each", over="xs", python="inline_steps:fail_for", with_=given, inline=True, retry=ONCE,
        on_failure=policy,
    )  # fmt: skip
    python(wf, "end", "same", with_={"value": "{each}"})
    wf.output("end", "end")
    return wf


def test_failed_elements_are_left_out(anywhere: Podium) -> None:
    run = anywhere.run(mapped("skip", [2, 3]), xs=[1, 2, 3, 4])
    assert run.status == "succeeded", run.error
    assert run.output == [1, 4]
    found = {t.record.name: t.record for t in run.tasks}
    assert (found["each[1]"].status, found["each[3]"].status) == ("skipped", "succeeded")
    assert "bad 2" in str(found["each[1]"].error)
    assert [a.status for a in run.attempts if a.task == "each[1]"] == ["failed"]
    (told,) = [e for e in anywhere.events(run.id) if e.task == "each[1]" and e.kind == "task.skipped"]
    assert "bad 2" in told.data["error"]["message"]
    check_books(anywhere, run)


def test_failed_elements_stand_as_errors(anywhere: Podium) -> None:
    run = anywhere.run(mapped("collect", [2]), xs=[1, 2, 3])
    assert run.status == "succeeded", run.error
    first, second, third = run.output
    assert (first, third) == (1, 3)
    assert second["error"]["code"] == "TaskError"
    assert "bad 2" in second["error"]["message"]
    assert second["error"]["task"] == "each[1]"
    assert statuses(run)["each[1]"] == "succeeded"
    check_books(anywhere, run)


def test_all_elements_fail(podium: Podium) -> None:
    assert podium.run(mapped("skip", [1, 2]), xs=[1, 2]).output == []
    both = podium.run(mapped("collect", [1, 2]), xs=[1, 2]).output
    assert [list(each) for each in both] == [["error"], ["error"]]
    run = podium.run(mapped("fail", [1, 2]), xs=[1, 2])
    assert (run.status, statuses(run)["end"]) == ("failed", "cancelled")


def test_an_element_that_a_condition_skips_is_null_one_that_fails_is_left_out(podium: Podium) -> None:
    wf = mapped("skip", [2])
    task = wf.to_data()["tasks"]["each"] | {"when": {"field": "item", "op": "!=", "value": 1}}
    wf = Workflow.from_data(wf.to_data() | {"tasks": wf.to_data()["tasks"] | {"each": task}})
    assert podium.run(wf, xs=[1, 2, 3]).output == [None, 3]


def test_a_map_over_nothing_goes_by_its_policy(podium: Podium) -> None:
    wf = Workflow("w")
    python(wf, "xs", "same", with_={"value": []})
    wf.map(
        "each", over="xs", python="inline_steps:same", with_={"value": "{item}"}, inline=True,
        on_failure="collect",
    )  # fmt: skip
    wf.output("each", "each")
    run = podium.run(wf)
    assert run.status == "succeeded", run.error
    assert "empty list" in run.output["error"]["message"]


@pytest.mark.parametrize("policy", ["fail", "skip", "collect"])
def test_a_condition_that_cannot_be_read_is_a_failure(podium: Podium, policy: str) -> None:
    wf = Workflow("w")
    python(wf, "made", "same", with_={"value": {"a": 1}})
    python(wf, "odd", "same", when=("made.b", "==", 1), on_failure=policy)
    wf.output("odd", "odd")
    run = podium.run(wf)
    assert run.tasks[1].record.error is not None
    assert "there is no field 'b'" in run.tasks[1].record.error["message"]
    assert run.tasks[1].record.attempts == 0
    expected = {"fail": ("failed", "failed"), "skip": ("succeeded", "skipped"), "collect": ("succeeded",) * 2}
    assert (run.status, statuses(run)["odd"]) == expected[policy]
    check_books(podium, run)


def plain(policy: str) -> Workflow:
    wf = Workflow("plain")
    python(wf, "bad", "fail", on_failure=policy)
    python(wf, "after", "same", with_={"value": "{bad}"})
    python(wf, "good", "same", with_={"value": 1})
    python(wf, "any", "same", with_={"value": ["{bad}", "{good}"]}, join="any")
    for name in ("after", "any"):
        wf.output(name, name)
    return wf


def test_a_skipped_task_skips_its_successors_but_for_join_any(anywhere: Podium) -> None:
    run = anywhere.run(plain("skip"))
    assert run.status == "succeeded", run.error
    assert run.outputs == {"after": None, "any": [None, 1]}
    assert statuses(run) == {"bad": "skipped", "after": "skipped", "good": "succeeded", "any": "succeeded"}
    assert run.tasks[0].record.error is not None
    check_books(anywhere, run)


def test_a_collected_error_is_an_output_and_no_artifact(anywhere: Podium) -> None:
    run = anywhere.run(plain("collect"))
    assert run.status == "succeeded", run.error
    assert run.outputs is not None
    error = run.outputs["after"]["error"]
    assert (error["code"], error["task"]) == ("TaskError", "bad")
    assert "it fails" in error["message"]
    assert run.outputs["any"] == [{"error": error}, 1]
    assert statuses(run)["after"] == "succeeded"


def test_attempts_come_before_the_policy(podium: Podium, tmp_path: Path) -> None:
    wf = Workflow("w")
    wf.python("bad", "inline_steps:fail", inline=True, on_failure="skip", retry={"attempts": 3, "backoff": 0})
    run = podium.run(wf)
    assert run.status == "succeeded"
    assert [a.status for a in run.attempts] == ["failed"] * 3
    assert kinds(podium, run, "bad") == [
        "task.started", "task.retrying", "task.started", "task.retrying", "task.started", "task.skipped",
    ]  # fmt: skip


def group(go: Path, policy: str, **more: Any) -> Workflow:
    """`bad` fails in the sub-workflow `group`: `slow` and `call` run, `ask` waits, and `late` is open."""
    sub = Workflow("sub")
    sub.python("slow", "inline_steps:gate", with_={"path": f"{go}.slow"}, inline=True)
    sub.llm("call", prompt=f"!stall {go}.call")
    sub.approval("ask", "May I?")
    python(sub, "first", "gate", with_={"path": str(go)})
    python(sub, "bad", "fail", needs="first")
    python(sub, "late", "same", needs=["slow", "bad"])
    sub.output("late", "late")
    wf = Workflow("w")
    wf.workflow("group", sub, on_failure=policy, **more)
    python(wf, "end", "same", with_={"value": "{group}"}, join="any")
    python(wf, "other", "same", with_={"value": 1})
    wf.output("end", "end")
    return wf


@pytest.mark.parametrize("policy", ["skip", "collect"])
def test_a_sub_workflow_that_fails_ends_what_is_open_in_it(
    anywhere: Podium, tmp_path: Path, policy: str
) -> None:
    go = tmp_path / "go"
    run = anywhere.submit(group(go, policy), detached=False)
    wait = in_background(lambda: anywhere.drive(run.id))
    sent = lambda: [c for c in anywhere.get(run.id).calls if c.status == "sent"]  # noqa: E731
    until(lambda: sent() and lines(tmp_path / "go.slow.at") and anywhere.get(run.id).waiting)
    go.touch()
    run = wait()
    Path(f"{go}.call").touch()
    assert run.status == "succeeded", run.error
    found = statuses(run)
    assert found["group/bad"] == "failed"
    assert {found[f"group/{name}"] for name in ("slow", "call", "ask", "late")} == {"cancelled"}
    ended = {a.task: a.status for a in run.attempts}
    assert (ended["group"], ended["group/bad"], ended["group/slow"], ended["group/call"]) == (
        "failed", "failed", "cancelled", "cancelled",
    )  # fmt: skip
    assert ended["group/ask"] == "waiting"
    if policy == "skip":
        assert (found["group"], found["end"], run.output) == ("skipped", "skipped", None)
    else:
        assert (found["group"], found["end"]) == ("succeeded", "succeeded")
        assert run.output["error"]["task"] == "group/bad"
    assert [c.status for c in run.calls] == ["unknown"]
    assert not run.waiting
    check_books(anywhere, run)


def nested() -> Workflow:
    """`bad` fails in a mapped sub-workflow in a sub-workflow that collects it."""
    inner = Workflow("inner", inputs={"x": "int"})
    python(inner, "bad", "fail_for", with_={"value": "{x}", "bad": [2]})
    python(inner, "after", "double", with_={"x": "{bad}"})
    inner.output("after", "after")
    middle = Workflow("middle", inputs={"xs": "list[int]"})
    middle.map("each", over="xs", workflow=inner, with_={"x": "{item}"})
    middle.output("each", "each")
    wf = Workflow("w", inputs={"xs": "list[int]"})
    wf.workflow("middle", middle, with_={"xs": "{xs}"}, on_failure="collect")
    wf.output("middle", "middle")
    return wf


def test_the_innermost_policy_takes_it(anywhere: Podium) -> None:
    run = anywhere.run(nested(), xs=[1, 2])
    assert run.status == "succeeded", run.error
    assert run.output["error"]["task"] == "middle/each[1]/bad"
    found = statuses(run)
    assert (found["middle/each"], found["middle/each[1]"]) == ("cancelled", "cancelled")
    assert found["middle/each[1]/after"] == "cancelled"
    check_books(anywhere, run)
    assert anywhere.run(nested(), xs=[1, 3]).output == {"each": [{"after": 2}, {"after": 6}]}


def test_a_run_that_fails_later_leaves_what_was_collected(podium: Podium, tmp_path: Path) -> None:
    wf = nested()
    path = {"path": str(tmp_path / "go")}
    python(wf, "later", "fail_unless", with_=path, needs="middle")
    run = podium.run(wf, xs=[1, 2])
    assert run.status == "failed"
    (tmp_path / "go").touch()
    podium.retry(run.id)
    run = podium.drive(run.id)
    assert run.status == "succeeded", run.error
    assert run.outputs is not None
    assert run.outputs["middle"]["error"]["task"] == "middle/each[1]/bad"
    assert [a.number for a in run.attempts if a.task == "middle/each[1]/bad"] == [1]
    check_books(podium, run)


def test_a_takeover_after_failures_that_count_as_something_else(
    anywhere: Podium, make_podium: MakePodium, tmp_path: Path
) -> None:
    wf = Workflow("w", inputs={"xs": "list[int]"})
    wf.map(
        "each", over="xs", python="inline_steps:fail_for", with_={"value": "{item}", "bad": [1]},
        inline=True, retry=ONCE, on_failure="skip",
    )  # fmt: skip
    wf.workflow("middle", nested(), with_={"xs": [2]})
    python(wf, "slow", "gate", with_={"path": str(tmp_path / "go"), "value": "{middle}"})
    python(wf, "bad", "fail", on_failure="skip")
    python(wf, "end", "same", with_={"value": ["{each}", "{slow}", "{bad}"]}, join="any")
    wf.output("end", "end")
    run = anywhere.submit(wf, detached=False, xs=[0, 1, 2])
    passed = lambda: statuses(run.refresh()).get("each") == "succeeded" and lines(tmp_path / "go.at")  # noqa: E731
    break_off(anywhere, run, passed)
    (tmp_path / "go").touch()
    run = make_podium(anywhere.settings.database).drive(run.id)
    assert run.status == "succeeded", run.error
    each, middle, bad = run.output
    assert (each, bad) == ([0, 2], None)
    assert middle["middle"]["error"]["task"] == "middle/middle/each[0]/bad"
    check_books(anywhere, run)


def element_that_waits(go: Path) -> Workflow:
    wf = Workflow("w", inputs={"xs": "list[str]"})
    wf.map(
        "each", over="xs", python="inline_steps:fail_unless", with_={"path": "{item}", "value": "{item}"},
        inline=True, retry={"attempts": 2, "backoff": 30, "jitter": 0}, on_failure="skip",
    )  # fmt: skip
    wf.output("each", "each")
    return wf


def test_a_retry_that_waits_does_so_after_a_takeover(
    podium: Podium, make_podium: MakePodium, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    paths = [str(tmp_path / "there"), str(tmp_path / "missing")]
    run = podium.submit(element_that_waits(tmp_path), detached=False, xs=paths)
    break_off(podium, run, lambda: "task.retrying" in kinds(podium, run))
    second = make_podium(None)
    (tmp_path / "missing").touch()
    break_off(second, run, lambda: kinds(podium, run).count("run.claimed") == 2)
    assert run.refresh().tasks[2].record.attempts == 1
    assert isinstance(run.refresh(), Run)
