"""The store's own figures: writers, forks, what is left after `forget`, and leaks between tenants.

On a fresh SQLite database in a temporary folder. `memory.py` puts them into its table.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podium import Podium, Settings, Workflow
from podium.memory import content
from podium.memory.database import Database
from podium.memory.items import NewRevision, Place, Producer
from podium.memory.store import TaskMemory
from podium.memory.tables import Blob
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec
from sqlalchemy import select

from benchmarks.figures import Figure
from benchmarks.leaks import measure as fuzz
from benchmarks.memory_figures import AtLeast
from benchmarks.writers import STEADY, measure

TENANT = "bench"
ITEMS = 10_000
FORKS = 25
WRITERS = 16
#: of the subject that is forgotten: notes, facts derived from them, and versions of one item
SECRETS = 40


@contextmanager
def fresh_memory() -> Iterator[TaskMemory]:
    """A memory on a new SQLite database."""
    with tempfile.TemporaryDirectory(prefix="podium-memory-") as folder:
        database = Database(f"sqlite:///{Path(folder, 'podium.db')}")
        try:
            database.ensure_schema()
            yield TaskMemory(database, TENANT)
        finally:
            database.close()


def fork() -> Iterator[Figure]:
    """`TaskMemory.fork` of a run with 10,000 items, and what a fork then sees.

    Raises:
        RuntimeError: a fork does not see exactly what its source had.
    """
    with fresh_memory() as memory:
        for start in range(0, ITEMS, 1000):
            memory.put_many([_fact(number) for number in range(start, start + 1000)])
        seconds = []
        for number in range(FORKS):
            begin = time.perf_counter()
            memory.fork("source", f"fork-{number}")
            seconds.append(time.perf_counter() - begin)
        _check_fork(memory, f"fork-{FORKS - 1}")
    yield Figure("fork of a run with 10,000 items", "ms", tuple(1e3 * s for s in seconds), 10, 1)


def _fact(number: int, tenant: str = TENANT) -> NewRevision:
    place = Place(tenant, "run", "source", f"task{number % 100}.field{number}")
    by = Producer(run_id="source", task=f"task{number % 100}", attempt=1)
    return NewRevision(place, "fact", f"value {number} of the source", by)


def _check_fork(memory: TaskMemory, run_id: str) -> None:
    different = memory.diff("source", run_id)
    seen = memory.get("task7.field7", scope="run", scope_id=run_id)
    if different.added or different.removed or different.changed or seen is None:
        raise RuntimeError(f"{run_id} does not see what its source had: {different}")


def writers(*, quick: bool) -> Iterator[Figure]:
    """`writers.py`: sixteen processes on one SQLite file that together ask for 3,200 revisions a second, and
    as many as they can; without the gate beside it.
    """
    seconds = 4.0 if quick else 10.0
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    for load in ("steady", "full"):
        for gate in (True, False):
            with tempfile.TemporaryDirectory(prefix="podium-writers-") as folder:
                url = f"sqlite:///{Path(folder, 'podium.db')}"
                found[load, gate] = measure(url, WRITERS, load, seconds, gate=gate)
    ours, bare = found["steady", True], found["steady", False]

    def beside(value: str, unit: float = 1.0) -> dict[str, float]:
        return {"without the gate": bare[value] / unit}

    title = f"{WRITERS} writers on SQLite"
    errors = "; ".join(ours["errors"])[:160]
    yield Figure(f"{title}: failed writes", "", (ours["failed"],), 0, 0, beside("failed"), errors)
    yield Figure(f"{title}: p99 of a write of 10", "ms", (ours["p99_ms"],), 50, 20, beside("p99_ms"))
    yield Figure(f"{title}: slowest write of 10", "s", (ours["max_ms"] / 1e3,), 1, 0.5, beside("max_ms", 1e3))
    rate, asked = "revisions_per_s", f"asked for {STEADY / 1e3:g}"
    yield AtLeast(
        f"{title}: 1,000 revisions a second", "", (ours[rate] / 1e3,), 3, 3, beside(rate, 1e3), asked
    )
    most, free = found["full", True], {"without the gate": found["full", False][rate] / 1e3}
    note = f"p99 {most['p99_ms']:.0f} ms"
    yield AtLeast(f"{title}: the same, at full speed", "", (most[rate] / 1e3,), peers=free, note=note)


def residue() -> Iterator[Figure]:
    """Bytes of a forgotten subject's content that are left in the home's files, WAL included: of its items,
    their versions, what was derived from them, and of the prompts and answers of a run that was shown them.

    Raises:
        RuntimeError: the bytes were not in the files before, so that the measurement says nothing.
    """
    with tempfile.TemporaryDirectory(prefix="podium-memory-") as home:
        folder, words = Path(home), [f"zq{secrets.token_hex(8)}" for _ in range(SECRETS)]
        pool = LocalPool([echo_spec(context=8192)], folder, create=ECHO)
        with Podium(Settings(home=folder), pool=pool) as podium:
            memory = podium.memory
            _write_secrets(memory, words)
            shown = _show_secrets(podium, words)
            before, packed = _bytes_of(folder, words), _contents_with(podium, words)
            if not before or not packed or not shown:
                raise RuntimeError("what is to be forgotten is not in the files or in no prompt")
            begin = time.perf_counter()
            receipt = memory.forget("ada")
            seconds = time.perf_counter() - begin
            after, left = _bytes_of(folder, words), _contents_with(podium, words)
            hits = [hit for word in words for hit in memory.search(word, k=3) if word in hit.revision.text]
            if memory.get("kept") is None:
                raise RuntimeError("forgetting one subject took another one's items with it")
    note = f"{before:,} bytes before; {SECRETS} values, {shown} of them in a prompt"
    yield Figure("left in the files after forget", "bytes", (float(after),), 0, 0, note=note)
    note = f"{packed} before, prompts and answers among them"
    yield Figure("contents that show it after forget, unpacked", "", (float(left),), 0, 0, note=note)
    yield Figure("found by a search after forget", "", (float(len(hits)),), 0, 0)
    yield Figure("forget, with checkpoint and vacuum", "s", (seconds,), note=receipt.note)


def _write_secrets(memory: TaskMemory, words: list[str]) -> None:
    memory.put("kept", "about somebody else, who stays", subject="grace")
    memory.put_many([_fact(number, memory.tenant) for number in range(500)])
    for number, word in enumerate(words):
        # one item in four has all its versions; the rest are items of their own
        key = "diary" if number % 4 == 0 else f"letter {number}"
        note = memory.put(key, f"Ada wrote {word} on page {number}", subject="ada")
        memory.put(f"digest of letter {number}", {"said": word}, kind="fact", derived_from=[note.id])
    memory.search(words[0], k=3)  # vectors are made when first searched


def _show_secrets(podium: Podium, words: list[str]) -> int:
    """Ask a model with the secrets in its context; how many of them its prompt showed."""
    flow = Workflow("diary", context=4096)
    flow.llm("asked", prompt="What did Ada write on the pages of her letters and of the diary?")
    flow.output("asked", "asked")
    run = podium.run(flow, budget="0.05")
    text = " ".join(m["content"] for prompt in run.prompts("asked") for m in prompt.messages)
    return sum(word in text for word in words)


def _bytes_of(folder: Path, words: list[str]) -> int:
    """How many bytes of the words the files hold."""
    found = 0
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes().lower()
            found += sum(len(word) * data.count(word.encode()) for word in words)
    return found


def _contents_with(podium: Podium, words: list[str]) -> int:
    """How many stored contents say one of the words: the larger ones are compressed, which hides them."""
    tenant, found = podium.memory.tenant, 0
    with podium.database.read() as connection:
        for digest in connection.execute(select(Blob.hash).where(Blob.tenant == tenant)).scalars().all():
            text = str(content.get(connection, tenant, digest))
            found += any(word in text for word in words)
    return found


def leaks(*, quick: bool) -> Iterator[Figure]:
    """`leaks.py`: random operations of four tenants that know each other's ids."""
    found = fuzz(10_000 if quick else 1_000_000)
    done, refused = found["operations"], found["refused"]
    note = f"{found['s']:.0f} s, {refused:,} refused" + "".join(f"; {leak}" for leak in found["leaks"][:2])
    yield Figure(f"leaks between tenants in {done:,} operations", "", (found["leaked"],), 0, 0, note=note)
