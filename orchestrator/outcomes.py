"""What the end of an attempt means: try again, wait, stop the run, or fail by the task's policy."""

from __future__ import annotations

import logging
import random
import time
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from ..memory import learning
from ..memory.errors import BudgetStopped, PodiumError, StaleEpoch, TaskError, WaitingForPerson
from ..memory.steps import Finish, Retry, Wait
from .executor import QUARANTINE, Outcome
from .processes import WorkerDied
from .state import DONE, PASSED, Node
from .tasks import ApprovalTask, LlmTask, PlanTask, PythonTask, ToolTask

if TYPE_CHECKING:
    from .driver import RunDriver

log = logging.getLogger(__name__)


def limit(node: Node) -> float | None:
    """Seconds that an attempt may take. The isolated workers keep the limit of user code themselves: the
    wait for a free one does not count.

    Raises:
        TaskError: its budget's seconds are used up.
    """
    spec, left = node.spec, _seconds_left(node)
    if left is not None and left <= 0:
        raise _used_up(node)
    if isinstance(spec, ToolTask) or (isinstance(spec, PythonTask) and not spec.inline):
        return left
    return spec.timeout if left is None else min(left, spec.timeout)


def _seconds_left(node: Node) -> float | None:
    """Of its own budget; None: it has none. That of a map is the map's, not each element's."""
    budget = node.spec.budget
    if budget is None or budget.seconds is None or node.role != "task":
        return None
    since = node.first_start or node.started_at or time.time()
    return since + budget.seconds - time.time()


def _used_up(node: Node) -> TaskError:
    budget = node.spec.budget
    seconds = budget.seconds if budget is not None and budget.seconds is not None else 0.0
    mend = "raise its budget's seconds"
    return TaskError(f"it used up its {seconds:g} seconds", retryable=False, mend=mend)


def after(driver: RunDriver, node: Node, error: Exception) -> None:
    """An attempt raised `error`.

    Raises:
        StaleEpoch: it said so.
    """
    if isinstance(error, StaleEpoch):
        raise error
    if isinstance(error, WaitingForPerson):
        _wait(driver, node, error)
    elif isinstance(error, BudgetStopped) and getattr(error, "scope", None) is None:
        driver.halt("stopped", error)
    elif isinstance(error, TimeoutError):
        left, seconds = _seconds_left(node), node.spec.timeout
        late = TaskError(f"it did not end within {seconds:g} seconds", mend="raise the task's `timeout`")
        _failed(driver, node, late if left is None or left > 0 else _used_up(node))
    elif isinstance(error, PodiumError):
        _failed(driver, node, error)
    else:
        log.error(
            "A task ran into a defect.", exc_info=error, extra={"action": "task.defect", "task": node.name}
        )
        defect = TaskError(f"{type(error).__name__}: {error}", retryable=False, mend="please report this")
        _failed(driver, node, defect)


def _wait(driver: RunDriver, node: Node, waiting: WaitingForPerson) -> None:
    expires = None
    if isinstance(node.spec, ApprovalTask) and node.spec.expires is not None:
        expires = time.time() + node.spec.expires
    driver.write(Wait(node.name, node.attempts, node.started_at or 0.0, waiting.message, expires))
    driver.state.set_status(node, "waiting")
    driver.order.drop(node)
    driver.watch_approval(expires)


def _failed(driver: RunDriver, node: Node, error: PodiumError) -> None:
    """Try again after a pause, or fail."""
    node.failures += 1
    died = isinstance(error, WorkerDied)
    node.deaths += died
    if died and node.deaths >= QUARANTINE:
        error = TaskError(
            f"{error.message}; quarantined after {node.deaths} deaths of its process",
            retryable=False,
            mend="run the function by itself to see why, then `podium retry` the run",
        )
    again = error.retryable and node.failures < node.spec.retry.attempts
    if again and not isinstance(node.spec, ToolTask):
        pause = node.spec.retry.pause(node.failures, random.random())
        begun = node.started_at or 0.0
        driver.write(Retry(node.name, node.attempts, begun, error.data(), time.time() + pause, died))
        driver.order.drop(node)
        driver.line_up(node, pause)
        return
    fail(driver, node, error)


