"""The library of plans in `templates/`, and which of them suits a goal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..memory.errors import ConfigError
from .similarity import rank

#: the input of every template that holds the goal's text
GOAL = "goal"
#: what a template loses for an input that it has no place for, and for a list that it takes as one text
_LEFT_OVER, _FLATTENED = 0.1, 0.1
#: the template for a goal that resembles none, and the similarity below which nothing counts as resembling
_PLAIN, _RESEMBLES = "single-prompt", 0.15
#: how many of a template's examples count: one alone is near by its topic, three by what they ask for
_NEAREST = 3


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    description: str
    examples: list[str] = Field(min_length=1)
    workflow: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """A plan for goals of one kind."""

    name: str
    description: str
    #: goals in people's words
    examples: tuple[str, ...]
    #: in the workflow format
    workflow: Mapping[str, Any]

    @property
    def inputs(self) -> dict[str, str]:
        """Names and types of what it needs besides the goal."""
        return {name: str(kind) for name, kind in self.workflow["inputs"].items() if name != GOAL}

    def bind(self, given: Mapping[str, str]) -> dict[str, Any] | None:
        """The workflow's data with its inputs renamed to the `given` ones (name → type), or None.

        A list is taken by what maps a list, else by what takes one text. What is left over goes into the
        first prompt. None: something it needs is not given.
        """
        pairs = self._pairs(given)
        if pairs is None:
            return None
        data = _rename(_rename_tasks(deepcopy(dict(self.workflow)), given), pairs)
        goal = {GOAL: data["inputs"][GOAL]} if GOAL in data["inputs"] else {}
        data["inputs"] = goal | {name: kind for name, kind in given.items() if name != GOAL}
        first = next(task for task in data["tasks"].values() if "prompt" in task)
        for name in _left_over(given, pairs):
            first["prompt"] += f"\n\n{name}:\n{{{name}}}"
        return data

    def penalty(self, given: Mapping[str, str]) -> float | None:
        """What its similarity loses because the `given` inputs suit it badly; None: it cannot take them."""
        pairs = self._pairs(given)
        if pairs is None:
            return None
        flattened = sum(_is_list(given[new]) and not _is_list(self.inputs[old]) for old, new in pairs.items())
        return _LEFT_OVER * len(_left_over(given, pairs)) + _FLATTENED * flattened

    def _pairs(self, given: Mapping[str, str]) -> dict[str, str] | None:
        """Which given input stands for which of its own."""
        free = [name for name in given if name != GOAL]
        pairs: dict[str, str] = {}
        for own, kind in self.inputs.items():
            same = [name for name in free if _is_list(given[name]) == _is_list(kind)]
            usable = same or ([] if _is_list(kind) else free)
            if not usable:
                return None
            pairs[own] = own if own in usable else usable[0]
            free.remove(pairs[own])
        return pairs


@cache
def load_templates() -> list[Template]:
    """All templates, by name.

    Raises:
        ConfigError: a file of the library is damaged.
    """
    return [_load(path) for path in sorted((Path(__file__).parent / "templates").glob("*.yaml"))]


def choose(
    goal: str, inputs: Mapping[str, str] | None = None, templates: Sequence[Template] | None = None
) -> tuple[Template, float]:
    """The template that suits `goal` best, and its similarity to the goal.

    The similarity is the mean of two cosines: to the template's description, and to its three nearest
    examples. Clear matches have 0.3 and more; a goal that resembles nothing (below 0.15) gets the single
    prompt. `inputs` are the run's inputs (name → type) without the goal: a template that needs others is no
    candidate, and one that has no place for all of them loses. None: nothing is known of them, every template
    is a candidate.

    Raises:
        ConfigError: the library is damaged or empty, or the embeddings cannot be loaded.
    """
    library = load_templates() if templates is None else templates
    best: tuple[Template, float, float] | None = None
    for template, similarity in _similarities(goal, library):
        loss = 0.0 if inputs is None else template.penalty(inputs)
        if loss is None:
            continue
        score = (max(similarity, _RESEMBLES) if template.name == _PLAIN else similarity) - loss
        if best is None or score > best[2]:
            best = template, similarity, score
    if best is None:
        raise ConfigError("no template can take these inputs", mend="plan with a larger model: --model NAME")
    return best[0], best[1]


def _similarities(goal: str, library: Sequence[Template]) -> Iterator[tuple[Template, float]]:
    texts = [text for t in library for text in (t.description, *t.examples)]
    scores = dict(rank(goal, texts))
    start = 0
    for template in library:
        end = start + 1 + len(template.examples)
        nearest = sorted((scores[i] for i in range(start + 1, end)), reverse=True)[:_NEAREST]
        yield template, (scores[start] + sum(nearest) / len(nearest)) / 2
        start = end


def _load(path: Path) -> Template:
    try:
        file = _File.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(
            f"the template {path.name} is damaged: {error}", mend="install podium again"
        ) from error
    return Template(file.name, file.description, tuple(file.examples), file.workflow)


def _is_list(kind: str) -> bool:
    return str(kind).startswith("list")


def _left_over(given: Mapping[str, str], pairs: Mapping[str, str]) -> list[str]:
    return [name for name in given if name != GOAL and name not in pairs.values()]


def _rename_tasks(data: dict[str, Any], taken: Mapping[str, str]) -> dict[str, Any]:
    """The workflow with other names for the tasks whose name an input has."""
    other = {name: f"{name}_step" for name in data["tasks"] if name in taken}
    data = _rename(data, other)
    data["tasks"] = {other.get(name, name): task for name, task in data["tasks"].items()}
    data["outputs"] = {name: other.get(task, task) for name, task in data["outputs"].items()}
    return data


def _rename(tree: Any, pairs: Mapping[str, str], key: str = "") -> Any:
    """`tree` with the inputs' names replaced where a name can stand: placeholders, `map` and `field`."""
    if isinstance(tree, dict):
        return {k: _rename(v, pairs, str(k)) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_rename(v, pairs) for v in tree]
    if not isinstance(tree, str) or key == "output":
        return tree
    if key in ("map", "field"):
        head, dot, rest = tree.partition(".")
        return pairs.get(head, head) + dot + rest
    return re.sub(r"\{([A-Za-z_]\w*)", lambda m: "{" + pairs.get(m[1], m[1]), tree)
