"""The wheel: what is in it, its types, its directions of import, and how little its command line loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from source_files import ROOT, wheel_files

HEAVY = {"ray", "torch", "transformers", "networkx", "xllamacpp", "openai", "wordllama"}


def test_holds_every_file_of_the_five_folders_and_nothing_else(installed_wheel) -> None:
    missing = sorted(wheel_files() - installed_wheel.files)
    strange = sorted(installed_wheel.files - wheel_files())
    assert not missing, f"add them to packages or package-data in pyproject.toml: {missing}"
    assert not strange, f"in the wheel, but not among the project's files: {strange}"


@pytest.mark.timeout(600)
def test_types(installed_wheel) -> None:
    target = installed_wheel.target
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    (target / "pyrightconfig.json").write_text(json.dumps({**settings, "include": ["podium"]}))
    done = _python("-m", "pyright", "--outputjson", "--pythonpath", sys.executable, at=target)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == sum(name.endswith(".py") for name in installed_wheel.files)
    findings = [_finding(entry, target) for entry in report["generalDiagnostics"]]
    assert not findings, "\n".join(findings)


def _finding(entry: dict, target: Path) -> str:
    line = entry["range"]["start"]["line"] + 1 if "range" in entry else 0
    return f"{Path(entry['file']).relative_to(target)}:{line} {entry['severity']}: {entry['message']}"


def test_rooms_import_in_one_direction(installed_wheel) -> None:
    start = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    config = str(ROOT / "pyproject.toml")
    done = _python("-c", start, "--config", config, "--no-cache", at=installed_wheel.target)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["--help", "runs"])
def test_command_line_loads_nothing_heavy(installed_wheel, tmp_path: Path, verb: str) -> None:
    start = "import sys; from podium.orchestrator.cli.main import main; sys.exit(main())"
    target = installed_wheel.target
    done = _python("-X", "importtime", "-c", start, verb, at=target, PODIUM_HOME=str(tmp_path / "home"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert done.returncode == 0, [line for line in done.stderr.splitlines() if line not in lines]
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    refused = HEAVY if verb == "runs" else HEAVY | {"sqlalchemy", "alembic", "numpy"}
    assert "podium" in loaded
    assert not loaded & refused


def test_the_installed_wheel_is_what_is_checked(installed_wheel) -> None:
    done = _python("-c", "import podium.memory.errors as e; print(e.__file__)", at=installed_wheel.target)
    assert Path(done.stdout.strip()).is_relative_to(installed_wheel.target)


def _python(*arguments: str, at: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python beside the installed wheel, in a folder from which the checkout cannot be imported."""
    environment = {**os.environ, "PYTHONPATH": str(at), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", **variables}
    return subprocess.run(
        [sys.executable, *arguments], cwd=at, env=environment, capture_output=True, text=True, timeout=580
    )
