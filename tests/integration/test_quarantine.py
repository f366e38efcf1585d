"""A task whose process dies twice is not run again; nobody else loses anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, lines, statuses
from inline_steps import break_off, drive_elsewhere
from podium import Podium, Run, Settings, Workflow

MakePodium = Callable[..., Podium]

POISON = '''
import asyncio, os, signal, time

def _count(path):
    with open(path, "a") as file:
        file.write("x\\n")
    return len(open(path).read().split())

def crash(path: str, times: int = 99) -> str:
    if _count(path) <= times:
        os.kill(os.getpid(), signal.SIGSEGV)
    return "alive"

def leave(path: str, times: int = 99) -> str:
    if _count(path) <= times:
        os._exit(3)
    return "alive"

def hang(path: str) -> str:
    _count(path)
    time.sleep(60)
    return "never"

def crash_then_fail(path: str) -> str:
    if _count(path) == 1:
        os._exit(3)
    raise ValueError("an ordinary error")

def same(x: int) -> int:
    return x

async def together(path: str, others: str) -> str:
    """Begins, and waits for two that did so at the same time."""
    _count(path)
    while not os.path.exists(others):
        await asyncio.sleep(0.005)
    return "done"

async def leave_together(path: str, other: str) -> str:
    """Ends its process as soon as the other has begun as often as it."""
    mine = _count(path)
    while not os.path.exists(other) or len(open(other).read().split()) < mine:
        await asyncio.sleep(0.005)
    os._exit(3)
'''


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    (tmp_path / "poison.py").write_text(POISON)
    return tmp_path


@pytest.fixture
def podium(project: Path, make_podium: MakePodium) -> Podium:
    return make_podium(None)


def poisoned(project: Path, function: str, **options: Any) -> Workflow:
    wf = Workflow("w", inputs={"xs": "list[int]"})
    retry = {"attempts": 5, "backoff": 0.05}
    options = {"retry": retry, "with_": {"path": str(project / "log")}} | options
    wf.python("bad", f"poison:{function}", **options)
    wf.map("good", over="xs", python="poison:same", with_={"x": "{item}"})
    wf.output("bad", "bad")
    wf.output("good", "good")
    return wf


def is_quarantined(run: Run) -> None:
    assert run.status == "failed"
    assert run.error is not None
    assert "quarantined after 2 deaths of its process" in run.error["message"]
    assert [a.status for a in run.attempts if a.task == "bad"] == ["failed", "failed"]


@pytest.mark.parametrize("function", ["crash", "leave"])
def test_two_deaths_are_enough(podium: Podium, project: Path, function: str) -> None:
    run = podium.run(poisoned(project, function), xs=list(range(8)))
    is_quarantined(run)
    assert len(lines(project / "log")) == 2
    check_books(podium, run)


def test_a_hang_is_a_death(podium: Podium, project: Path) -> None:
    run = podium.run(poisoned(project, "hang", timeout=0.4), xs=[1])
    is_quarantined(run)
    assert "did not end within 0.4 seconds" in str(run.error)


def test_one_death_is_not(podium: Podium, project: Path) -> None:
    given = {"path": str(project / "log"), "times": 1}
    run = podium.run(poisoned(project, "crash", with_=given), xs=[1])
    assert (run.status, run.outputs) == ("succeeded", {"bad": "alive", "good": [1]})


def test_ordinary_failures_are_no_deaths(podium: Podium, project: Path) -> None:
    run = podium.run(poisoned(project, "crash_then_fail"), xs=[1])
    assert run.status == "failed"
    assert "ordinary error" in str(run.error)
    assert "quarantined" not in str(run.error)
    assert len(run.attempts) == 5 + 2


def test_the_policy_takes_a_quarantined_task(podium: Podium, project: Path) -> None:
    run = podium.run(poisoned(project, "leave", on_failure="collect"), xs=[1, 2])
    assert run.status == "succeeded", run.error
    assert run.outputs is not None
    assert "quarantined" in run.outputs["bad"]["error"]["message"]
    assert run.outputs["good"] == [1, 2]


def test_deaths_are_counted_across_engines(project: Path, make_podium: MakePodium, database_url: str) -> None:
    podium = make_podium(database_url)
    wf = poisoned(project, "leave", retry={"attempts": 5, "backoff": 1.5, "jitter": 0})
    run = podium.submit(wf, detached=False, xs=[1])
    break_off(podium, run, lambda: "task.retrying" in kinds(podium, run))
    run = make_podium(database_url).drive(run.id)
    is_quarantined(run)
    check_books(podium, run)


def test_a_person_may_try_again(podium: Podium, project: Path) -> None:
    given = {"path": str(project / "log"), "times": 2}
    run = podium.run(poisoned(project, "crash", with_=given), xs=[1])
    is_quarantined(run)
    podium.retry(run.id)
    assert podium.drive(run.id).status == "succeeded"


def test_an_inline_function_that_kills_engines_gets_its_own_process(project: Path, home: Path) -> None:
    """`bad` kills two engines, and `beside` runs in both of them; then each is run by itself."""
    wf = Workflow("w")
    bad, beside = str(project / "bad"), str(project / "beside")
    wf.python("bad", "poison:leave_together", inline=True, with_={"path": bad, "other": beside})
    given = {"path": beside, "others": str(project / "go")}
    wf.python("beside", "poison:together", inline=True, with_=given)
    wf.python("bye", "poison:same", inline=True, with_={"x": 1})
    url = f"sqlite:///{project / 'podium.db'}"
    podium = Podium(Settings(home=project / "home", database_url=url))
    run = podium.submit(wf, detached=False)
    for deaths in (1, 2):
        assert drive_elsewhere(project, url).returncode == 3
        assert len(lines(project / "bad")) == deaths
    (project / "go").touch()
    ended = drive_elsewhere(project, url)
    assert ended.returncode == 0, ended.stderr
    run = run.refresh()
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["task"] == "bad"
    assert "quarantined after 3 deaths of its process" in run.error["message"]
    assert [a.status for a in run.attempts if a.task == "bad"] == ["lost", "lost", "failed"]
    assert [a.status for a in run.attempts if a.task == "beside"] == ["lost", "lost", "succeeded"]
    assert statuses(run)["bye"] == "succeeded"
    check_books(podium, run)
    podium.close()
