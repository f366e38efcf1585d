"""Workflows from YAML files: every problem of form, reference and type is found at once, with its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .problems import Lines, Problem, WorkflowError, by_line, did_you_mean, problem_at
from .problems import Path as DataPath
from .workflow import Workflow

#: bytes that one workflow file may have
MAX_BYTES = 64 * 1024 * 1024
#: files inside files inside files
MAX_NESTED = 8
#: embedded files, counted each time they are embedded
MAX_FILES = 1000


def load_workflow(path: Path | str, *, check_imports: Path | None = None) -> Workflow:
    """The workflow in the YAML file `path`, validated; the files it embeds are found beside it.

    `check_imports` is a project root: then python functions and tools are also looked up there, in a process
    of their own.

    Raises:
        WorkflowError: no such file, or anything that keeps the workflow from running; lists every Problem.
    """
    path = Path(path)
    try:
        text = _read(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise WorkflowError([Problem(None, None, _unreadable(path, error), _where(path))]) from None
    return load_text(
        text, path.parent, source=path.name, check_imports=check_imports, _loading=(path.resolve(),)
    )


def load_text(
    text: str,
    base: Path,
    *,
    source: str = "",
    check_imports: Path | None = None,
    _loading: tuple[Path, ...] = (),
) -> Workflow:
    """The workflow written in `text`; the files it embeds are relative to `base`.

    Raises:
        WorkflowError: anything that keeps the workflow from running; lists every Problem.
    """
    from .graph import validate

    files = _Files(loading=list(_loading))
    data, lines, problems = files.parse(text, base, ())
    if data is None and problems:
        raise WorkflowError(problems, source=source)
    try:
        workflow = Workflow.from_data(data, lines=lines)
    except WorkflowError as error:
        raise WorkflowError(by_line([*problems, *error.problems]), source=source) from None
    problems = by_line([*problems, *validate(workflow, lines=lines, check_imports=check_imports)])
    if problems:
        raise WorkflowError(problems, source=source)
    return workflow


@dataclass(slots=True)
class _Files:
    """The files being read: to find one that embeds itself, and to read each only once."""

    loading: list[Path] = field(default_factory=list)
    done: dict[Path, tuple[Any, Lines]] = field(default_factory=dict)
    count: int = 0

    def parse(self, text: str, base: Path, at: DataPath) -> tuple[Any, Lines, list[Problem]]:
        """Data and lines of `text`, the files it names embedded in place, and the problems so far."""
        from .yaml_text import parse_yaml

        data, lines, problems = parse_yaml(text)
        self._embed(data, lines, problems, base, ())
        return data, lines, problems

    def _embed(self, data: Any, lines: Lines, problems: list[Problem], base: Path, at: DataPath) -> None:
        tasks = data.get("tasks") if isinstance(data, Mapping) else None
        if not isinstance(tasks, Mapping):
            return
        for name, task in tasks.items():
            holder, place = _holder(task, (*at, "tasks", name))
            if holder is None:
                continue
            if not isinstance(holder["workflow"], str):
                self._embed(holder["workflow"], lines, problems, base, place)
                continue
            wrong = self._one(holder, lines, problems, base, place)
            if wrong is not None:
                problems.append(problem_at(place, lines, *wrong))
                task.clear()
                task["approval"] = "stands for a workflow that cannot be read: has no problems of its own"

    def _one(
        self, holder: dict[str, Any], lines: Lines, problems: list[Problem], base: Path, place: DataPath
    ) -> tuple[str, str] | None:
        """Embed the file that `holder` names. Returns (message, mend) when it cannot be."""
        name = holder["workflow"]
        self.count += 1
        try:
            path = (base / name).resolve()
            if path in self.loading:
                return f"the workflow {name} embeds itself", "break the circle"
            if len(self.loading) > MAX_NESTED or self.count > MAX_FILES:
                return f"too many workflows inside workflows at {name}", "make it flatter"
            if path not in self.done:
                self.loading.append(path)
                data, inner, found = self.parse(_read(path), path.parent, ())
                self.loading.pop()
                problems += [
                    Problem(_dotted(place, p.task), p.line, f"{name}: {p.message}", p.mend) for p in found
                ]
                self.done[path] = (data, inner)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            return _unreadable(base / name, error), _where(base / name)
        data, inner = self.done[path]
        if data is None:
            return f"the workflow {name} cannot be read", f"mend {name} first"
        holder["workflow"] = data
        lines.embed(place, inner, name)
        return None


def _holder(task: Any, at: DataPath) -> tuple[dict[str, Any] | None, DataPath]:
    """The mapping that holds a task's workflow, the task or its loop, and the place of the workflow."""
    if isinstance(task, dict) and "workflow" in task:
        return task, (*at, "workflow")
    loop = task.get("loop") if isinstance(task, dict) else None
    if isinstance(loop, dict) and "workflow" in loop:
        return loop, (*at, "loop", "workflow")
    return None, at


def _dotted(place: DataPath, task: str | None) -> str:
    outer = problem_at(place, None, "", "").task
    return f"{outer}.{task}" if task else str(outer)


def _read(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB")
    return path.read_text(encoding="utf-8-sig")


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {path}"
    why = (
        "it is not UTF-8 text"
        if isinstance(error, UnicodeDecodeError)
        else getattr(error, "strerror", None) or error
    )
    return f"{path} cannot be read: {why}"


def _where(path: Path) -> str:
    try:
        beside = [found.name for found in path.parent.iterdir() if found.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        beside = []
    return did_you_mean(path.name, beside, "give the path of a YAML file")
