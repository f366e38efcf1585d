"""The Python steps of triage.py, in a module of their own so that worker processes can import them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Severity = Literal["info", "warning", "critical"]
ORDER: list[Severity] = ["info", "warning", "critical"]


class Entry(BaseModel):
    severity: Severity
    component: str
    problem: str


class Worst(BaseModel):
    severity: Severity
    problems: list[str]


def worst(entries: list[Entry]) -> Worst:
    """The highest severity, and the problems that have it."""
    top = max(entries, key=lambda entry: ORDER.index(entry.severity)).severity
    return Worst(severity=top, problems=[e.problem for e in entries if e.severity == top])


def report(entries: list[Entry], message: str | None) -> str:
    """A table of the entries, and the message to the engineer on duty if there is one."""
    rows = [f"{e.severity:<9} {e.component:<24.24} {e.problem}" for e in entries]
    return "\n".join(
        [f"{'SEVERITY':<9} {'COMPONENT':<24} PROBLEM", *rows, "", message or "Nobody has to be woken."]
    )