def fail(driver: RunDriver, node: Node, error: PodiumError) -> None:
    """The task has failed for good: its policy, or that of a task above it, says what that means."""
    error.task = error.task or node.name
    if isinstance(node.spec, PythonTask | ToolTask) and type(error) is TaskError:
        _blame(driver, node, error)
    if node.role == "undo":
        _end(driver, node, "failed", error)
        node.failed = True
        driver.passed(node, "skipped")  # what is to be undone after it, is
        return
    target = _handler(node)
    if target is None:
        _end(driver, node, "failed", error)
        driver.state.set_status(node, "failed")
        driver.halt("failed", error)
        return
    if target is not node:
        _end(driver, node, "failed", error)
        driver.state.set_status(node, "failed")
    closed = _close_below(driver, target)
    if target is not node and _can_plan_again(target):
        _plan_again(driver, target, error, closed)
        return
    target.failed = True
    if target.spec.on_failure == "skip":
        driver.skip(target, error=error.data(), closed=closed)
        return
    told = {"code": type(error).__name__, "message": error.message, "mend": error.mend, "task": error.task}
    driver.succeed(target, Outcome({"error": told}, error=error.data(), closed=closed))


def _blame(driver: RunDriver, node: Node, error: TaskError) -> None:
    """The router hears that the answers which this task had read led to a failure."""
    read = [driver.state.nodes[name] for name in driver.state.sources(node)]
    names = [source.name for source in read if isinstance(source.spec, LlmTask)]
    if not names:
        return
    run, note = driver.run, f"{node.name} failed on it: {error.message}"[:500]
    written = driver.services.journal.submit(
        "router.blame", lambda c: learning.blame(c, run.tenant, run.run_id, names, note)
    )
    written.add_done_callback(_told)


def _told(written: Future[int]) -> None:
    if not written.cancelled() and (error := written.exception()) is not None:
        log.warning("A failure was not learned from: %s", error, extra={"action": "router.blame"})


def _handler(node: Node) -> Node | None:
    """The innermost task, from this one upwards, that does not let a failure through."""
    for above in node.above():
        if above.role == "iteration":
            continue  # the loop's policy is that of the task
        if above.spec.on_failure != "fail" or (above is not node and _can_plan_again(above)):
            return above
    return None


def _can_plan_again(node: Node) -> bool:
    spec = node.spec
    return isinstance(spec, PlanTask) and node.inside is not None and node.plans <= spec.plan.replans


def _end(driver: RunDriver, node: Node, status: str, error: PodiumError) -> None:
    closed = _close_below(driver, node)
    driver.order.drop(node)
    driver.write(Finish(node.name, node.attempts, status, node.begun_at, error=error.data(), closed=closed))


def _close_below(driver: RunDriver, node: Node) -> list[str]:
    """Open tasks below a node are over with it."""
    open_below = [below for below in node.below() if below.status not in DONE]
    for below in open_below:
        driver.state.set_status(below, "cancelled")
        driver.order.drop(below)
    driver.cut(open_below)
    return [below.name for below in open_below]


def _plan_again(driver: RunDriver, node: Node, error: PodiumError, closed: list[str]) -> None:
    """A planned workflow failed: the task plans again, and is told why."""
    node.failures += 1
    driver.write(
        Retry(node.name, node.attempts, node.started_at or 0.0, error.data(), time.time(), closed=closed)
    )
    node.lessons.append(error.message)
    node.inside = None
    driver.order.drop(node)
    driver.line_up(node)


def backoff_left(node: Node) -> float:
    """Seconds that a task still has to wait before its next attempt, after a takeover. Never more than its
    longest pause: the wall clock may have been set back meanwhile.
    """
    longest = node.spec.retry.pause(max(1, node.failures), 1.0)
    return min(longest, max(0.0, (node.not_before or 0.0) - time.time()))


def left_behind(driver: RunDriver) -> PodiumError:
    """Nothing can go on, though tasks are left: they need one that failed in an earlier drive."""
    nodes = [node for node in driver.state.nodes.values() if node.status == "failed"]
    failed = [node.name for node in nodes if not any(above.status in PASSED for above in node.above())]
    where = f"{', '.join(failed[:5])} failed before" if failed else "nothing that is left can start"
    return PodiumError(where, mend="`podium retry` runs failed tasks again", run=driver.run.run_id)


def watch_budget(driver: RunDriver, node: Node) -> None:
    """Fail a task that holds others when its budget's seconds have passed since its first start."""
    left = _seconds_left(node)
    if left is not None and not node.watched:
        node.watched = True
        driver.timers.later(max(0.0, left), partial(_overdue, driver, node))


def _overdue(driver: RunDriver, node: Node) -> None:
    if node.status == "expanded" and driver.stop is None and driver.final is None:
        fail(driver, node, _used_up(node))
