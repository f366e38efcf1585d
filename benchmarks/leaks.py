"""Does a tenant ever see what is another's? Random operations of several tenants, every answer looked at.

    python -m benchmarks.leaks [--operations N] [--processes P] [--seed S]

All content, subjects and producers of a tenant hold its marker. Tenants use the same keys, scopes and
workflow names, and each other's run ids and revision ids: reading, linking to, deriving from, forking,
comparing, searching and assembling contexts with them. Any marker of another tenant in an answer (or in the
message of an error) is a leak; so is a revision of a tenant in another's export.

The operations are those of `TaskMemory`, all inside one SQLite transaction a process, so that a million take
minutes: neither `export`, `import_`, `forget` nor `sweep`, which `tests/contract/test_leaks.py` adds.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from podium.memory.database import Connection, Database
from podium.memory.errors import PodiumError
from podium.memory.items import NewRevision, Place, Producer
from podium.memory.store import TaskMemory

ROOT = Path(__file__).resolve().parent.parent
TENANTS = ("north", "south", "east", "west")
#: revisions of a memory's size, from which on a process starts with new tenants
LARGEST = 2_000
#: how often each is drawn
WEIGHTS = {
    "get": 20, "revision": 20, "put": 12, "links": 10, "history": 8, "link": 6, "put_many": 3, "rollback": 3,
    "retract": 3, "diff": 1, "fork": 1, "everything": 1, "search": 1, "context": 0.2,
}  # fmt: skip


class OneTransaction(Database):
    """A database whose operations all happen in one transaction, never committed."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        yield self.joint

    def keep(self, work: Callable[[Connection], Any]) -> Any:
        with self.joint.begin_nested():
            return work(self.joint)

    transact = keep

    def open(self) -> None:
        self._stack = ExitStack()
        self.joint = self._stack.enter_context(self.write())

    def close(self) -> None:
        self._stack.close()
        super().close()


