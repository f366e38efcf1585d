"""The workflow as a graph: whether it can run, in what order, and how long its longest path is.

The only file that imports networkx, and only when it is asked something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .problems import Lines, Problem, WorkflowError, by_line, did_you_mean, problem_at
from .problems import Path as DataPath
from .signatures import Signature, read_signatures
from .tasks import AgentTask, LlmTask, PlanTask, PythonTask, ToolTask, callable_name
from .types_check import Checker
from .workflow import Workflow, task_sources, workflow_path, workflow_task

if TYPE_CHECKING:
    import networkx as nx

__all__ = [
    "MAX_TASKS",
    "Problem",
    "WorkflowError",
    "callables",
    "check_inputs",
    "critical_path_levels",
    "embedded",
    "generations",
    "validate",
]

#: tasks of one workflow, those of embedded workflows counted each time
MAX_TASKS = 10_000


def validate(
    workflow: Workflow,
    *,
    lines: Lines | None = None,
    check_imports: Path | None = None,
    max_tasks: int = MAX_TASKS,
) -> list[Problem]:
    """Everything that keeps `workflow` from running, in the order of its file. Never raises on a workflow.

    `lines` says where values stand (default: what the workflow remembers of its file). With `check_imports`,
    a project root, python functions and tools are imported from there in a process of their own, and their
    parameters are checked against what fills them.
    """
    lines = lines or workflow.lines
    everything = list(embedded(workflow))
    count = sum(len(flow.tasks) for _, flow in everything)
    if count > max_tasks:
        message = f"the workflow has {count:,} tasks, more than {max_tasks:,}"
        return [problem_at(("tasks",), lines, message, "use map for what repeats, or split the workflow")]
    signatures: dict[str, Signature] = {}
    if check_imports is not None:
        signatures = read_signatures((name for _, name in _callables(everything)), check_imports)
    problems = [
        problem_at(path, lines, signatures[name].error, signatures[name].mend)
        for path, name in _callables(everything)
        if name in signatures and signatures[name].error
    ]
    problems += Checker(workflow, lines=lines, signatures=signatures).problems()
    for at, flow in everything:
        if not flow.tasks:
            message = "the workflow has no tasks"
            problems.append(
                problem_at((*at, "tasks"), lines, message, "write at least one task under tasks:")
            )
        problems += _cycles(flow, at, lines)
    return by_line(problems)


def generations(workflow: Workflow) -> list[list[str]]:
    """The tasks in layers: each needs only tasks of layers before its own.

    Raises:
        WorkflowError: the tasks wait for each other.
    """
    import networkx as nx

    graph = _graph(workflow)
    try:
        return [list(layer) for layer in nx.topological_generations(graph)]
    except nx.NetworkXUnfeasible:
        raise WorkflowError(_cycles(workflow, (), workflow.lines)) from None


def critical_path_levels(workflow: Workflow) -> dict[str, int]:
    """task → how many tasks are on the longest path from it to the end, itself included.

    Raises:
        WorkflowError: the tasks wait for each other.
    """
    graph = _graph(workflow)
    levels: dict[str, int] = {}
    for layer in reversed(generations(workflow)):
        for name in layer:
            levels[name] = 1 + max((levels[after] for after in graph.successors(name)), default=0)
    return {name: levels[name] for name in workflow.tasks}


def callables(workflow: Workflow) -> list[str]:
    """Every "module:name" that a workflow and the workflows in it name, in their order."""
    return [name for _, name in _callables(embedded(workflow))]


def embedded(workflow: Workflow, at: DataPath = ()) -> Iterator[tuple[DataPath, Workflow]]:
    """`workflow` and the workflows in its tasks, each with the path at which it stands."""
    yield at, workflow
    for name, task in workflow.tasks.items():
        inner = workflow_task(task)
        if inner is not None:
            yield from embedded(inner, (*at, "tasks", name, *workflow_path(task)))


def check_inputs(workflow: Workflow, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run: `values` checked against the declared types, defaults filled in.

    Raises:
        WorkflowError: an input is missing, unknown or of another type, or a map would run over an empty list.
    """
    problems: list[Problem] = []
    for name in values:
        if name not in workflow.inputs:
            hint = did_you_mean(
                name, workflow.inputs, "" if workflow.inputs else "the workflow takes no inputs"
            )
            problems.append(Problem(None, None, f"there is no input {name!r}", hint))
    found: dict[str, Any] = {}
    for name, declared in workflow.inputs.items():
        if name not in values and declared.required:
            problems.append(
                Problem(None, None, f"the input {name} ({declared.type}) is missing", f"give {name}=…")
            )
            continue
        try:
            found[name] = declared.type.validate(values.get(name, declared.default))
        except ValueError as error:
            mend = f"give {name} as {declared.type}"
            problems.append(Problem(None, None, f"the input {name}: {error}", mend))
    problems += _empty_maps(workflow, found)
    if problems:
        raise WorkflowError(problems)
    return found


def _empty_maps(workflow: Workflow, values: Mapping[str, Any]) -> Iterator[Problem]:
    for name, task in workflow.tasks.items():
        source, *path = task.map.split(".") if task.map else [""]
        if source not in values:
            continue
        value = values[source]
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value == []:
            yield Problem(
                name, None, f"map over an empty list: {task.map}", f"give {source} at least one element"
            )


def _callables(flows: Iterable[tuple[DataPath, Workflow]]) -> Iterator[tuple[DataPath, str]]:
    """(place, "module:name") of everything that is to be imported."""
    for at, flow in flows:
        for name, task in flow.tasks.items():
            place = (*at, "tasks", name)
            if isinstance(task, PythonTask | ToolTask):
                yield (*place, task.body_key), callable_name(task)
            elif isinstance(task, LlmTask) and task.check is not None:
                yield (*place, "check"), task.check
            elif isinstance(task, AgentTask):
                for index, tool in enumerate(task.tools):
                    yield (*place, "tools", index), tool
            elif isinstance(task, PlanTask):
                for index, ref in enumerate(task.plan.refs):
                    yield (*place, "plan", "tools", index), ref
            if task.compensate is not None:
                yield (*place, "compensate", "python"), task.compensate.python


def _graph(workflow: Workflow) -> nx.DiGraph:
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(workflow.tasks)
    for name, task in workflow.tasks.items():
        graph.add_edges_from((src, name) for src in sorted(task_sources(task)) if src in workflow.tasks)
    return graph


def _cycles(workflow: Workflow, at: DataPath, lines: Lines | None) -> list[Problem]:
    """One Problem for each task that needs itself and each knot of tasks that wait for each other."""
    import networkx as nx

    graph = _graph(workflow)
    problems = []
    for name in list(nx.nodes_with_selfloops(graph)):
        mend = f"remove {{{name}}} from it, or name another task"
        place = (*at, "tasks", name)
        problems.append(problem_at(place, lines, f"the task {name} needs itself", mend))
        graph.remove_edge(name, name)
    order = {name: index for index, name in enumerate(workflow.tasks)}
    for knot in nx.strongly_connected_components(graph):
        if len(knot) == 1:
            continue
        first = min(knot, key=order.__getitem__)
        edges = nx.find_cycle(graph.subgraph(knot), first)
        names = [src for src, _ in edges]
        start = names.index(min(names, key=order.__getitem__))
        names = names[start:] + names[:start]
        shown = names if len(names) <= 8 else [*names[:7], "…"]
        message = f"these tasks wait for each other: {' → '.join([*shown, names[0]])}"
        mend = f"break the circle: let {names[0]} not need {names[-1]}"
        problems.append(problem_at((*at, "tasks", names[0]), lines, message, mend))
    return problems
