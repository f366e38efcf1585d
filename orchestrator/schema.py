"""JSON Schemas of the workflow format: the published one, and a small one that a model plans with.

`python -m podium.orchestrator.schema [FILE]` writes the published one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .parts import NAME_PATTERN
from .problems import Problem, WorkflowError, by_line
from .tasks import CACHEABLE, MAPPABLE, UNDOABLE
from .workflow import BODIES, WhenTask, Workflow

DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: bounds of a plan: a plan is short, and a grammar with wide bounds is slow
PLAN_TASKS, PLAN_PROMPT, PLAN_NAME = 8, 600, 32

Convert = Callable[[dict[str, Any], list[Problem]], Any]

_TYPE_SPEC = {
    "description": 'A type: "str", "list[int]", "dict[str, float]", "str?", [low, high], {title: str}',
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": ["string", "null", "object", "array"]}},
        {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": NAME_PATTERN},
            "additionalProperties": {"$ref": "#/$defs/TypeSpec"},
        },
    ],
}


def workflow_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a workflow as it is written in YAML."""
    schema = Workflow.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, Any] = schema.pop("$defs")
    flow = definitions.pop("Workflow")
    flow.pop("title", None)
    names = {"pattern": NAME_PATTERN, "not": {"const": "item"}, "maxLength": 64}
    for section in ("inputs", "tasks"):
        flow["properties"][section]["propertyNames"] = names
    flow["properties"]["outputs"]["propertyNames"] = names
    flow["properties"]["inputs"]["additionalProperties"] = {"$ref": "#/$defs/Input"}
    flow["properties"]["tasks"] |= {"minProperties": 1, "additionalProperties": {"$ref": "#/$defs/Task"}}
    flow["required"] = ["name", "tasks"]
    definitions.pop("Input", None)
    definitions |= {"Input": _input(), "TypeSpec": _TYPE_SPEC, "Task": _task(), "Workflow": flow}
    # a file may name another file; data embeds the workflow itself
    for holder in ("WorkflowTask", "Loop"):
        path = {"type": "string", "description": "path of another workflow"}
        definitions[holder]["properties"]["workflow"] = {"anyOf": [{"$ref": "#/$defs/Workflow"}, path]}
    for kind in (*BODIES.values(), WhenTask):
        keys = definitions[kind.__name__]["properties"]
        refused = (("cache", CACHEABLE), ("compensate", UNDOABLE), ("map", MAPPABLE))
        for key in (key for key, kinds in refused if kind.body_kind not in kinds):
            keys.pop(key)
    return {
        "$schema": DIALECT,
        "title": "Podium workflow",
        "$ref": "#/$defs/Workflow",
        "$defs": {name: _tidy(definitions[name]) for name in sorted(definitions)},
    }


def planning_schema(tools: Sequence[str] = (), most: int = PLAN_TASKS) -> dict[str, Any]:
    """The JSON Schema of a plan: a workflow in the small form that weak models and grammars manage.

    Tasks are a list of at most `most`; strings and lists are bounded; nothing refers. `tools`
    ("module:name") are the only ones a plan can use; without any there is no tool task.
    `workflow_from_plan` reads the answer.
    """
    name = {"type": "string", "minLength": 1, "maxLength": PLAN_NAME}
    text = {"type": "string", "minLength": 1, "maxLength": PLAN_PROMPT}
    some_type = {"type": "string", "enum": ["str", "int", "float", "bool", "list[str]"]}
    typed = _closed({"name": name, "type": some_type})
    literals = [{"type": "number"}, {"type": "boolean"}]
    when = _closed(
        {
            "field": {"type": "string", "minLength": 1, "maxLength": 2 * PLAN_NAME},
            "op": {"type": "string", "enum": ["==", "!=", ">", ">=", "<", "<=", "contains"]},
            "value": {"anyOf": [{"type": "string", "maxLength": 64}, *literals]},
        }
    )
    common = {"needs": _list(name, 4), "when": when}
    output = {"output": _list(typed, 6, 1)}
    kinds = [
        _closed({"name": name, "prompt": text}, output | common),
        _closed({"name": name, "map": {**name, "maxLength": 2 * PLAN_NAME}, "prompt": text}, output | common),
        _closed({"name": name, "approval": text}, common),
        _closed({"name": name, "when": when}, {"needs": _list(name, 4)}),
    ]
    if tools:
        argument = _closed({"name": name, "value": {"type": "string", "maxLength": 200}})
        body = {"name": name, "tool": {"type": "string", "enum": list(tools)}, "with": _list(argument, 6)}
        kinds.append(_closed(body, common))
    return _closed(
        {
            "name": name,
            "inputs": _list(typed, 6),
            "tasks": _list({"anyOf": kinds}, most, 1),
            "outputs": _list(name, 4),
        }
    )


