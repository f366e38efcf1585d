"""Workflows as data: the builder and YAML give the same object; garbage gives Problems."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.memory.errors import UsageError
from podium.orchestrator.graph import validate
from podium.orchestrator.loader import load_text
from podium.orchestrator.schema import workflow_from_plan
from podium.orchestrator.workflow import Edge, Retry, When, Workflow, WorkflowError
from pydantic import BaseModel

BRIEF = """
name: brief
inputs: {docs: list[str], tone: {type: str?, default: null}}
tasks:
  summaries: {map: docs, prompt: "Summarise in two sentences.\\n\\n{item}", retry: {attempts: 2}}
  brief:
    prompt: "Write a {tone} brief from these notes:\\n{summaries}"
    output: {title: str, points: list[str]}
  gate:      {when: {field: brief.title, op: "!=", value: ""}}
  publish:   {approval: "Publish {brief.title}?", needs: gate}
outputs: {brief: brief, title: brief.title}
"""


class Brief(BaseModel):
    title: str
    points: list[str]


def built() -> Workflow:
    wf = Workflow("brief")
    docs = wf.input("docs", list[str])
    tone = wf.input("tone", str | None, default=None)
    summaries = wf.map(
        "summaries", over=docs, prompt="Summarise in two sentences.\n\n{item}", retry={"attempts": 2}
    )
    brief = wf.llm("brief", prompt=f"Write a {tone} brief from these notes:\n{summaries}", output=Brief)
    gate = wf.when("gate", brief["title"], "!=", "")
    wf.approval("publish", f"Publish {brief['title']}?", needs=gate)
    wf.output("brief", brief)
    wf.output("title", brief["title"])
    return wf


def module_function(text: str, times: int = 2) -> str:
    return text * times


def test_yaml_and_builder_give_the_same_object(tmp_path: Any) -> None:
    written = load_text(BRIEF, tmp_path)
    assert written == built()
    assert validate(built()) == []
    assert written.to_data() == built().to_data()


def test_round_trip_through_json_is_exact() -> None:
    data = built().to_data()
    assert Workflow.from_data(json.loads(json.dumps(data))) == built()
    assert data["tasks"]["summaries"] == {
        "map": "docs",
        "retry": {"attempts": 2},
        "prompt": "Summarise in two sentences.\n\n{item}",
    }
    assert data["inputs"] == {"docs": "list[str]", "tone": {"type": "str?", "default": None}}


def test_placeholders_are_the_edges() -> None:
    assert built().edges() == [
        Edge("summaries", "brief", "data"),
        Edge("brief", "gate", "data"),
        Edge("brief", "publish", "data"),
        Edge("gate", "publish", "order"),
    ]
    assert built().sinks() == ["publish"]


def test_outputs_are_the_sinks_when_none_are_named() -> None:
    wf = Workflow("two")
    wf.llm("a", prompt="A")
    wf.llm("b", prompt="B")
    assert list(wf.output_refs()) == ["a", "b"]
    assert {name: str(ref) for name, ref in built().output_refs().items()} == {
        "brief": "brief",
        "title": "brief.title",
    }


def test_kinds_follow_from_the_body() -> None:
    wf = Workflow("kinds")
    texts = wf.input("texts", list[str])
    wf.agent("agent", agent="Find it", tools=[module_function, "kit:fetch"], budget="0.10")
    wf.python("python", module_function, with_={"text": texts})
    wf.tool("tool", "kit:fetch", with_={"url": "x"})
    wf.map("mapped", over=texts, python=module_function)
    wf.workflow("sub", built(), with_={"docs": texts})
    kinds = {name: (task.kind, task.body_kind) for name, task in wf.tasks.items()}
    assert kinds == {
        "agent": ("agent", "agent"),
        "python": ("python", "python"),
        "tool": ("tool", "tool"),
        "mapped": ("map", "python"),
        "sub": ("workflow", "workflow"),
    }
    data = wf.to_data()["tasks"]
    assert data["mapped"]["with"] == {"text": "{item}"}
    assert data["python"]["with"] == {"text": "{texts}"}
    assert data["agent"]["tools"] == [f"{__name__}:module_function", "kit:fetch"]
    assert Workflow.from_data(wf.to_data()) == wf


def test_output_classes_stay_in_this_process() -> None:
    wf = built()
    assert wf.output_classes == {"brief": Brief}
    assert Workflow.from_data(wf.to_data()).output_classes == {}


def test_functions_that_no_worker_can_import_are_refused() -> None:
    def local() -> None: ...

    def main_function() -> None: ...

    main_function.__module__, main_function.__qualname__ = "__main__", "main_function"
    for function, mend in (
        (lambda: None, "define it with def in a module"),
        (local, "define it with def in a module"),
        (functools.partial(local), "define it with def in a module"),
        (main_function, "move it into a module beside the script"),
    ):
        with pytest.raises(UsageError) as caught:
            Workflow("x").python("task", function)
        assert mend in caught.value.mend


@pytest.mark.parametrize(
    ("build", "said", "mend"),
    [
        (lambda wf: wf.llm("a b", prompt="x"), "'a b' is no name", "write a_b"),
        (lambda wf: wf.llm("item", prompt="x"), "reserved", "another name"),
        (lambda wf: wf.input("docs"), "is taken", "another name"),
        (lambda wf: wf.llm("docs", prompt="x"), "is taken", "another name"),
        (lambda wf: wf.llm("a", prompt="x", modle="m"), "unknown option 'modle'", "did you mean model?"),
        (lambda wf: wf.llm("a", prompt="x", output="strr"), "no type", "did you mean str?"),
        (lambda wf: wf.llm("a", prompt="x", timeout=-1), "timeout", "change timeout"),
        (lambda wf: wf.map("a", over="docs"), "has no body", "give prompt="),
        (lambda wf: wf.agent("a", agent="x", budget="much"), "no amount", "US dollars"),
        (lambda wf: (wf.output("o", "docs"), wf.output("o", "docs")), "given twice", "another name"),
        (lambda wf: wf.llm("a", prompt="x", when=("docs", "=", 1)), "when.op is '='", "did you mean"),
        (lambda wf: wf.llm("a", prompt="x", priority=101), "priority", "change priority"),
        (lambda wf: wf.llm("a", prompt="x", cache="yes"), "says nothing of a cache", "cache: true"),
        (lambda wf: wf.loop("a", built(), until=("brief", "==", 1), max=0), "loop.max", "change loop.max"),
        (lambda wf: wf.plan("a", ""), "plan.goal", "write some text"),
        (lambda wf: wf.plan("a", "x", tools=[lambda: None]), "a lambda", "define it with def"),
        (lambda wf: wf.llm("a", prompt="x", compensate=lambda: None), "a lambda", "define it with def"),
        (lambda wf: wf.approval("a", "x", expires=0), "expires", "change expires"),
    ],
)
def test_the_builder_refuses_at_once(build: Any, said: str, mend: str) -> None:
    wf = Workflow("x")
    wf.input("docs", list[str])
    with pytest.raises(UsageError) as caught:
        build(wf)
    assert said in caught.value.message
    assert mend in caught.value.mend


@pytest.mark.parametrize(
    ("op", "value", "found", "holds"),
    [
        ("==", "a", "a", True),
        ("==", 1, True, False),
        ("!=", "a", None, True),
        (">", 3, 4, True),
        (">=", 3, 3, True),
        ("<", 3, None, False),
        ("<=", 3, "x", False),
        ("in", ["a", "b"], "a", True),
        ("in", ["a"], "b", False),
        ("contains", "b", ["a", "b"], True),
        ("contains", "b", None, False),
    ],
)
def test_when_holds(op: Any, value: Any, found: Any, holds: bool) -> None:
    assert When(field="x", op=op, value=value).holds(found) is holds


def test_equality_is_of_the_data() -> None:
    other = built()
    other.llm("more", prompt="More", retry=Retry())
    assert other != built()
    assert other != "a workflow"


def test_repr_html_draws_every_task_and_escapes() -> None:
    wf = built()
    wf.llm("more", prompt="x", description="<script>alert(1)</script>")
    html = wf._repr_html_()
    assert html.count("<rect") == 5
    assert "<script>" not in html
    assert 'stroke-dasharray="4 3"' in html
    wf.llm("a", prompt="{b}")
    wf.llm("b", prompt="{a}")
    assert "wait for each other" in wf._repr_html_()


def test_importing_the_format_stays_quick() -> None:
    code = "import sys, podium.orchestrator.workflow, podium.orchestrator.loader, podium.orchestrator.graph;"
    code += "sys.exit(','.join({'networkx','ray','torch','numpy','sqlalchemy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("data", "task", "said", "mend"),
    [
        (None, None, "a workflow is a mapping", "start with name"),
        ([], None, "a workflow is a mapping", "start with name"),
        ({"tasks": {"a": {"prompt": "x"}}}, None, "has no name", "write name:"),
        ({"name": "x"}, None, "has no tasks", "at least one task"),
        ({"name": "x", "tasks": []}, None, "tasks is a list", "mapping of names"),
        ({"name": "x", "task": {}, "tasks": {"a": {"prompt": "x"}}}, None, "unknown key 'task'", "tasks?"),
        ({"name": "x", "tasks": {"a": "x"}}, "a", "a task is a mapping", "{prompt"),
        ({"name": "x", "tasks": {"a": {}}}, "a", "no kind", "give it one of"),
        ({"name": "x", "tasks": {"a": {"kind": "llm", "prompt": "x"}}}, "a", "no key 'kind'", "remove it"),
        ({"name": "x", "tasks": {"a": {"prompt": 3}}}, "a", "prompt should be a valid string", "quotes"),
        (
            {"name": "x", "tasks": {"a": {"prompt": "x", "tools": []}}},
            "a",
            "no key 'tools'",
            "for agent tasks",
        ),
        ({"name": "x", "tasks": {"a": {"workflow": "b.yaml"}}}, "a", "a file name", "embed the workflow"),
        ({"name": "x", "tasks": {"a": {"python": "kit"}}}, "a", "no importable name", "module:function"),
        (
            {"name": "x", "tasks": {"a": {"when": {"field": "b", "op": "=", "value": 1}}}},
            "a",
            "when.op",
            "did you mean",
        ),
        ({"name": "x", "tasks": {"a": {"prompt": "\ud800"}}}, "a", "lone surrogate", "UTF-8"),
        ({"name": "x", "tasks": {"a": {"tool": "k:f", "with": {"x": float("inf")}}}}, "a", "JSON", "finite"),
        (
            {"name": "x", "tasks": {"a": {"tool": "k:f", "with": {"x": {1}}}}},
            "a",
            "JSON cannot hold",
            "write text",
        ),
        ({"name": "x", "tasks": {1: {"prompt": "x"}}}, None, "the key 1", "quotes"),
        (
            {"name": "x", "tasks": {"a": {"workflow": {"name": "y", "tasks": {"b": {"promt": ""}}}}}},
            "a.b",
            "unknown kind",
            "did you mean prompt?",
        ),
        (
            {
                "name": "x",
                "tasks": {"a": {"workflow": {"name": "y", "tasks": {"b": {"prompt": "", "join": "al"}}}}},
            },
            "a.b",
            "join is 'al'",
            "did you mean all?",
        ),
    ],
)
def test_wrong_data_names_task_and_mend(data: Any, task: str | None, said: str, mend: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        Workflow.from_data(data)
    found = [problem for problem in caught.value.problems if said in problem.message]
    assert found, str(caught.value)
    assert found[0].task == task
    assert mend in found[0].mend
    assert said in str(caught.value)


def test_all_problems_of_form_are_reported_together() -> None:
    tasks = {"a": {"promt": "x"}, "b-c": {"prompt": "x"}, "d": {"prompt": "x", "modl": "y"}}
    with pytest.raises(WorkflowError) as caught:
        Workflow.from_data({"name": "x", "tasks": tasks})
    assert len(caught.value.problems) == 3


def test_hostile_depth_is_a_problem() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(WorkflowError, match="nested deeper"):
        Workflow.from_data({"name": "x", "tasks": {"a": {"tool": "k:f", "with": deep}}})


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
leaves |= st.sampled_from(["{a}", "{a.b}", "{", "item", "a", "list[str]", "k:f", "==", ">"])
words = "name tasks inputs outputs prompt agent python tool approval workflow when map needs join with output"
words += (
    " loop until max on_max plan goal tools replans run budget usd tokens cache ttl compensate on_failure"
)
keys = st.text(max_size=6) | st.sampled_from(f"{words} field op value type default retry a b".split())
garbage = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
body = st.dictionaries(keys, garbage, max_size=4)
bodies = ["prompt", "agent", "python", "tool", "approval", "workflow", "when", "map", "loop", "plan"]
kinds = st.sampled_from(bodies)
tasks = st.builds(lambda rest, key, value: {**rest, key: value}, body, kinds, garbage)
flows = st.fixed_dictionaries(
    {"name": st.just("x"), "tasks": st.dictionaries(st.sampled_from(["a", "b", "c"]), tasks, min_size=1)},
    optional={"inputs": st.dictionaries(keys, garbage, max_size=2), "outputs": garbage},
)


def outcome(read: Callable[[Any], Workflow], data: Any) -> Workflow | WorkflowError:
    try:
        return read(data)
    except WorkflowError as error:
        return error


@given(garbage | flows)
@settings(max_examples=300, deadline=None)
def test_garbage_is_a_workflow_or_a_workflow_error(data: Any) -> None:
    for read in (Workflow.from_data, workflow_from_plan):
        made = outcome(read, data)
        if isinstance(made, Workflow):
            assert Workflow.from_data(made.to_data()) == made
            assert all(problem.mend for problem in validate(made))
        else:
            assert made.problems
            assert all(problem.message and problem.mend for problem in made.problems)
            assert str(made)
