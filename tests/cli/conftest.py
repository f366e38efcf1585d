"""A project and a home of their own for the tests of the command line, which run it as a person would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from warm import Warm

ROOT = Path(__file__).resolve().parents[2]
PODIUM = [sys.executable, "-m", "podium.orchestrator.cli.main"]

POOL = """\
models:
  - name: cheap
    engine: replay
    source: answers.jsonl
    price: {input: 0.1, output: 0.2}
    resources: {cpus: 0.1}
  - name: dear
    engine: replay
    source: answers.jsonl
    price: {input: 1, output: 2}
    resources: {cpus: 0.1}
"""
ANSWERS = [
    {"match": "Summarise", "text": "A short summary.", "input_tokens": 20, "output_tokens": 4},
    {"match": "title", "text": '{"title": "Tides"}', "input_tokens": 30, "output_tokens": 8},
    {"default": True, "text": "The moon.", "input_tokens": 10, "output_tokens": 3},
]
BRIEF = """\
name: brief
inputs: {docs: list[str]}
tasks:
  sums: {map: docs, prompt: "Summarise in one sentence.\\n\\n{item}"}
  brief: {prompt: "Give these notes a title:\\n{sums}", output: {title: str}}
  publish: {approval: "Publish {brief.title}?"}
  length: {python: "tools:length", with: {text: "{brief.title}"}, needs: publish}
outputs: {brief: brief, length: length}
"""
TOOLS = """\
import pathlib
import time


def length(text: str) -> int:
    return len(text)


def fail_unless(path: str) -> str:
    if not pathlib.Path(path).exists():
        raise ValueError("the file is not there")
    return "done"


def hold(started: str, go: str) -> str:
    pathlib.Path(started).touch()
    end = time.monotonic() + 30
    while not pathlib.Path(go).exists() and time.monotonic() < end:
        time.sleep(0.02)
    return "held"
"""


@dataclass(frozen=True)
class Project:
    """A folder with a pool of recorded answers and a workflow, and the program run in it."""

    folder: Path
    env: dict[str, str]

    def podium(self, *arguments: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the program without a terminal; its exit code has to be `code`."""
        done = subprocess.run(
            [*PODIUM, *arguments],
            cwd=self.folder,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert code is None or done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, verb: str, code: int = 0, **env: str) -> Any:
        """Run a verb with --json; its output has to be of the published schema."""
        done = self.podium(*arguments, "--json", code=code, **env)
        found = json.loads(done.stdout)
        self.validate(verb, found)
        return found

    def validate(self, verb: str, record: Any) -> None:
        """Check a record against what the published schema says of a verb."""
        schema = json.loads((ROOT / "docs" / "cli.schema.json").read_text())
        Draft202012Validator({**schema["verbs"][verb], "$defs": schema["$defs"]}).validate(record)

    def warmly(self, warm: Warm) -> WarmProject:
        return WarmProject(self.folder, self.env, warm)

    @property
    def program(self) -> list[str]:
        return PODIUM

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@dataclass(frozen=True)
class WarmProject(Project):
    """The same, with the program forked from a process that has imported it: a second less for each call."""

    warm: Warm

    def podium(self, *arguments: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = self.warm.run(arguments, self.folder, self.env | env)
        assert code is None or done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    made = Warm()
    yield made
    made.close()


@pytest.fixture
def cold(tmp_path: Path) -> Project:
    """The project with a new interpreter for each call: what a person starts, lazy imports and all."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PODIUM_")}
    made = Project(tmp_path, inherited | {"PODIUM_HOME": str(tmp_path / "home")})
    made.write("pool.yaml", POOL)
    made.write("answers.jsonl", "".join(f"{json.dumps(row)}\n" for row in ANSWERS))
    made.write("brief.yaml", BRIEF)
    made.write("tools.py", TOOLS)
    made.write("papers/b.txt", "The moon pulls the water.")
    made.write("papers/a.txt", "The sea rises twice a day.")
    return made


@pytest.fixture
def project(cold: Project, warm: Warm, sqlite_template: Path) -> Project:
    """The project, in the same folder, for the calls after a verb's first; its database has a schema."""
    home = cold.folder / "home"
    home.mkdir()
    shutil.copy(sqlite_template, home / "podium.db")
    return cold.warmly(warm)
