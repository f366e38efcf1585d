"""The style budget: files of at most 400 lines and functions of at most 40, with a little room above."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from source_files import ROOT, project_files

#: migrations are never changed again; the referee is a copy of somebody else's file
EXEMPT = ("memory/migrations/", "tests/crash/referee/")


def _python_files() -> list[str]:
    return [name for name in project_files() if name.endswith(".py") and not name.startswith(EXEMPT)]


def _file_sizes() -> dict[str, int]:
    return {name: len((ROOT / name).read_text().splitlines()) for name in _python_files()}


def _function_sizes() -> dict[str, int]:
    return {place: size for name in _python_files() for place, size in _functions(name)}


def _functions(name: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse((ROOT / name).read_text(), name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{name}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.parametrize(("sizes", "usual", "most"), [(_file_sizes, 400, 600), (_function_sizes, 40, 80)])
def test_sizes(sizes, usual: int, most: int) -> None:
    found = sizes()
    over = sorted(((size, place) for place, size in found.items() if size > usual), reverse=True)
    assert found
    assert not [entry for entry in over if entry[0] > most], f"over {most} lines"
    assert len(over) <= 0.05 * len(found), f"more than 5 % of {len(found)} are over {usual} lines: {over}"
