"""What README and docs/ show works as written: snippets run, commands parse, links lead somewhere.

A fence whose first line is a comment with a file's name (`# brief.yaml`) is that file for the snippets of its
page. Models are a replay pool here; tests/integration/test_examples.py has the real one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from podium.orchestrator.cli.main import execute
from podium.orchestrator.loader import load_text
from podium.workers.poolfile import parse_pool

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^(?:\$ )?(podium .+)$", re.MULTILINE)
INLINE = re.compile(r"`((?:podium|python) [^`]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
PLACE = re.compile(r"`((?:\w+/)+\w+\.(?:py|yaml))(?::(\w+))?`")
NAMED = re.compile(r"# ([\w-]+\.\w+)\n")

#: what the replay model answers: by a part of the last message, else `default`
ANSWERS = [
    {"match": "{title: str, points", "text": '{"title": "Stars", "points": ["The sun is one."]}'},
    {"match": "{mood:", "text": '{"mood": "good", "reason": "all is well"}'},
    {"default": True, "text": "The sun is a star."},
]


@dataclass(frozen=True)
class Snippet:
    page: Path
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}-{self.language}-{self.number}"

    @property
    def file(self) -> str | None:
        named = NAMED.match(self.text)
        return named[1] if named else None


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        for number, (language, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")), 1):
            if language in languages:
                found.append(Snippet(page, number, language, text))
    return found


def is_pool(snippet: Snippet) -> bool:
    return re.search(r"^models:", snippet.text, re.MULTILINE) is not None


def commands() -> Iterator[str]:
    """Every command line of the CLI, in sh fences, in printed sessions, and between back-ticks."""
    for snippet in snippets("sh", "text"):
        yield from COMMAND.findall(snippet.text)
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        yield from (found for found in INLINE.findall(prose) if found.startswith("podium "))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a replay pool and a home of its own, as the working directory."""
    rows = [row | {"input_tokens": 9, "output_tokens": 6} for row in ANSWERS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = {
        "name": "recorded",
        "engine": "replay",
        "source": "rows.jsonl",
        "price": {"input": 1, "output": 2},
    }
    (tmp_path / "replay.yaml").write_text(yaml.safe_dump({"models": [model]}), encoding="utf-8")
    monkeypatch.setenv("PODIUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PODIUM_POOL", str(tmp_path / "replay.yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(page: Path, folder: Path) -> None:
    for snippet in snippets("python", "yaml"):
        if snippet.page == page and snippet.file:
            (folder / snippet.file).write_text(snippet.text, encoding="utf-8")


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_python_runs(snippet: Snippet, folder: Path) -> None:
    write_files(snippet.page, folder)
    script = folder / "snippet.py"
    script.write_text(snippet.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("snippet", [s for s in snippets("yaml") if not is_pool(s)], ids=str)
def test_workflows_are_valid(snippet: Snippet, folder: Path) -> None:
    write_files(snippet.page, folder)
    assert load_text(snippet.text, folder, check_imports=folder).tasks


@pytest.mark.parametrize("snippet", [s for s in snippets("yaml") if is_pool(s)], ids=str)
def test_pool_files_are_valid(snippet: Snippet, tmp_path: Path) -> None:
    assert parse_pool(snippet.text, tmp_path / "pool.yaml").models


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_parse(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The verb is there, and so is every option, by the verb's own help."""
    words = shlex.split(line.replace("…", "").replace("[", "").replace("]", ""), comments=True)[1:]
    groups = ("models", "runs", "db", "memory", "router")
    verb = [words[0], *(w for w in words[1:2] if words[0] in groups and w.isalpha() and w != "VERB")]
    if words[0].startswith("-") or words[0] == "VERB":
        verb = []
    assert execute([*verb, "--help"]) == 0, line
    text = capfd.readouterr().out
    options = [w for w in words if re.fullmatch(r"--?[a-z][\w-]*", w) and w != "--help"]
    for option in options:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{line}: no {option}"


def test_the_quick_start_runs_on_the_command_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """README's session: dry run, run until it asks, approve, show."""
    write_files(ROOT / "README.md", folder)
    (folder / "papers").mkdir()
    (folder / "papers" / "a.txt").write_text("The sun is a star.", encoding="utf-8")
    lines = [s.text for s in snippets("sh") if s.page.name == "README.md" and "approve last" in s.text]
    codes = []
    for line in COMMAND.findall(lines[0]):
        done = subprocess.run(
            [sys.executable, "-m", "podium.orchestrator.cli.main", *shlex.split(line, comments=True)[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"NO_COLOR": "1"},
        )
        codes.append((done.returncode, done.stderr))
    assert [code for code, _ in codes] == [0, 7, 0, 0], codes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_scripts_that_are_named_exist() -> None:
    for page in PAGES:
        for command in INLINE.findall(page.read_text(encoding="utf-8")):
            if command.startswith("python examples/"):
                assert (ROOT / shlex.split(command)[1]).is_file(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_is_named_exists(page: Path) -> None:
    """`folder/file.py:name` names a file of the repository and something that it defines."""
    for file, name in PLACE.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), file
        if name:
            defined = rf"^(?:class |def |async def )?{name}\b"
            assert re.search(defined, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (
                f"{file}:{name}"
            )
