"""The graph's questions: order, cycles, types along the edges, the inputs of a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.orchestrator.graph import check_inputs, critical_path_levels, generations, validate
from podium.orchestrator.signatures import read_signatures
from podium.orchestrator.workflow import Workflow, WorkflowError


def flow(tasks: dict[str, Any], **rest: Any) -> Workflow:
    return Workflow.from_data({"name": "flow", "tasks": tasks, **rest})


def messages(workflow: Workflow, **options: Any) -> list[str]:
    return [str(problem) for problem in validate(workflow, **options)]


DIAMOND = flow(
    {
        "last": {"prompt": "{left} {right}"},
        "left": {"prompt": "{first}"},
        "right": {"prompt": "x", "needs": "first"},
        "first": {"prompt": "x"},
        "alone": {"prompt": "x"},
    }
)


def test_generations_and_levels() -> None:
    assert [sorted(layer) for layer in generations(DIAMOND)] == [
        ["alone", "first"],
        ["left", "right"],
        ["last"],
    ]
    assert critical_path_levels(DIAMOND) == {"last": 1, "left": 2, "right": 2, "first": 3, "alone": 1}
    assert validate(DIAMOND) == []


def test_a_cycle_has_no_order() -> None:
    knot = flow({"a": {"prompt": "{b}"}, "b": {"prompt": "{a}"}})
    with pytest.raises(WorkflowError, match="a → b → a"):
        generations(knot)
    with pytest.raises(WorkflowError, match="wait for each other"):
        critical_path_levels(knot)


def test_each_knot_is_one_problem_and_a_task_that_needs_itself_another() -> None:
    tasks = {name: {"prompt": f"{{{after}}}"} for name, after in zip("abcdef", "bcaedf", strict=True)}
    found = messages(flow(tasks))
    assert len(found) == 3
    assert sum("wait for each other" in row for row in found) == 2
    assert sum("task f needs itself" in row for row in found) == 1


def test_cycles_through_needs_map_and_when_are_found() -> None:
    tasks = {
        "a": {"map": "b", "prompt": "{item}"},
        "b": {"prompt": "x", "needs": ["c"], "output": "list[str]"},
        "c": {"when": {"field": "a", "op": "contains", "value": "x"}},
    }
    assert "a → c → b → a → break the circle: let a not need b" in "".join(messages(flow(tasks)))


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (
            {"a": {"prompt": "x"}, "b": {"prompt": "{a.title}"}},
            "a is str and has no fields → declare it as {title: str}",
        ),
        (
            {"a": {"prompt": "x", "output": "list[{t: str}]"}, "b": {"prompt": "{a.t}"}},
            "has no fields → map over a and read {item.t}",
        ),
        ({"a": {"map": "docs", "approval": "{item}?"}}, "approval cannot be mapped → remove map"),
        (
            {"a": {"map": "text", "prompt": "{item}"}},
            "maps text, which is str and no list → declare the input text as",
        ),
        ({"a": {"map": "docs", "prompt": "{item.x}"}}, "item is str and has no fields"),
        ({"a": {"prompt": "x", "needs": "docs"}}, "needs names the input docs → remove it"),
        ({"text": {"prompt": "x"}}, "text is both an input and a task → rename one"),
        (
            {"a": {"tool": "k:f", "with": {"x": {"docs": None}}}},
            "x is a mapping: YAML reads a bare {name} as one → put it",
        ),
        ({"a": {"tool": "k:f", "with": {"x": ["{dosc}"]}}}, "nothing fills {dosc}"),
        ({"a": {"prompt": "x", "system": "{x"}}, "double the braces"),
        (
            {"a": {"when": {"field": "text", "op": "in", "value": "abc"}}},
            "in needs a list → write value: [a, b]",
        ),
        ({"a": {"when": {"field": "docs", "op": "contains", "value": 3}}}, "docs is never 3: it is str"),
        ({"a": {"when": {"field": "n", "op": "contains", "value": 3}}}, "n is int and contains nothing"),
        ({"a": {"when": {"field": "n", "op": ">", "value": "3"}}}, "n is never '3': it is float"),
        ({"a": {"when": {"field": "item", "op": "==", "value": "3"}}}, "nothing fills item"),
    ],
)
def test_references_and_types(tasks: dict[str, Any], said: str) -> None:
    found = messages(flow(tasks, inputs={"text": "str", "docs": "list[str]", "n": "int"}))
    assert len(found) == 1, found
    for part in said.replace("in needs a list →", "in needs a list of values →").split(" → "):
        assert part in found[0]


def test_what_is_right_is_not_complained_about() -> None:
    tasks = {
        "graded": {"map": "docs", "prompt": "{item.text}", "output": {"grade": "int", "why": "str?"}},
        "good": {
            "map": "graded",
            "when": {"field": "item.grade", "op": ">=", "value": 7},
            "prompt": "{item.why} {tone} {extra.any.thing}",
        },
        "gate": {"when": {"field": "tone", "op": "in", "value": ["warm", "cool"]}},
        "sum": {
            "python": "kit:total",
            "with": {"all": "{good}", "n": 3, "deep": [{"a": "{graded}"}]},
            "join": "any",
        },
        "sub": {
            "workflow": {
                "name": "sub",
                "inputs": {"notes": "list[str]", "level": {"type": "float", "default": 1}},
                "tasks": {"x": {"prompt": "{notes} {level}", "output": {"title": "str"}}},
                "outputs": {"result": "x.title"},
            },
            "with": {"notes": "{good}"},
        },
        "end": {"approval": "{sub.result}?", "needs": ["gate", "sum"]},
    }
    inputs = {
        "docs": "list[{text: str}]",
        "tone": ["warm", "cool", "plain"],
        "extra": "any",
    }
    assert messages(flow(tasks, inputs=inputs, outputs={"result": "sub.result", "end": "end"})) == []


def test_inputs_of_an_embedded_workflow() -> None:
    inner = {"name": "sub", "inputs": {"notes": "list[str]"}, "tasks": {"x": {"prompt": "{notes} {oops}"}}}
    found = messages(flow({"a": {"workflow": inner, "with": {"nots": "x"}}, "b": {"prompt": "{a.y}"}}))
    assert len(found) == 4
    assert "task a.x: nothing fills {oops}" in found[0]
    assert any("has no input 'nots' → did you mean notes?" in row for row in found)
    assert any("the input notes of the workflow sub is not filled" in row for row in found)
    assert any("a has no field 'y' → its fields are: x" in row for row in found)


def test_tasks_of_embedded_workflows_count() -> None:
    inner = {"name": "sub", "tasks": {f"t{n}": {"prompt": "x"} for n in range(60)}}
    both = flow({"a": {"workflow": inner}, "b": {"workflow": inner}})
    assert "122 tasks, more than 100" in messages(both, max_tasks=100)[0]
    assert messages(both, max_tasks=122) == []


def test_an_empty_workflow_is_a_problem_wherever_it_stands() -> None:
    assert "has no tasks" in messages(Workflow("empty"))[0]
    outer = Workflow("outer")
    outer.workflow("inner", Workflow("empty"))
    outer.loop("again", Workflow("nothing"), until=("x", "==", 1))
    found = messages(outer)
    assert sum("has no tasks" in row for row in found) == 2
    assert any(row.startswith("task again: until asks for 'x'") for row in found)


def test_check_inputs_fills_defaults_and_keeps_types() -> None:
    wf = flow(
        {"a": {"map": "docs", "prompt": "{item} {n}"}},
        inputs={"docs": "list[str]", "n": {"type": "float", "default": 2}},
    )
    assert check_inputs(wf, {"docs": ["x"]}) == {"docs": ["x"], "n": 2.0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "the input docs (list[str]) is missing → give docs=…"),
        ({"docs": "x"}, "the input docs: the value should be a valid list"),
        ({"docs": ["x", 3]}, "the input docs: 1 should be a valid string"),
        ({"docs": ["x"], "dcos": 1}, "there is no input 'dcos' → did you mean docs?"),
        ({"docs": []}, "task a: map over an empty list: docs → give docs at least one element"),
    ],
)
def test_check_inputs_refuses(values: dict[str, Any], said: str) -> None:
    wf = flow({"a": {"map": "docs", "prompt": "{item}"}}, inputs={"docs": "list[str]"})
    with pytest.raises(WorkflowError) as caught:
        check_inputs(wf, values)
    assert said in str(caught.value)
    with pytest.raises(WorkflowError, match="takes no inputs"):
        check_inputs(flow({"a": {"prompt": "x"}}), {"docs": 1})


PROJECT = {
    "good.py": """
