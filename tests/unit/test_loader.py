"""YAML files: every malformed one gives an error that names the task, the line and the mend."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.orchestrator.loader import load_text, load_workflow
from podium.orchestrator.problems import MAX_SHOWN
from podium.orchestrator.workflow import Workflow, WorkflowError, WorkflowTask
from podium.orchestrator.yaml_text import parse_yaml

MALFORMED = Path(__file__).parent.parent / "data" / "malformed"

#: file, task, line, words of the message, words of the mend
CASES: list[tuple[str, str | None, int | None, str, str]] = [
    ("cycle", "outline", 3, "outline → draft → review → outline", "let outline not need review"),
    ("itself", "draft", 4, "needs itself", "remove {draft}"),
    ("dangling_name", "brief", 6, "nothing fills {sumaries}", "did you mean {summaries}?"),
    ("dangling_field", "publish", 5, "brief has no field 'titel'", "did you mean {brief.title}?"),
    (
        "map_over_text",
        "answers",
        5,
        "maps questions, which is str",
        "declare output: list[str] for questions",
    ),
    (
        "subworkflow_input",
        "digest",
        11,
        "docs takes list[str], and {title} is str",
        "make the output of title",
    ),
    ("when_on_text", "praise", 5, "> compares numbers only", "use == or !="),
    ("when_never", "page", 5, "is never 'hihg': it is [low, high] ", "did you mean high?"),
    ("unknown_kind", "brief", 4, "unknown kind of task 'promt'", "did you mean prompt?"),
    ("unknown_key", "brief", 5, "has no key 'max_token'", "did you mean max_tokens?"),
    ("two_kinds", "brief", 5, "has 2: prompt, python", "two tasks"),
    ("duplicate_task", "brief", 5, "duplicate task 'brief', first on line 3", "another name"),
    ("unknown_tool", "page", 3, "kit has no fetch_pge", "did you mean kit:fetch_page?"),
    ("unknown_tool", "answer", 8, "there is no module kitt", "did you mean kit:count?"),
    ("parameter_type", "counted", 8, "times takes int, and {text} is str", "make the output of text int"),
    ("parameter_missing", "counted", 5, "has no parameter 'txt'", "did you mean text?"),
    ("parameter_missing", "counted", 3, "parameter text of kit:repeat is not filled", "add it under with:"),
    ("empty_map", "summaries", 5, "a map over an empty list", "leave the default of docs out"),
    ("map_of_nothing", "summaries", 4, "map names no list", "name an input or a task"),
    ("unfilled", "brief", 4, "nothing fills {item}", "add map:"),
    ("json_braces", "brief", 4, "is no placeholder", "double the braces"),
    ("bare_braces", "brief", 4, "prompt is a mapping", 'prompt: "{docs}"'),
    ("bad_name", "write-brief", 3, "'write-brief' is no name", "write write_brief"),
    ("bad_type", "brief", 5, "'strin' is no type", "did you mean str?"),
    ("context_cache", "brief", 4, "rest on what is remembered", "leave out cache"),
    ("memory_cache", "find", 3, "cannot be cached", "leave out cache"),
    ("context_key", "brief", 6, "context has no key 'token'", "did you mean tokens?"),
    ("context_small", "brief", 6, "greater than or equal to 16", "16"),
    ("wrong_value", "brief", 5, "retry.attempts should be a valid integer", "whole number"),
    ("loop_text", "polish", 4, "loop is 'until it is good', and it is a mapping", "write loop: {workflow"),
    ("loop_key", "polish", 13, "loop has no key 'untill'", "did you mean until?"),
    ("loop_until_key", "polish", 13, "until has no key 'operator'", "use one of: field, op, value"),
    ("loop_without_until", "polish", 4, "loop.until is missing", "add until: under loop:"),
    ("loop_until_nothing", "polish", 13, "until asks for 'don', which is no output", "did you mean done?"),
    ("loop_until_field", "polish", 13, "draft.done: draft is str and has no fields", "or write draft"),
    ("loop_until_never", "polish", 13, "done is never 'yes': it is bool", "a value of type bool"),
    ("loop_max", "polish", 14, "loop.max should be less than or equal to 1000", "change loop.max"),
    ("loop_on_max", "polish", 14, "loop.on_max is 'ignore'", "use one of: accept, fail"),
    (
        "loop_types",
        "polish",
        12,
        "the output draft is bool, and the next iteration's",
        "draft str, or rename",
    ),
    ("loop_input", "polish", 3, "the input draft of the workflow round is not filled", "under with:"),
    ("loop_dangling", "polish.better", 10, "nothing fills {drafts}", "did you mean {draft}?"),
    ("loop_cycle", "polish.first", 9, "first → better → first", "let first not need better"),
    ("loop_mapped", "polish", 5, "a task of kind loop cannot be mapped", "put it into a workflow"),
    ("plan_text", "brief", 5, "plan is 'Find out what", 'write plan: {goal: "…"}'),
    ("plan_key", "brief", 5, "plan has no key 'max_task'", "did you mean max_tasks?"),
    ("plan_dangling", "brief", 5, "nothing fills {dosc}", "did you mean {docs}?"),
    ("plan_tools", "brief", 7, "plan.tools.1.ref is 'fetch', no importable name", "module:function"),
    ("plan_unknown_tool", "brief", 7, "kit has no fetch_pge", "did you mean kit:fetch_page?"),
    ("plan_replans", "brief", 7, "plan.replans should be less than or equal to 5", "change plan.replans"),
    ("plan_inputs", "brief", 6, "a planned workflow has its goal as the input goal", "another name"),
    ("budget_of_nothing", "brief", 6, "budget: it limits nothing", "give usd, tokens or seconds"),
    ("budget_money", "brief", 6, "budget: 'much' is no amount of money", "give US dollars"),
    ("budget_tokens", "brief", 6, "budget.tokens should be a valid integer", "whole number"),
    ("budget_key", "brief", 6, "budget has no key 'dollars'", "use one of: usd, tokens, seconds"),
    ("cache_word", "brief", 6, "cache: 'yes' says nothing of a cache", "write cache: true"),
    ("cache_ttl", "brief", 6, "cache.ttl should be greater than 0", "change cache.ttl"),
    ("cache_tool", "brief", 6, "a task of kind tool cannot be cached", "remove cache"),
    ("priority", "brief", 6, "priority should be less than or equal to 100", "change priority"),
    ("on_failure", "brief", 6, "on_failure is 'colect'", "did you mean collect?"),
    ("retry_jitter", "brief", 6, "retry.jitter should be less than or equal to 1", "change retry.jitter"),
    ("retry_key", "brief", 6, "retry has no key 'atempts'", "did you mean attempts?"),
    ("expires_zero", "brief", 6, "expires should be greater than 0", "change expires"),
    ("expires_elsewhere", "brief", 6, "an llm task has no key 'expires'", "is for approval tasks"),
    ("compensate_map", "brief", 7, "a map cannot be compensated", "on the tasks of a workflow in it"),
    ("compensate_unknown", "brief", 6, "kit has no repeet", "did you mean kit:repeat?"),
    ("compensate_type", "brief", 8, "times takes int, and {brief} is str", "or change times"),
    ("compensate_early", "brief", 8, "{title} may not be there yet", "read {brief} or an input"),
    ("no_tasks", None, 2, "no tasks", "at least one task"),
    ("needs_nobody", "report", 5, "needs 'cleen'", "did you mean clean?"),
    ("output_of_nothing", None, 5, "nothing fills breif", "did you mean brief?"),
    ("syntax", None, 3, "is not closed", "close the bracket"),
    ("unquoted", None, 4, "mapping values are not allowed here", "in quotes"),
    ("embeds_itself", "again", 4, "embeds itself", "break the circle"),
    (
        "embeds_broken",
        "checked.publish",
        5,
        "dangling_field.yaml: {brief.titel}",
        "did you mean {brief.title}?",
    ),
    ("embeds_missing", "checked", 4, "there is no file", "did you mean dangling_field.yaml?"),
]

#: files whose mistake is found by importing functions only
IMPORTING = (
    "unknown_tool", "parameter_type", "parameter_missing", "plan_unknown_tool", "compensate_unknown",
    "compensate_type",
)  # fmt: skip

KIT = """
print("what a module prints at import is no answer")

