"""The form of a workflow given as data: what is wrong with it, before it is a Workflow.

Data may come from anyone (a file, a model's plan): whatever it is, the answer is a list of Problems.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from .parts import NAME_PATTERN, Budget, Cache, Compensation, Plan, Retry, TaskContext, When
from .placeholders import ITEM
from .problems import Lines, Path, Problem, by_line, did_you_mean, embedded_depth, problem_at
from .tasks import PlanTask, TaskBase
from .workflow import BODIES, Loop, LoopTask, Workflow, WorkflowTask, task_class

#: how deep data may nest: below Python's and pydantic's limits, above any workflow that a person wrote
MAX_DEPTH = 60
MAX_NAME = 64

_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))
_KIND_NAMES = {"llm": "prompt", "model": "prompt", "ask": "prompt", "function": "python", "gate": "when"}
_TEMPLATES = ("prompt", "system", "agent", "profile", "approval")
#: keys of a task whose value has keys of its own
_PARTS = {
    "when": When,
    "retry": Retry,
    "cache": Cache,
    "budget": Budget,
    "compensate": Compensation,
    "loop": Loop,
    "plan": Plan,
    "context": TaskContext,
}
_MENDS = {
    "string_type": "write text; put it in quotes",
    "string_too_short": "write some text",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "list_type": "write a list: [a, b]",
    "dict_type": "write a mapping: {name: value}",
    "model_type": "write a mapping: {name: value}",
    "model_attributes_type": "write a mapping: {name: value}",
}


def name_problem(name: Any) -> tuple[str, str] | None:
    """What is wrong with the name of a task or an input, and the mend; None: nothing."""
    if not isinstance(name, str) or not name:
        return f"{name!r} is no name", "write a word of letters, digits and _"
    if name == ITEM:
        return f"the name {ITEM!r} is reserved for the element of a map", "choose another name"
    if len(name) > MAX_NAME:
        return f"the name {name[:40]!r}… is longer than {MAX_NAME} letters", "shorten it"
    if _NAME.match(name):
        return None
    better = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    better = f"_{better}" if better[:1].isdigit() else better
    return (
        f"{name!r} is no name",
        f"write {better}" if better else "use letters, digits and _, no digit first",
    )


def check_shape(data: Any, lines: Lines | None = None) -> list[Problem]:
    """All problems with the keys, names and kinds of a workflow's data. pydantic then checks the values."""
    wrong = _not_json(data)
    if wrong is not None:
        return [problem_at(wrong[0], lines, *wrong[1:])]
    return by_line(_workflow(data, (), lines))


def _workflow(data: Any, at: Path, lines: Lines | None) -> Iterator[Problem]:
    if not isinstance(data, Mapping):
        found = f"a workflow is a mapping, this is {_what(data)}"
        yield problem_at(at, lines, found, "start with name: and tasks:")
        return
    known = list(Workflow.model_fields)
    for key in data:
        if key not in known:
            yield problem_at((*at, key), lines, f"unknown key {key!r}", did_you_mean(key, known))
    if not isinstance(data.get("name"), str) or not data["name"].strip():
        yield problem_at((*at, "name"), lines, "the workflow has no name", "write name: my_workflow")
    for section in ("inputs", "outputs", "tasks"):
        part = data.get(section, {})
        if not isinstance(part, Mapping):
            mend = f"write {section} as a mapping of names"
            yield problem_at((*at, section), lines, f"{section} is {_what(part)}", mend)
            continue
        for name in part:
            wrong = name_problem(name)
            if wrong:
                message = f"{'task' if section == 'tasks' else section[:-1]} {wrong[0]}"
                yield problem_at((*at, section, name), lines, message, wrong[1])
    tasks = data.get("tasks")
    if not tasks:
        yield problem_at(
            (*at, "tasks"), lines, "the workflow has no tasks", "write at least one task under tasks:"
        )
    elif isinstance(tasks, Mapping):
        for name, task in tasks.items():
            yield from _task(task, (*at, "tasks", name), lines)


