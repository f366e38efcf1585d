"""What an agent keeps is found by the agents after it, is written once however often it is killed, and stays
where it belongs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_runs import drive, make_project
from engine_project import check_books, replay_spec
from podium import Podium, Settings
from podium.agents.loop import AgentResult, run_agent
from podium.agents.memory_tools import MemoryTools
from podium.agents.testing import FunctionTools, ScriptedModel
from podium.memory import effects, events, ledger
from podium.memory.database import Database
from podium.memory.errors import StaleEpoch
from podium.memory.journal import Journal
from podium.memory.store import TaskMemory
from podium.orchestrator.context import RunContext, Services
from podium.orchestrator.recall import MemoryScope, TaskRecall
from podium.router.policy import make_policy
from podium.router.stats import Stats
from podium.workers.local import LocalPool
from run_rows import answer, claimed, reserve, succeed

SAID = "The harbour closes on 3 May."
DEADLINE = {"tool": "remember", "arguments": {"key": "deadline", "value": SAID}}
NOTED = {"tool": "note", "arguments": {"text": "The harbour master is called Aase."}}
ASKED = {"tool": "recall", "arguments": {"query": "When does the harbour close?"}}
DONE = {"answer": "done"}


class Engine:
    """What the memory of agents needs of an engine, on a database of its own."""

    def __init__(self, database: Database, folder: Path) -> None:
        pool = LocalPool([replay_spec(folder / "none.jsonl")], folder)
        self.database, self.journal = database, Journal(database)
        self.services = Services(database, self.journal, pool)
        self.models: list[ScriptedModel] = []

    async def work(
        self,
        task: str,
        *script: dict[str, Any],
        run: str = "r1",
        tenant: str = "t",
        attempt: int = 1,
        epoch: int = 1,
        scope: MemoryScope = "run",
    ) -> AgentResult:
        """One attempt of an agent that says what the script says."""
        context = RunContext(run, tenant, epoch, "", frozenset(), make_policy({}), Stats())
        recall = TaskRecall(self.services, context, task, attempt, scope)
        model = ScriptedModel(list(script))
        self.models.append(model)
        return await run_agent("Do it.", model=model, tools=MemoryTools(FunctionTools([]), recall))

    def memory(self, tenant: str = "t") -> TaskMemory:
        return self.services.memory(tenant)

    def kept(self, run: str = "r1") -> dict[str, list[Any]]:
        """key → values of all its versions, of what agents kept in the run."""
        found = self.memory().all(run_id=run, scopes=["run"])
        keys = [one.key for one in found if one.key.startswith("memory:")]
        return {key: [r.value for r in self.memory().history(key, scope="run", scope_id=run)] for key in keys}


@pytest.fixture
def engine(database: Database, tmp_path: Path) -> Iterator[Engine]:
    made = Engine(database, tmp_path)
    claimed(database)
    yield made
    made.journal.close()


def told(result: AgentResult, step: int) -> str:
    """What the agent was told after a step, without the fence."""
    observation = result.steps[step - 1].observation
    assert observation.count("<result>") == observation.count("</result>") == 1
    return observation.split("<result>\n")[1].split("\n</result>")[0]


async def test_another_tasks_agent_recalls_what_one_remembered(engine: Engine) -> None:
    await engine.work("a", DEADLINE, NOTED, DONE)
    found = told(await engine.work("b", ASKED, DONE), 1).splitlines()
    item = engine.memory().get("memory:deadline", scope="run", scope_id="r1")
    assert item is not None
    assert found[0] == f"[{item.id}] deadline: The harbour closes on 3 May. (fact, task a)"
    assert any("Aase" in line and line.endswith("(note, task a)") for line in found)
    assert (item.kind, item.producer.run_id, item.producer.task, item.producer.attempt) == (
        "fact",
        "r1",
        "a",
        1,
    )


async def test_what_is_kept_says_which_call_said_it_and_what_was_read_before(engine: Engine) -> None:
    reserve(engine.database, 10, "call1")
    engine.database.transact(lambda c: ledger.mark_sent(c, "r1", 1, "call1", "m:0"))
    engine.database.transact(lambda c: ledger.settle(c, "r1", 1, "call1", answer(), 7))
    source = engine.memory().put("tides", "The harbour closes at low tide.")
    later = {"tool": "remember", "arguments": {"key": "closing", "value": "At low tide."}}
    await engine.work("a", ASKED, later, DONE)
    kept = engine.memory().get("memory:closing", scope="run", scope_id="r1")
    assert kept is not None
    by = kept.producer
    assert (by.call_id, by.model, by.prompt_hash, by.cost_nano) == ("call1", "m", "h0", 7)
    edges = [(edge.src, edge.dst, edge.kind) for edge in engine.memory().links(kept.id)]
    assert edges == [(kept.id, source.id, "derived_from")]


async def test_a_replayed_attempt_writes_nothing_again_and_finds_what_it_found(engine: Engine) -> None:
    script = (ASKED, DEADLINE, NOTED, ASKED, DONE)
    first = await engine.work("a", *script)
    engine.memory().put("more", "The harbour of Bergen closes on 4 May.")
    second = await engine.work("a", *script, attempt=2)
    assert [s.observation for s in second.steps] == [s.observation for s in first.steps]
    assert [len(values) for values in engine.kept().values()] == [1, 1]
    assert engine.models[0].requests == engine.models[1].requests
    fresh = told(await engine.work("b", ASKED, DONE), 1)
    assert "Bergen" in fresh


async def test_a_value_said_again_makes_no_version_and_another_one_supersedes_it(engine: Engine) -> None:
    moved = {"tool": "remember", "arguments": {"key": "deadline", "value": "The harbour closes on 9 May."}}
    first = await engine.work("a", DEADLINE, DEADLINE, DONE)
    assert told(first, 1) == told(first, 2)
    again = await engine.work("b", DEADLINE, moved, DONE)
    assert told(again, 1) == told(first, 1)
    assert list(engine.kept().values()) == [[SAID, "The harbour closes on 9 May."]]
    found = told(await engine.work("a", ASKED, DONE, attempt=3), 1)
    assert "9 May" in found
    assert "3 May" not in found


async def test_no_agent_can_overwrite_what_a_task_made(engine: Engine) -> None:
    succeed(engine.database, "a", "the real output", remember=True)
    for key in ("a", "memory:a"):
        forged = {"tool": "remember", "arguments": {"key": key, "value": "forged"}}
        await engine.work("b", forged, DONE)
    artifact = engine.memory().get("a", scope="run", scope_id="r1")
    assert artifact is not None
    assert (artifact.value, artifact.version) == ("the real output", 1)
    assert engine.kept() == {"memory:a": ["forged"]}


async def test_runs_and_tenants_see_their_own_and_what_is_shared(engine: Engine) -> None:
    claimed(engine.database, "r2")
    claimed(engine.database, "r3", workflow="other")
    claimed(engine.database, "u1", tenant="u")
    await engine.work("a", DEADLINE, DONE)
    assert told(await engine.work("a", ASKED, DONE, run="r2"), 1) == "Nothing was found."
    await engine.work("b", DEADLINE, DONE, scope="workflow")
    assert "3 May" in told(await engine.work("b", ASKED, DONE, run="r2"), 1)
    assert told(await engine.work("a", ASKED, DONE, run="r3"), 1) == "Nothing was found."
    await engine.work("b", NOTED, DONE, run="r2", scope="tenant")
    assert "Aase" in told(await engine.work("b", ASKED, DONE, run="r3"), 1)
    assert told(await engine.work("a", ASKED, DONE, run="u1", tenant="u"), 1) == "Nothing was found."


async def test_an_engine_that_lost_the_run_writes_nothing(engine: Engine) -> None:
    for script in ((DEADLINE, DONE), (NOTED, DONE), (ASKED, DONE)):
        with pytest.raises(StaleEpoch):
            await engine.work("a", *script, epoch=0)
    assert engine.kept() == {}


async def test_the_calls_are_in_the_runs_record(engine: Engine) -> None:
    await engine.work("a", ASKED, DEADLINE, DONE)
    with engine.database.read() as connection:
        assert events.verify(connection, "r1") is None
        told = [
            (e.kind, e.data["tool"]) for e in events.read(connection, "r1") if e.kind.startswith("effect")
        ]
        found = effects.load(connection, "r1", "no such key")
    assert found is None
    assert told == [
        ("effect.started", "podium.memory:recall"),
        ("effect.done", "podium.memory:recall"),
        ("effect.started", "podium.memory:remember"),
        ("effect.done", "podium.memory:remember"),
    ]


# -- through the engine, with recorded answers


@pytest.mark.parametrize(
    "fault",
    [
        "",
        # what is kept is about to be written, and has been; nobody has been told
        "effect.finish:before:1",
        "effect.finish:after:1",
        # the next model call is about to be paid
        "call.reserve:before:2",
        "effect.finish:after:2",
        # the second agent has looked, and its answer is about to be asked for
        "effect.finish:after:3",
        "task.finish:before:2",
    ],
)
def test_a_killed_engine_keeps_everything_once(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "project"
    make_project(folder)
    url = f"sqlite:///{folder}/home/podium.db"
    driver = ("memory_driver.py", [str(folder / "home"), url], folder)
    first = drive(*driver, fault)
    assert first.returncode == (-9 if fault else 0), first.stderr
    done = drive(*driver)
    assert done.returncode == 0, done.stderr
    with Podium(Settings(home=folder / "home", database_url=url)) as podium:
        run = podium.get("last")
        assert run.status == "succeeded", run.error
        assert run.output == "It closes on 3 May."
        kept = podium.memory.history("memory:deadline", scope="run", scope_id=run.id)
        assert [(r.version, r.value, r.producer.task) for r in kept] == [(1, SAID, "reads")]
        assert kept[0].producer.call_id in {c.id for c in run.calls if c.task == "reads"}
        notes = [r for r in podium.memory.all(run_id=run.id) if r.kind == "note"]
        assert [(r.version, r.value) for r in notes] == [(1, "The harbour master is called Aase.")]
        assert [(e.task, e.tool, e.status) for e in run.effects] == [
            ("reads", "podium.memory:remember", "done"),
            ("reads", "podium.memory:note", "done"),
            ("writes", "podium.memory:recall", "done"),
        ]
        paid = [(c.task, c.step) for c in run.calls if c.status == "settled"]
        assert len(paid) == len(set(paid)) == 5
        check_books(podium, run)
