"""Fork, replay and compare through the SDK, over runs that an engine really drove."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from engine_project import kinds, lines, replay_spec, statuses, write_steps
from podium import ConfigError, NotFound, Podium, Price, Run, UsageError, Workflow, WorkflowError
from podium.orchestrator.compare import changes, text_lines
from podium.orchestrator.policies import parse_policy
from podium.router.policy import CheapestThatFits
from podium.router.types import ModelSpec, Query
from podium.workers.local import LocalPool
from podium.workers.testing import echo_spec


@pytest.fixture
def podium(make_podium: Any, tmp_path: Path) -> Podium:
    write_steps(tmp_path)
    return make_podium(None)


def chain(log: Path) -> Workflow:
    """first → second → third, and other, which reads another input; each notes that it ran."""
    workflow = Workflow("chain", inputs={"x": "int", "y": "int"})
    workflow.python("first", "steps:add", with_={"a": "{x}", "b": 1})
    workflow.python("second", "steps:add", with_={"a": "{first}", "b": 10})
    workflow.python("other", "steps:add", with_={"a": "{y}", "b": 100})
    workflow.python("third", "steps:total", with_={"xs": ["{second}", "{other}"]})
    workflow.python("note", "steps:note", with_={"path": str(log), "text": "ran"}, needs=["first"])
    return workflow


def run_chain(podium: Podium, tmp_path: Path, **inputs: int) -> Run:
    run = podium.run(chain(tmp_path / "log"), **({"x": 1, "y": 2} | inputs))
    assert run.status == "succeeded", run.error
    return run


def test_a_fork_runs_only_what_comes_after(podium: Podium, tmp_path: Path) -> None:
    run = run_chain(podium, tmp_path)
    assert run.outputs == {"third": 114, "note": "ran"}
    made = podium.fork("last", "second")
    assert made.reused == ("first", "other", "note")
    done = podium.drive(made.run.id)
    assert done.outputs == run.outputs
    attempts = {task.record.name: task.record.attempts for task in done.tasks}
    assert attempts == {"first": 0, "second": 1, "other": 0, "third": 1, "note": 0}
    assert lines(tmp_path / "log") == ["ran"]
    assert kinds(podium, done)[:2] == ["run.created", "run.forked"]
    assert podium.verify(done.id) is None
    again = podium.fork(done.id, "third")  # of a fork
    assert again.reused == ("first", "second", "other", "note")
    assert podium.drive(again.run.id).outputs == run.outputs


def test_a_changed_input_is_read_by_no_reused_task(podium: Podium, tmp_path: Path) -> None:
    run = run_chain(podium, tmp_path)
    made = podium.fork(run.id, "third", y=1000)
    assert (made.reused, made.again) == (("first", "second", "note"), {"other": ("y",)})
    assert podium.drive(made.run.id).outputs == {"third": 1112, "note": "ran"}
    assert made.run.inputs == {"x": 1, "y": 1000}
    with pytest.raises(WorkflowError):
        podium.fork(run.id, "third", y="much")
    with pytest.raises(NotFound):
        podium.fork(run.id, "fourth")


def test_a_fork_of_a_run_that_is_not_over(podium: Podium, tmp_path: Path) -> None:
    log = tmp_path / "meet"
    workflow = Workflow("slow")
    workflow.python("quick", "steps:add", with_={"a": 1, "b": 2})
    workflow.approval("gate", "Go on with {quick}?")
    workflow.python("last", "steps:note", with_={"path": str(log), "text": "after {quick}"}, needs=["gate"])
    run = podium.run(workflow)
    assert run.status == "waiting"
    made = podium.fork(run.id, "gate", approve=["gate"])
    assert made.reused == ("quick",)
    assert podium.drive(made.run.id).status == "succeeded"
    assert statuses(podium.get(run.id))["gate"] == "waiting"
    assert podium.fork(run.id, "gate").run.record.preapproved == []


def test_a_map_is_taken_over_whole_or_run_again_whole(podium: Podium, tmp_path: Path) -> None:
    workflow = Workflow("mapped", inputs={"xs": "list[int]"})
    workflow.python("each", "steps:double", map="xs", with_={"x": "{item}"})
    workflow.python("sum", "steps:total", with_={"xs": "{each}"})
    run = podium.run(workflow, xs=[1, 2, 3])
    made = podium.fork(run.id, "sum")
    done = podium.drive(made.run.id)
    assert (done.output, [t.record.name for t in done.tasks]) == (12, ["each", "sum"])
    with pytest.raises(UsageError, match="part of the task 'each'"):
        podium.fork(run.id, "each[1]")
    assert podium.drive(podium.fork(run.id, "each").run.id).output == 12


# -- replay


def priced(name: str, usd: str, **fields: Any) -> ModelSpec:
    return echo_spec(name, price=Price(input=Decimal(usd), output=Decimal(usd)), **fields)


@pytest.fixture
def models(make_podium: Any) -> Podium:
    return make_podium(None, priced("cheap", "0.1"), priced("dear", "10"), priced("tiny", "0.01", context=64))


def test_replay_routes_the_recorded_calls_anew(models: Podium) -> None:
    workflow = Workflow("asked", inputs={"words": "list[str]"})
    workflow.llm("each", prompt="Say {item}", map="words", max_tokens=32)
    workflow.llm("pinned", prompt="Say it all: {each}", model="dear", max_tokens=32)
    run = models.run(workflow, words=["moon " * 40, "tide " * 40])
    assert run.status == "succeeded", run.error
    before = models.get(run.id).record
    found = models.replay(run.id, "fixed:dear")
    assert [row.task for row in found.rows] == ["each[0]", "each[1]", "pinned"]
    assert {row.model_then for row in found.rows[:2]} == {"cheap"}
    assert [row.model_now for row in found.rows] == ["dear"] * 3
    assert found.moved == 2
    assert found.cost_then_nano == run.cost_nano
    calls = {call.task: call for call in run.calls}
    price = models._models()[1].price
    for row in found.rows[:2]:
        call = calls[row.task]
        assert row.cost_now_nano == price.cost(call.input_tokens or 0, call.output_tokens or 0)
    assert found.rows[2].cost_now_nano == found.rows[2].cost_then_nano
    assert models.replay(run.id, {"kind": "cheapest"}).moved == 0
    assert models.get(run.id).record == before


def test_replay_asks_the_router_what_the_engine_asked(
    make_podium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Query] = []
    choose = CheapestThatFits.choose

    def listen(self: CheapestThatFits, query: Query, models: Any, stats: Any) -> Any:
        asked.append(query)
        return choose(self, query, models, stats)

    monkeypatch.setattr(CheapestThatFits, "choose", listen)
    row = {"match": "title", "text": '{"title": "Tides"}'}
    spec = replay_spec(tmp_path / "answers.jsonl", row, {"default": True, "text": "The moon."})
    podium = make_podium(None, pool=LocalPool((spec,), tmp_path))
    inner = Workflow("inner", inputs={"word": "str"})
    inner.llm("say", prompt="Say {word}", system="Be short.", temperature=0.5)
    workflow = Workflow("asked", inputs={"words": "list[str]"})
    workflow.llm("each", prompt="Say {item}", map="words", max_tokens=40)
    workflow.workflow("sub", inner, with_={"word": "moon"})
    workflow.llm("typed", prompt="A title for {each}", output={"title": "str"}, model="replay")
    run = podium.run(workflow, words=["a", "b"])
    assert run.status == "succeeded", run.error
    # how much time was left then is not recorded
    then = sorted(repr(replace(query, seconds_left=None)) for query in asked)
    asked.clear()
    assert podium.replay(run.id, "cheapest").moved == 0
    assert sorted(map(repr, asked)) == then
    assert len(then) == 4


def test_replay_says_where_no_model_would_do(models: Podium) -> None:
    workflow = Workflow("long")
    workflow.llm("one", prompt="Say " + "moon " * 200, max_tokens=32)
    run = models.run(workflow)
    found = models.replay(run.id, {"kind": "fixed", "model": "tiny"})
    (row,) = found.rows
    assert (row.model_now, row.cost_now_nano, found.unrouted) == (None, None, 1)
    assert (found.cost_then_nano, found.cost_now_nano) == (0, 0)
    assert row.reason


def test_policies_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: {kind: fixed, model: m, fallback: [n]}\n")
    assert parse_policy("cheapest") == {"kind": "cheapest"}
    assert parse_policy("fixed:a:b") == {"kind": "fixed", "model": "a:b"}
    assert parse_policy(str(file)) == {"kind": "fixed", "model": "m", "fallback": ["n"]}
    assert parse_policy(' {"kind": "cheapest"}') == {"kind": "cheapest"}
    file.write_text("- a\n")
    for wrong in ("fixed:", "dearest", "{nothing", str(file), str(tmp_path)):
        with pytest.raises(UsageError):
            parse_policy(wrong)


def test_replay_of_a_policy_that_is_none(models: Podium) -> None:
    run = models.ask("moon")
    for wrong in ({"kind": "dearest"}, {"kind": "fixed", "model": "gone"}, {"kind": "fixed"}):
        with pytest.raises(ConfigError):
            models.replay(run.id, wrong)


# -- compare


def test_the_same_run_twice_differs_at_most_in_its_seconds(podium: Podium, tmp_path: Path) -> None:
    first, second = run_chain(podium, tmp_path), run_chain(podium, tmp_path)
    found = podium.compare(first.id, second.id)
    assert found.same
    assert [*found.spec, *found.inputs, *found.only_left, *found.only_right, *found.outputs] == []
    assert found.common == 5


def test_what_differs_is_named(podium: Podium, tmp_path: Path) -> None:
    first = run_chain(podium, tmp_path)
    workflow = chain(tmp_path / "log")
    workflow.python("more", "steps:double", with_={"x": "{third}"})
    second = podium.run(workflow, x=5, y=2)
    found = podium.compare(first.id, second.id)
    assert not found.same
    assert found.only_right == ["more"]
    assert [c.path for c in found.spec] == ["$.tasks.more"]
    assert text_lines(found.inputs) == ["$.x: 1 → 5"]
    differing = {task.name: task for task in found.tasks if "output" in task.fields}
    assert set(differing) == {"first", "second", "third"}
    assert differing["third"].output == ("$: 114 → 118",)


def test_texts_are_compared_by_lines(podium: Podium, tmp_path: Path) -> None:
    workflow = Workflow("texts", inputs={"text": "str"})
    workflow.python("say", "steps:note", with_={"path": str(tmp_path / "x"), "text": "{text}"})
    runs = [podium.run(workflow, text=f"one\ntwo\n{last}\nfour") for last in ("three", "3")]
    (task,) = [t for t in podium.compare(runs[0].id, runs[1].id).tasks if "output" in t.fields]
    assert task.output == ("@@ -2,3 +2,3 @@", " two", "-three", "+3", " four")


def test_places_in_two_values() -> None:
    left = {"a": [1, {"b": True}], "odd key": None, "gone": "x" * 500}
    right = {"a": [1, {"b": 1}, 3], "odd key": [], "new": 0}
    found = list(changes(left, right))
    assert [(c.path, c.missing) for c in found] == [
        ("$.a[1].b", ""), ("$.a[2]", "left"), ('$["odd key"]', ""), ("$.gone", "right"), ("$.new", "left"),
    ]  # fmt: skip
    assert list(changes(left, left)) == []
    told = text_lines(found)
    assert told[1] == "$.a[2]: (none) → 3"
    assert len(told[3]) < 160
    many = text_lines(list(changes(list(range(50)), list(range(1, 51)))))
    assert (len(many), many[-1]) == (21, "… and 30 more")


def test_a_run_in_the_middle_can_be_compared(podium: Podium, tmp_path: Path) -> None:
    workflow = Workflow("gated")
    workflow.approval("gate", "Go on?")
    first, second = podium.run(workflow), podium.run(workflow)
    podium.approve(second.id, "gate")
    podium.drive(second.id)
    found = podium.compare(first.id, second.id)
    assert [(t.name, t.fields) for t in found.tasks] == [("gate", ("status", "output"))]
    assert not found.same
