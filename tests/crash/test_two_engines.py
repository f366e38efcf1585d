"""Two engines on one run: one drives it, and when that one is killed the other takes it over at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from engine_project import check_books, lines, until, write_steps
from podium import Podium, Workflow
from podium.memory import runs
from serving_engines import serving

MakePodium = Callable[..., Podium]


def gated(folder: Path) -> Workflow:
    wf = Workflow("gated", inputs={"key": "str"})
    wf.python("first", "steps:note", with_={"path": str(folder / "log"), "text": "{key}"})
    wf.llm("asked", prompt=f"!stall {folder / 'gate'}", needs=["first"])
    wf.output("answer", "asked")
    return wf


def test_two_engines_do_each_task_once(home: Path, make_podium: MakePodium, database_url: str) -> None:
    folder = home.parent
    write_steps(folder)
    (folder / "gate").touch()
    podium = make_podium(database_url)
    ids = [podium.submit(gated(folder), key=f"k{n}").id for n in range(12)]
    with ExitStack() as stack:  # both come up to a full queue and race for every run of it
        both = [stack.enter_context(serving(home, database_url)) for _ in range(2)]
        until(lambda: all(podium.get(run).status in runs.ENDED for run in ids), seconds=60)
        for engine in both:
            engine.end()
    assert Counter(lines(folder / "log")) == {f"k{n}": 1 for n in range(12)}
    for run_id in ids:
        run = podium.get(run_id)
        assert run.status == "succeeded", run.error
        assert sorted((a.task, a.status) for a in run.attempts) == [
            ("asked", "succeeded"),
            ("first", "succeeded"),
        ]
        assert [e.kind for e in podium.events(run_id)].count("run.claimed") == 1
        check_books(podium, run)


def test_a_killed_engines_run_goes_on_within_half_a_second(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    folder = home.parent
    write_steps(folder)
    podium = make_podium(database_url)
    took = []
    for number in range(3):
        gate = folder / "gate"
        gate.unlink(missing_ok=True)
        with serving(home, database_url) as first:
            run = podium.submit(gated(folder), key=f"k{number}")
            until(lambda r=run.id: [c.status for c in podium.get(r).calls] == ["sent"])
            with serving(home, database_url) as second:
                killed = time.time()
                first.kill()
                until(lambda r=run.id, e=second.name: podium.get(r).record.engine == e)
                took.append(claimed_at(podium, run.id, second.name) - killed)
                gate.touch()
                until(lambda r=run.id: podium.get(r).status == "succeeded")
                second.end()
        run = podium.get(run.id)
        assert [(a.task, a.status) for a in run.attempts] == [
            ("first", "succeeded"),
            ("asked", "lost"),
            ("asked", "succeeded"),
        ]
        check_books(podium, run)
    assert sorted(took)[1] <= 0.5, took
    assert Counter(lines(folder / "log")) == {"k0": 1, "k1": 1, "k2": 1}


def claimed_at(podium: Podium, run_id: str, engine: str) -> float:
    return next(e.at for e in podium.events(run_id) if e.kind == "run.claimed" and e.data["engine"] == engine)
