"""Whether an answer has the form that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .contract import Check

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_SHOWN = 3


def json_in(answer: str) -> Any:
    """The JSON of an answer: all of it, or what stands in its first code fence.

    Raises:
        ValueError: there is none.
    """
    fenced = _FENCE.search(answer)
    try:
        return json.loads(fenced.group(1) if fenced else answer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@dataclass(frozen=True, slots=True)
class Schema:
    """The answer is JSON in which `problems` finds nothing wrong.

    `problems`: says in words where a value breaks the schema, nothing where it fits; the caller binds its
    validator (the agents' one, jsonschema, pydantic). Score: 1, less a quarter a problem.
    """

    problems: Callable[[Any], Iterable[str]]
    name: str = "schema"

    def check(self, prompt: str, answer: str) -> Check:
        try:
            value = json_in(answer)
        except ValueError as error:
            return Check.of(self.name, 0.0, f"no JSON: {error}")
        found = list(islice(self.problems(value), 5))
        return Check.of(self.name, 1 - 0.25 * len(found), "; ".join(found[:_SHOWN]) or "it fits the schema")
