"""The driver's nodes in the scheduler's order."""

from __future__ import annotations

from typing import Any

from podium import Workflow
from podium.memory.graphs import NewTask
from podium.orchestrator.ready import ReadyTasks
from podium.orchestrator.state import RunState, first_edges, first_tasks


def state_of(**tasks: dict[str, Any]) -> RunState:
    workflow = Workflow.from_data(
        {
            "name": "w",
            "inputs": {"xs": "list[int]"},
            "tasks": {n: {"python": "m:f"} | t for n, t in tasks.items()},
        }
    )
    state = RunState(workflow)
    state.add(first_tasks(workflow), first_edges(workflow))
    return state


def lined_up(state: RunState, slots: int = 8, **predicted: float) -> ReadyTasks:
    order = ReadyTasks(slots, predicted)
    order.add(state.nodes.values())
    for node in state.ready():
        order.ready(node, 0.0)
    return order


def drain(order: ReadyTasks, free: int = 8) -> list[str]:
    found = []
    while len(order) and (node := order.pick(0.0, free)) is not None:
        found.append(node.name)
    return found


def test_the_longest_remaining_path_comes_first() -> None:
    state = state_of(
        short={}, long={}, middle={}, after_long={"needs": "long"}, after_middle={"needs": "middle"}
    )
    order = lined_up(state, after_long=0.04, after_middle=0.02, short=0.01, long=0.01, middle=0.01)
    assert len(order) == 3
    assert drain(order) == ["long", "middle", "short"]


def test_priority_comes_before_length_and_position_last() -> None:
    state = state_of(c={}, a={}, b={"priority": 1})
    assert drain(lined_up(state)) == ["b", "c", "a"]


def test_tasks_of_a_patch_stand_before_what_their_parent_is_before() -> None:
    state = state_of(each={"map": "xs"}, end={"needs": "each"}, other={})
    order = lined_up(state, end=0.03, other=0.02)
    made = state.add([NewTask(f"each[{n}]", "python", "each", n) for n in range(2)], [])
    order.add(made)
    for node in made:
        order.ready(node, 0.0)
    names = drain(order)
    assert names.index("each[0]") < names.index("each[1]") < names.index("other")


def test_a_failed_attempt_stands_in_line_again_and_a_dropped_task_never() -> None:
    state = state_of(a={}, b={})
    order = lined_up(state)
    first = order.pick(0.0, 8)
    assert first is not None
    order.ready(first, 1.0)
    order.ready(first, 1.0)
    assert len(order) == 2
    order.drop(state.nodes["b"])
    order.done(state.nodes["b"], 1.0)
    assert drain(order) == ["a"]


def test_nothing_is_picked_without_a_free_slot() -> None:
    order = lined_up(state_of(a={}))
    assert order.pick(0.0, 0) is None
    assert len(order) == 1
