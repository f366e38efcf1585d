"""The published JSON Schema and the small one for planning."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from podium.orchestrator.graph import validate
from podium.orchestrator.schema import planning_schema, schema_text, workflow_from_plan, workflow_schema
from podium.orchestrator.workflow import Workflow, WorkflowError
from podium.orchestrator.yaml_text import parse_yaml

ROOT = Path(__file__).parent.parent.parent
MALFORMED = ROOT / "tests" / "data" / "malformed"

EVERYTHING = """
name: everything
description: one task of each kind
inputs: {docs: list[str], tone: {type: [warm, cool], default: warm}, deep: {a: {b: list[int]}}, maybe: str?}
tasks:
  llm:
    {prompt: "{docs}", system: "Be {tone}", output: {title: str, tags: list[str]}, model: m, max_tokens: 9,
     temperature: 0.5}
  agent:
    {agent: "Find {maybe}", profile: p, tools: [kit:fetch], max_steps: 3, max_total_tokens: 99, budget: 0.01}
  python: {python: kit:run, with: {x: "{deep.a.b}", y: [1, {z: null}]}, output: object, inline: true}
  tool:
    {tool: kit:fetch, with: {url: x}, retry: {attempts: 5, backoff: 1, jitter: 0, max_backoff: 9}, timeout: 5,
     compensate: {python: kit:undo, with: {page: "{tool}", tone: "{tone}"}}}
  mapped:
    {map: docs, prompt: "{item}", when: {field: item, op: "!=", value: ""}, on_failure: skip, cache: true,
     priority: -3, budget: {usd: "0.01", tokens: 900, seconds: 60}}
  approval: {approval: "{llm.title}?", needs: [tool, python], join: any, expires: 3600}
  gate: {when: {field: tone, op: in, value: [warm]}, needs: agent}
  sub:
    workflow: {name: inner, inputs: {t: str}, tasks: {one: {prompt: "{t}"}}, outputs: {t: one}}
    with: {t: "{llm.title}"}
  loop:
    loop:
      workflow:
        {name: round, inputs: {t: str, n: {type: int, default: 0}}, outputs: {t: one.t, score: one.score},
         tasks: {one: {prompt: "{t} {n}", output: {t: str, score: int}, cache: {ttl: 60}}}}
      until: {field: score, op: ">=", value: 8}
      max: 3
      on_max: fail
    with: {t: "{llm.title}"}
    on_failure: collect
  plan:
    plan:
      {goal: "Find out {maybe}", tools: [kit:fetch, {ref: kit:search, description: looks it up}], model: m,
       max_tasks: 5, replans: 0, run: true}
    with: {t: "{loop.t}"}
