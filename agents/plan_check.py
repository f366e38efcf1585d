"""Is a plan that is valid also any good? Rules that need no model, each with a reason in words.

A constrained decoder makes the weakest model write a valid workflow: the form says nothing of the sense.
These rules catch what weak models do instead of planning: repeat the instructions, write the same prompt
again and again, ignore the inputs, invent others, lose the goal. They do not
tell a good plan from a fair one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: words a prompt must have besides its placeholders
MIN_WORDS = 3
#: share of the goal's words that the plan must speak of
GOAL_SHARE = 0.25
#: share of a prompt's runs of `_RUN` words that may be the instructions' own, or another task's
COPIED_SHARE = 0.6
_RUN = 4
#: share of different words below which a prompt of `_LONG` words or more says the same again and again
DISTINCT_SHARE, _LONG = 0.35, 12

#: keys of a task that hold no placeholders
_NO_TEMPLATES = ("map", "when", "needs", "output")
_BODIES = ("prompt", "agent", "approval")
_REF = re.compile(r"\{([A-Za-z_]\w*)(?:\.\w+)*\}")
_SMALL = frozenset(
    {
        "about",
        "after",
        "also",
        "each",
        "every",
        "from",
        "give",
        "have",
        "into",
        "just",
        "like",
        "make",
        "many",
    }
    | {"more", "most", "much", "over", "please", "some", "such", "than", "that", "their", "them", "then"}
    | {"there", "these", "they", "this", "those", "very", "want", "what", "when", "which", "will", "with"}
    | {"would", "write", "your"}
)


def judge(
    plan: Mapping[str, Any], goal: str, *, given: Mapping[str, str] | None = None, instructions: str = ""
) -> list[str]:
    """What makes `plan` (a valid workflow, in the workflow format) useless for `goal`; empty: nothing found.

    - every input the plan declares is used by a task; with `given` (the run's inputs: name → type) the plan
      declares those and no others. `goal` is always given.
    - every prompt has at least three words of its own, does not repeat itself, and is no copy of the
      `instructions` or of another task's prompt
    - a task whose answer nobody uses is an output, and there is at least one output that is not an approval
    - the plan speaks of the goal: a prompt holds `{goal}`, or a quarter of the goal's words occur in the plan
    """
    tasks: Mapping[str, Mapping[str, Any]] = plan.get("tasks") or {}
    inputs = plan.get("inputs") or {}
    used = {name for task in tasks.values() for name in uses(task)}
    prompts = {name: text for name, task in tasks.items() if (text := _body(task))}
    return [
        *_input_problems(inputs, used, given),
        *_prompt_problems(prompts, instructions),
        *_output_problems(plan, tasks, used),
        *_goal_problems(goal, prompts, "goal" in used),
    ]


def uses(task: Mapping[str, Any]) -> set[str]:
    """The inputs and tasks whose values a task reads."""
    names = {str(task["map"]).split(".")[0]} if task.get("map") else set()
    when = task.get("when")
    if isinstance(when, Mapping) and when.get("field"):
        names.add(str(when["field"]).split(".")[0])
    for text in _strings([value for key, value in task.items() if key not in _NO_TEMPLATES]):
        names.update(_REF.findall(text.replace("{{", "").replace("}}", "")))
    return names


def _input_problems(
    inputs: Mapping[str, Any], used: set[str], given: Mapping[str, str] | None
) -> Iterator[str]:
    for name in inputs:
        if name not in used:
            yield f"the input {name} is used by no task: write {{{name}}} in a prompt, or map over it"
    if given is None:
        return
    for name in given:
        if name not in inputs and name != "goal":
            yield f"the input {name} is given but the plan does not declare it"
    for name, declared in inputs.items():
        has_default = isinstance(declared, Mapping) and "default" in declared
        if name not in given and name != "goal" and not has_default:
            yield f"nobody gives the input {name}: use only {', '.join(['goal', *given])}"


def _prompt_problems(prompts: Mapping[str, str], instructions: str) -> Iterator[str]:
    known: list[tuple[str, str]] = [("the instructions", instructions)] if instructions else []
    for name, text in prompts.items():
        words = _words(text)
        if len(words) < MIN_WORDS:
            yield f"task {name}: its prompt says too little: {text[:60]!r}"
            continue
        if len(words) >= _LONG and len(set(words)) / len(words) < DISTINCT_SHARE:
            yield f"task {name}: its prompt says the same again and again"
        for source, other in known:
            if _copied(text, other):
                yield f"task {name}: its prompt is a copy of {source}"
                break
        known.append((f"task {name}", text))


def _output_problems(
    plan: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]], used: set[str]
) -> Iterator[str]:
    outputs = {str(value).split(".")[0] for value in (plan.get("outputs") or {}).values()}
    needed = used | {str(n) for task in tasks.values() for n in _as_list(task.get("needs"))}
    sinks = [name for name in tasks if name not in needed]
    if outputs:
        for name in sinks:
            if name not in outputs and ("prompt" in tasks[name] or "agent" in tasks[name]):
                yield f"task {name}: nobody uses its answer: make it an output or use {{{name}}} in a prompt"
    results = outputs or set(sinks)
    if all("approval" in tasks.get(name, {}) for name in results):
        yield "the plan gives no result: make the answer of a task its output"


def _goal_problems(goal: str, prompts: Mapping[str, str], passes_goal: bool) -> Iterator[str]:
    wanted = {_stem(w) for w in _words(goal) if len(w) > 3 and w not in _SMALL}
    if passes_goal or not wanted:
        return
    spoken = {_stem(w) for name, text in prompts.items() for w in _words(f"{name.replace('_', ' ')} {text}")}
    if len(wanted & spoken) < GOAL_SHARE * len(wanted):
        missing = ", ".join(sorted(w for w in _words(goal) if _stem(w) in wanted - spoken)[:6])
        yield f"the plan does not speak of the goal (missing: {missing}): say in the prompts what is wanted"


def _body(task: Mapping[str, Any]) -> str:
    return next((str(task[key]) for key in _BODIES if task.get(key)), "")


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _strings(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _strings(value)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", _REF.sub(" ", text).lower())


def _stem(word: str) -> str:
    """Enough of a word that its forms meet: summarise, summary, summaries."""
    return word[:5]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())  # with the names of placeholders: they tell prompts apart
    size = min(_RUN, len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def _copied(text: str, source: str) -> bool:
    runs = _runs(text)
    return bool(runs) and len(runs & _runs(source)) > COPIED_SHARE * len(runs)
