"""The graph in memory: what is ready, what is skipped, where values are looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium import Workflow
from podium.memory.errors import PodiumError
from podium.memory.graphs import NewTask
from podium.orchestrator.placeholders import Ref
from podium.orchestrator.state import Node, RunState, Values, elements, first_edges, first_tasks


def task(
    needs: tuple[str, ...] = (), join: str = "all", given: Mapping[str, str] | None = None, **body: Any
) -> dict[str, Any]:
    return {"python": "m:f", "needs": list(needs), "join": join, "with": dict(given or {}), **body}


def state_of(tasks: Mapping[str, dict[str, Any]], inputs: Mapping[str, str] | None = None) -> RunState:
    workflow = Workflow.from_data({"name": "w", "inputs": dict(inputs or {}), "tasks": dict(tasks)})
    state = RunState(workflow)
    state.add(first_tasks(workflow), first_edges(workflow))
    return state


def names(nodes: Iterable[Node]) -> list[str]:
    return [node.name for node in nodes]


def ready(state: RunState) -> list[str]:
    return names(state.ready())


def put(state: RunState, name: str, status: str) -> Node:
    node = state.nodes[name]
    state.set_status(node, status)
    return node


DIAMOND = {"a": task(), "b": task(("a",)), "c": task(("a",)), "d": task(("b", "c"))}


def test_successors_follow_what_passed() -> None:
    state = state_of(DIAMOND)
    assert ready(state) == ["a"]
    assert names(state.successors(put(state, "a", "succeeded"))) == ["b", "c"]
    assert state.successors(put(state, "b", "succeeded")) == []
    put(state, "c", "skipped")
    assert ready(state) == ["d"]


@pytest.mark.parametrize("status", ["failed", "cancelled", "waiting", "running", "expanded"])
def test_nothing_follows_a_task_that_did_not_pass(status: str) -> None:
    state = state_of({"a": task(), "b": task(("a",))})
    put(state, "a", status)
    assert "b" not in ready(state)
    put(state, "a", "succeeded")
    assert "b" in ready(state)


def test_a_skip_runs_down_to_the_joins() -> None:
    state = state_of(DIAMOND | {"e": task(("d",)), "f": task(("a", "free"), "any"), "free": task()})
    a, free = state.nodes["a"], state.nodes["free"]
    assert names(state.skip_after(a)) == ["b", "c", "d", "e"]
    assert {n.status for n in state.nodes.values()} == {"pending"}  # it only asks
    put(state, "free", "succeeded")
    assert "f" not in names(state.skip_after(a))
    assert state.skip_after(free) == []


def test_join_any_needs_one_that_was_not_skipped() -> None:
    state = state_of({"a": task(), "b": task(), "end": task(("a", "b"), "any"), "all": task(("a", "b"))})
    end, every = state.nodes["end"], state.nodes["all"]
    put(state, "a", "skipped")
    put(state, "b", "succeeded")
    assert not state.must_skip(end)
    assert state.must_skip(every)
    put(state, "b", "skipped")
    assert state.must_skip(end)
    assert not state.must_skip(state.nodes["a"])


def test_a_parent_is_ready_when_its_children_passed() -> None:
    state = state_of({"m": task(map="xs", given={"x": "{item}"})}, {"xs": "list[int]"})
    node = state.nodes["m"]
    state.add(elements(node, [5, 6]), [])
    put(state, "m", "expanded")
    assert ready(state) == ["m[0]", "m[1]"]
    assert state.successors(put(state, "m[0]", "succeeded")) == []
    put(state, "m[1]", "failed")
    assert ready(state) == []
    for status in ("pending", "skipped", "succeeded"):
        last = put(state, "m[1]", status)
    assert node.open_children == 0
    assert names(state.successors(last)) == ["m"]


def test_elements() -> None:
    node = state_of({"m": task(map="xs")}, {"xs": "list[int]"}).nodes["m"]
    assert [(t.name, t.kind, t.parent, t.element) for t in elements(node, ["x", "y"])] == [
        ("m[0]", "python", "m", 0), ("m[1]", "python", "m", 1),
    ]  # fmt: skip
    for wrong in ([], "text", {"a": 1}, None):
        with pytest.raises(PodiumError, match="map: xs"):
            elements(node, wrong)


def sub_state() -> RunState:
    sub = {
        "name": "sub", "inputs": {"x": "int"},
        "tasks": {"one": task(given={"x": "{x}"}), "two": task(given={"x": "{one.deep}"})},
        "outputs": {"value": "two"},
    }  # fmt: skip
    state = state_of({"s": {"workflow": sub, "with": {"x": "{n}"}}}, {"n": "int"})
    inner = state.nodes["s"].spec.workflow  # type: ignore[attr-defined]
    state.add(first_tasks(inner, "s/", "s"), first_edges(inner, "s/"))
    return state


def test_parents_and_children_know_each_other() -> None:
    state = sub_state()
    holder, one, two = (state.nodes[name] for name in ("s", "s/one", "s/two"))
    assert (one.parent, holder.children, holder.parent) == (holder, [one, two], None)
    assert names(two.above()) == ["s/two", "s"]
    assert names(holder.below()) == ["s/one", "s/two"]
    assert holder.inside is not None
    assert two.scope is holder.inside


def test_what_is_left_is_told_by_the_runs_own_tasks() -> None:
    """A task below one that is over is over with it, whatever it says; a question counts wherever it is."""
    state = sub_state()
    put(state, "s", "expanded")
    put(state, "s/one", "waiting")
    assert state.left() == {"expanded", "waiting"}
    put(state, "s/one", "failed")
    put(state, "s/two", "cancelled")
    assert state.left() == {"expanded"}
    put(state, "s", "succeeded")
    assert state.left() == set()


def test_an_iteration_follows_the_workflow_of_its_loop() -> None:
    inner = {
        "name": "round", "inputs": {"n": "int"}, "tasks": {"next": task(given={"n": "{n}"})},
        "outputs": {"n": "next"},
    }  # fmt: skip
    until = {"field": "n", "op": "==", "value": 3}
    state = state_of({"up": {"loop": {"workflow": inner, "until": until}, "with": {"n": 0}}})
    loop = state.nodes["up"]
    assert (loop.is_loop, loop.holds_tasks, loop.inside) == (True, True, None)
    (first,) = state.add([NewTask("up[0]", "workflow", "up", 0)], [])
    assert (first.role, first.is_loop, first.holds_tasks) == ("iteration", False, True)
    assert first.inside is not None
    (child,) = state.add(first_tasks(first.inside.workflow, "up[0]/", "up[0]"), [])
    values = Values({None: {}, "up[0]": {"n": 7}})
    assert values.lookup(child, Ref.parse("n")) == 7
    assert state.needed(child, [Ref.parse("n")]) == set()


def test_names_of_a_sub_workflow_are_its_own() -> None:
    state = sub_state()
    two = state.nodes["s/two"]
    assert names(two.before) == ["s/one"]
    assert state.needed(two, [Ref.parse("one.deep"), Ref.parse("x")]) == {"s/one"}
    values = Values({None: {"n": 1}, "s": {"x": 7}}, {"s/one": {"deep": "value"}, "one": {"deep": "other"}})
    assert values.lookup(two, Ref.parse("one.deep")) == "value"
    assert values.lookup(two, Ref.parse("x")) == 7
    assert values.lookup(state.nodes["s"], Ref.parse("n")) == 1


def test_item_is_the_element() -> None:
    state = state_of({"m": task(map="xs.list", given={"x": "{item.name}"})}, {"xs": "object"})
    state.add([NewTask("m[1]", "python", "m", 1)], [])
    values = Values({None: {"xs": {"list": [{"name": "a"}, {"name": "b"}]}}})
    assert values.lookup(state.nodes["m[1]"], Ref.parse("item.name")) == "b"
    assert state.needed(state.nodes["m[1]"], [Ref.parse("item")]) == set()


def test_a_condition_about_the_item_is_asked_of_elements() -> None:
    when = {"field": "item", "op": ">", "value": 1}
    state = state_of(
        {"m": task(map="xs", when=when), "o": task(map="xs", when=when | {"field": "n"})},
        {"xs": "list[int]", "n": "int"},
    )
    state.add([NewTask("m[0]", "python", "m", 0), NewTask("o[0]", "python", "o", 0)], [])
    conditions = {name: node.condition is not None for name, node in state.nodes.items()}
    assert conditions == {"m": False, "m[0]": True, "o": True, "o[0]": False}


def test_sources_of_an_element_are_those_of_its_map() -> None:
    state = state_of({"a": task(), "b": task(), "m": task(("a", "b"), map="xs")}, {"xs": "list[int]"})
    state.add([NewTask("m[0]", "python", "m", 0)], [])
    put(state, "a", "succeeded")
    put(state, "b", "skipped")
    assert state.sources(state.nodes["m[0]"]) == ["a"]


GRAPHS = st.integers(1, 8).flatmap(
    lambda size: st.tuples(
        *(
            st.tuples(
                st.sets(st.integers(0, max(0, n - 1)), max_size=3) if n else st.just(set()),
                st.sampled_from(["all", "any"]),
            )
            for n in range(size)
        )
    )
)


@given(GRAPHS, st.sets(st.integers(0, 7)), st.randoms())
def test_every_task_comes_to_an_end(graph: Any, skips: set[int], random: Any) -> None:
    """Whatever is skipped, and in whatever order tasks end: each one is run or skipped, exactly once."""
    tasks = {f"t{n}": task(tuple(f"t{p}" for p in before), join) for n, (before, join) in enumerate(graph)}
    state = state_of(tasks)
    line, seen = list(state.ready()), set()
    while line:
        node = line.pop(random.randrange(len(line)))
        assert node.name not in seen
        skip = state.must_skip(node) or int(node.name[1:]) in skips
        others = state.skip_after(node) if skip else []
        for one in (node, *others):
            assert one.name not in seen
            seen.add(one.name)
            state.set_status(one, "skipped" if skip else "succeeded")
        found = [n for one in (node, *others) for n in state.successors(one)]
        following = {n.name: n for n in (*line, *found) if n.name not in seen}
        line = list(following.values())
    assert seen == set(state.nodes)
