"""Workflows that leave time for a fault, and what must hold after one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from engine_project import check_books, kinds, statuses, write_steps
from podium import Podium, Run, Workflow

TASKS = ("one", "two", "three", "four")


def chain() -> Workflow:
    """Four tasks, one after the other; each writes its name to the log."""
    workflow = Workflow("chain")
    for before, name in zip((None, *TASKS), TASKS, strict=False):
        needs = [before] if before else []
        workflow.python(name, "steps:note", with_={"path": "log", "text": name}, needs=needs)
    workflow.output("last", "four")
    return workflow


def pausing(seconds: float) -> Workflow:
    """Three tasks; the second sleeps, so that there is time for a fault, and then has a large output
    that does not pack well."""
    workflow = Workflow("pausing")
    workflow.python("one", "steps:note", with_={"path": "log", "text": "one"})
    workflow.python("two", "pauses:pause", with_={"path": "log", "seconds": seconds}, needs=["one"])
    workflow.python("three", "steps:note", with_={"path": "log", "text": "three"}, needs=["two"])
    workflow.output("last", "three")
    return workflow


PAUSES = """
import random, time
from steps import note

def pause(path: str, seconds: float) -> str:
    note(path, "begun")
    time.sleep(seconds)
    note(path, "two")
    return random.Random(1).randbytes(200_000).hex()
"""


def project(folder: Path) -> None:
    write_steps(folder)
    (folder / "pauses.py").write_text(PAUSES)


def check_accepted_once(podium: Podium, run: Run, names: tuple[str, ...]) -> None:
    assert run.status == "succeeded", run.error
    assert statuses(run) == dict.fromkeys(names, "succeeded")
    done = [a.task for a in run.attempts if a.status == "succeeded"]
    assert sorted(done) == sorted(names)
    for name in names:
        assert kinds(podium, run, name).count("task.succeeded") == 1
    check_books(podium, run)


def in_background(work: Callable[[], Run]) -> tuple[threading.Thread, list[Run | BaseException]]:
    found: list[Run | BaseException] = []

    def do() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            found.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    return thread, found
