"""The order of ready tasks: the longest remaining path first."""

from __future__ import annotations

from typing import Any

from podium import Workflow
from podium.orchestrator.scheduler import Scheduler
from podium.orchestrator.state import RunState, first_edges, first_tasks


def state_of(**needs: list[str]) -> RunState:
    tasks: dict[str, Any] = {name: {"python": "m:f", "needs": before} for name, before in needs.items()}
    workflow = Workflow.from_data({"name": "w", "tasks": tasks})
    state = RunState(workflow)
    state.add(first_tasks(workflow), first_edges(workflow))
    return state


def drain(scheduler: Scheduler) -> list[str]:
    found = []
    while (node := scheduler.pop()) is not None:
        found.append(node.name)
    return found


def test_longest_path_first() -> None:
    state = state_of(short=[], long=[], middle=[], after_long=["long"], after_middle=["middle"])
    scheduler = Scheduler(state, {"after_long": 10.0, "after_middle": 2.0})
    scheduler.push(state.ready())
    assert len(scheduler) == 3
    assert drain(scheduler) == ["long", "middle", "short"]
    assert scheduler.pop() is None
    assert len(scheduler) == 0


def test_equal_paths_keep_the_workflow_s_order() -> None:
    state = state_of(c=[], a=[], b=[])
    scheduler = Scheduler(state)
    scheduler.push(reversed(list(state.ready())))
    assert drain(scheduler) == ["c", "a", "b"]


def test_a_task_stands_in_line_once() -> None:
    state = state_of(a=[], b=[])
    scheduler = Scheduler(state)
    for _ in range(3):
        scheduler.push(state.ready())
    assert len(scheduler) == 2
    first = scheduler.pop()
    assert first is not None
    scheduler.push([first])  # after a failed attempt
    assert sorted(drain(scheduler)) == ["a", "b"]


def test_replan_keeps_the_line_and_looks_at_new_tasks() -> None:
    state = state_of(a=[], b=[], after_b=["b"])
    scheduler = Scheduler(state, {"a": 5.0})
    scheduler.push(state.ready())
    state.nodes["after_b"].after.append("a")  # a patch: now `b` stands before all the others
    state.nodes["a"].before.append("after_b")
    scheduler.replan()
    assert len(scheduler) == 2
    assert drain(scheduler) == ["b", "a"]
