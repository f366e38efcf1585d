"""Corrupt and oversize payloads: refused with a reason, and nothing else is harmed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_project import check_books, one, statuses, write_steps
from podium import Podium, PodiumError, Run, Workflow
from podium.memory.damage import damage
from podium.memory.tables import Blob, Task
from sqlalchemy import select, update

MakePodium = Callable[..., Podium]
MIB = 1 << 20

LARGE = """
def large(mib: int) -> str:
    return "x" * (mib << 20)

def size(text: str) -> int:
    return len(text)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_steps(tmp_path)
    (tmp_path / "large.py").write_text(LARGE)
    return tmp_path


def adding() -> Workflow:
    """`first` is 3; after an approval `second` doubles it."""
    workflow = Workflow("adding")
    workflow.python("first", "steps:add", with_={"a": 1, "b": 2})
    workflow.approval("ok", "Is {first} right?")
    workflow.python("second", "steps:double", with_={"x": "{first}"}, needs=["ok"])
    workflow.output("answer", "second")
    return workflow


def spoil(podium: Podium, run: Run, task: str, data: bytes) -> str:
    """Change the stored bytes of a task's output, as a broken disk would; returns their hash."""

    def work(connection: object) -> str:
        query = select(Task.output_blob).where(Task.run_id == run.id, Task.name == task)
        digest = connection.execute(query).scalar_one()  # type: ignore[attr-defined]
        connection.execute(update(Blob).where(Blob.hash == digest).values(data=data))  # type: ignore[attr-defined]
        return digest

    return podium.database.transact(work)


@pytest.mark.parametrize("data", [b"4", b"", b"\xff\xfe not JSON", b'{"evil": true}'])
def test_a_corrupt_payload_is_never_used(
    make_podium: MakePodium, database_url: str, project: Path, data: bytes
) -> None:
    podium = make_podium(database_url)
    run = podium.run(adding())
    assert run.status == "waiting"
    digest = spoil(podium, run, "first", data)
    podium.approve(run.id, "ok")
    podium.close()
    podium = make_podium(database_url)  # an engine that has not got the value in memory
    run = podium.drive(run.id)
    assert run.status == "failed"
    assert run.error is not None
    assert f"stored content {digest[:12]} is corrupt" in str(run.error["message"])
    assert "podium db check" in str(run.error["mend"])
    assert statuses(run)["first"] == "succeeded"
    assert statuses(run)["second"] != "succeeded"
    with pytest.raises(PodiumError, match="corrupt"):
        _ = next(t for t in run.tasks if t.record.name == "first").output()
    check_books(podium, run)
    # nothing else is harmed, and the damage is found
    other = podium.run(one(python="steps:add", with_={"a": 20, "b": 22}))
    assert other.status == "succeeded"
    assert damage(podium.database) == [f"tenant default: stored content {digest[:12]} is corrupt"]


def test_db_check_finds_damage(make_podium: MakePodium, project: Path) -> None:
    podium = make_podium(None)
    run = podium.run(one(python="steps:add", with_={"a": 1, "b": 2}))
    command = [sys.executable, "-m", "podium.orchestrator.cli.main", "db", "check", "--json"]
    sound = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (sound.returncode, json.loads(sound.stdout)["ok"]) == (0, True)
    digest = spoil(podium, run, "work", b"4")
    broken = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert broken.returncode == 3
    found = json.loads(broken.stdout)
    assert found["ok"] is False
    assert found["differences"] == [f"tenant default: stored content {digest[:12]} is corrupt"]


def test_a_corrupt_workflow_fails_its_run_alone(make_podium: MakePodium, project: Path) -> None:
    """The stored workflow itself is damaged: the run cannot be driven, and says so."""
    podium = make_podium(None)
    bad = podium.submit(adding(), detached=False)
    good = podium.submit(one(python="steps:add", with_={"a": 1, "b": 2}), detached=False)
    spec = bad.record.spec_blob
    podium.database.transact(lambda c: c.execute(update(Blob).where(Blob.hash == spec).values(data=b"{}")))
    run = podium.drive(bad.id)
    assert run.status == "failed"
    assert "corrupt" in str(run.error)
    assert podium.drive(good.id).status == "succeeded"


def test_a_large_output_passes(make_podium: MakePodium, database_url: str, project: Path) -> None:
    """10 MiB from a task through the database to the next one."""
    workflow = Workflow("large")
    workflow.python("text", "large:large", with_={"mib": 10})
    workflow.python("length", "large:size", with_={"text": "{text}"})
    workflow.output("length", "length")
    podium = make_podium(database_url)
    run = podium.run(workflow)
    assert run.status == "succeeded", run.error
    assert run.output == 10 * MIB
    text = next(t for t in run.tasks if t.record.name == "text").output()
    assert len(text) == 10 * MIB
    check_books(podium, run)


def test_an_oversize_output_is_refused(make_podium: MakePodium, project: Path) -> None:
    """Above 64 MiB the answer of a task is refused, and the engine goes on."""
    podium = make_podium(None)
    workflow = one(python="large:large", with_={"mib": 65}, retry={"attempts": 1})
    run = podium.run(workflow)
    assert run.status == "failed"
    assert run.error is not None
    assert str(64 * MIB) in str(run.error["message"])
    assert run.error["mend"]
    assert podium.run(one(python="steps:add", with_={"a": 1, "b": 2})).status == "succeeded"
