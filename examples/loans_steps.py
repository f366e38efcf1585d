"""The Python step of loans.yaml: one entry of the register → what it says. It runs in a worker process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

REGISTER = Path(__file__).parent / "data" / "loans.md"
ENTRY = re.compile(r"^## (\S+)\n+(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
KEPT = re.compile(r"^- (?:([^:,]+), )?([^:]+): (.+)$", re.MULTILINE)


def entry(date: str) -> dict[str, Any]:
    """The entry of a day: its date, its prose, and what it wants kept, as {thing: {field: value}}.

    Raises:
        KeyError: the register has no entry of that day.
    """
    text = dict(ENTRY.findall(REGISTER.read_text(encoding="utf-8")))[date]
    said: dict[str, Any] = {"date": date, "note": KEPT.sub("", text).strip()}
    for thing, field, value in KEPT.findall(text):
        if thing:
            said.setdefault(thing, {})[field] = value
        else:
            said[field] = value
    return said