def workflow_from_plan(data: Any) -> Workflow:
    """The Workflow that a plan in the form of `planning_schema` describes. References are not checked here.

    Raises:
        WorkflowError: `data`, which may be anything, is no such plan; lists every Problem of its form.
    """
    if not isinstance(data, Mapping):
        wrong = Problem(None, None, "it is no JSON object", 'answer {"name": …, "tasks": […]}')
        raise WorkflowError([wrong], source="the plan")
    problems: list[Problem] = []
    flow = {key: value for key, value in data.items() if key not in ("inputs", "tasks", "outputs")}
    flow["inputs"] = _by_name(data.get("inputs", []), "inputs", problems, _type)
    flow["tasks"] = _by_name(data.get("tasks", []), "tasks", problems, _plan_task)
    outputs = data.get("outputs", [])
    if isinstance(outputs, Mapping):
        flow["outputs"] = outputs
    elif isinstance(outputs, list) and all(isinstance(name, str) for name in outputs):
        flow["outputs"] = {name.rsplit(".", 1)[-1]: name for name in outputs}
    else:
        problems.append(Problem(None, None, "outputs is no list of names", "list the names of tasks"))
    try:
        made = Workflow.from_data(flow)
    except WorkflowError as error:
        problems += error.problems
    else:
        if not problems:
            return made
    raise WorkflowError(by_line(problems), source="the plan")


def _by_name(entries: Any, section: str, problems: list[Problem], convert: Convert) -> Any:
    """{name: entry} of a list of entries that have a `name`; what is no such list is left to `from_data`."""
    if not isinstance(entries, list):
        return entries
    found: dict[str, Any] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str):
            message = f"an entry of {section} has no name"
            problems.append(Problem(None, None, message, 'give it one: {"name": "notes", …}'))
        elif name in found:
            task = name if section == "tasks" else None
            message = f"duplicate {section[:-1]} {name!r}"
            problems.append(Problem(task, None, message, "give the second one another name"))
        else:
            rest = {key: value for key, value in entry.items() if key != "name"}
            found[name] = convert(rest, problems)
    return found


def _type(entry: dict[str, Any], problems: list[Problem]) -> Any:
    return entry.get("type", "str")


def _value(entry: dict[str, Any], problems: list[Problem]) -> Any:
    return entry.get("value")


def _plan_task(entry: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """A task of the plan in the workflow format: lists of named things become mappings."""
    for key, convert in (("output", _type), ("with", _value)):
        listed = entry.get(key)
        if listed == []:
            del entry[key]
        elif isinstance(listed, list) and all(isinstance(part, Mapping) for part in listed):
            entry[key] = _by_name(listed, key, problems, convert)
    return entry


def _closed(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any], most: int, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), "minItems": least, "maxItems": most}


def _input() -> dict[str, Any]:
    declared = {
        "type": "object",
        "properties": {"type": {"$ref": "#/$defs/TypeSpec"}, "default": True},
        "required": ["type"],
        "additionalProperties": False,
    }
    return {"description": "A type, or {type, default}", "anyOf": [declared, {"$ref": "#/$defs/TypeSpec"}]}


def _task() -> dict[str, Any]:
    kinds = [*(kind.__name__ for kind in BODIES.values()), WhenTask.__name__]
    return {
        "description": "The one body key tells the kind of a task.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in kinds],
    }


def _tidy(schema: Any) -> Any:
    """Without the titles that pydantic makes of field names, and with the $ref of types in place."""
    if isinstance(schema, list):
        return [_tidy(inner) for inner in schema]
    if not isinstance(schema, Mapping):
        return schema
    if schema.get("x-podium") == "TypeSpec":
        return {"$ref": "#/$defs/TypeSpec"}
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: _tidy(inner) for name, inner in value.items()}
        elif not (key == "title" and isinstance(value, str)):
            made[key] = _tidy(value)
    return made


def schema_text() -> str:
    """The published file's text."""
    return json.dumps(workflow_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else "docs/workflow.schema.json").write_text(schema_text(), "utf-8")