def _task(task: Any, at: Path, lines: Lines | None) -> Iterator[Problem]:
    if not isinstance(task, Mapping):
        yield problem_at(at, lines, f"a task is a mapping, this is {_what(task)}", 'write {prompt: "…"}')
        return
    kind = task_class(task)
    if kind is None:
        yield from _no_kind(task, at, lines)
        return
    yield from _keys(task, kind, at, lines)
    if "map" in task and not task["map"]:
        yield problem_at((*at, "map"), lines, "map names no list", "name an input or a task: map: docs")
    for key in _TEMPLATES:
        if isinstance(task.get(key), Mapping):
            bare = f"{{{next(iter(task[key]), 'name')}}}"
            message = f"{key} is a mapping: YAML reads a bare {bare} as one"
            yield problem_at((*at, key), lines, message, f'put the text in quotes: {key}: "{bare}"')
    for key, part in _PARTS.items():
        yield from _part_keys(task.get(key), part, (*at, key), lines)
    if kind is WorkflowTask:
        yield from _inner(task["workflow"], (*at, "workflow"), lines)
    elif kind is LoopTask:
        yield from _loop(task["loop"], (*at, "loop"), lines)
    elif kind is PlanTask and not isinstance(task["plan"], Mapping):
        message = f"plan is {_what(task['plan'])}, and it is a mapping"
        yield problem_at((*at, "plan"), lines, message, 'write plan: {goal: "…"}')


def _loop(loop: Any, at: Path, lines: Lines | None) -> Iterator[Problem]:
    if not isinstance(loop, Mapping):
        mend = "write loop: {workflow: {…}, until: {field, op, value}}"
        yield problem_at(at, lines, f"loop is {_what(loop)}, and it is a mapping", mend)
        return
    yield from _part_keys(loop.get("until"), When, (*at, "until"), lines)
    if "workflow" in loop:
        yield from _inner(loop["workflow"], (*at, "workflow"), lines)


def _inner(embedded: Any, at: Path, lines: Lines | None) -> Iterator[Problem]:
    if isinstance(embedded, str):
        message = f"the workflow {embedded[:80]!r} is a file name, and this data has no files"
        yield problem_at(at, lines, message, "embed the workflow itself as a mapping")
    else:
        yield from _workflow(embedded, at, lines)


def _part_keys(value: Any, part: type[BaseModel], at: Path, lines: Lines | None) -> Iterator[Problem]:
    known = _field_keys(part)
    for key in value if isinstance(value, Mapping) else ():
        if key not in known:
            yield problem_at((*at, key), lines, f"{at[-1]} has no key {key!r}", did_you_mean(key, known))


def _no_kind(task: Mapping[str, Any], at: Path, lines: Lines | None) -> Iterator[Problem]:
    bodies = [key for key in BODIES if key in task]
    if bodies:
        message = f"a task has one kind, this one has {len(bodies)}: {', '.join(bodies)}"
        yield problem_at((*at, bodies[1]), lines, message, "make two tasks of it")
        return
    every = {key for kind in BODIES.values() for key in _field_keys(kind)}
    strange = [key for key in task if key not in every]
    kinds = [*BODIES, "when"]
    for key in strange:
        meant = _KIND_NAMES.get(key.lower())
        mend = f"write {meant}: instead" if meant else did_you_mean(key, kinds)
        yield problem_at((*at, key), lines, f"unknown kind of task {key!r}", mend)
    if not strange:
        has = f"only {', '.join(task)}" if task else "nothing"
        yield problem_at(at, lines, f"the task has no kind, {has}", f"give it one of: {', '.join(kinds)}")


def _keys(task: Mapping[str, Any], kind: type[TaskBase], at: Path, lines: Lines | None) -> Iterator[Problem]:
    known = _field_keys(kind)
    for key in task:
        if key in known:
            continue
        if key == "kind":
            yield problem_at((*at, key), lines, "a task has no key 'kind': its body tells it", "remove it")
            continue
        elsewhere = [other.body_kind for other in BODIES.values() if key in _field_keys(other)]
        hint = (
            f"{key} is for {' and '.join(elsewhere)} tasks: remove it"
            if elsewhere
            else did_you_mean(key, known)
        )
        article = "an" if kind.body_kind in ("agent", "approval", "llm") else "a"
        message = f"{article} {kind.body_kind} task has no key {key!r}"
        yield problem_at((*at, key), lines, message, hint)