def fetch_page(url: str) -> str:
    return url

def count(words: list[str]) -> int:
    return len(words)

def repeat(text: str, times: int) -> str:
    return text * times
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "kit.py").write_text(KIT)
    return folder


@pytest.mark.parametrize(("file", "task", "line", "said", "mend"), CASES)
def test_malformed(file: str, task: str | None, line: int | None, said: str, mend: str, root: Path) -> None:
    imports = root if file in IMPORTING else None
    with pytest.raises(WorkflowError) as caught:
        load_workflow(MALFORMED / f"{file}.yaml", check_imports=imports)
    error = caught.value
    assert error.exit_code == 2
    shown = [row for row in str(error).splitlines() if said in f"{row} "]
    assert shown, str(error)
    where = ", ".join([f"line {line}", *([f"task {task}"] if task else [])])
    assert shown[0].strip().startswith(f"{where}: ")
    assert mend in shown[0].partition(" → ")[2] or mend in shown[0]
    assert f"{file}.yaml" in str(error)


def test_every_malformed_file_is_tested_and_has_no_other_problems(root: Path) -> None:
    expected = {name: sum(case[0] == name for case in CASES) for name, *_ in CASES}
    assert {path.stem for path in MALFORMED.glob("*.yaml")} == set(expected)
    for name, count in expected.items():
        with pytest.raises(WorkflowError) as caught:
            load_workflow(MALFORMED / f"{name}.yaml", check_imports=root)
        assert len(caught.value.problems) == count, str(caught.value)


