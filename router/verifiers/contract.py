"""What every free check of an answer is: a `Verifier` that gives a `Check`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

Verdict = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one verifier found of one answer."""

    name: str
    verdict: Verdict
    #: 1 all is well … 0 all is wrong; .5 where the verdict is unknown
    score: float
    #: why, in plain words
    evidence: str

    @classmethod
    def of(cls, name: str, score: float, evidence: str, *, needed: float = 1.0) -> Check:
        """Of a check that applies: it passes at `needed` or more."""
        score = min(max(float(score), 0.0), 1.0)
        return cls(name, "pass" if score >= needed else "fail", score, evidence)

    @classmethod
    def unknown(cls, name: str, evidence: str) -> Check:
        """Of a check that has nothing to look at in this answer."""
        return cls(name, "unknown", 0.5, evidence)


class Verifier(Protocol):
    """Anything that checks an answer without knowing the right one."""

    @property
    def name(self) -> str: ...

    def check(self, prompt: str, answer: str) -> Check:
        """Never raises for any two strings: an answer that cannot be read fails, or is unknown."""
        ...


#: names of checks by rules that do not err: the form that was asked for, and a check of the task's own
SCHEMA, OWN = "schema", "check"


def ruled(checks: Iterable[Check]) -> float | None:
    """The score that rules give without doubt: 0 where one is broken, else what the task's own check says.
    None: the right form alone says nothing of what is in it."""
    sure = [check for check in checks if check.name in (SCHEMA, OWN) and check.verdict != "unknown"]
    if any(check.name == SCHEMA and check.verdict == "fail" for check in sure):
        return 0.0
    return min((check.score for check in sure if check.name == OWN), default=None)


def check_all(verifiers: Iterable[Verifier], prompt: str, answer: str) -> list[Check]:
    """Every verifier's check, in their order."""
    return [verifier.check(prompt, answer) for verifier in verifiers]