from __future__ import annotations
from dataclasses import dataclass
from typing import Any

@dataclass
class Page:
    title: str
    size: int

def fetch(url: str, depth: int = 1) -> Page: ...
def anything(**rest): ...
def odd(x: bytes, y: Any) -> bytes: ...
def slash(x, /): ...
async def wait(seconds: float) -> None: ...
class Box:
    @staticmethod
    def inside(x: str) -> list[str]: ...
NUMBER = 3
""",
    "broken.py": "raise RuntimeError('not today')",
    "leaves.py": "import sys; sys.exit(3)",
    "lacks.py": "import a_module_that_nobody_has",
    "hangs.py": "while True: pass",
    "crashes.py": "import os; os._exit(9)",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("functions")
    for name, text in PROJECT.items():
        (root / name).write_text(text)
    return root


def test_signatures_are_read_without_importing_here(project: Path) -> None:
    names = [
        "good:fetch",
        "good:anything",
        "good:odd",
        "good:slash",
        "good:wait",
        "good:Box.inside",
        "good:NUMBER",
    ]
    names += ["good:fetsh", "broken:x", "leaves:x", "lacks:x", "nowhere:x"]
    found = read_signatures(names, project)
    fetch = found["good:fetch"]
    assert [(p.name, str(p.type), p.required) for p in fetch.parameters] == [
        ("url", "str", True),
        ("depth", "int", False),
    ]
    assert str(fetch.returns) == "{title: str, size: int}"
    assert found["good:anything"].takes_any
    assert [p.type and str(p.type) for p in found["good:odd"].parameters] == [None, "any"]
    assert found["good:odd"].returns is None
    assert str(found["good:Box.inside"].returns) == "list[str]"
    assert found["good:wait"].error == ""
    said = {name: f"{s.error} → {s.mend}" for name, s in found.items() if s.error}
    assert "by position only" in said["good:slash"]
    assert "is a int and cannot be called" in said["good:NUMBER"]
    assert said["good:fetsh"] == "good has no fetsh → did you mean good:fetch?"
    assert "importing broken failed: RuntimeError: not today" in said["broken:x"]
    assert "importing leaves failed: SystemExit" in said["leaves:x"]
    assert "imports a_module_that_nobody_has" in said["lacks:x"]
    assert "there is no module nowhere" in said["nowhere:x"]
    assert not {"good", "broken", "leaves"} & set(sys.modules)


@pytest.mark.parametrize(
    ("name", "said"), [("hangs:x", "took longer than 1.5 s"), ("crashes:x", "exit code 9")]
)
def test_a_module_that_hangs_or_crashes_harms_its_own_process_only(
    project: Path, name: str, said: str
) -> None:
    found = read_signatures([name, "good:fetch"], project, timeout=1.5)
    assert said in found[name].error
    assert found[name].mend


def test_functions_are_checked_against_what_fills_them(project: Path) -> None:
    tasks = {
        "page": {"python": "good:fetch", "with": {"url": "{docs}", "depth": "two", "dept": 1}},
        "title": {"prompt": "{page.titel}"},
        "other": {
            "python": "good:fetch",
            "with": {"url": "see {docs}", "depth": "{page.size}"},
            "output": "str",
        },
        "free": {"python": "good:anything", "with": {"whatever": "{page}"}},
        "agent": {"agent": "x", "tools": ["good:fetch", "good:nothing"]},
        "text": {"tool": "good:fetch", "with": {"depth": "{docs} {docs}", "url": "x"}},
    }
    found = messages(flow(tasks, inputs={"docs": "list[str]"}), check_imports=project)
    expected = [
        "task agent: good has no nothing",
        "task page: url takes str, and {docs} is list[str]",
        "task page: depth takes int: the value should be a valid integer",
        "task page: good:fetch has no parameter 'dept' → did you mean depth?",
        "task title: {page.titel}: page has no field 'titel' → did you mean {page.title}?",
        "task other: declares output str, and good:fetch returns {title: str, size: int}",
        "task text: depth takes int, and a text around placeholders is a str",
    ]
    assert len(found) == len(expected), found
    for said in expected:
        assert any(row.startswith(said) for row in found), said


def test_ten_thousand_tasks_validate_in_time() -> None:
    tasks = {"t0": {"prompt": "begin"}}
    tasks |= {f"t{n}": {"prompt": f"{{t{n - 1}}} {{t{n // 2}}}"} for n in range(1, 10_000)}
    big = flow(tasks)
    started = time.process_time()
    assert validate(big) == []
    assert time.process_time() - started < 3  # about 0.6 s on an idle core
    assert critical_path_levels(big)["t0"] == 10_000


names = st.sampled_from(["a", "b", "c", "d", "e"])


@given(st.dictionaries(names, st.lists(names, max_size=3), min_size=1))
@settings(max_examples=150, deadline=None)
def test_order_exists_exactly_when_no_cycle_is_reported(wanted: dict[str, list[str]]) -> None:
    tasks = {
        name: {"prompt": "x " + " ".join(f"{{{src}}}" for src in needs)} for name, needs in wanted.items()
    }
    wf = flow(tasks)
    found = messages(wf)
    cyclic = any("wait for each other" in row or "needs itself" in row for row in found)
    try:
        layers = generations(wf)
    except WorkflowError:
        assert cyclic
        return
    assert not cyclic
    place = {name: index for index, layer in enumerate(layers) for name in layer}
    assert place.keys() == tasks.keys()
    assert all(place[edge.src] < place[edge.dst] for edge in wf.edges())
