"""`-i name=value`: inputs of a run from the command line, by the type that the workflow declares.

-i title=Tides               text, where the type is str
-i limit=3  -i tags='["a"]'  JSON, where it is not
-i text=@notes.txt           the text of a file; `@-` reads stdin
-i docs=@papers/             every text file of a folder, sorted by name: list[str]
-i rows=@rows.csv            a list of objects (.csv, .jsonl), any JSON (.json)
-i docs=@a.txt -i docs=@b.txt  the elements of a list, one by one
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...memory.errors import UsageError

if TYPE_CHECKING:
    from ...agents.outputs import OutputType
    from ..workflow import Workflow

#: bytes that one input file may have
MAX_BYTES = 64 * 1024 * 1024


def parse_inputs(pairs: Sequence[str], workflow: Workflow | None) -> dict[str, Any]:
    """The values in `pairs` ("name=value"). Without a workflow a value is JSON if it can be, else text.

    Raises:
        UsageError: no name, a name that the workflow does not have (with the nearest), a file that cannot be
            read, or a value that is not of the declared type.
    """
    from ...agents.outputs import OutputType

    given: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"-i {pair!r} has no name", mend="write -i name=value, or -i name=@file")
        given.setdefault(name.strip(), []).append(text)
    found: dict[str, Any] = {}
    for name, texts in given.items():
        kind = OutputType("any")
        if workflow is not None:
            kind = _declared(name, workflow)
        try:
            found[name] = _value(texts[0], kind) if len(texts) == 1 else _elements(name, texts, kind)
        except ValueError as error:
            raise UsageError(f"-i {name}: {error}", mend=f"give {name} as {kind}{_example(kind)}") from error
    return found


def types_of(values: Mapping[str, Any]) -> dict[str, str]:
    """name → a type for each value, for a plan that is to take them."""
    return {name: _type_of(value) for name, value in values.items()}


def _type_of(value: Any) -> str:
    simple = {str: "str", bool: "bool", int: "int", float: "float", dict: "object"}
    if isinstance(value, list):
        kinds = {_type_of(element) for element in value}
        return f"list[{kinds.pop()}]" if len(kinds) == 1 else "list[any]"
    return simple.get(type(value), "any")


def _declared(name: str, workflow: Workflow) -> OutputType:
    from ..problems import did_you_mean

    if name not in workflow.inputs:
        mend = did_you_mean(name, workflow.inputs, "" if workflow.inputs else "the workflow takes no inputs")
        raise UsageError(f"there is no input {name!r}", mend=mend)
    return workflow.inputs[name].type


def _elements(name: str, texts: Sequence[str], kind: OutputType) -> list[Any]:
    element = kind.item()
    if element is None:
        raise ValueError(f"it is given {len(texts)} times, but it is no list")
    found: list[Any] = []
    for text in texts:
        is_folder = text.startswith("@") and Path(text[1:]).expanduser().is_dir()
        value = _value(text, kind if is_folder else element)
        found += value if is_folder else [value]
    return found


def _value(text: str, kind: OutputType) -> Any:
    """The value written as `text`.

    Raises:
        ValueError: it is not of the type.
    """
    if kind.kind == "optional" and kind.inner is not None:
        return None if text == "null" else _value(text, kind.inner)
    if text.startswith("@@"):
        return _plain(text[1:], kind)
    return _file(text[1:], kind) if text.startswith("@") and len(text) > 1 else _plain(text, kind)


def _plain(text: str, kind: OutputType) -> Any:
    if kind.kind in ("str", "enum"):
        return kind.validate(text)
    try:
        value = json.loads(text)
    except ValueError:
        if kind.kind == "any":
            return text
        shown = text if len(text) <= 60 else f"{text[:57]}…"
        raise ValueError(f"{shown!r} is no {kind}") from None
    return kind.validate(value)


def _file(name: str, kind: OutputType) -> Any:
    path = Path(name).expanduser()
    if name != "-" and path.is_dir():
        return _folder(path, kind)
    text = sys.stdin.read() if name == "-" else _read(path)
    if kind.kind == "str":
        return text
    if path.suffix == ".jsonl" and kind.item() is not None:
        return kind.validate([_json(line, path) for line in text.splitlines() if line.strip()])
    if path.suffix == ".csv" and kind.item() is not None:
        return kind.validate([_typed(row, kind) for row in csv.DictReader(io.StringIO(text))])
    if path.suffix == ".json":
        return kind.validate(_json(text, path))
    if kind.kind == "list" and kind.inner is not None and kind.inner.kind == "str":
        return [text]
    return _plain(text.strip() if kind.kind == "enum" else text, kind)


def _folder(path: Path, kind: OutputType) -> Any:
    texts: dict[str, str] = {}
    for file in sorted(path.iterdir(), key=lambda found: found.name):
        if file.is_file() and not file.name.startswith("."):
            try:
                texts[file.name] = _read(file)
            except UnicodeDecodeError:
                print(f"{file} is not UTF-8 text: left out", file=sys.stderr)
    if not texts:
        raise ValueError(f"there are no text files in {path}")
    return kind.validate(texts if kind.kind in ("dict", "object") else list(texts.values()))


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} is larger than {MAX_BYTES // 2**20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = (
            f"there is no file {path}"
            if isinstance(error, FileNotFoundError)
            else f"{path}: {error.strerror}"
        )
        raise ValueError(f"{why} (write @@ for a text that begins with @)") from error


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not the JSON it should be: {error}") from error


def _typed(row: Mapping[str, Any], kind: OutputType) -> dict[str, Any]:
    """A row of a CSV file, whose cells are all text, with the numbers and booleans of the declared record."""
    element = kind.item()
    fields = dict(element.fields) if element is not None else {}
    made: dict[str, Any] = {}
    for name, cell in row.items():
        if name is None:
            raise ValueError(f"a row has more cells than the header: {cell}")
        field = fields.get(name)
        if field is not None and field.kind == "optional" and cell == "":
            made[name] = None
            continue
        plain = field.inner if field is not None and field.kind == "optional" else field
        if plain is not None and plain.kind in ("int", "float", "bool"):
            made[name] = _plain(str(cell).strip().lower(), plain)
        else:
            made[name] = "" if cell is None else cell
    return made


def _example(kind: OutputType) -> str:
    examples = {"list": """, e.g. '["a", "b"]' or @file.jsonl""", "record": ", as JSON or @file.json"}
    return examples.get(kind.kind, "")