def test_types_need_no_quotes_inside_braces() -> None:
    text = (
        "a: {b: list[str], c: dict[str, int], d: str?, e: list[{x: int, y: list[str]}], f: [list[str]?, [z]]}"
    )
    data, _, problems = parse_yaml(text)
    assert problems == []
    assert data == {
        "a": {
            "b": "list[str]",
            "c": "dict[str, int]",
            "d": "str?",
            "e": "list[{x: int, y: list[str]}]",
            "f": ["list[str]?", ["z"]],
        }
    }


def test_scalars_are_those_of_yaml_1_2() -> None:
    data, _, _ = parse_yaml(
        "[yes, no, on, true, False, null, ~, 010, 1.5, 1e3, 2024-01-01, 1:30, '1', 0x1f, =]"
    )
    assert data == [
        "yes",
        "no",
        "on",
        True,
        False,
        None,
        None,
        10,
        1.5,
        1000.0,
        "2024-01-01",
        "1:30",
        "1",
        "0x1f",
        "=",
    ]


def test_lines_of_values() -> None:
    _, lines, _ = parse_yaml(
        "name: x\ntasks:\n  a:\n    prompt: |\n      one\n      two\n    needs:\n      - b\n"
    )
    assert lines.at(("tasks", "a")) == 3
    assert lines.at(("tasks", "a", "prompt")) == 4
    assert lines.at(("tasks", "a", "needs", 0)) == 8
    assert lines.at(("tasks", "a", "unheard", "of")) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system ['true']", "read as a YAML tag"),
        ("when: {op: !=, value: 1}", "!= is read as a YAML tag"),
        ("when: {op: >, value: 1}", "cannot start any token"),
        ("a: &x [*x]", "names nothing before it"),
        ("[" * 5000, "nested deeper"),
        ("a: 1\n---\nb: 2", "a second document"),
        ("a: \x00", "no text may hold"),
        ("\ta: 1", "cannot start any token"),
        ("? [a]\n: b", "a key is a list"),
        ("a: {b: 1", "never closed"),
        ("a: 1\na: 2", "duplicate key 'a', first on line 1"),
    ],
)
def test_hostile_or_broken_yaml_is_one_problem(text: str, said: str) -> None:
    _, _, problems = parse_yaml(text)
    assert len(problems) == 1
    assert said in problems[0].message
    assert problems[0].mend
    assert problems[0].line is not None


