"""When a run fails or is cancelled: what its tasks did is undone, the last first (Garcia-Molina & Salem,
"Sagas", 1987). Each compensation is a task of its own, so that it is durable, retried and recorded.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from ..memory.errors import PodiumError
from ..memory.graphs import NewEdge, NewTask
from ..memory.steps import Append
from .state import Node, RunState
from .tasks import PythonTask

if TYPE_CHECKING:
    from .driver import RunDriver
    from .loading import Loaded

PREFIX = "undo:"


def begin(driver: RunDriver) -> bool:
    """Add the tasks that undo what succeeded; False: there is nothing to undo."""
    if driver.final is not None or driver.stop is None or driver.stop[0] not in ("failed", "cancelled"):
        return False
    nodes = list(driver.state.nodes.values())
    done = [n for n in nodes if n.spec.compensate is not None and n.role == "task"]
    done = [n for n in done if n.status == "succeeded" and not n.failed]
    if not done:
        return False
    done.sort(key=lambda node: (node.finished_at or 0.0, node.position), reverse=True)
    tasks = [NewTask(PREFIX + node.name, "python") for node in done]
    edges = [NewEdge(before.name, after.name, "order") for before, after in pairwise(tasks)]
    for node in nodes:
        driver.order.drop(node)
    why = driver.stop
    driver.undo(why)
    version, driver.graph_version = driver.graph_version, driver.graph_version + 1
    driver.write(Append(version, driver.state.position, tasks, edges, then=why[0], error=why[1].data()))
    made = [add(driver.state, task) for task in tasks]
    driver.state.add([], edges)
    driver.order.add(made)
    driver.take_up(made[:1])
    return True


def go_on(driver: RunDriver, loaded: Loaded) -> None:
    """After a takeover: a run that was undoing goes on undoing, and ends as it would have."""
    if loaded.undoing is not None:
        status, told = loaded.undoing
        places = {name: told.get(name) for name in ("run", "task", "attempt")}
        driver.undo((status, PodiumError(told["message"], mend=told["mend"], **places)))


def add(state: RunState, task: NewTask) -> Node:
    """The node of a compensation."""
    undone = state.nodes[task.name.removeprefix(PREFIX)]
    how = undone.spec.compensate
    assert how is not None
    spec = PythonTask.model_validate(
        {"python": how.python, "with": how.with_, "retry": undone.spec.retry, "timeout": undone.spec.timeout}
    )
    return state.add_undo(task, spec, undone)


def reason(driver: RunDriver, error: PodiumError) -> PodiumError:
    """Why the run ended, with what could not be undone."""
    left = [n.name for n in driver.state.nodes.values() if n.role == "undo" and n.failed]
    if left:
        names = ", ".join(name.removeprefix(PREFIX) for name in left)
        error.message = f"{error.message}; not undone: {names}"
        error.mend = f"`podium retry {driver.run.run_id}` tries again to undo it"
    return error