class Fuzz:
    """Operations of tenants that know each other's ids. `leaks`: answers that were not the asker's."""

    def __init__(self, database: Database, chance: random.Random, run: str = "run") -> None:
        self.chance, self.prefix = chance, run
        self.memories = {name: TaskMemory(database, f"{name}{run}") for name in TENANTS}
        self.runs = [f"{run}{n}" for n in range(3)]
        self.revisions: list[int] = [1]
        self.leaks: list[str] = []
        self.operations = 0
        self.refused = 0

    def step(self, name: str | None = None) -> None:
        """One operation of a random tenant."""
        tenant = self.chance.choice(TENANTS)
        name = name or self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        self.operations += 1
        try:
            answer: Any = getattr(self, f"_{name}")(tenant, self.memories[tenant])
        except PodiumError as error:
            answer, self.refused = str(error), self.refused + 1
        self.look(tenant, f"{name}: {answer!r}")

    def look(self, tenant: str, answer: str) -> None:
        """Whatever a tenant is shown."""
        for other in TENANTS:
            if other != tenant and _marker(other) in answer:
                self.leaks.append(f"{tenant} sees {other}: {answer[:300]}")

    # -- what is asked for

    def place(self) -> dict[str, Any]:
        scope = self.chance.choice(["tenant", "run", "run", "run", "workflow", "task"])
        run = self.chance.choice(self.runs)
        of = {"tenant": "", "run": run, "workflow": "w", "task": f"{run}/a"}
        return {"scope": scope, "scope_id": of[scope]}

    def key(self) -> str:
        return f"k{self.chance.randrange(8)}"

    def one(self) -> int:
        """A revision of anyone's."""
        return self.chance.choice(self.revisions) + self.chance.choice((0, 0, 0, 1))

    def _told(self, tenant: str) -> str:
        return f"{_marker(tenant)} says harbour number {self.chance.randrange(50)}"

    def _put(self, tenant: str, memory: TaskMemory) -> Any:
        sources = [self.one()] if self.chance.random() < 0.2 else []
        by = Producer(self.chance.choice(self.runs), self.chance.choice("abc"), 1, model=_marker(tenant))
        ask: dict[str, Any] = {"derived_from": sources, "producer": by, "subject": f"{_marker(tenant)}-ada"}
        made = memory.put(self.key(), self._told(tenant), **ask, **self.place())
        self.revisions.append(made.id)
        return made

    def _put_many(self, tenant: str, memory: TaskMemory) -> Any:
        places = [
            Place(memory.tenant, where["scope"], where["scope_id"], self.key())
            for where in (self.place() for _ in range(3))
        ]
        ids = memory.put_many([NewRevision(place, "note", self._told(tenant)) for place in places])
        self.revisions += ids
        return ids

    def _get(self, tenant: str, memory: TaskMemory) -> Any:
        as_of = self.one() if self.chance.random() < 0.3 else None
        return memory.get(self.key(), as_of=as_of, **self.place())

    def _history(self, tenant: str, memory: TaskMemory) -> Any:
        return memory.history(self.key(), **self.place())

    def _revision(self, tenant: str, memory: TaskMemory) -> Any:
        return memory.revision(self.one())

    def _links(self, tenant: str, memory: TaskMemory) -> Any:
        """Ends of links are ids: each must be the tenant's own."""
        found = memory.links(self.one())
        foreign = [e for link in found for e in (link.src, link.dst) if memory.revision(e) is None]
        self.leaks += [f"{tenant} sees a link to {end}" for end in foreign]
        return found

    def _link(self, tenant: str, memory: TaskMemory) -> Any:
        kind: Any = self.chance.choice(["derived_from", "relates", "contradicts", "supersedes"])
        return memory.link(self.one(), self.one(), kind)

    def _rollback(self, tenant: str, memory: TaskMemory) -> Any:
        return memory.rollback(self.key(), self.chance.randint(1, 4), **self.place())

    def _retract(self, tenant: str, memory: TaskMemory) -> Any:
        return memory.retract(self.key(), **self.place())

    def _fork(self, tenant: str, memory: TaskMemory) -> Any:
        new = f"{self.prefix}f{len(self.runs)}"
        at = self.one() if self.chance.random() < 0.5 else None
        memory.fork(self.chance.choice(self.runs[:4]), new, at)
        self.runs = [*self.runs[:3], *self.runs[3:][-5:], new]
        return new

    def _diff(self, tenant: str, memory: TaskMemory) -> Any:
        return memory.diff(self.chance.choice(self.runs), self.chance.choice(self.runs))

    def _everything(self, tenant: str, memory: TaskMemory) -> Any:
        run = self.chance.choice([None, *self.runs])
        return memory.all(run_id=run, task=None if run is None else "a")

    def _search(self, tenant: str, memory: TaskMemory) -> Any:
        """For words that every tenant has said, and for another's marker."""
        other = _marker(self.chance.choice(TENANTS))
        hits = memory.search(f"{other} harbour", k=5, run_id=self.chance.choice([None, *self.runs]))
        return [(hit.revision, hit.score) for hit in hits]

    def _context(self, tenant: str, memory: TaskMemory) -> Any:
        ask = f"What does the harbour of {self.chance.randrange(50)} say?"
        return memory.context(self.chance.choice(self.runs), self.chance.choice("abc"), 128, ask=ask)


def _marker(tenant: str) -> str:
    return f"mark{tenant}"


def work(operations: int, seed: int) -> dict[str, Any]:
    """One process's part."""
    begin, done, refused, leaks = time.perf_counter(), 0, 0, []
    chance, number = random.Random(seed), 0
    with tempfile.TemporaryDirectory(prefix="podium-leaks-") as folder:
        url = f"sqlite:///{Path(folder, 'podium.db')}"
        plain = Database(url)
        plain.ensure_schema()
        plain.close()
        database = OneTransaction(url)
        database.open()
        while done < operations:
            fuzz, number = Fuzz(database, chance, f"s{seed}n{number}r"), number + 1
            while done < operations and len(fuzz.revisions) < LARGEST:
                fuzz.step()
                done += 1
            refused, leaks = refused + fuzz.refused, leaks + fuzz.leaks
        database.close()
    seconds = time.perf_counter() - begin
    return {"operations": done, "refused": refused, "leaks": leaks[:10], "leaked": len(leaks), "s": seconds}


def measure(operations: int, processes: int = 2, seed: int = 0) -> dict[str, Any]:
    """All processes together: operations, how many were refused, how many leaked, seconds."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.leaks", "--part", str(-(-operations // processes))]
    began = [
        subprocess.Popen([*command, "--seed", str(seed + n)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for n in range(processes)
    ]
    parts = [json.loads(process.communicate()[0]) for process in began]
    total = {name: sum(part[name] for part in parts) for name in ("operations", "refused", "leaked")}
    return total | {"leaks": [x for p in parts for x in p["leaks"]], "s": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(work(asked.part, asked.seed)))
    else:
        print(json.dumps(measure(asked.operations, asked.processes, asked.seed), indent=1))


if __name__ == "__main__":
    main()
