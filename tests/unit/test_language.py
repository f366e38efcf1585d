"""What a task can say beside its body, and the kinds that hold tasks: loop and plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
from podium.memory.errors import UsageError
from podium.orchestrator.graph import callables, generations, validate
from podium.orchestrator.loader import load_text
from podium.orchestrator.parts import Budget, Cache, Retry
from podium.orchestrator.tasks import CACHEABLE, UNDOABLE, AgentTask, LlmTask
from podium.orchestrator.workflow import (
    Edge,
    LoopTask,
    PlanTask,
    Workflow,
    WorkflowError,
    workflow_path,
    workflow_task,
)
from pydantic import BaseModel

ESSAY = """
name: essay
inputs: {topic: str}
tasks:
  sources:
    agent: "Find sources on {topic}"
    tools: [kit:search]
    retry: {attempts: 5, backoff: 2, jitter: 0.5, max_backoff: 10}
    on_failure: skip
    cache: {ttl: 3600}
    budget: {usd: "0.02", tokens: 9000, seconds: 120}
    priority: 5
  essay:
    loop:
      workflow:
        name: round
        inputs: {draft: str, topic: str}
        tasks:
          better:
            prompt: "Improve this text on {topic}:\\n{draft}"
            output: {text: str, score: int}
        outputs: {draft: better.text, score: better.score}
      until: {field: score, op: ">=", value: 8}
      max: 4
      on_max: fail
    with: {draft: "{sources}", topic: "{topic}"}
    budget: 0.05
  page:
    python: kit:post
    with: {text: "{essay.draft}"}
    output: str
    compensate: {python: kit:delete, with: {page: "{page}", why: "about {topic}"}}
  follow_up:
    plan:
      goal: "Tell the readers of {page} about it"
      tools: [kit:mail, {ref: kit:search, description: looks things up}]
      max_tasks: 5
      replans: 2
    with: {text: "{essay.draft}"}
    on_failure: collect
  send: {approval: "Send it?", needs: follow_up, expires: 3600}
