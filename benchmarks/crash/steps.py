"""Functions of the crash workflow. Each does a little work and then, last of all, its keyed effect."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

#: seconds of work before the effect: about what a quick call to a service takes
WORK = 0.008


def effect(log: str, key: str, result: Any) -> dict[str, Any]:
    """Append `key<TAB>attempt` to the effect log, in one synced write; every execution is an attempt."""
    time.sleep(WORK)
    attempt = uuid.uuid4().hex[:12]
    file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    try:
        os.write(file, f"{key}\t{attempt}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)
    return {"key": key, "attempt": attempt, "result": result}


def double(log: str, key: str, value: int) -> dict[str, Any]:
    return effect(log, key, 2 * value)


def square(log: str, value: int) -> dict[str, Any]:
    """An element of a map, whose key is made of the element."""
    return effect(log, f"square_{value}", value * value)


def total(log: str, key: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return effect(log, key, sum(part["result"] for part in parts))


def tell(log: str, key: str, text: str) -> dict[str, Any]:
    return effect(log, key, text.upper())
