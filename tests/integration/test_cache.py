"""The cache of outputs: opt-in, by what a task is and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, lines, statuses, write_steps
from podium import Podium, Workflow
from podium.memory import tables
from podium.memory.database import Database
from sqlalchemy import update

MakePodium = Callable[..., Podium]


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    write_steps(tmp_path)
    return tmp_path


@pytest.fixture
def podium(project: Path, make_podium: MakePodium) -> Podium:
    return make_podium(None)


@pytest.fixture
def anywhere(project: Path, make_podium: MakePodium, database_url: str) -> Podium:
    return make_podium(database_url)


def counted(path: Path, name: str = "work", **options: Any) -> Workflow:
    """`work` counts how often it ran with `key`."""
    wf = Workflow("counted", inputs={"key": "str"})
    options = {"cache": True} | options
    wf.python(name, "steps:note", with_={"path": str(path), "text": "{key}"}, **options)
    wf.output("found", name)
    return wf


def times(path: Path) -> int:
    return len(lines(path))


def test_the_same_task_with_the_same_input_is_done_once(anywhere: Podium, project: Path) -> None:
    log = project / "log"
    first = anywhere.run(counted(log), key="a")
    again = anywhere.run(counted(log, name="other", timeout=9.0, retry={"attempts": 2}), key="a")
    assert (first.output, again.output, times(log)) == ("a", "a", 1)
    (told,) = [e for e in anywhere.events(again.id) if e.task == "other"]
    assert told.kind == "task.succeeded"
    assert told.data["cached"] == {"run": first.id, "task": "work"}
    (task,) = again.tasks
    assert (task.record.status, task.record.attempts) == ("succeeded", 0)
    assert again.attempts == []
    assert kinds(anywhere, first, "work") == ["task.started", "task.succeeded"]
    check_books(anywhere, again)


def test_other_inputs_and_other_tasks_are_not_taken(podium: Podium, project: Path) -> None:
    log = project / "log"
    podium.run(counted(log), key="a")
    podium.run(counted(log), key="b")
    podium.run(counted(log, output="any"), key="a")
    podium.run(counted(log, cache=None), key="a")
    assert times(log) == 4
    podium.run(counted(log), key="b")
    assert times(log) == 4


def test_a_function_of_another_folder_is_another(
    podium: Podium, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = project / "log", project / "other"
    podium.run(counted(log), key="a")
    other.mkdir()
    write_steps(other)
    monkeypatch.chdir(other)
    podium.run(counted(log), key="a")
    assert times(log) == 2


def test_an_output_is_good_for_its_ttl(anywhere: Podium, project: Path) -> None:
    log = project / "log"
    anywhere.run(counted(log, cache={"ttl": 3600}), key="a")
    assert anywhere.run(counted(log), key="a").output == "a"
    assert times(log) == 1
    age(anywhere.database, 3601)
    anywhere.run(counted(log), key="a")
    assert times(log) == 2
    age(anywhere.database, 1e9)  # the last one stays good for ever
    anywhere.run(counted(log), key="a")
    assert times(log) == 2


def age(database: Database, seconds: float) -> None:
    """Let time pass for what is kept."""
    older = {"expires_at": tables.Cache.expires_at - seconds}
    database.transact(lambda c: c.execute(update(tables.Cache).values(older)))


def test_tenants_do_not_see_each_others_outputs(project: Path, make_podium: MakePodium) -> None:
    log = project / "log"
    mine, theirs = make_podium(None), make_podium(None, tenant="theirs")
    mine.run(counted(log), key="a")
    theirs.run(counted(log), key="a")
    assert times(log) == 2
    theirs.run(counted(log), key="a")
    assert times(log) == 2


def test_elements_are_cached_one_by_one(podium: Podium, project: Path) -> None:
    log = project / "log"
    wf = Workflow("w", inputs={"xs": "list[str]"})
    given = {"path": str(log), "text": "{item}"}
    wf.map("each", over="xs", python="steps:note", with_=given, cache=True)
    wf.output("each", "each")
    podium.run(wf, xs=["a", "b"])
    run = podium.run(wf, xs=["b", "c", "a"])
    assert run.output == ["b", "c", "a"]
    assert sorted(lines(log)) == ["a", "b", "c"]
    assert {t.record.name: t.record.attempts for t in run.tasks if t.record.parent} == {
        "each[0]": 0, "each[1]": 1, "each[2]": 0,
    }  # fmt: skip


def test_a_model_is_asked_once(podium: Podium) -> None:
    wf = Workflow("w", inputs={"q": "str"})
    wf.llm("said", prompt="{q}", cache=True)
    wf.output("said", "said")
    assert podium.run(wf, q="hello").output == podium.run(wf, q="hello").output == "echo: hello"
    runs = podium.runs()
    assert sorted(len(run.calls) for run in runs) == [0, 1]
    assert sorted(run.cost_nano > 0 for run in runs) == [False, True]


def test_failures_are_not_kept(podium: Podium, project: Path) -> None:
    wf = Workflow("w")
    wf.python(
        "work", "steps:look", with_={"path": str(project / "file")}, cache=True, on_failure="collect",
        retry={"attempts": 1},
    )  # fmt: skip
    wf.output("work", "work")
    assert "error" in podium.run(wf).output
    (project / "file").write_text("there")
    assert podium.run(wf).output == "there"


def test_a_damaged_entry_is_none(podium: Podium, project: Path) -> None:
    log = project / "log"
    run = podium.run(counted(log), key="a")
    digest = run.tasks[0].record.output_blob
    damage = update(tables.Blob).where(tables.Blob.hash == digest).values(data=b'"b"')
    podium.database.transact(lambda c: c.execute(damage))
    run = podium.submit(counted(log), detached=False, key="a")
    podium.drive(run.id)
    assert times(log) == 2


def test_a_condition_comes_before_the_cache(podium: Podium, project: Path) -> None:
    log = project / "log"
    podium.run(counted(log), key="a")
    run = podium.run(counted(log, when=("key", "==", "b")), key="a")
    assert statuses(run) == {"work": "skipped"}
