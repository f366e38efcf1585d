"""`podium up`'s engine for real: a Ray head, a detached engine, three kinds of models, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from podium.orchestrator.client import Podium
from podium.orchestrator.service import engine_status, start_engine, stop_engine
from podium.orchestrator.workflow import Workflow
from podium.workers.cluster import start_head, stop_head
from podium.workers.models import pull

POOL = """
models:
  - {name: small, engine: llamacpp, source: smollm2-135m, price: {input: 0.08, output: 0.28}, context: 2048}
  - {name: tiny, engine: torch, source: tiny-random, price: {input: 0.02, output: 0.02}, max_output: 32,
     resources: {cpus: 0.5}}
  - {name: taped, engine: replay, source: tape.jsonl, price: {input: 2.5, output: 10}, resources: {cpus: 0}}
policy: {kind: cheapest}
"""
TAPE = {"default": True, "text": "recorded", "input_tokens": 9, "output_tokens": 2, "cost_usd": 0.0001}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a running head; engines are the tests' business."""
    home = tmp_path_factory.mktemp("detached")
    (home / "pool.yaml").write_text(POOL)
    (home / "tape.jsonl").write_text(json.dumps(TAPE) + "\n")
    cache = Path(os.environ.get("PODIUM_TEST_MODELS") or Path.home() / ".cache" / "podium-tests")
    model = pull("smollm2-135m", cache)
    (home / "models").mkdir()
    (home / "models" / model.name).symlink_to(model)
    start_head(home, num_cpus=4)
    yield home
    stop_engine(home)
    stop_head(home)


@pytest.fixture
def podium(home: Path) -> Iterator[Podium]:
    with Podium(home=home) as podium:
        start_engine(podium.settings)
        yield podium


def test_three_engines_answer_in_one_run_on_ray(podium: Podium) -> None:
    workflow = Workflow("mixed")
    for model in ("small", "tiny", "taped"):
        workflow.llm(f"by_{model}", prompt="Say a word.", model=model, max_tokens=8)
    run = podium.follow(podium.submit(workflow).id, timeout=120)

    assert run.status == "succeeded", run.error
    assert {call.model for call in run.calls} == {"small", "tiny", "taped"}
    assert all(call.status == "settled" and call.cost_nano for call in run.calls)
    assert all(call.worker and call.worker.startswith(call.model) for call in run.calls)
    outputs = run.outputs
    assert outputs is not None
    assert outputs["by_taped"] == "recorded"


def test_a_killed_engine_is_replaced_and_finished_tasks_stay(
    podium: Podium, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "steps.py").write_text(
        "import pathlib, time\n"
        "def step(n: int, gate: str) -> int:\n"
        "    while n >= 3 and not pathlib.Path(gate).exists(): time.sleep(0.02)\n"
        "    return n\n"
    )
    (tmp_path / "w.yaml").write_text(
        "name: gated\ninputs: {ns: list[int], gate: str}\n"
        'tasks:\n  steps: {map: ns, python: "steps:step", with: {n: "{item}", gate: "{gate}"}}\n'
    )
    gate = tmp_path / "open"
    run = podium.submit(tmp_path / "w.yaml", ns=[1, 2, 3], gate=str(gate))
    until = time.monotonic() + 60
    while sum(t.record.status == "succeeded" for t in run.tasks) < 2 and time.monotonic() < until:
        run = run.refresh()
    found = engine_status(home)
    assert found is not None
    os.kill(found["pid"], signal.SIGKILL)
    while engine_status(home) is not None:  # the kernel takes a moment
        time.sleep(0.01)
    gate.touch()
    start_engine(podium.settings)
    run = podium.follow(run.id, timeout=60)

    assert run.status == "succeeded"
    assert run.output == [1, 2, 3]
    attempts = {t.record.name: t.record.attempts for t in run.tasks}
    assert [attempts["steps[0]"], attempts["steps[1]"]] == [1, 1]
    assert attempts["steps[2]"] == 2
    assert podium.verify(run.id) is None
