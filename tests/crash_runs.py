"""Kills `crash_driver.py` at a commit point, starts it again, and says what was there before and after."""

from __future__ import annotations

import atexit
import os
import subprocess
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

from engine_project import lines, write_steps
from podium import Podium, Settings
from podium.orchestrator.views import Run
from warm import Warm

TESTS = Path(__file__).parent
#: those that no thread of the tests uses at the moment; they stay for the tests to come
_idle: deque[Warm] = deque()


@dataclass(frozen=True)
class Crash:
    """A run that was killed once and then ended."""

    #: exit status of the process that was killed, and of the one after it
    killed: int
    ended: int
    #: finished tasks when it was killed, with their attempts
    finished: dict[str, int]
    #: settled calls when it was killed
    paid: set[str]
    #: what tasks had written to the log then, and at the end
    log_before: Counter[str]
    log_after: Counter[str]
    run: Run
    podium: Podium
    errors: str


def make_project(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_steps(folder)
    (folder / "number").write_text("seven")


def start(folder: Path, url: str, workflow: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run the driver in the project `folder` until it ends or kills itself."""
    return drive("crash_driver.py", [str(folder / "home"), url, workflow], folder, fault)


def drive(
    driver: str, arguments: list[str], folder: Path, fault: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one of the programs in tests/crash as a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PODIUM_")}
    environment |= {
        "PODIUM_FAULT": fault,
        "PYTHONPATH": str(TESTS),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    try:
        warm = _idle.pop()
    except IndexError:
        warm = Warm()
        atexit.register(warm.close)
    done = warm.script(TESTS / "crash" / driver, arguments, folder, environment)
    _idle.append(warm)
    return done


def crash(folder: Path, url: str, workflow: str, fault: str) -> Crash:
    """Kill the driver at `fault`, then start it again without one."""
    make_project(folder)
    killed = start(folder, url, workflow, fault)
    podium = Podium(Settings(home=folder / "home", database_url=url))
    finished: dict[str, int] = {}
    paid: set[str] = set()
    for run in podium.runs():
        finished |= {t.record.name: t.record.attempts for t in run.tasks if t.record.status == "succeeded"}
        paid |= {c.id for c in run.calls if c.status == "settled"}
    log_before = Counter(lines(folder / "log"))
    ended = start(folder, url, workflow)
    assert ended.returncode == 0, ended.stderr
    run = podium.get("last")
    log_after = Counter(lines(folder / "log"))
    errors = killed.stderr + ended.stderr
    return Crash(
        killed.returncode, ended.returncode, finished, paid, log_before, log_after, run, podium, errors
    )
