"""The same submission or completion more than once, and completions out of order: each is accepted once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds
from podium import Podium, Run, StaleEpoch, Workflow
from podium.memory import runs
from podium.memory.content import encode
from podium.memory.database import Database
from podium.memory.journal import Journal
from podium.memory.steps import Finish, Retry, Start, Step, advance
from serving_engines import TESTS, environment

MakePodium = Callable[..., Podium]
PEOPLE = 8


def hello() -> Workflow:
    wf = Workflow("hello")
    wf.llm("said", prompt="hello")
    wf.output("said", "said")
    return wf


# -- submissions


def check_one(podium: Podium, ids: list[str]) -> None:
    """All who submitted got the same run, which ends well and once."""
    assert len(set(ids)) == 1
    assert [run.id for run in podium.runs()] == ids[:1]
    run = podium.drive(ids[0])
    assert run.status == "succeeded"
    assert Counter(kinds(podium, run))["run.created"] == 1
    assert [(a.task, a.status) for a in run.attempts] == [("said", "succeeded")]
    assert len(run.calls) == 1
    check_books(podium, run)


def test_threads_that_submit_with_one_key_get_one_run(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    people = [make_podium(database_url) for _ in range(PEOPLE)]
    gate = threading.Barrier(PEOPLE)

    def submit(podium: Podium) -> str:
        gate.wait(20)
        return podium.submit(hello(), idempotency_key="invoice 7").id

    with ThreadPoolExecutor(PEOPLE) as threads:
        ids = list(threads.map(submit, people))
    check_one(people[0], ids)
    other = people[0].submit(hello(), idempotency_key="invoice 8")
    assert other.id not in ids


def test_processes_that_submit_with_one_key_get_one_run(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    podium = make_podium(database_url)  # makes the schema: they race for the run only
    driver = str(TESTS / "crash" / "submit_driver.py")
    program = [sys.executable, driver, str(home), database_url, "invoice 7"]
    people = [
        subprocess.Popen(
            program,
            cwd=home.parent,
            env=environment(home.parent),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for process in people:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        ids = []
        for process in people:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        ids = [process.communicate(timeout=30)[0].strip() for process in people]
    finally:
        for process in people:
            process.kill()
            process.communicate()
    check_one(podium, ids)


# -- completions


def start(attempt: int) -> Start:
    return Start("said", attempt, time.time())


def finish(attempt: int, text: str, status: str = "succeeded") -> Finish:
    return Finish("said", attempt, status, time.time(), output=encode(text, "the output"))


def retry(attempt: int) -> Retry:
    return Retry("said", attempt, time.time(), {"kind": "TaskError", "message": "x", "mend": ""}, 0.0)


class Claimed:
    """A run that this test has claimed, and whose engine it plays."""

    def __init__(self, podium: Podium) -> None:
        self.podium = podium
        self.run = podium.submit(hello())
        self.epoch = podium.database.transact(lambda c: runs.claim(c, self.run.id, "host.home.e", 0))

    def write(self, *steps: Step) -> None:
        self.podium.database.transact(lambda c: advance(c, self.run.id, self.epoch, steps))

    def refuses(self, *steps: Step) -> None:
        """The steps are refused, and nothing of the run is changed."""
        before = self.rows()
        with pytest.raises(StaleEpoch):
            self.write(*steps)
        assert self.rows() == before

    def rows(self) -> list[Any]:
        run = self.podium.get(self.run.id)
        return [run.record, [t.record for t in run.tasks], run.attempts, self.podium.events(run.id)]

    def over(self, output: str, attempts: list[tuple[int, str]]) -> Run:
        """End the run, and check that it came to this."""
        end = runs.finish_run
        self.podium.database.transact(
            lambda c: end(c, self.run.id, self.epoch, "succeeded", outputs={"said": output})
        )
        run = self.podium.get(self.run.id)
        assert run.tasks[0].output() == output
        assert [(a.number, a.status) for a in run.attempts] == attempts
        assert kinds(self.podium, run, "said").count("task.succeeded") == 1
        check_books(self.podium, run)
        return run


def test_a_completion_that_comes_twice_is_accepted_once(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    claimed = Claimed(make_podium(database_url))
    claimed.write(start(1))
    claimed.refuses(finish(1, "one"), finish(1, "one"))  # also in one commit: it is all or nothing
    claimed.write(finish(1, "one"))
    claimed.refuses(finish(1, "one"))
    claimed.refuses(finish(1, "other"))
    claimed.refuses(finish(1, "", "failed"))
    claimed.over("one", [(1, "succeeded")])


def test_completions_out_of_order_are_accepted_for_the_newest_attempt_only(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    claimed = Claimed(make_podium(database_url))
    claimed.refuses(finish(1, "before it began"))
    claimed.write(start(1))
    claimed.refuses(finish(2, "of an attempt to come"))
    claimed.refuses(start(1))
    claimed.write(retry(1))
    claimed.refuses(retry(1))
    claimed.write(start(2))
    claimed.refuses(finish(1, "late"))
    claimed.refuses(retry(1))
    claimed.write(finish(2, "two"))
    claimed.refuses(finish(1, "later still"))
    claimed.over("two", [(1, "failed"), (2, "succeeded")])


def test_of_racing_completions_one_is_accepted(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    """Eight writers of their own, as often as it takes to meet: the same attempt ends once."""
    podium = make_podium(database_url)
    databases = [Database(database_url) for _ in range(PEOPLE)]
    journals = [Journal(database) for database in databases]
    for _ in range(10):
        claimed = Claimed(podium)
        claimed.write(start(1))
        run_id, epoch, gate = claimed.run.id, claimed.epoch, threading.Barrier(PEOPLE)

        def end(number: int, run: str = run_id, at: int = epoch, go: threading.Barrier = gate) -> str | None:
            steps = [finish(1, str(number))]
            go.wait(20)
            done = journals[number].submit("task.finish", lambda c: advance(c, run, at, steps))
            error = done.exception(30)
            assert error is None or isinstance(error, StaleEpoch)
            return str(number) if error is None else None

        with ThreadPoolExecutor(PEOPLE) as threads:
            accepted = [text for text in threads.map(end, range(PEOPLE)) if text is not None]
        assert len(accepted) == 1
        claimed.over(accepted[0], [(1, "succeeded")])
    for journal, database in zip(journals, databases, strict=True):
        journal.close()
        database.close()
