"""A small project for tests of the engine: its python tasks and tools, and what to do with them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from podium import Podium, Price, Run, Workflow
from podium.router.types import ModelSpec

STEPS = '''
import os, signal, time
from pathlib import Path
from podium import tool

def add(a: int, b: int) -> int:
    return a + b

def double(x: int) -> int:
    return 2 * x

def total(xs: list[int]) -> int:
    return sum(xs)

def present(xs: list) -> int:
    return len([x for x in xs if x is not None])

def note(path: str, text: str) -> str:
    with open(path, "a") as file:
        file.write(text + "\\n")
    return text

def count(path: str) -> int:
    note(path, "x")
    return len(Path(path).read_text().split())

def flaky(path: str, failures: int) -> int:
    done = count(path)
    if done <= failures:
        raise ValueError(f"try {done} fails")
    return done

def meet(path: str, people: int) -> str:
    me = count(path)
    while len(Path(path).read_text().split()) < people:
        time.sleep(0.01)
    if me <= people:
        raise ValueError("all fail who met first")
    return "late"

def hang_once(path: str) -> str:
    if count(path) == 1:
        time.sleep(60)
    return "ended"

def hang(path: str) -> str:
    note(path, "begun")
    time.sleep(60)
    return "never"

def crash_once(path: str) -> str:
    if count(path) == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    return "alive"

def odd(text: str) -> str:
    raise ValueError("nul \\0 and " + chr(0xD800))

def is_big(prompt: str, answer: str) -> dict:
    return {"score": 1.0 if answer == "big" else 0.0, "evidence": f"{answer} said it"}

def odd_check(prompt: str, answer: str) -> str:
    return "maybe"

def short(xs: list[int]) -> list[int]:
    return [x for x in xs if x > 100]

@tool(effect="read")
def look(path: str) -> str:
    """Read a file."""
    note(path + ".log", "look")
    return Path(path).read_text()

@tool(effect="write")
def write(path: str, text: str) -> str:
    """Write a line to a file."""
    note(path, text)
    return "written"

@tool(effect="write")
def write_slowly(path: str) -> str:
    """Write a line to a file, and never end."""
    note(path, "written")
    time.sleep(60)
    return "written"
'''


def write_steps(folder: Path) -> None:
    """The project's module, `steps.py`."""
    (folder / "steps.py").write_text(STEPS)


def replay_spec(path: Path, *rows: dict[str, Any], name: str = "replay") -> ModelSpec:
    """A model that answers by these rows; see `workers.engines.replay`."""
    full = [{"input_tokens": 20, "output_tokens": 10} | row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in full))
    price = Price(input=Decimal("0.1"), output=Decimal("0.2"))
    return ModelSpec(name=name, engine="replay", source=str(path), price=price, context=8192, concurrency=4)


def one(name: str = "one", **body: Any) -> Workflow:
    """A workflow of one python task `work`; `body` is the task's."""
    workflow = Workflow(name)
    workflow.python("work", body.pop("python"), **body)
    return workflow


def statuses(run: Run) -> dict[str, str]:
    return {task.record.name: task.record.status for task in run.tasks}


def kinds(podium: Podium, run: Run, task: str | None = None) -> list[str]:
    """Kinds of a run's events in order, those of one task if it is named."""
    return [e.kind for e in podium.events(run.id) if task is None or e.task == task]


def check_books(podium: Podium, run: Run) -> None:
    """What holds for every run that is over: the chain, the order of events, the money."""
    events = podium.events(run.id)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert podium.verify(run.id) is None
    record = run.refresh().record
    assert record.reserved_nano == 0
    assert record.settled_nano <= record.budget_nano
    assert record.engine is None
    assert {c.status for c in run.calls} <= {"settled", "refunded", "unknown"}
    paid = sum(min(c.cost_nano or 0, c.reserved_nano) for c in run.calls)
    assert paid == record.settled_nano


def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """Wait for a condition; its value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return found


def lines(path: Path) -> Sequence[str]:
    return path.read_text().splitlines() if path.exists() else []