def test_an_alias_bomb_is_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    _, _, problems = parse_yaml("\n".join(rows))
    assert "more than" in problems[0].message


def test_aliases_are_plain_copies() -> None:
    data, _, problems = parse_yaml("a: &x {b: [1, 2]}\nc: *x\nd: &y text\ne: *y")
    assert problems == []
    assert data == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": "text", "e": "text"}


def test_a_workflow_in_another_file_is_embedded(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    inner = "name: digest\ninputs: {docs: list[str]}\ntasks:\n  each: {map: docs, prompt: 'Digest {item}'}\n"
    (tmp_path / "parts" / "digest.yaml").write_text(inner)
    (tmp_path / "outer.yaml").write_text(
        "name: outer\ninputs: {papers: list[str]}\ntasks:\n"
        "  one: {workflow: parts/digest.yaml, with: {docs: '{papers}'}}\n"
        "  two: {workflow: parts/digest.yaml, with: {docs: '{one.each}'}}\n"
    )
    flow = load_workflow(tmp_path / "outer.yaml")
    embedded = load_workflow(tmp_path / "parts" / "digest.yaml")
    for task in flow.tasks.values():
        assert isinstance(task, WorkflowTask)
        assert task.workflow == embedded
    assert Workflow.from_data(flow.to_data()) == flow


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "brief.yaml").write_text("name: x")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    for name, said, mend in (
        ("breif.yaml", "there is no file", "did you mean brief.yaml?"),
        ("latin.yaml", "not UTF-8", ""),
        (".", "cannot be read", ""),
    ):
        with pytest.raises(WorkflowError, match=said) as caught:
            load_workflow(tmp_path / name)
        assert mend in caught.value.mend


def test_form_and_duplicates_are_reported_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = ["a: {promt: x}", "b: {prompt: x}", "b: {prompt: y}", "c: {prompt: z}", "d-e: {prompt: x}"]
    text = "name: x\ntasks:\n" + "".join(f"  {row}\n" for row in rows)
    with pytest.raises(WorkflowError) as caught:
        load_text(text, tmp_path)
    assert [problem.line for problem in caught.value.problems] == [3, 5, 7]


def test_many_problems_are_counted_not_all_shown(tmp_path: Path) -> None:
    tasks = "".join(f"  t{n}: {{prompt: '{{x{n}}}'}}\n" for n in range(50))
    with pytest.raises(WorkflowError) as caught:
        load_text(f"name: x\ntasks:\n{tasks}", tmp_path)
    assert len(caught.value.problems) == 50
    assert f"… and {50 - MAX_SHOWN} more" in str(caught.value)


def test_ten_thousand_tasks_load_in_time_and_one_more_is_refused(tmp_path: Path) -> None:
    def text(count: int) -> str:
        rows = (f'  t{n}: {{prompt: "go on from {{t{n - 1}}}"}}\n' for n in range(1, count))
        return "name: long\ninputs: {docs: 'list[str]'}\ntasks:\n  t0: {prompt: begin}\n" + "".join(rows)

    started = time.process_time()
    assert len(load_text(text(10_000), tmp_path).tasks) == 10_000
    assert time.process_time() - started < 4  # about 1 s on an idle core
    with pytest.raises(WorkflowError, match="10,001 tasks, more than 10,000") as caught:
        load_text(text(10_001), tmp_path)
    assert caught.value.problems[0].line == 3
    assert "use map" in caught.value.mend


@given(st.text(alphabet="abc:-{}[]'\"|>&*!?#%@,\n\t 0.~", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_data_or_problems_with_lines(text: str) -> None:
    _, _, problems = parse_yaml(text)
    assert all(problem.line is not None and problem.mend for problem in problems)
