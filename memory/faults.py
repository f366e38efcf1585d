"""Named fault points for crash tests: the process kills itself with SIGKILL when it gets to one.

`PODIUM_FAULT=task.finish:before:3` kills at the third time that the commit `task.finish` is about to happen;
`after` kills when it has become durable but nobody has been told. Without the variable a point costs one
comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

#: every commit that an engine makes for a run, by name; `call.judge` comes with some ways to an answer only,
#: and `router.blame` when a task fails on what it had read
COMMITS = (
    "run.create",
    "run.claim",
    "run.beat",
    "task.start",
    "task.expand",
    "task.finish",
    "task.retry",
    "task.wait",
    "call.reserve",
    "call.sent",
    "call.settle",
    "effect.request",
    "effect.start",
    "effect.finish",
    "run.finish",
)

_armed: tuple[str, str, int] | None = None
_seen = 0


def _parse(text: str | None) -> tuple[str, str, int] | None:
    if not text:
        return None
    name, when, *count = text.split(":")
    return name, when, int(count[0]) if count else 1


_armed = _parse(os.environ.get("PODIUM_FAULT"))


def hit(name: str, when: Literal["before", "after"]) -> None:
    """Die here if this point is armed and its turn has come."""
    global _seen
    if _armed is None or _armed[0] != name or _armed[1] != when:
        return
    _seen += 1
    if _seen == _armed[2]:
        os.kill(os.getpid(), signal.SIGKILL)
