"""Tasks that do next to nothing, so that what is measured is the engine. Nothing but the standard library."""

from __future__ import annotations

import base64
import hashlib


def plus_one(x: int) -> int:
    return x + 1


def same(x: int) -> int:
    return x


def entry(number: int) -> str:
    """1 KB of text that does not compress, another for each number."""
    return base64.b64encode(hashlib.shake_256(str(number).encode()).digest(768)).decode()
