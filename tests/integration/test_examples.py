"""Each example, run for real with SmolLM2. The model is small: form is asserted, never wisdom."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from podium.memory.errors import ConfigError
from podium.orchestrator.client import Podium
from podium.orchestrator.loader import load_workflow
from podium.orchestrator.views import Run
from podium.workers.models import models_dir, pull
from services import missing

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS = Path(os.environ.get("PODIUM_TEST_MODELS") or Path.home() / ".cache" / "podium-tests")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh home whose model comes from the machine's cache."""
    try:
        model = pull("smollm2-135m", MODELS)
    except ConfigError as error:
        missing("SmolLM2", str(error))
        raise
    home = tmp_path_factory.mktemp("home")
    models_dir(home).mkdir()
    (models_dir(home) / model.name).symlink_to(model)
    return home


@pytest.fixture
def podium(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Podium]:
    """A client in a working directory that is not the examples' folder."""
    monkeypatch.chdir(tmp_path)
    with Podium(home=home) as podium:
        yield podium


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/triage.py, as `python examples/triage.py` finds it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("triage")


def check(run: Run) -> None:
    """What holds for every run that succeeded."""
    assert run.error is None
    assert run.status == "succeeded"
    assert run.calls
    assert {call.status for call in run.calls} == {"settled"}
    assert run.cost_nano == sum(call.cost_nano or 0 for call in run.calls) > 0
    assert run.record.reserved_nano == 0
    for call in run.calls:
        assert call.route["reason"]
        assert call.route["model"] == call.model == "smollm2-135m"
        assert call.output_tokens
    assert {attempt.status for attempt in run.attempts} <= {"succeeded", "waiting"}


def run_script(name: str, home: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        cwd=folder,
        env=os.environ | {"PODIUM_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_brief(podium: Podium, tmp_path: Path) -> None:
    file = tmp_path / "out.md"
    run = podium.run(EXAMPLES / "brief.yaml", approve=["publish"], budget="0.01", file=str(file))
    check(run)
    assert run.outputs is not None
    brief = run.outputs["brief"]
    assert list(brief) == ["title", "points"]
    assert brief["title"]
    assert brief["points"]
    assert run.outputs["file"] == str(file)
    text = file.read_text(encoding="utf-8")
    assert text.startswith(f"# {brief['title']}\n\n- ")
    tasks = {task.record.name: task for task in run.tasks}
    excerpts = sorted((EXAMPLES / "data" / "federalist").glob("*.txt"))
    assert len(tasks["summaries"].output()) == len(excerpts) == 5
    assert all(tasks["summaries"].output())
    assert {call.task for call in run.calls} == {"brief", *(f"summaries[{i}]" for i in range(5))}


def test_brief_waits_for_a_person_and_goes_on(podium: Podium, tmp_path: Path) -> None:
    file = tmp_path / "out.md"
    docs = ["The sun is a star. The planets go round it."]
    run = podium.run(EXAMPLES / "brief.yaml", docs=docs, file=str(file))
    assert (run.status, run.exit_code) == ("waiting", 7)
    assert [task.record.name for task in run.waiting] == ["publish"]
    assert not file.exists()
    calls = len(run.calls)
    podium.approve(run.id, "publish")
    run = podium.drive(run.id)
    check(run)
    assert len(run.calls) == calls
    assert file.exists()


def test_brief_has_no_problem() -> None:
    assert list(load_workflow(EXAMPLES / "brief.yaml", check_imports=EXAMPLES).tasks)


def test_triage(podium: Podium, module: ModuleType) -> None:
    lines = (EXAMPLES / "data" / "postgresql.log").read_text(encoding="utf-8").splitlines()[:3]
    run = module.triage(podium, lines)
    check(run)
    assert run.outputs is not None
    entries = run.outputs["entries"]
    assert [type(entry).__name__ for entry in entries] == ["Entry"] * 3
    assert {entry.severity for entry in entries} <= {"info", "warning", "critical"}
    report = run.outputs["report"]
    assert report.startswith("SEVERITY")
    states = {task.record.name: task.record.status for task in run.tasks}
    is_critical = any(entry.severity == "critical" for entry in entries)
    assert states["page"] == ("succeeded" if is_critical else "skipped")
    assert ("Nobody has to be woken." in report) is not is_critical


def test_ask_prints_what_it_is_told(home: Path, tmp_path: Path) -> None:
    said = run_script("ask.py", home, tmp_path, "Say hello.")
    with Podium(home=home) as podium:
        run = podium.get("last")
    check(run)
    assert run.workflow == "ask"
    assert run.inputs == {"prompt": "Say hello."}
    assert said.strip().startswith(run.output)
    assert f"succeeded: smollm2-135m, {run.cost} USD, run {run.id}" in said


def test_analyst_uses_typed_tools_within_its_limits(home: Path, tmp_path: Path) -> None:
    said = run_script("analyst.py", home, tmp_path)
    with Podium(home=home) as podium:
        run = podium.get("last")
    check(run)
    assert f"run {run.id}" in said
    assert set(run.output) == {"planet", "value"}
    assert isinstance(run.output["planet"], str)
    # three steps, the answer, and its two repairs
    assert 1 <= len(run.calls) <= 6
    assert {effect.tool for effect in run.effects} <= {"analyst_tools:largest", "analyst_tools:look_up"}
    assert {effect.effect for effect in run.effects} <= {"read"}


def test_the_tools_read_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    tools = importlib.import_module("analyst_tools")
    assert tools.largest("moons", 2) == ["Saturn: 146", "Jupiter: 95"]
    assert tools.look_up("Earth", "orbit_days") == 365.256


def test_headline_leaves_out_what_is_not_there_and_pays_for_notes_once(podium: Podium) -> None:
    run = podium.run(EXAMPLES / "headline.yaml", budget="0.02")
    assert run.error is None
    assert run.status == "succeeded"
    assert run.outputs is not None
    assert run.outputs["headline"]
    assert len(run.outputs["notes"]) == 2  # of three files, one is not there
    rounds = {task.record.name for task in run.tasks if task.record.name.endswith("/shorter")}
    assert 1 <= len(rounds) <= 4
    assert rounds == {f"headline[{n}]/shorter" for n in range(len(rounds))}
    # another round is made only where the headline was too long, and the last may still be
    assert run.outputs["over"] <= 0 or len(rounds) == 4
    calls = {call.task for call in run.calls}
    assert calls == {"notes[0]", "notes[1]", *rounds}
    again = podium.run(EXAMPLES / "headline.yaml", budget="0.02")
    assert again.status == "succeeded"
    assert again.outputs is not None
    assert again.outputs["notes"] == run.outputs["notes"]
    assert not any(call.task.startswith("notes") for call in again.calls)
