"""Tasks that hold others: what the graph gets for them, and what comes of their children."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..memory.errors import TaskError
from ..memory.graphs import NewTask
from .executor import Outcome
from .loading import follow_plan
from .placeholders import Ref, fill, refs
from .state import Node, Scope, elements, first_edges, first_tasks
from .workflow import LoopTask, Workflow, WorkflowTask

if TYPE_CHECKING:
    from .driver import RunDriver


async def expand(driver: RunDriver, node: Node) -> None:
    """Write down the children of a node that is ready; nothing, if it was closed meanwhile.

    Raises:
        PodiumError: what it maps is no list, or the inputs of its workflow do not fit.
    """
    inputs = None
    if node.is_map:
        source = Ref.parse(node.spec.map or "")
        await driver.fetch(driver.state.needed(node, [source]))
        children, edges = elements(node, driver.values.lookup(node, source)), []
    elif node.is_loop:
        children, edges = [_iteration(node, 0)], []
    else:
        scope = node.inside
        assert scope is not None
        inputs = await _inputs(driver, node, scope.workflow)
        children = first_tasks(scope.workflow, scope.prefix, node.name)
        edges = first_edges(scope.workflow, scope.prefix)
    if node.status != "pending":
        return
    if inputs is not None:
        driver.values.inputs[node.name] = inputs
    driver.write(driver.begin(node))
    driver.patch(node, children, edges, inputs=inputs)


async def _inputs(driver: RunDriver, node: Node, workflow: Workflow) -> dict[str, Any]:
    from .graph import check_inputs

    spec = node.spec
    assert isinstance(spec, WorkflowTask | LoopTask)
    given = spec.with_
    giver = node.parent if node.role == "iteration" else node
    assert giver is not None
    await driver.fetch(driver.state.needed(giver, refs((given,))))
    filled: dict[str, Any] = fill(given, lambda ref: driver.values.lookup(giver, ref))
    if node.role == "iteration" and node.element:
        before = giver.children[node.element - 1].name
        await driver.fetch([before])
        carried: dict[str, Any] = driver.values.outputs[before]
        filled |= {name: value for name, value in carried.items() if name in workflow.inputs}
    return check_inputs(workflow, filled)


def _iteration(node: Node, number: int) -> NewTask:
    return NewTask(f"{node.name}[{number}]", "workflow", node.name, number)


def adopt_plan(driver: RunDriver, node: Node, plan: dict[str, Any]) -> None:
    """The attempt of a `plan` task has planned a workflow: its tasks run below the node."""
    record = {"generation": node.plans + 1, "workflow": plan["workflow"]}
    driver.order.drop(node)
    driver.state.forget(list(node.below()))
    node.children, node.open_children = [], 0
    follow_plan(node, record)
    scope = node.inside
    assert scope is not None
    inputs = driver.values.inputs[node.name] = plan["inputs"]
    children = first_tasks(scope.workflow, scope.prefix, node.name)
    edges = first_edges(scope.workflow, scope.prefix)
    driver.patch(node, children, edges, inputs=inputs, plan=record)


async def collect(driver: RunDriver, node: Node) -> Outcome | None:
    """What comes of a node whose children are all over; None: it goes on with another iteration.

    Raises:
        PodiumError: a loop came to its end without its condition, or an output cannot be read.
    """
    if node.is_map:
        taken = list(_taken(node))
        await driver.fetch([child.name for child in taken])
        return Outcome([driver.values.outputs.get(child.name) for child in taken])
    if node.is_loop:
        return await _next_iteration(driver, node)
    scope = node.inside
    assert scope is not None
    outputs = await _outputs(driver, scope)
    if node.kind == "plan" and len(outputs) == 1:
        return Outcome(next(iter(outputs.values())))
    return Outcome(outputs)


def _taken(node: Node) -> Iterator[Node]:
    """The elements that stand in the map's list: not those that failed and are left out."""
    return (child for child in node.children if not (child.failed and child.status == "skipped"))


async def _outputs(driver: RunDriver, scope: Scope) -> dict[str, Any]:
    wanted = scope.workflow.output_refs().values()
    await driver.fetch([scope.prefix + ref.name for ref in wanted])
    return driver.values.outcome(scope)


async def _next_iteration(driver: RunDriver, node: Node) -> Outcome | None:
    spec = node.spec
    assert isinstance(spec, LoopTask)
    last = node.children[-1]
    await driver.fetch([last.name])
    if node.status != "expanded":
        return None
    outputs = driver.values.outputs[last.name]
    until = Ref.parse(spec.loop.until.field)
    value = outputs.get(until.name)
    for part in until.path:
        value = value.get(part) if isinstance(value, dict) else None
    if spec.loop.until.holds(value):
        return Outcome(outputs, {"iterations": len(node.children)})
    if len(node.children) < spec.loop.max:
        driver.patch(node, [_iteration(node, len(node.children))])
        return None
    if spec.loop.on_max == "fail":
        raise TaskError(
            f"`until` does not hold after {spec.loop.max} iterations",
            retryable=False,
            mend="raise the loop's `max`, or say on_max: accept",
        )
    return Outcome(outputs, {"iterations": len(node.children), "exhausted": True})
