"""The live view of a run: on a terminal the DAG with progress, model and cost a task; on a pipe, lines.

Both are drawn from the run's events alone, so that they are the same for a run in this process and for one
that a detached engine drives. The view goes to stderr: stdout is data.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ...memory.money import format_usd, parse_usd
from .common import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...memory.events import EventRecord
    from ..views import Run

_MARKS = {
    "pending": ("·", "dim"),
    "running": ("▶", "cyan"),
    "expanded": ("▶", "cyan"),
    "retrying": ("↻", "yellow"),
    "waiting": ("?", "magenta"),
    "succeeded": ("✔", "green"),
    "failed": ("✘", "red"),
    "skipped": ("-", "dim"),
    "cancelled": ("✘", "yellow"),
}
#: what an event says of its task's state
_STATES = {
    "task.started": "running",
    "task.expanded": "running",
    "task.retrying": "retrying",
    "task.waiting": "waiting",
    "task.approved": "pending",
    "task.rejected": "pending",
    "task.lost": "pending",
    "task.succeeded": "succeeded",
    "task.failed": "failed",
    "task.skipped": "skipped",
    "task.cancelled": "cancelled",
}
#: events after which a run waits for an engine, and those that leave its state as it is
_QUEUED = ("released", "reopened", "retried", "resumed")
_NO_STATES = ("created", "forked", "changed", "cancel_requested", "pause_requested")
_OVER = ("succeeded", "failed", "skipped", "cancelled")


def top_level(name: str) -> str:
    """The task of the run's own workflow that a child belongs to: "sums[3]" → sums, "review/x" → review."""
    return name.split("[")[0].split("/")[0]


@dataclass(slots=True)
class Line:
    """A task of the run's own workflow, with its children folded in."""

    name: str
    kind: str
    depth: int
    needs: list[str]
    status: str = "pending"
    #: children that are over, and children in all
    done: int = 0
    total: int = 0
    models: dict[str, None] = field(default_factory=dict)
    cost_nano: int = 0
    calls: int = 0
    #: on this process's monotonic clock
    began: float | None = None
    ended: float | None = None
    remark: str = ""


class Progress:
    """The state of a run as its events tell it. Events may come from another thread."""

    def __init__(self, run: Run) -> None:
        workflow = run.spec
        needs: dict[str, list[str]] = {name: [] for name in workflow.tasks}
        for edge in workflow.edges():
            needs[edge.dst].append(edge.src)
        self.run_id, self.workflow = run.id, run.workflow
        self.status = run.status
        lines = [Line(n, task.kind, _depth(n, needs), needs[n]) for n, task in workflow.tasks.items()]
        self.lines = {line.name: line for line in sorted(lines, key=lambda line: line.depth)}
        self.children: dict[str, str] = {}
        self.cost_nano = 0
        self.lock = threading.Lock()
        self._catch_up(run)

    def _catch_up(self, run: Run) -> None:
        """What was so before the first event that will be told."""
        for task in run.tasks:
            line = self.lines.get(top_level(task.name))
            if line is None:
                continue
            line.cost_nano += task.cost_nano
            line.calls += task.calls
            line.models |= dict.fromkeys(task.models)
            if task.record.parent is None:
                line.status = "running" if task.record.status == "expanded" else task.record.status
            else:
                self.children[task.name] = task.record.status
                line.total += 1
                line.done += task.record.status in _OVER
        self.cost_nano = sum(line.cost_nano for line in self.lines.values())

    def apply(self, event: EventRecord) -> None:
        with self.lock:
            if event.task is None:
                self._of_run(event)
            elif (line := self.lines.get(top_level(event.task))) is not None:
                self._of_task(event, line, event.task)

    def _of_run(self, event: EventRecord) -> None:
        what = event.kind.removeprefix("run.")
        if what == "resumed" and self.status != "paused":
            return  # the pause was taken back before it came
        if event.kind.startswith("run.") and what not in _NO_STATES:
            names = {"claimed": "running"} | dict.fromkeys(_QUEUED, "queued")
            self.status = names.get(what, what)

    def _of_task(self, event: EventRecord, line: Line, name: str) -> None:
        if event.kind in ("call.settled", "call.unknown"):
            nano = parse_usd(event.data.get("cost_usd") or "0")
            line.cost_nano += nano
            self.cost_nano += nano
            line.calls += 1
            line.models[str(event.data.get("model", ""))] = None
            return
        state = _STATES.get(event.kind)
        if state is None:
            return
        if name != line.name:
            self._of_child(line, name, state)
        else:
            line.status = state
        if event.kind == "task.expanded":
            line.total += int(event.data.get("children", 0))
        if line.began is None and state == "running":
            line.began = time.monotonic()
        if name == line.name and state in _OVER:
            line.ended = time.monotonic()
        line.remark = _remark(event) if state in ("retrying", "failed", "waiting") else ""

    def _of_child(self, line: Line, name: str, state: str) -> None:
        was = self.children.get(name)
        self.children[name] = state
        line.done += (state in _OVER) - (was in _OVER)
        line.total = max(line.total, line.done)
        if state in ("running", "retrying") and line.status in ("pending", "expanded"):
            line.status = "running"


