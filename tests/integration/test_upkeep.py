"""What a serving engine does for the memory: expired items go, old runs become summaries."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from podium import Podium, Settings, Workflow
from podium.memory.fact_reading import READER
from podium.memory.items import Place, history
from podium.memory.store import TaskMemory
from podium.memory.tables import Run
from podium.orchestrator.engine import Engine
from podium.orchestrator.upkeep import DIGEST, look_after
from podium.router.types import ModelSpec, Price
from podium.workers.local import LocalPool
from sqlalchemy import update

MakePodium = Callable[..., Podium]


@pytest.fixture
def podium(make_podium: MakePodium, database_url: str) -> Podium:
    return make_podium(database_url)


def old_run(podium: Podium) -> str:
    flow = Workflow("visit")
    flow.llm("note", prompt="the boiler was serviced in May")
    flow.output("note", "note")
    run = podium.run(flow)
    long_ago = {"finished_at": time.time() - 40 * 86_400}
    podium.database.transact(lambda c: c.execute(update(Run).where(Run.id == run.id).values(**long_ago)))
    return run.id


async def look(podium: Podium, pool: LocalPool, tmp_path: Path, **settings: object) -> None:
    made = Settings.model_validate({"home": tmp_path / "other", **settings})
    async with Engine(podium.database, pool, tmp_path / "other", policy={}) as engine:
        await look_after(engine, made)
    await pool.close()


async def test_expired_items_go_and_old_runs_become_summaries(
    podium: Podium, echo_pool: Callable[..., LocalPool], tmp_path: Path
) -> None:
    run_id = old_run(podium)
    memory = TaskMemory(podium.database, "default")
    memory.put("parking", "level 3", ttl=0.0001)
    await look(podium, echo_pool(), tmp_path, memory_days=30, memory_digests="echo")
    with podium.database.read() as connection:
        (parking,) = history(connection, Place("default", "tenant", "", "parking")) or [None]
        (note,) = history(connection, Place("default", "run", run_id, "note"))
        first, worded = history(connection, Place("default", "workflow", "visit", f"run/{run_id}"))
    assert parking is None or parking.status == "erased"
    assert note.status == "erased"
    assert "boiler" in first.text
    assert worded.text.startswith("echo: ")
    assert worded.producer.model == "echo"
    assert podium.get(run_id).outputs == {"note": "echo: the boiler was serviced in May"}
    (digest,) = [r for r in podium.runs() if r.workflow == DIGEST]
    assert digest.cost_nano > 0


async def test_nothing_is_compacted_unless_it_is_set(
    podium: Podium, echo_pool: Callable[..., LocalPool], tmp_path: Path
) -> None:
    run_id = old_run(podium)
    await look(podium, echo_pool(), tmp_path)
    with podium.database.read() as connection:
        (note,) = history(connection, Place("default", "run", run_id, "note"))
    assert note.status == "active"


REPORT = (
    "The survey of the old mill took place on a windy day. "
    "Ada Berg signed it, and the wall leans by two hands."
)
SAID = {"Signed by": "Ada Berg", "lean of the wall": "two hands", "cost": "9,000 EUR"}


async def test_a_model_reads_what_rules_do_not_find(
    make_podium: MakePodium, database_url: str, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [
        {"match": "<text>", "text": json.dumps(SAID), "input_tokens": 90, "output_tokens": 30},
        {"default": True, "text": REPORT, "input_tokens": 9, "output_tokens": 30},
    ]
    answers.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    spec = ModelSpec(
        name="reader",
        engine="replay",
        source=str(answers),
        price=Price(input=Decimal(1), output=Decimal(2)),
        context=4096,
    )
    podium = make_podium(database_url, pool=LocalPool((spec,), tmp_path))
    flow = Workflow("survey")
    flow.llm("report", prompt="Tell me of the mill.")
    flow.output("report", "report")
    run = podium.run(flow)
    for _ in range(2):  # the second time there is nothing left to read
        await look(podium, LocalPool((spec,), tmp_path), tmp_path, memory_facts="reader")
    memory = TaskMemory(podium.database, "default")
    signed = memory.get("report.signed_by", scope="run", scope_id=run.id)
    assert signed is not None
    assert (signed.value, signed.producer.model) == ("Ada Berg", "reader")
    assert memory.get("report.lean_of_the_wall", scope="run", scope_id=run.id) is not None
    assert memory.get("report.cost", scope="run", scope_id=run.id) is None  # the text does not say so
    report = memory.get("report", scope="run", scope_id=run.id)
    assert report is not None
    assert report.id in {one.dst for one in memory.links(signed.id) if one.kind == "derived_from"}
    (reading,) = [r for r in podium.runs() if r.workflow == READER]
    assert reading.cost_nano > 0


async def test_a_reading_that_fails_is_not_paid_for_again(
    podium: Podium, echo_pool: Callable[..., LocalPool], tmp_path: Path
) -> None:
    flow = Workflow("visit")
    flow.llm("note", prompt="!refuse " + REPORT)
    flow.llm("other", prompt=REPORT)
    flow.output("other", "other")
    podium.run(flow)
    for _ in range(2):
        await look(podium, echo_pool(), tmp_path, memory_facts="missing")
    readings = [r for r in podium.runs() if r.workflow == READER]
    assert [r.status for r in readings] == ["failed"]
