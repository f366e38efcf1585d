"""What can be wrong with a workflow, said so that a person can mend it: task, line, the one thing to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..agents.outputs import nearest
from ..memory.errors import UsageError

#: where a value stands in the data: ("tasks", "brief", "prompt")
Path = tuple[str | int, ...]
#: more problems than these are counted, not printed
MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `task` is a dotted path inside an embedded workflow: "review.brief"."""

    task: str | None
    line: int | None
    message: str
    mend: str

    def __str__(self) -> str:
        where = ", ".join(
            text
            for text in (
                f"line {self.line}" if self.line is not None else "",
                f"task {self.task}" if self.task is not None else "",
            )
            if text
        )
        return f"{where}: {self.message} → {self.mend}" if where else f"{self.message} → {self.mend}"


class WorkflowError(UsageError):
    """A workflow that cannot run. `problems` holds every Problem found; the text lists them."""

    def __init__(self, problems: Iterable[Problem], *, source: str = "") -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        shown = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            shown.append(f"… and {len(self.problems) - MAX_SHOWN} more")
        head = f"{source or 'the workflow'} cannot run:"
        mend = self.problems[0].mend if self.problems else ""
        super().__init__("\n  ".join([head, *shown]), mend=mend)

    def __str__(self) -> str:
        return self.message


@dataclass(slots=True)
class Lines:
    """The lines on which the values of a workflow's data stand, for the file(s) they came from."""

    numbers: dict[Path, int] = field(default_factory=dict)
    #: embedded workflows that stand in another file: the path they are embedded at → that file's name
    files: dict[Path, str] = field(default_factory=dict)

    def at(self, path: Path) -> int | None:
        """The line of the value at `path`, or of the nearest value around it."""
        while path:
            if path in self.numbers:
                return self.numbers[path]
            path = path[:-1]
        return None

    def file(self, path: Path) -> str:
        """The name of the embedded file that holds `path`; empty for the main file."""
        while path and self.files:
            if path in self.files:
                return self.files[path]
            path = path[:-1]
        return ""

    def embed(self, path: Path, other: Lines, name: str) -> None:
        """Take over the lines of another file whose data is embedded at `path`."""
        self.numbers.update({path + inner: line for inner, line in other.numbers.items()})
        self.files[path] = name
        self.files.update({path + inner: name for inner, name in other.files.items()})


def embedded_depth(path: Sequence[str | int]) -> int:
    """How many parts of `path`, which begins below a task, lead to the workflow in that task; 0: none do."""
    if path[:1] in (("workflow",), ["workflow"]):
        return 1
    return 2 if path[:2] in (("loop", "workflow"), ["loop", "workflow"]) else 0


def problem_at(path: Path, lines: Lines | None, message: str, mend: str) -> Problem:
    """A Problem with its task and line found from where the value stands."""
    names, rest = [], path
    while len(rest) > 1 and rest[0] == "tasks":
        names.append(str(rest[1]))
        depth = embedded_depth(rest[2:])
        rest = rest[2 + depth :] if depth else ()
    task = ".".join(names)
    file = lines.file(path) if lines else ""
    return Problem(
        task or None, lines.at(path) if lines else None, f"{file}: {message}" if file else message, mend
    )


def did_you_mean(word: str, options: Iterable[str], otherwise: str = "") -> str:
    """A mend that names the nearest option, else lists them, else says `otherwise`."""
    known = list(options)
    found = nearest(word, known)
    if found is not None:
        return f"did you mean {found}?"
    if otherwise or not known:
        return otherwise or "remove it"
    listed = ", ".join(known[:12])
    return f"use one of: {listed}{', …' if len(known) > 12 else ''}"


def by_line(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, in the order of the file."""
    unique: Mapping[Problem, None] = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: problem.line if problem.line is not None else 1 << 30)
