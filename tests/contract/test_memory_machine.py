"""Whatever is done to a memory, in whatever order: it shows what a simple model of it shows."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from podium.memory.database import Database
from podium.memory.errors import NotFound, UsageError
from podium.memory.store import TaskMemory

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from([0, 1, "x", ["y"], {"z": None}])
#: no key contains them: keys that name whom they are about go, too
SUBJECTS = st.sampled_from([None, None, None, "ada", "bob"])
KINDS = st.sampled_from(["derived_from", "relates", "contradicts", "supersedes"])
NUMBERS = st.integers(0, 10_000)
#: makes the tenants of all examples different ones
tenants = itertools.count()

Where = tuple[str, str]


@dataclass
class Said:
    id: int
    version: int
    value: Any
    status: str = "active"


@dataclass
class Model:
    """What a memory is, without SQL: lists of what was said, and who was forked from whom."""

    said: dict[Where, list[Said]] = field(default_factory=dict)
    subjects: dict[Where, str | None] = field(default_factory=dict)
    forks: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: revision → those it was made from
    sources: dict[int, set[int]] = field(default_factory=dict)
    #: (src, dst, kind)
    links: set[tuple[int, int, str]] = field(default_factory=set)

    def chain(self, run: str) -> list[tuple[str, int]]:
        found, limit = [(run, 2**62)], 2**62
        while found[-1][0] in self.forks:
            parent, at = self.forks[found[-1][0]]
            limit = min(limit, at)
            found.append((parent, limit))
        return found

    def history(self, run: str, key: str) -> list[Said]:
        chained = [[s for s in self.said.get((r, key), []) if s.id <= limit] for r, limit in self.chain(run)]
        return [said for own in reversed(chained) for said in own]

    def shown(self, run: str, key: str, as_of: int = 2**62) -> Said | None:
        for where, limit in self.chain(run):
            own = [s for s in self.said.get((where, key), []) if s.id <= min(limit, as_of)]
            if own:
                return own[-1] if own[-1].status == "active" else None
        return None

    def add(self, run: str, key: str, revision: int, value: Any, status: str = "active") -> int:
        version = max([s.version for s in self.history(run, key)], default=0) + 1
        self.said.setdefault((run, key), []).append(Said(revision, version, value, status))
        self.subjects.setdefault((run, key), None)
        return version

    def link(self, src: int, dst: int, kind: str) -> None:
        self.links.add((src, dst, kind))
        if kind == "derived_from":
            self.sources.setdefault(src, set()).add(dst)

    def before(self, one: int, kind: str) -> set[int]:
        found, todo = {one}, [one]
        while todo:
            at = todo.pop()
            new = {dst for src, dst, k in self.links if src == at and k == kind} - found
            found |= new
            todo += new
        return found

    def all(self) -> list[Said]:
        return sorted((s for own in self.said.values() for s in own), key=lambda s: s.id)

    def forget(self, subject: str) -> None:
        about = [where for where, name in self.subjects.items() if name == subject]
        gone = {s.id for where in about for s in self.said[where] if s.status != "erased"}
        while True:
            derived = {src for src, sources in self.sources.items() if sources & gone} - gone
            if not derived:
                break
            gone |= derived
        for said in self.all():
            if said.id in gone:
                said.status = "erased"
        for where in about:
            self.subjects[where] = None


class Machine(RuleBasedStateMachine):
    database: Database
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.number = next(tenants)
        self.memory = TaskMemory(self.database, f"t{self.number}")
        self.model = Model()
        self.runs = [f"r{self.number}"]
        # these are slow, and few of them tell as much as many
        self.exchanges = self.erasures = 0
        self.looks = 0

    def run_of(self, number: int) -> str:
        return self.runs[number % len(self.runs)]

    def one(self, number: int) -> int | None:
        alive = [s.id for s in self.model.all() if s.status != "erased"]
        return alive[number % len(alive)] if alive else None

    @initialize(said=st.lists(st.tuples(KEYS, VALUES, SUBJECTS), min_size=3, max_size=8))
    def begin(self, said: list[tuple[str, Any, str | None]]) -> None:
        for number, (key, value, subject) in enumerate(said):
            self.put(0, key, value, subject, number if number % 3 == 2 else None)

    @rule(run=NUMBERS, key=KEYS, value=VALUES, subject=SUBJECTS, source=st.none() | NUMBERS)
    def put(self, run: int, key: str, value: Any, subject: str | None, source: int | None) -> None:
        name, model = self.run_of(run), self.model
        origin = None if source is None else self.one(source)
        sources = [] if origin is None else [origin]
        own = model.said.get((name, key), [])
        same = (
            own
            and own[-1].value == value
            and own[-1].status == "active"
            and type(own[-1].value) is type(value)
        )
        place = {"scope": "run", "scope_id": name}
        ask = {"subject": subject, "derived_from": sources, **place}
        if same and origin not in (None, own[-1].id) and own[-1].id in model.before(origin, "derived_from"):
            with pytest.raises(UsageError, match="itself"):
                self.memory.put(key, value, **ask)
            return
        made = self.memory.put(key, value, **ask)
        assert made.value == value
        if same:
            assert made.id == own[-1].id
        else:
            assert made.version == model.add(name, key, made.id, value)
        if subject is not None:
            model.subjects[name, key] = subject
        for one in sources:
            if one != made.id:
                model.link(made.id, one, "derived_from")

    @precondition(lambda self: self.model.said)
    @rule(
        src=NUMBERS,
        dst=NUMBERS,
        kind=KINDS,
    )
    def link(self, src: int, dst: int, kind: Any) -> None:
        a, b = self.one(src), self.one(dst)
        if a is None or b is None:
            return
        ordered = kind in ("derived_from", "supersedes")
        if a == b or (ordered and a in self.model.before(b, kind)):
            with pytest.raises(UsageError, match="itself"):
                self.memory.link(a, b, kind)
            return
        self.memory.link(a, b, kind)
        self.model.link(a, b, kind)
        found = {(link.src, link.dst, link.kind) for link in self.memory.links(a)}
        assert found == {link for link in self.model.links if a in link[:2]}

    @precondition(lambda self: self.model.said and len(self.runs) < 6)
    @rule(run=NUMBERS, at=st.none() | NUMBERS)
    def fork(self, run: int, at: int | None) -> None:
        parent, new = self.run_of(run), f"r{self.number}.{len(self.runs)}"
        everything = self.model.all()
        if parent not in self.model.forks and not any(where[0] == parent for where in self.model.said):
            with pytest.raises(NotFound):
                self.memory.fork(parent, new)
            return
        limit = everything[-1].id if at is None else everything[at % len(everything)].id
        self.memory.fork(parent, new, None if at is None else limit)
        self.model.forks[new] = (parent, limit)
        self.runs.append(new)

    @precondition(lambda self: self.model.said)
    @rule(run=NUMBERS, key=KEYS)
    def retract(self, run: int, key: str) -> None:
        name = self.run_of(run)
        shown = self.model.shown(name, key)
        if shown is None:
            with pytest.raises(NotFound):
                self.memory.retract(key, scope="run", scope_id=name)
            return
        made = self.memory.retract(key, scope="run", scope_id=name)
        assert made.version == self.model.add(name, key, made.id, None, "retracted")
        self.model.link(made.id, shown.id, "supersedes")

    @precondition(lambda self: self.model.said)
    @rule(run=NUMBERS, key=KEYS, version=st.integers(1, 6))
    def rollback(self, run: int, key: str, version: int) -> None:
        name, model = self.run_of(run), self.model
        past = model.history(name, key)
        old = next((s for s in reversed(past) if s.version == version), None)
        place = {"scope": "run", "scope_id": name}
        if old is None or old.status == "erased":
            with pytest.raises(UsageError):
                self.memory.rollback(key, version, **place)
            return
        made = self.memory.rollback(key, version, **place)
        if old is past[-1]:
            assert made.id == old.id
            return
        subject = next(model.subjects[where] for where, own in model.said.items() if old in own)
        assert made.version == model.add(name, key, made.id, old.value, old.status)
        if subject is not None:
            model.subjects[name, key] = subject
        model.link(made.id, old.id, "derived_from")
        model.link(made.id, past[-1].id, "supersedes")

    @precondition(lambda self: self.erasures < 2 and any(self.model.subjects.values()))
    @rule(subject=st.sampled_from(["ada", "bob"]))
    def forget(self, subject: str) -> None:
        self.erasures += 1
        self.memory.forget(subject)
        self.model.forget(subject)

    @precondition(lambda self: self.exchanges < 1 and len(self.model.all()) > 4)
    @rule()
    def exchange(self) -> None:
        self.exchanges += 1
        file, copied = self.folder / "memory.jsonl", self.folder / "copy.db"
        count = self.memory.export(file)
        assert count == len(self.model.all())
        for old in self.folder.glob("copy.db*"):
            old.unlink()
        shutil.copy(self.folder / "empty.db", copied)
        other = Database(f"sqlite:///{copied}")
        copy = TaskMemory(other, self.memory.tenant)
        assert copy.import_(file) == count
        for run in self.runs:
            assert copy.all(run_id=run) == self.memory.all(run_id=run)
            assert copy.history("a", scope="run", scope_id=run) == self.memory.history(
                "a", scope="run", scope_id=run
            )
        assert copy.import_(file) == 0
        other.close()

    @invariant()
    def one_after_the_other_is_looked_at(self) -> None:
        """After each step one run and one key: to look at all of them costs more than the steps."""
        self.looks += 1
        self.it_shows_what_the_model_shows(self.run_of(self.looks))
        self.nothing_is_lost(self.run_of(-self.looks), "abc"[self.looks % 3])

    @rule()
    def all_are_looked_at(self) -> None:
        for run in self.runs:
            self.it_shows_what_the_model_shows(run)
            for key in "abc":
                self.nothing_is_lost(run, key)

    def it_shows_what_the_model_shows(self, run: str) -> None:
        said = self.model.all()
        middle = said[len(said) // 2].id if said else 1
        for as_of in (None, middle):
            shown = [self.model.shown(run, key, as_of or 2**62) for key in "abc"]
            expected = sorted(
                ((s.id, s.version, s.value) for s in shown if s is not None), key=lambda one: one[0]
            )
            found = self.memory.all(run_id=run, as_of=as_of)
            assert [(r.id, r.version, r.value) for r in found] == expected

    def nothing_is_lost(self, run: str, key: str) -> None:
        past = [(s.id, s.version, s.status) for s in self.model.history(run, key)]
        found = self.memory.history(key, scope="run", scope_id=run)
        assert [(r.id, r.version, r.status) for r in found] == past


def test_a_memory_is_what_its_model_is(database: Database, tmp_path: Path) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    empty.ensure_schema()
    empty.close()
    machine = type("Machine", (Machine,), {"database": database, "folder": tmp_path})
    options = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=15, **options))
