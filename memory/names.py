"""Names of tasks in a run, and the task of the workflow that each stands for."""

from __future__ import annotations

import re

_INDEX = re.compile(r"\[\d+\]|@\d+")


def in_workflow(name: str) -> str:
    """The name without numbers of elements, iterations and plans: `loop/ok` for `loop[2]/ok`."""
    return _INDEX.sub("", name)
