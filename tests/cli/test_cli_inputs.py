"""`-i name=value`: text, JSON and files, by the declared type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from podium.memory.errors import UsageError
from podium.orchestrator.cli.inputs import parse_inputs, types_of
from podium.orchestrator.workflow import Workflow


def workflow(kind: Any) -> Workflow:
    return Workflow.from_data({"name": "w", "inputs": {"x": kind}, "tasks": {"t": {"prompt": "{x}"}}})


def value(text: str, kind: Any) -> Any:
    return parse_inputs([f"x={text}"], workflow(kind))["x"]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("42", "str", "42"),
        ("a=b", "str", "a=b"),
        ("", "str", ""),
        ("42", "int", 42),
        ("4", "float", 4),
        ("true", "bool", True),
        ("low", ["low", "high"], "low"),
        ('["a", "b"]', "list[str]", ["a", "b"]),
        ('{"a": 1}', {"a": "int"}, {"a": 1}),
        ("null", "int?", None),
        ("3", "int?", 3),
        ("plain", "any", "plain"),
        ("[1]", "any", [1]),
        ("@@home", "str", "@home"),
        ("@", "str", "@"),
    ],
)
def test_values_by_type(text: str, kind: Any, expected: Any) -> None:
    assert value(text, kind) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [("x", "int"), ("1.5", "int"), ("a,b", "list[str]"), ("mid", ["low", "high"]), ("{", {"a": "int"})],
)
def test_values_of_another_type_name_the_input_and_the_type(text: str, kind: Any) -> None:
    with pytest.raises(UsageError, match="-i x") as caught:
        value(text, kind)
    assert "give x as" in caught.value.mend


def test_unknown_input_has_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        parse_inputs(["docz=1"], Workflow("w", inputs={"docs": "str"}))
    assert caught.value.mend == "did you mean docs?"
    with pytest.raises(UsageError, match="has no name"):
        parse_inputs(["docs"], None)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha\n")
    (tmp_path / "n.json").write_text("[1, 2]")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    assert value(f"@{tmp_path}/a.txt", "str") == "alpha\n"
    assert value(f"@{tmp_path}/a.txt", "list[str]") == ["alpha\n"]
    assert value(f"@{tmp_path}/n.json", "list[int]") == [1, 2]
    assert value(f"@{tmp_path}/n.json", "str") == "[1, 2]"
    assert value(f"@{tmp_path}/rows.jsonl", [{"a": "int"}]) == [{"a": 1}, {"a": 2}]
    with pytest.raises(UsageError, match="there is no file"):
        value(f"@{tmp_path}/none.txt", "str")
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{')
    with pytest.raises(UsageError, match="is not the JSON"):
        value(f"@{tmp_path}/bad.jsonl", [{"a": "int"}])


def test_folder_is_read_in_the_order_of_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b.txt", "a.md", ".hidden"):
        (tmp_path / name).write_text(name)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "sub").mkdir()
    assert value(f"@{tmp_path}", "list[str]") == ["a.md", "b.txt"]
    assert value(f"@{tmp_path}/", "dict[str, str]") == {"a.md": "a.md", "b.txt": "b.txt"}
    assert "image.png" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no text files"):
        value(f"@{tmp_path}/sub", "list[str]")


def test_an_input_given_again_is_the_next_element(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    pairs = ["x=one", f"x=@{tmp_path}/a.txt"]
    assert parse_inputs(pairs, workflow("list[str]")) == {"x": ["one", "alpha"]}
    with pytest.raises(UsageError, match="given 2 times"):
        parse_inputs(pairs, workflow("str"))


def test_csv_cells_take_the_type_of_their_column(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("n,ok,note\n1,true,\n2,FALSE,x\n")
    kind = [{"n": "int", "ok": "bool", "note": "str?"}]
    rows = [{"n": 1, "ok": True, "note": None}, {"n": 2, "ok": False, "note": "x"}]
    assert value(f"@{tmp_path}/r.csv", kind) == rows
    (tmp_path / "bad.csv").write_text("n\n1,2\n")
    with pytest.raises(UsageError, match="more cells"):
        value(f"@{tmp_path}/bad.csv", [{"n": "int"}])


def test_types_of_values_for_a_plan() -> None:
    values = {"a": "x", "b": ["x", "y"], "c": [1, "x"], "d": {"k": 1}, "e": True, "f": []}
    expected = {"a": "str", "b": "list[str]", "c": "list[any]", "d": "object", "e": "bool", "f": "list[any]"}
    assert types_of(values) == expected
    assert json.dumps(parse_inputs(["a=1", "b=x"], None)) == '{"a": 1, "b": "x"}'
