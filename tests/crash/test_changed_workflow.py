"""The workflow's file and its functions change while its run is killed: what was stored is what runs.

A run keeps the workflow that it was submitted with. Functions are not stored: they are imported anew, so that
a defect in them can be mended in mid-run. See docs/reliability.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine_project import check_books, lines, statuses, until, write_steps
from podium import Podium

WORKFLOW = """\
name: changing
tasks:
  first: {python: "steps:note", with: {path: log, text: first}}
  second: {python: "work:second", with: {text: "{first}"}}
  third: {python: "steps:note", with: {path: log, text: "{second}"}}
outputs: {answer: third}
"""
#: another name, another text, another function, a task more, one less
CHANGED = """\
name: changed
tasks:
  first: {python: "steps:note", with: {path: log, text: changed}}
  second: {python: "work:other", with: {text: "{first}"}}
  extra: {python: "steps:note", with: {path: log, text: "extra {second}"}}
outputs: {answer: extra}
"""
BEFORE = """
import time
from steps import note

def second(text: str) -> str:
    note("log", "begun")
    time.sleep(60)
    return "never"
"""
AFTER = """
from steps import note

def second(text: str) -> str:
    return f"mended {text}"

def other(text: str) -> str:
    return "other"
"""
PODIUM = [sys.executable, "-m", "podium.orchestrator.cli.main"]


@pytest.mark.parametrize("change", ["changed", "removed", "broken"])
def test_the_stored_workflow_is_gone_on_with(home: Path, tmp_path: Path, change: str) -> None:
    write_steps(tmp_path)
    (tmp_path / "work.py").write_text(BEFORE)
    file = tmp_path / "flow.yaml"
    file.write_text(WORKFLOW)
    environment = {**os.environ, "PODIUM_HOME": str(home)}
    with subprocess.Popen(
        [*PODIUM, "run", str(file)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as killed:
        try:
            until(lambda: "begun" in lines(tmp_path / "log"), seconds=60)
        finally:
            os.killpg(killed.pid, signal.SIGKILL)  # the engine and the process of its task

    (tmp_path / "work.py").write_text(AFTER)
    if change == "changed":
        file.write_text(CHANGED)
    elif change == "removed":
        file.unlink()
    else:
        file.write_text("tasks: [this is no workflow")
    resumed = subprocess.run(
        [*PODIUM, "resume", "last"], env=environment, capture_output=True, text=True, timeout=120
    )

    assert resumed.returncode == 0, resumed.stderr
    with Podium(home=home) as podium:
        run = podium.get("last")
        assert run.record.workflow == "changing"
        assert statuses(run) == dict.fromkeys(("first", "second", "third"), "succeeded")
        assert run.output == "mended first"
        check_books(podium, run)
    assert lines(tmp_path / "log") == ["first", "begun", "mended first"]  # `first` was not done again


def test_a_function_that_is_gone_is_told(home: Path, tmp_path: Path) -> None:
    """The function was renamed meanwhile: the run fails with its name, and can be retried when it is back."""
    write_steps(tmp_path)
    (tmp_path / "work.py").write_text("def second(text: str) -> str:\n    return text\n")
    file = tmp_path / "flow.yaml"
    file.write_text(WORKFLOW)
    with Podium(home=home) as podium:
        run_id = podium.submit(file, detached=False).id
    (tmp_path / "work.py").write_text("def renamed(text: str) -> str:\n    return text\n")
    with Podium(home=home) as podium:
        run = podium.drive(run_id)
        assert run.status == "failed"
        assert run.error is not None
        assert "second" in str(run.error["message"])
        assert run.error["mend"]
        assert statuses(run)["first"] == "succeeded"
    (tmp_path / "work.py").write_text(AFTER)
    with Podium(home=home) as podium:
        podium.retry(run_id)
        run = podium.drive(run_id)
        assert (run.status, run.output) == ("succeeded", "mended first")
    assert lines(tmp_path / "log").count("first") == 1
