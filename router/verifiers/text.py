"""Whether an answer is one at all: not empty, refused, given up or cut off."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .contract import Check

#: in lower case; counted in an answer
SIGNS: dict[str, re.Pattern[str]] = {
    "refuses": re.compile(
        r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|"
        r"i (?:can(?:not|'t)|won't) (?:help|assist|answer|provide|do)|"
        r"as an ai\b|i do(?:n't| not) (?:know|have (?:access|enough)))"
    ),
    "gives up": re.compile(
        r"\b(?:not possible|impossible|cannot be (?:determined|solved|calculated)|can(?:'t|not) (?:determine|"
        r"calculate|say|know)|not enough information|no (?:unique |possible |valid )?solution|"
        r"(?:insufficient|missing|without more|more) (?:information|data)|unclear|ambiguous)\b"
    ),
    "turns": re.compile(
        r"\b(?:however|but|wait|actually|mistake|incorrect|correction|contradict\w*|in fact|instead|"
        r"note that|doesn't make sense|does not make sense)\b"
    ),
    "argues": re.compile(r"\b(?:because|since|which (?:is|means)|this means|so that)\b"),
}
_OPEN = re.compile(r"<<[^>]*$|\\\($|[-+*/=×÷,:(\[{]$")
_ENDED = re.compile(r"[.!?)\]}\"'`*%]$")


def cut_off(answer: str) -> bool:
    """Whether a text stops in the middle: in a sentence, a mark or a bracket."""
    lines = answer.rstrip().splitlines()
    if not lines:
        return False
    last = lines[-1].strip()
    if _OPEN.search(last):
        return True
    return not last.startswith("####") and len(last.split()) > 3 and not _ENDED.search(last)


@dataclass(frozen=True, slots=True)
class Whole:
    """Not empty, refused, cut off or given up."""

    name: str = "whole answer"

    def check(self, prompt: str, answer: str) -> Check:
        if not answer.strip():
            return Check.of(self.name, 0.0, "it is empty")
        lower = answer.lower()
        if SIGNS["refuses"].search(lower):
            return Check.of(self.name, 0.0, "it refuses")
        if cut_off(answer):
            return Check.of(self.name, 0.0, "it stops in the middle")
        if SIGNS["gives up"].search(lower):
            return Check.of(self.name, 0.3, "it gives up")
        return Check.of(self.name, 1.0, "it is complete")
