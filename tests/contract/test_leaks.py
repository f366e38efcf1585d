"""Whatever a tenant does, it is never shown another's content: every public method, random operations."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from podium.memory.database import Database
from podium.memory.errors import NotFound, UsageError
from podium.memory.items import NewRevision, Place
from podium.memory.store import TaskMemory

from benchmarks.leaks import TENANTS, WEIGHTS, Fuzz


@pytest.mark.parametrize("seed", [1, 2])
def test_random_operations_leak_nothing(database: Database, seed: int) -> None:
    fuzz = Fuzz(database, random.Random(seed))
    for _ in range(250):
        fuzz.step()
    for name in WEIGHTS:  # each one surely, on a memory with something in it
        for _ in range(4):
            fuzz.step(name)
    assert fuzz.leaks == []
    assert 0 < fuzz.refused < fuzz.operations / 2


def test_what_writes_files_and_what_erases_stays_with_its_tenant(database: Database, tmp_path: Path) -> None:
    fuzz = Fuzz(database, random.Random(3))
    for _ in range(120):
        fuzz.step()
    before = {name: memory.all() for name, memory in fuzz.memories.items()}
    for name, memory in fuzz.memories.items():
        memory.export(tmp_path / name)
        fuzz.look(name, (tmp_path / name).read_text())
    north = fuzz.memories["north"]
    assert before["north"]
    assert north.sweep(2e10) is not None
    for other in TENANTS:
        receipt = north.forget(f"mark{other}-ada")
        fuzz.look("north", repr(receipt))
    for name in TENANTS[1:]:
        assert fuzz.memories[name].all() == before[name]
    assert fuzz.leaks == []


def test_the_fuzz_would_see_a_leak(database: Database) -> None:
    """A memory that shows its neighbour's items is noticed."""
    fuzz = Fuzz(database, random.Random(4))
    for _ in range(40):
        fuzz.step("put")
    fuzz.memories["south"] = fuzz.memories["north"]
    for _ in range(40):
        fuzz.step("everything")
    assert fuzz.leaks


def test_ids_of_others_are_unknown(database: Database) -> None:
    mine, theirs = TaskMemory(database, "mine"), TaskMemory(database, "theirs")
    own = mine.put("k", "my own", scope="run", scope_id="r")
    secret = theirs.put("k", "their secret", scope="run", scope_id="s")
    assert mine.revision(secret.id) is None
    assert mine.get("k", scope="run", scope_id="s") is None
    assert mine.all(run_id="s") == []
    assert mine.search("secret", run_id="s") == []
    refused: list[Any] = [
        lambda: mine.link(own.id, secret.id, "relates"),
        lambda: mine.link(secret.id, own.id, "relates"),
        lambda: mine.put("new", 1, derived_from=[secret.id]),
        lambda: mine.links(secret.id),
        lambda: mine.fork("s", "t"),
        lambda: mine.context("s", "a", 100),
        lambda: mine.rollback("k", 1, scope="run", scope_id="s"),
    ]
    for ask in refused:
        with pytest.raises(NotFound):
            ask()
    with pytest.raises(UsageError, match="tenant"):
        mine.put_many([NewRevision(Place("theirs", "tenant", "", "k"), "note", "put under their name")])
    assert [record.text for record in theirs.all()] == ["their secret"]
