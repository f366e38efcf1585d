"""`up` to `down`: runs go to the detached engine on a real Ray, survive their submitter, and are followed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RUN = ("run", "brief.yaml", "-i", "docs=@papers/")


@pytest.fixture
def up(cold: Any) -> Iterator[dict[str, Any]]:
    try:
        yield cold.json("up", "--cpus", "1", verb="up")
    finally:
        cold.podium("down", code=None)


def test_up_run_approve_watch_down(project: Any, up: dict[str, Any]) -> None:
    assert up["ready"]
    assert up["models"] == ["cheap", "dear"]
    assert up["dashboard_url"].startswith("http://127.0.0.1:")
    token = Path(up["token_path"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() not in json.dumps(up)
    assert project.json("up", verb="up") == up

    result = project.json(*RUN, verb="run", code=7)
    assert project.json("show", result["run_id"], verb="show")["detached"]
    done = project.podium("approve", result["run_id"])
    assert "resume" not in done.stderr
    events = project.podium("watch", result["run_id"], "--json").stdout.splitlines()
    assert json.loads(events[-1])["kind"] == "run.succeeded"

    accepted = project.json(*RUN, "--approve", "publish", "--detach", verb="run --detach")
    project.podium("watch", accepted["run_id"])
    local = project.json(*RUN, "--approve", "publish", "--local", verb="run")
    assert not project.json("show", local["run_id"], verb="show")["detached"]

    assert project.json("down", verb="down") == {"engine_stopped": True, "head_stopped": True}
    assert project.json("status", verb="status")["running"] is False


def test_a_pool_that_does_not_fit_is_refused_before_ray_starts(project: Any) -> None:
    project.write("pool.yaml", (project.folder / "pool.yaml").read_text().replace("cpus: 0.1", "cpus: 1"))
    done = project.podium("up", "--cpus", "1", code=3)
    assert "want 2 CPUs, Ray has 1" in done.stderr
    assert not (project.folder / "home" / "cluster.json").exists()


def test_the_engine_goes_on_when_its_submitter_is_killed(project: Any, up: dict[str, Any]) -> None:
    project.write(
        "slow.yaml",
        "name: slow\ninputs: {started: str, go: str}\ntasks:\n"
        "  held: {python: 'tools:hold', with: {started: '{started}', go: '{go}'}}\n",
    )
    started, go = project.folder / "started", project.folder / "go"
    command = [*project.program, "run", "slow.yaml", "-i", f"started={started}", "-i", f"go={go}"]
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env=project.env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "accepted" not in process.stderr.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    go.touch()
    project.podium("watch", "last")
    shown = project.json("show", "last", verb="show")
    assert shown["outputs"] == {"held": "held"}
    assert shown["tasks"][0]["attempts"] == 1
