"""What an install brings: the base has no torch, and constraints.txt names every package of every extra."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from source_files import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: they come with CUDA builds of torch only
CUDA = ("nvidia-", "cuda-", "triton")


def _closure(requirements: list[str]) -> set[str]:
    """Canonical names of everything that these requirements bring on this machine."""
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(line), "") for line in requirements]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras}:
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            todo += [(Requirement(line), wanted) for line in _requires(name)]
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    if name == PROJECT["name"]:
        extras = PROJECT["optional-dependencies"]
        return PROJECT["dependencies"] + [f'{r}; extra == "{e}"' for e, rs in extras.items() for r in rs]
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        pytest.fail(f"{name} is required but not installed: run make setup", pytrace=False)


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_base_has_no_torch() -> None:
    base = _closure(["podium"])
    assert {"ray", "sqlalchemy", "xllamacpp", "typer"} <= base
    assert not base & {"torch", "transformers", "accelerate", "scipy", "highspy", "fastapi", "litellm"}


def test_every_package_is_pinned_and_nothing_else() -> None:
    ours = {name for name in _closure(["podium[dev]"]) if not name.startswith(CUDA)} - {"podium"}
    assert sorted(ours - _pins().keys()) == [], "not in constraints.txt"
    assert sorted(_pins().keys() - ours) == [], "in constraints.txt, but nothing needs it"


def test_installed_versions_are_the_pinned_ones() -> None:
    pins = _pins()
    found = {name: Version(distribution(name).version).public for name in pins}
    assert found == pins
