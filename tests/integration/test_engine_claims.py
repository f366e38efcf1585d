"""Who drives a run: racing engines, zombies, takeover of a dead engine's run, the queue of detached runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_project import check_books, kinds, lines, one, statuses, until, write_steps
from podium import Podium, Run, StaleEpoch, Workflow
from podium.memory import reads, runs
from podium.memory.content import encode
from podium.memory.database import Database
from podium.memory.journal import Journal
from podium.memory.steps import Expand, Finish, Retry, Start, Step, Wait, advance
from podium.orchestrator.engine import Engine
from podium.orchestrator.leases import EngineLock
from podium.workers.local import LocalPool

MakePodium = Callable[..., Podium]
OPEN = ("queued", "running")


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    write_steps(tmp_path)
    return tmp_path


def hello() -> Workflow:
    wf = Workflow("hello")
    wf.llm("said", prompt="hello")
    wf.output("said", "said")
    return wf


def test_of_racing_engines_one_claims(home: Path, make_podium: MakePodium, database_url: str) -> None:
    podium = make_podium(database_url)
    run = podium.submit(hello())
    gate, won = threading.Barrier(8), []

    def claim(number: int) -> None:
        database = Database(database_url)
        journal = Journal(database)
        gate.wait()
        future = journal.submit("run.claim", lambda c: runs.claim(c, run.id, f"host.home.{number}", 0))
        if future.exception(30) is None:
            won.append(number)
        else:
            assert isinstance(future.exception(), StaleEpoch)
        journal.close()
        database.close()

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == 1
    assert podium.get(run.id).record.engine == f"host.home.{won[0]}"
    assert kinds(podium, run).count("run.claimed") == 1


def test_two_podiums_on_one_run_do_each_task_once(
    project: Path, make_podium: MakePodium, database_url: str
) -> None:
    first, second = make_podium(database_url), make_podium(database_url)
    run = first.submit(
        one(python="steps:note", with_={"path": str(project / "out"), "text": "x"}), detached=False
    )
    found: list[str] = []
    drive = lambda podium: found.append(podium.drive(run.id).status)  # noqa: E731
    threads = [threading.Thread(target=drive, args=(podium,)) for podium in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["succeeded", "succeeded"]
    assert lines(project / "out") == ["x"]
    check_books(first, run)


def began(podium: Podium, run: Run, epoch: int, task: str = "said") -> None:
    podium.database.transact(lambda c: advance(c, run.id, epoch, [Start(task, 1, time.time())]))


def said(text: str, status: str = "succeeded") -> Finish:
    """The end of the first attempt of `said`."""
    return Finish("said", 1, status, time.time(), output=encode(text, "the output"))


def test_a_zombie_is_refused(home: Path, make_podium: MakePodium, database_url: str) -> None:
    """Every write of an engine that lost its run is refused, and leaves no trace."""
    podium = make_podium(database_url)
    run = podium.submit(hello())
    act = podium.database.transact
    epoch = act(lambda c: runs.claim(c, run.id, "host.home.old", 0))
    began(podium, run, epoch)
    act(lambda c: runs.claim(c, run.id, "host.home.new", epoch))
    before = podium.events(run.id)
    error = {"kind": "TaskError", "message": "x", "mend": ""}
    steps: list[Step] = [
        Start("said", 2, 0.0),
        said("late"),
        Retry("said", 1, 0.0, error, 0.0),
        Wait("said", 1, 0.0, "?"),
        Expand("said", 0, 1, []),
    ]
    writes: list[Callable[..., object]] = [
        *(lambda c, s=step: advance(c, run.id, epoch, [s]) for step in steps),
        lambda c: runs.finish_run(c, run.id, epoch, "succeeded", outputs={"said": "late"}),
        lambda c: runs.release(c, run.id, epoch),
    ]
    for write in writes:
        with pytest.raises(StaleEpoch):
            act(write)
    assert podium.events(run.id) == before
    assert statuses(podium.get(run.id)) == {"said": "pending"}
    assert podium.get(run.id).record.engine == "host.home.new"


def test_a_late_result_of_the_same_epoch_is_refused(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    podium = make_podium(database_url)
    run = podium.submit(hello())
    act = podium.database.transact
    epoch = act(lambda c: runs.claim(c, run.id, "host.home.e", 0))
    began(podium, run, epoch)
    act(lambda c: advance(c, run.id, epoch, [said("1")]))
    for status in ("succeeded", "failed"):
        with pytest.raises(StaleEpoch, match="not current"):
            act(lambda c, s=status: advance(c, run.id, epoch, [said("2", s)]))
    assert podium.get(run.id).tasks[0].output() == "1"


def test_a_run_of_a_dead_engine_is_taken_over(project: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    run = podium.submit(one(python="steps:count", with_={"path": str(project / "n")}), detached=False)
    lock = EngineLock(podium.settings.home)
    podium.database.transact(lambda c: runs.claim(c, run.id, lock.engine, 0))
    began(podium, run, 1, "work")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(podium.drive(run.id).status))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()  # the other engine lives: it is only followed
    assert podium.get(run.id).record.engine == lock.engine
    lock.close()  # as the kernel does when a process dies
    thread.join(30)
    assert found == ["succeeded"]
    run = podium.get(run.id)
    assert [(a.status, a.epoch) for a in run.attempts] == [("lost", 1), ("succeeded", 2)]
    assert run.tasks[0].record.failures == 0
    assert "task.lost" in kinds(podium, run)
    check_books(podium, run)


def test_a_detached_engine_takes_queued_runs(
    project: Path, make_podium: MakePodium, database_url: str
) -> None:
    podium = make_podium(database_url)
    mine = podium.submit(hello(), detached=False)
    bad = podium.submit(hello(), policy={"kind": "nonsense"})
    theirs = [podium.submit(hello()).id for _ in range(3)]
    pool = podium._given_pool
    assert isinstance(pool, LocalPool)

    async def serve() -> None:
        async with Engine(podium.database, pool, podium.settings.home, policy={}) as engine:
            serving = asyncio.create_task(engine.serve())
            ids = {*theirs, bad.id}
            await asyncio.to_thread(until, lambda: ids.isdisjoint(r.id for r in podium.runs(statuses=OPEN)))
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

    asyncio.run(serve())
    assert {podium.get(run).status for run in theirs} == {"succeeded"}
    assert podium.get(bad.id).status == "failed"
    assert podium.get(mine.id).status == "queued"


def test_an_engine_that_stops_lets_go_of_its_runs(project: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    run = podium.submit(one(python="steps:hang_once", with_={"path": str(project / "n")}))
    pool = podium._given_pool
    assert isinstance(pool, LocalPool)

    async def serve() -> None:
        async with Engine(podium.database, pool, podium.settings.home, policy={}) as engine:
            serving = asyncio.create_task(engine.serve())
            await asyncio.to_thread(until, lambda: lines(project / "n"))
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(serve())
    record = podium.get(run.id).record
    assert (record.status, record.engine) == ("queued", None)
    assert podium.drive(run.id).status == "succeeded"


def test_a_cancellation_that_waits_is_obeyed_at_the_claim(project: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    run = podium.submit(one(python="steps:count", with_={"path": str(project / "n")}), detached=False)
    lock = EngineLock(podium.settings.home)
    podium.database.transact(lambda c: runs.claim(c, run.id, lock.engine, 0))
    assert podium.cancel(run.id) == "running"
    lock.close()
    run = podium.drive(run.id)
    assert run.status == "cancelled"
    assert not (project / "n").exists()


def test_an_engine_far_away_counts_as_dead_without_beats(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None, lease_seconds=1.0)
    run = podium.submit(hello(), detached=False)
    podium.database.transact(lambda c: runs.claim(c, run.id, "elsewhere.0.e", 0))
    assert podium.drive(run.id).status == "succeeded"


def test_beats_show_that_an_engine_lives(
    project: Path, make_podium: MakePodium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podium.orchestrator.engine.BEAT", 0.02)
    podium = make_podium(None)
    wf = Workflow("slow")
    wf.llm("said", prompt=f"!stall {project / 'go'}")
    run = podium.submit(wf, detached=False)
    thread = threading.Thread(target=podium.drive, args=(run.id,))
    thread.start()
    until(lambda: podium.get(run.id).record.beat >= 3)
    (project / "go").touch()
    thread.join(30)
    with podium.database.read() as connection:
        assert reads.run(connection, run.id).status == "succeeded"


def test_an_engine_stops_what_it_runs_when_another_one_has_taken_the_run(
    project: Path, make_podium: MakePodium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat tells it, long before the task that hangs would have ended and been refused."""
    monkeypatch.setattr("podium.orchestrator.engine.BEAT", 0.05)
    podium = make_podium(None)
    run = podium.submit(one(python="steps:hang", with_={"path": str(project / "n")}), detached=False)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(podium.drive(run.id).status))
    thread.start()
    until(lambda: lines(project / "n") == ["begun"])
    lock = EngineLock(podium.settings.home)
    epoch = podium.get(run.id).record.epoch
    podium.database.transact(lambda c: runs.claim(c, run.id, lock.engine, epoch))
    until(lambda: run.id not in podium._engine._driving if podium._engine else False)
    podium.database.transact(lambda c: runs.finish_run(c, run.id, epoch + 1, "failed"))
    lock.close()
    thread.join(20)
    assert found == ["failed"]
    assert lines(project / "n") == ["begun"]
    check_books(podium, podium.get(run.id))


def test_a_beat_comes_through_while_user_code_blocks_the_event_loop(
    project: Path, make_podium: MakePodium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podium.orchestrator.engine.BEAT", 0.05)
    (project / "blocking.py").write_text(
        "import pathlib, time\n"
        "def block(gate: str) -> str:\n"
        "    while not pathlib.Path(gate).exists(): time.sleep(0.01)\n"
        "    return 'ended'\n"
    )
    monkeypatch.syspath_prepend(project)
    podium = make_podium(None)
    gate = project / "gate"
    workflow = one(python="blocking:block", with_={"gate": str(gate)}, inline=True)
    run = podium.submit(workflow, detached=False)
    thread = threading.Thread(target=podium.drive, args=(run.id,))
    thread.start()
    until(lambda: podium.get(run.id).tasks[0].record.status == "running")
    seen = podium.get(run.id).record.beat
    until(lambda: podium.get(run.id).record.beat >= seen + 3)
    gate.touch()
    thread.join(30)
    assert podium.get(run.id).status == "succeeded"