outputs: {page: page, told: follow_up}
"""


class Better(BaseModel):
    text: str
    score: int


def round_of(flow: Workflow | None = None) -> Workflow:
    wf = flow or Workflow("round")
    draft, topic = wf.input("draft"), wf.input("topic")
    better = wf.llm("better", prompt=f"Improve this text on {topic}:\n{draft}", output=Better)
    wf.output("draft", better["text"])
    wf.output("score", better["score"])
    return wf


def built() -> Workflow:
    wf = Workflow("essay")
    topic = wf.input("topic")
    sources = wf.agent(
        "sources",
        agent=f"Find sources on {topic}",
        tools=["kit:search"],
        retry={"attempts": 5, "backoff": 2, "jitter": 0.5, "max_backoff": 10},
        on_failure="skip",
        cache={"ttl": 3600},
        budget={"usd": "0.02", "tokens": 9000, "seconds": 120},
        priority=5,
    )
    essay = wf.loop(
        "essay",
        round_of(),
        until=("score", ">=", 8),
        max=4,
        on_max="fail",
        with_={"draft": sources, "topic": topic},
        budget="0.05",
    )
    page = wf.python(
        "page",
        "kit:post",
        with_={"text": essay["draft"]},
        output=str,
        compensate={"python": "kit:delete", "with_": {"page": "{page}", "why": f"about {topic}"}},
    )
    follow_up = wf.plan(
        "follow_up",
        f"Tell the readers of {page} about it",
        tools=["kit:mail", {"ref": "kit:search", "description": "looks things up"}],
        max_tasks=5,
        replans=2,
        with_={"text": essay["draft"]},
        on_failure="collect",
    )
    wf.approval("send", "Send it?", needs=follow_up, expires=3600)
    wf.output("page", page)
    wf.output("told", follow_up)
    return wf


def flow(tasks: dict[str, Any], **rest: Any) -> Workflow:
    return Workflow.from_data({"name": "flow", "tasks": tasks, **rest})


def messages(workflow: Workflow) -> list[str]:
    return [str(problem) for problem in validate(workflow)]


def loop(inner: dict[str, Any], field: str = "x", **more: Any) -> dict[str, Any]:
    until = {"field": field, "op": "!=", "value": None}
    return {"loop": {"workflow": {"name": "inner", **inner}, "until": until, **more}}


def undo(page: str) -> None:
    """Only its name and its parameter matter here."""


def test_yaml_and_builder_say_the_same(tmp_path: Any) -> None:
    written = load_text(ESSAY, tmp_path)
    assert written == built()
    assert validate(built()) == []
    assert written.to_data() == built().to_data()
    assert Workflow.from_data(json.loads(json.dumps(written.to_data()))) == written


def test_the_canonical_form_is_minimal() -> None:
    plain = {"prompt": "x"}
    for said, kept in (
        ({"budget": 0.05}, {"budget": "0.05"}),
        ({"budget": {"usd": "0.05"}}, {"budget": "0.05"}),
        ({"budget": {"usd": 1, "tokens": 9}}, {"budget": {"usd": "1", "tokens": 9}}),
        ({"cache": True}, {"cache": True}),
        ({"cache": {}}, {"cache": True}),
        ({"cache": {"ttl": 60}}, {"cache": {"ttl": 60.0}}),
        ({"cache": False, "priority": 0, "on_failure": "fail", "retry": {}, "budget": None}, {}),
        ({"retry": {"jitter": 0.25, "max_backoff": 5}}, {"retry": {"max_backoff": 5.0}}),
        ({"compensate": {"python": "k:f", "with": {}}}, {"compensate": {"python": "k:f"}}),
    ):
        assert flow({"a": plain | said}).to_data()["tasks"]["a"] == plain | kept
    plan = {"goal": "x", "tools": "k:f", "max_tasks": 20, "replans": 1, "run": True, "model": None}
    assert flow({"a": {"plan": plan}}).to_data()["tasks"]["a"] == {"plan": {"goal": "x", "tools": ["k:f"]}}


def test_what_the_engine_reads() -> None:
    wf = built()
    sources, essay, plan = wf.tasks["sources"], wf.tasks["essay"], wf.tasks["follow_up"]
    assert isinstance(sources, AgentTask)
    assert sources.retry == Retry(attempts=5, backoff=2, jitter=0.5, max_backoff=10)
    assert (sources.on_failure, sources.priority) == ("skip", 5)
    assert sources.cache == Cache(ttl=3600)
    assert sources.budget == Budget(usd="0.02", tokens=9000, seconds=120)
    assert isinstance(essay, LoopTask)
    assert (essay.loop.max, essay.loop.on_max, essay.loop.until.field) == (4, "fail", "score")
    assert essay.budget == Budget(usd="0.05")
    assert workflow_task(essay) == round_of()
    assert workflow_path(essay) == ("loop", "workflow")
    assert isinstance(plan, PlanTask)
    assert plan.plan.refs == ["kit:mail", "kit:search"]
    assert [tool.description for tool in plan.plan.tools] == ["", "looks things up"]
    assert (plan.plan.run, plan.plan.inputs, plan.plan.model) == (True, None, None)
    assert workflow_task(plan) is None
    bare = LlmTask(prompt="x")
    assert (bare.on_failure, bare.cache, bare.priority, bare.budget, bare.compensate) == (
        "fail", None, 0, None, None,
    )  # fmt: skip
    assert flow({"a": {"prompt": "x", "cache": True}}).tasks["a"].cache == Cache(ttl=None)


def test_edges_come_of_goals_and_inputs_but_not_of_compensations() -> None:
    assert built().edges() == [
        Edge("sources", "essay", "data"),
        Edge("essay", "page", "data"),
        Edge("page", "follow_up", "data"),
        Edge("essay", "follow_up", "data"),
        Edge("follow_up", "send", "order"),
    ]
    assert [layer[0] for layer in generations(built())] == ["sources", "essay", "page", "follow_up", "send"]


def test_every_function_is_found_wherever_it_stands() -> None:
    step = {"python": "kit:step", "compensate": {"python": "kit:undo"}}
    wf = flow({"a": loop({"tasks": {"x": step}}), "b": {"plan": {"goal": "x", "tools": ["kit:plan"]}}})
    assert callables(wf) == ["kit:plan", "kit:step", "kit:undo"]


def test_a_function_alone_undoes_the_output() -> None:
    wf = Workflow("x")
    wf.python("page", "kit:post", compensate=undo)
    made = wf.tasks["page"].compensate
    assert made is not None
    assert made.python.endswith("test_language:undo")
    assert made.with_ == {"page": "{page}"}
    assert validate(wf) == []


def test_an_output_that_may_be_an_error_keeps_no_class() -> None:
    wf = Workflow("x")
    wf.llm("a", prompt="x", output=Better, on_failure="collect")
    wf.llm("b", prompt="x", output=Better, on_failure="skip")
    assert wf.output_classes == {"b": Better}


# -- types


@pytest.mark.parametrize(
    ("task", "read", "said"),
    [
        ({"prompt": "x", "output": {"t": "str"}}, "{a.u}", "a has no field 'u'"),
        ({"prompt": "x", "output": {"t": "str"}, "on_failure": "skip"}, "{a.u}", "a has no field 'u'"),
        ({"prompt": "x", "output": {"t": "str"}, "on_failure": "collect"}, "{a.error.code}", ""),
        ({"map": "docs", "prompt": "{item}", "on_failure": "collect"}, "{a.t}", "a is list[any]"),
        ({"map": "docs", "prompt": "{item}", "on_failure": "skip"}, "{a.t}", "a is list[str]"),
        ({"plan": {"goal": "x"}}, "{a.any.thing}", ""),
        (loop({"tasks": {"x": {"prompt": "x"}}}), "{a.x}", ""),
        (loop({"tasks": {"x": {"prompt": "x"}}}), "{a.y}", "a has no field 'y'"),
        (loop({"tasks": {"x": {"prompt": "x"}}}), "{a.x.y}", "a.x is str and has no fields"),
        (loop({"tasks": {"x": {"prompt": "x"}}}) | {"on_failure": "collect"}, "{a.y}", ""),
    ],
)
def test_what_the_next_task_may_read(task: dict[str, Any], read: str, said: str) -> None:
    found = messages(flow({"a": task, "b": {"prompt": f"x {read}"}}, inputs={"docs": "list[str]"}))
    assert len(found) == (1 if said else 0), found
    assert said in "".join(found)


def test_a_collected_map_is_mapped_again_as_anything() -> None:
    tasks = {
        "a": {"map": "docs", "prompt": "{item}", "output": {"t": "str"}, "on_failure": "collect"},
        "b": {"map": "a", "when": {"field": "item.error", "op": "==", "value": None}, "prompt": "{item.t}"},
    }
    assert messages(flow(tasks, inputs={"docs": "list[str]"})) == []


# -- loops


def test_loops_nest_in_loops_and_in_mapped_workflows() -> None:
    innermost = loop({"inputs": {"x": "str"}, "tasks": {"y": {"prompt": "{x}"}}, "outputs": {"x": "y"}})
    middle = loop(
        {
            "inputs": {"x": "str"},
            "tasks": {"deep": innermost | {"with": {"x": "{x}"}}},
            "outputs": {"x": "deep.x"},
        }
    )
    each = {"name": "each", "inputs": {"t": "str"}, "tasks": {"again": middle | {"with": {"x": "{t}"}}}}
    tasks = {"all": {"map": "docs", "workflow": each, "with": {"t": "{item}"}}}
    good = flow(tasks, inputs={"docs": "list[str]"})
    assert messages(good) == []
    assert Workflow.from_data(good.to_data()) == good
    bad = json.loads(json.dumps(good.to_data()).replace("{x}", "{z}", 1))
    assert messages(Workflow.from_data(bad))[0].startswith("task all.again.deep.y: nothing fills {z}")


def test_what_an_iteration_hands_on_must_fit_and_the_rest_stays() -> None:
    inner = {
        "inputs": {"n": "float", "step": "int", "kind": ["a", "b"]},
        "tasks": {"y": {"prompt": "{n} {step} {kind}", "output": {"n": "int", "kind": "str"}}},
        "outputs": {"n": "y.n", "kind": "y.kind"},
    }
    given_values = {"with": {"n": 1, "step": 2, "kind": "a"}}
    found = messages(flow({"a": loop(inner, "n") | given_values}))
    assert found == [
        "task a: the output kind is str, and the next iteration's input kind is [a, b] → "
        "make the output kind [a, b], or rename it"
    ]


def test_a_loop_in_data_embeds_its_workflow() -> None:
    with pytest.raises(WorkflowError, match="is a file name, and this data has no files"):
        flow({"a": {"loop": {"workflow": "round.yaml", "until": {"field": "x", "op": "==", "value": 1}}}})


def test_a_stray_brace_in_a_loop_is_one_problem() -> None:
    found = messages(flow({"a": loop({"tasks": {"x": {"prompt": "a { b"}}})}))
    assert len(found) == 1
    assert "double the braces" in found[0]


# -- what not every kind can say

BODIES: dict[str, dict[str, Any]] = {
    "llm": {"prompt": "x"},
    "agent": {"agent": "x"},
    "python": {"python": "k:f"},
    "tool": {"tool": "k:f"},
    "approval": {"approval": "x"},
    "when": {"when": {"field": "t", "op": "==", "value": "x"}},
    "workflow": {"workflow": {"name": "w", "tasks": {"x": {"prompt": "x"}}}},
    "loop": loop({"tasks": {"x": {"prompt": "x"}}}),
    "plan": {"plan": {"goal": "x"}},
}


@pytest.mark.parametrize("kind", BODIES)
def test_caches_and_compensations_are_for_some_kinds(kind: str) -> None:
    for key, value, kinds, said in (
        ("cache", True, CACHEABLE, "cannot be cached"),
        ("compensate", {"python": "k:undo"}, UNDOABLE, "cannot be compensated"),
    ):
        found = messages(flow({"a": BODIES[kind] | {key: value}}, inputs={"t": "str"}))
        assert [said in row for row in found] == ([] if kind in kinds else [True])
        assert messages(flow({"a": BODIES[kind]}, inputs={"t": "str"})) == []


def test_a_compensation_reads_what_is_there() -> None:
    tasks = {
        "first": {"prompt": "x"},
        "second": {"prompt": "{first}"},
        "third": {"prompt": "x", "needs": "second"},
        "other": {"prompt": "x"},
    }
    for name, said in (
        ("t", ""),
        ("third", ""),
        ("first", ""),
        ("other", "{other} may not be there yet: other does not come before third → add needs: other"),
        ("third.x", "third is str and has no fields"),
        ("item", "nothing fills {item}"),
        ("fourth", "nothing fills {fourth}"),
    ):
        undo_it = {"python": "k:undo", "with": {"x": [f"{{{name}}}"]}}
        found = messages(
            flow(tasks | {"third": tasks["third"] | {"compensate": undo_it}}, inputs={"t": "str"})
        )
        assert len(found) == (1 if said else 0), found
        assert said in "".join(found)


@pytest.mark.parametrize(
    ("change", "said", "mend"),
    [
        ({"budget": True}, "budget: True is no budget", 'budget: "0.05"'),
        ({"budget": ["1"]}, "budget: ['1'] is no budget", 'budget: "0.05"'),
        ({"budget": -1}, "budget: ", "US dollars"),
        ({"budget": {"seconds": 0}}, "budget.seconds should be greater than 0", "change budget.seconds"),
        ({"cache": 60}, "cache: 60 says nothing of a cache", "{ttl: 3600}"),
        ({"priority": 1.5}, "priority should be a valid integer", "whole number"),
        ({"retry": {"max_backoff": -1}}, "retry.max_backoff", "change retry.max_backoff"),
        ({"compensate": {"with": {}}}, "compensate.python is missing", "add python: under compensate:"),
        ({"compensate": {"python": "undo"}}, "compensate.python is 'undo', no importable", "module:function"),
        ({"compensate": "k:undo"}, "compensate should be a valid dictionary", "write a mapping"),
    ],
)
def test_values_out_of_bounds(change: dict[str, Any], said: str, mend: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        flow({"a": {"prompt": "x"} | change})
    (problem,) = caught.value.problems
    assert problem.task == "a"
    assert said in problem.message
    assert mend in problem.mend


def test_inputs_of_a_plan_that_runs_come_by_with() -> None:
    only = {"goal": "x", "run": False, "inputs": {"docs": "list[str]"}}
    assert messages(flow({"a": {"plan": only}})) == []
    with pytest.raises(WorkflowError, match="gets its inputs by with:"):
        flow({"a": {"plan": only | {"run": True}}})
    with pytest.raises(UsageError, match="unknown option 'max_task'"):
        Workflow("x").plan("a", "x", max_task=3)
    found = messages(flow({"a": {"plan": {"goal": "x"}, "with": {"my docs": 1}}}))
    assert found == ["task a: 'my docs' is no name → write my_docs"]