def _field_keys(kind: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in kind.model_fields.items()]


def from_validation(error: ValidationError, data: Any, lines: Lines | None) -> list[Problem]:
    """pydantic's findings as Problems, each at its place in `data`."""
    problems = []
    for detail in error.errors(include_url=False):
        path = _data_path(detail["loc"])
        message, mend = say(detail, path)
        problems.append(problem_at(path, lines, message, mend))
    return by_line(problems)


def say(detail: Mapping[str, Any], path: Sequence[int | str] | None = None) -> tuple[str, str]:
    """One finding of pydantic as (message, mend) for a person."""
    key = _key([str(part) for part in (detail["loc"] if path is None else path)])
    context = detail.get("ctx", {})
    found = _what(detail.get("input"))
    kind = detail["type"]
    if kind == "podium":
        return f"{key}: {context['text']}", context["mend"]
    if kind == "missing":
        outer, _, last = key.rpartition(".")
        return f"{key} is missing", f"add {last}: under {outer}:" if outer else f"add {key}:"
    if kind == "extra_forbidden":
        return f"unknown key {key!r}", "remove it"
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        return f"{key} is {found}", did_you_mean(str(detail.get("input")), options)
    if kind == "string_pattern_mismatch" and ":" in context["pattern"]:
        return f"{key} is {found}, no importable name", 'write "module:function"'
    if kind == "string_pattern_mismatch":
        return f"{key} is {found}, no name of an input, a task or its field", 'write "task" or "task.field"'
    message = detail["msg"].removeprefix("Input ")
    return f"{key} {message}, it is {found}", _MENDS.get(kind, f"change {key}")


def _key(place: list[str]) -> str:
    """How a message names the place: below the task, which the Problem names already."""
    while len(place) > 2 and place[0] == "tasks":
        place = place[2:]
        depth = embedded_depth(place)
        place = place[depth:] if len(place) > depth else place
    if place[:1] in (["inputs"], ["outputs"]) and len(place) > 1:
        return f"{place[0][:-1]} {place[1]}"
    return ".".join(place)


def _data_path(place: Sequence[int | str]) -> Path:
    """pydantic's location without the tags of its unions: ("tasks", "brief", "llm", "prompt") loses "llm"."""
    path: list[int | str] = []
    rest = list(place)
    while len(rest) > 1 and rest[0] == "tasks":
        path += rest[:2]
        rest = rest[3:]
        depth = embedded_depth(rest)
        path += rest[:depth]
        rest = rest[depth:]
        if not depth:
            break
    return tuple(part for part in (*path, *rest) if part != "[key]")


def _not_json(data: Any) -> tuple[Path, str, str] | None:
    """Where `data` is not what JSON can hold, or too deep. Walks without recursion: data may be hostile."""
    stack: list[tuple[Any, Path]] = [(data, ())]
    while stack:
        value, path = stack.pop()
        if len(path) > MAX_DEPTH:
            return path[:3], f"nested deeper than {MAX_DEPTH} levels", "make it flatter"
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if not isinstance(key, str) or not _is_unicode(key):
                    return path, f"the key {key!r} is no text", "put it in quotes"
                stack.append((inner, (*path, key)))
        elif isinstance(value, list | tuple):
            stack += [(inner, (*path, index)) for index, inner in enumerate(value)]
        elif isinstance(value, str):
            if not _is_unicode(value):
                return path, "the text holds half a character (a lone surrogate)", "write it as UTF-8"
        elif isinstance(value, float):
            if not math.isfinite(value):
                return path, f"{value} is no number that JSON can hold", "write a finite number"
        elif value is not None and not isinstance(value, int):
            return (
                path,
                f"a value is {_what(value)}, which JSON cannot hold",
                "write text, a number, a list or a mapping",
            )
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _what(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
