"""Any order of events keeps the invariants: the real driver on a real database, under a simulated clock.

Hypothesis picks a graph, and then what happens next: a commit goes through, an attempt ends somehow, time
passes, the clock is set, the engine dies, a second engine takes over while the first believes to be alive.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from podium import Workflow
from podium.memory import control, events, reads, runs
from podium.memory.database import Database
from podium.memory.errors import StaleEpoch, TaskError, UsageError, WaitingForPerson
from podium.orchestrator.executor import Outcome
from podium.orchestrator.processes import WorkerDied
from podium.orchestrator.state import PASSED, first_edges, first_tasks
from simulation import Clock, SimEngine, SimLoop, use_clock

RUN = "r1"
ENDS = ["ok", "ok", "ok", "again", "never", "died", "ask"]


@st.composite
def graphs(draw: st.DrawFn) -> Workflow:
    """A DAG of a few tasks of several kinds, some of them with policies."""
    tasks: dict[str, Any] = {}
    for number in range(draw(st.integers(2, 6))):
        name = f"t{number}"
        before = draw(st.lists(st.sampled_from(sorted(tasks)), unique=True, max_size=3)) if tasks else []
        task: dict[str, Any] = {"needs": before, "retry": {"attempts": draw(st.integers(1, 3)), "backoff": 5}}
        task["on_failure"] = draw(st.sampled_from(["fail", "skip", "collect"]))
        task["join"] = draw(st.sampled_from(["all", "any"]))
        task["priority"] = draw(st.integers(0, 2))
        match draw(st.sampled_from(["python", "map", "workflow", "approval", "loop"])):
            case "map":
                task |= {"python": "m:f", "map": "xs"}
            case "workflow":
                inner = {"a": {"python": "m:f"}, "b": {"python": "m:f", "needs": ["a"]}}
                task["workflow"] = {"name": "inner", "tasks": inner}
            case "approval":
                task["approval"] = "yes?"
            case "loop":
                body = {"name": "body", "tasks": {"a": {"python": "m:f"}}, "outputs": {"a": "a"}}
                until = {"field": "a", "op": "==", "value": "done"}
                task["loop"] = {"workflow": body, "max": 2, "until": until}
            case _:
                task["python"] = "m:f"
        tasks[name] = task
    return Workflow.from_data({"name": "w", "inputs": {"xs": "list[int]"}, "tasks": tasks})


class Life(RuleBasedStateMachine):
    """A run, its engine, and perhaps an engine that was taken for dead."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="podium-sim-")
        file = shutil.copy(self.template, Path(self.folder.name) / "podium.db")
        self.database = Database(f"sqlite:///{file}")
        self.clock, self.patch = Clock(), pytest.MonkeyPatch()
        use_clock(self.clock, self.patch)
        self.loop = SimLoop(self.clock)
        self.engines: list[SimEngine] = []
        self.count = 0

    @initialize(workflow=graphs(), slots=st.integers(1, 4))
    def begin(self, workflow: Workflow, slots: int) -> None:
        self.slots = slots
        new = runs.NewRun(
            RUN, "default", "w", workflow.to_data(), {"xs": [1, 2]}, first_tasks(workflow),
            first_edges(workflow), 10**9, "/",
        )  # fmt: skip
        self.database.transact(lambda c: runs.create(c, new))
        self.take_over()

    # -- what happens

    @property
    def engine(self) -> SimEngine:
        """The engine that has the run."""
        return self.engines[-1]

    def take_over(self) -> None:
        self.count += 1
        # an ended run is nobody's
        with suppress(StaleEpoch):
            self.engines.append(SimEngine(self.loop, self.database, RUN, f"e{self.count}", self.slots))

    @rule(which=st.integers(0, 3))
    def commit(self, which: int) -> None:
        self.engines[-1 - which % len(self.engines)].commit()

    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def attempt_ends(self, data: st.DataObject, end: str) -> None:
        engine = data.draw(st.sampled_from(self.engines))
        if engine.hands.open:
            key = data.draw(st.sampled_from(sorted(engine.hands.open)))
            engine.finish(key, _outcome(key, end))

    @rule(seconds=st.sampled_from([0.1, 3.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.monotonic_now += seconds
        self.loop.settle()

    @rule(hours=st.sampled_from([-1, 1]))
    def clock_is_set(self, hours: int) -> None:
        self.clock.offset += 3600 * hours

    @rule()
    def engine_dies(self) -> None:
        self.engine.crash()
        self.engines.pop()
        self.take_over()
        if not self.engines:
            self.engines.append(_Gone())  # type: ignore[arg-type]

    @rule()
    @precondition(lambda self: len(self.engines) < 3)
    def another_takes_over(self) -> None:
        """The old one does not know yet."""
        self.take_over()

    @rule(data=st.data(), approved=st.booleans())
    def person_answers(self, data: st.DataObject, approved: bool) -> None:
        waiting = [t.name for t in self.rows() if t.status == "waiting"]
        if waiting:
            task = data.draw(st.sampled_from(waiting))
            self.database.transact(lambda c: control.approve(c, RUN, task, approved=approved))
            self.tell()

    @rule(pause=st.booleans())
    def person_pauses(self, pause: bool) -> None:
        with suppress(UsageError):
            if pause:
                driven = self.engine.result is None
                self.database.transact(lambda c: control.pause(c, RUN, driven=driven))
            else:
                self.database.transact(lambda c: control.unpause(c, RUN))
            if pause and self.engine.result is None:
                self.engine.driver.pause()
            self.tell()

    def tell(self) -> None:
        """The engine looks at what people asked for."""
        if self.engine.result is None and not self.record().pause_requested:
            self.engine.driver.refresh()
        self.loop.settle()

    # -- what always holds

    def record(self) -> reads.RunRecord:
        with self.database.read() as connection:
            return reads.run(connection, RUN)

    def rows(self) -> list[reads.TaskRecord]:
        with self.database.read() as connection:
            return reads.tasks(connection, RUN)

    @invariant()
    def the_chain_holds(self) -> None:
        if self.engines:
            with self.database.read() as connection:
                assert events.verify(connection, RUN) is None

    @invariant()
    def results_are_accepted_once(self) -> None:
        if self.engines:
            with self.database.read() as connection:
                found = events.read(connection, RUN, limit=10_000)
            over = Counter(e.task for e in found if e.kind in ("task.succeeded", "task.skipped"))
            assert all(count == 1 for count in over.values()), over
            begun = [(e.task, e.data["attempt"]) for e in found if e.kind == "task.started"]
            assert len(begun) == len(set(begun))

    @invariant()
    def nothing_starts_too_early(self) -> None:
        if not self.engines:
            return
        rows = {row.name: row for row in self.rows()}
        with self.database.read() as connection:
            edges = reads.edges(connection, RUN)
        for edge in edges:
            if rows[edge.dst].status in ("running", "expanded", "waiting", "succeeded"):
                assert rows[edge.src].status in PASSED, edge
        # user code runs only behind a start that is durable
        for name, number in self.engine.hands.started if self.engine.result is None else ():
            assert rows[name].attempts >= number

    @invariant()
    def an_end_is_whole(self) -> None:
        if not self.engines:
            return
        record = self.record()
        if record.status in runs.ENDED:
            assert record.engine is None
            assert {row.status for row in self.rows()} <= {"succeeded", "failed", "skipped", "cancelled"}
        if record.status == "succeeded":
            assert {row.status for row in self.rows()} <= {"succeeded", "skipped", "cancelled"}
            assert record.outputs_blob is not None

    def teardown(self) -> None:
        try:
            if self.engines:
                self.to_the_end()
        finally:
            for engine in self.engines:
                engine.crash()
            self.loop.close()
            self.database.close()
            self.patch.undo()
            self.folder.cleanup()

    def to_the_end(self) -> None:
        """Without further trouble every run comes to its end: nothing is stuck."""
        for _ in range(400):
            status = self.record().status
            if status in runs.ENDED:
                return
            for row in self.rows():
                if row.status == "waiting":
                    self.database.transact(lambda c, t=row.name: control.approve(c, RUN, t, approved=True))
            if self.record().pause_requested:
                self.database.transact(lambda c: control.unpause(c, RUN))
            if self.engine.result is not None:
                self.take_over()
            self.tell()
            while self.engine.commit():
                pass
            for key in sorted(self.engine.hands.open):
                self.engine.finish(key, _outcome(key, "ok"))
            if (moment := self.loop.next_timer()) is not None and not self.engine.line.waiting:
                self.clock.monotonic_now = max(self.clock.monotonic_now, moment)
                self.loop.settle()
        raise AssertionError(f"the run is stuck: {self.record().status}, {self.rows()}")


class _Gone:
    """In place of an engine when the run is over."""

    result = "over"


def _outcome(key: tuple[str, int], end: str) -> Outcome | Exception:
    if end == "again":
        return TaskError("not yet", mend="wait")
    if end == "never":
        return TaskError("never", retryable=False, mend="mend it")
    if end == "died":
        return WorkerDied("it crashed with SIGSEGV", mend="mend it")
    if end == "ask":
        return WaitingForPerson("may I?", key=key[0], run=RUN, task=key[0])
    return Outcome(list(key))


def test_any_order_of_events(sqlite_template: Path) -> None:
    run_state_machine_as_test(
        type("Life", (Life,), {"template": sqlite_template}),
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
        ),
    )