outputs: {title: llm.title, sub: sub.t}
"""

PLAN: dict[str, Any] = {
    "name": "notes",
    "inputs": [{"name": "docs", "type": "list[str]"}],
    "tasks": [
        {"name": "each", "map": "docs", "prompt": "Note: {item}"},
        {
            "name": "grade",
            "prompt": "Grade {each}",
            "output": [{"name": "score", "type": "int"}],
            "needs": [],
        },
        {"name": "good", "when": {"field": "grade.score", "op": ">", "value": 5}},
        {
            "name": "page",
            "tool": "kit:fetch",
            "with": [{"name": "url", "value": "{each}"}],
            "needs": ["good"],
        },
        {"name": "ok", "approval": "Publish {page}?"},
    ],
    "outputs": ["page"],
}


@pytest.fixture(scope="module")
def checker() -> jsonschema.Draft202012Validator:
    schema = workflow_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_file_is_current() -> None:
    published = (ROOT / "docs" / "workflow.schema.json").read_text("utf-8")
    assert published == schema_text(), "run: python -m podium.orchestrator.schema"


def test_every_kind_and_key_validates(checker: jsonschema.Draft202012Validator) -> None:
    data, _, problems = parse_yaml(EVERYTHING)
    assert problems == []
    checker.validate(data)
    flow = Workflow.from_data(data)
    checker.validate(flow.to_data())
    assert {task.kind for task in flow.tasks.values()} == {
        "llm", "agent", "python", "tool", "map", "approval", "when", "workflow", "loop", "plan",
    }  # fmt: skip
    assert validate(flow) == []
    assert Workflow.from_data(flow.to_data()) == flow


def test_examples_and_templates_validate(checker: jsonschema.Draft202012Validator) -> None:
    for path in sorted((ROOT / "examples").glob("**/*.yaml")):
        data, _, problems = parse_yaml(path.read_text("utf-8"))
        if isinstance(data, dict) and "tasks" in data:
            assert problems == []
            checker.validate(data)
    for path in sorted((ROOT / "agents" / "templates").glob("*.yaml")):
        checker.validate(yaml.safe_load(path.read_text("utf-8"))["workflow"])


@pytest.mark.parametrize(
    "name",
    [
        "unknown_kind",
        "unknown_key",
        "two_kinds",
        "bad_name",
        "wrong_value",
        "no_tasks",
        "bare_braces",
        "map_of_nothing",
        "loop_text",
        "loop_key",
        "loop_without_until",
        "loop_max",
        "plan_text",
        "plan_key",
        "plan_replans",
        "budget_key",
        "budget_of_nothing",
        "budget_tokens",
        "cache_word",
        "cache_ttl",
        "cache_tool",
        "priority",
        "on_failure",
        "retry_jitter",
        "expires_zero",
        "expires_elsewhere",
    ],
)
def test_errors_of_form_are_errors_of_the_schema_too(
    name: str, checker: jsonschema.Draft202012Validator
) -> None:
    data, _, _ = parse_yaml((MALFORMED / f"{name}.yaml").read_text("utf-8"))
    if name == "map_of_nothing":
        data["tasks"]["summaries"]["map"] = ""
    assert not checker.is_valid(data)


def test_a_plan_becomes_a_workflow() -> None:
    schema = planning_schema(["kit:fetch"])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(PLAN, schema)
    flow = workflow_from_plan(copy.deepcopy(PLAN))
    assert flow.to_data() == {
        "name": "notes",
        "inputs": {"docs": "list[str]"},
        "tasks": {
            "each": {"map": "docs", "prompt": "Note: {item}"},
            "grade": {"prompt": "Grade {each}", "output": {"score": "int"}},
            "good": {"when": {"field": "grade.score", "op": ">", "value": 5}},
            "page": {"needs": ["good"], "tool": "kit:fetch", "with": {"url": "{each}"}},
            "ok": {"approval": "Publish {page}?"},
        },
        "outputs": {"page": "page"},
    }
    assert validate(flow) == []


def test_a_plan_can_use_only_the_tools_it_was_given() -> None:
    for tools in (["kit:other"], []):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(PLAN, planning_schema(tools))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": PLAN["tasks"] + PLAN["tasks"][:1]}, "duplicate task 'each'"),
        ({"tasks": [{"prompt": "x"}]}, "an entry of tasks has no name"),
        ({"tasks": "none"}, "tasks is 'none'"),
        ({"tasks": []}, "no tasks"),
        ({"inputs": [{"name": "docs", "type": "lst"}]}, "'lst' is no type"),
        ({"outputs": [1]}, "outputs is no list of names"),
        (
            {"tasks": [{"name": "a", "prompt": "x", "output": [{"type": "str"}]}]},
            "an entry of output has no name",
        ),
    ],
)
def test_what_is_no_plan_is_a_workflow_error(change: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        workflow_from_plan(copy.deepcopy(PLAN | change))
    assert any(said in problem.message for problem in caught.value.problems), str(caught.value)
    assert "the plan" in str(caught.value)


def test_every_part_of_a_plan_is_bounded_and_inlined() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, list):
            for inner in node:
                walk(inner)
        elif isinstance(node, dict):
            if node.get("type") == "string":
                assert "maxLength" in node or "enum" in node
            if node.get("type") == "array":
                assert "maxItems" in node
            if node.get("type") == "object":
                assert node["additionalProperties"] is False
            for inner in node.values():
                walk(inner)

    schema = planning_schema(["kit:fetch"])
    walk(schema)
    assert "$ref" not in json.dumps(schema)


def test_llama_cpp_takes_the_planning_schema() -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    grammar = xllamacpp.json_schema_to_grammar(json.dumps(planning_schema(["kit:fetch"])))
    assert "kit:fetch" in grammar