def _depth(name: str, needs: dict[str, list[str]]) -> int:
    depths: dict[str, int] = {}
    stack = [name]
    while stack:
        current = stack[-1]
        missing = [n for n in needs[current] if n not in depths]
        if missing:
            stack += missing
            continue
        depths[current] = 1 + max((depths[n] for n in needs[current]), default=-1)
        stack.pop()
    return depths[name]


def _remark(event: EventRecord) -> str:
    error = event.data.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    lines = str(text or event.data.get("question") or "").splitlines()
    return lines[0][:120] if lines else ""


# -- the two ways to show it


class View(Protocol):
    def event(self, event: EventRecord) -> None: ...


@contextmanager
def view(run: Run, *, quiet: bool = False) -> Iterator[View]:
    """The view that fits stderr. `quiet` shows nothing."""
    if quiet:
        yield _Nothing()
    elif sys.stderr.isatty():
        with _terminal(run) as live:
            yield live
    else:
        yield PlainView()


class _Nothing:
    def event(self, event: EventRecord) -> None:
        pass


class PlainView:
    """A line for each thing that happened, on stderr or the stream given."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._calls: dict[str, tuple[str, int]] = {}

    def event(self, event: EventRecord) -> None:
        text = self._line(event)
        if text:
            at = time.strftime("%H:%M:%S", time.localtime(event.at))
            print(f"{at} {text}", file=self._stream, flush=True)

    def _line(self, event: EventRecord) -> str:
        if event.task is None:
            return "" if event.kind == "run.created" else event.kind.replace(".", " ")
        if event.kind in ("call.settled", "call.unknown"):
            _, cost = self._calls.get(event.task, ("", 0))
            nano = parse_usd(event.data.get("cost_usd") or "0")
            self._calls[event.task] = (str(event.data.get("model", "")), cost + nano)
            return ""
        if event.kind not in _STATES or event.kind == "task.started":
            return ""
        parts = [event.task, event.kind.removeprefix("task.")]
        if event.kind == "task.expanded":
            parts.append(f"into {event.data.get('children')} tasks")
        if event.task in self._calls:
            model, nano = self._calls.pop(event.task)
            parts.append(f"{model} {format_usd(nano)} USD")
        if remark := _remark(event):
            parts.append(f"({remark})")
        return " ".join(parts)


@contextmanager
def _terminal(run: Run) -> Iterator[View]:
    from rich.live import Live

    progress = Progress(run)

    class Drawn:
        def event(self, event: EventRecord) -> None:
            progress.apply(event)

    with Live(get_renderable=lambda: draw(progress), console=console(err=True), refresh_per_second=8):
        yield Drawn()


def draw(progress: Progress) -> RenderableType:
    """The DAG as a table: tasks indented by their depth, with state, progress, model and cost."""
    from rich.table import Table
    from rich.text import Text

    with progress.lock:
        head = f"{progress.workflow}  {progress.run_id}  {progress.status}"
        drawn = Table(
            title=Text(f"{head}  {format_usd(progress.cost_nano)} USD", style="bold"),
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for header, justify in _COLUMNS:
            drawn.add_column(Text(header, style="dim"), justify=justify, overflow="ellipsis", no_wrap=True)
        for line in progress.lines.values():
            drawn.add_row(*_cells(line))
    return drawn


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("", "left"),
    ("task", "left"),
    ("kind", "left"),
    ("progress", "right"),
    ("model", "left"),
    ("USD", "right"),
    ("s", "right"),
    ("", "left"),
)


def _cells(line: Line) -> list[Any]:
    from rich.text import Text

    mark, style = _MARKS.get(line.status, ("·", "dim"))
    arrow = f"{'  ' * (line.depth - 1)}└ " if line.depth else ""
    end = line.ended or time.monotonic()
    seconds = "" if line.began is None else f"{end - line.began:.1f}"
    after = f"after {', '.join(line.needs)}" if line.needs and not line.remark else line.remark
    return [
        Text(mark, style=style),
        Text(f"{arrow}{line.name}", style="bold" if line.status == "running" else ""),
        Text(line.kind, style="dim"),
        f"{line.done}/{line.total}" if line.total else line.status,
        ", ".join(line.models),
        format_usd(line.cost_nano) if line.calls else "",
        seconds,
        Text(after, style="dim"),
    ]
