"""What an answer and its question look like, as a few numbers that say how far to trust it.

Kept is what ranked answers better in cross-validation on one half of a set of graded answers and did no harm
on the other; four fifths of what was tried (kinds of wording, operators, units, sizes of results) did not.
All of it works on any text: without a calculation its columns are constant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import log1p

from ..verifiers.text import SIGNS, cut_off
from ..verifiers.trace import Trace, Use, trace

#: characters of a prompt and of an answer that are read (of a longer one the end: there the result is)
LONGEST = 8_000
_MOST_SIGNS = 3
# a capital inside a sentence
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
_IN_TIME = re.compile(
    r"\b(?:then|after|before|first|next|later|ago|now|originally|began|start\w*|age|old|older|younger)\b"
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """An answer as all figures need it, read once."""

    prompt: str
    answer: str
    lower: str
    trace: Trace
    uses: tuple[Use, ...]

    def count(self, origin: str) -> int:
        return sum(use.origin == origin for use in self.uses)

    def sign(self, name: str) -> int:
        return min(len(SIGNS[name].findall(self.lower)), _MOST_SIGNS)


def _again(seen: _Seen) -> int:
    taken = Counter(n for step in seen.trace.steps for n in step.operands)
    return sum(n > 1 for n in taken.values())


def _results_again(seen: _Seen) -> int:
    taken = Counter(use.index for use in seen.uses if use.origin == "result")
    return sum(n - 1 for n in taken.values())


def _out_of_order(seen: _Seen) -> float:
    places = [use.index for use in seen.uses if use.origin == "asked"]
    return sum(b < a for a, b in pairwise(places)) / max(len(places) - 1, 1)


def _left_over(seen: _Seen) -> float:
    taken = {use.index for use in seen.uses if use.origin == "asked"}
    return 1 - len(taken) / len(seen.trace.asked) if seen.trace.asked else 0.0


def _split(number: Fraction | None) -> bool:
    return number is not None and number.denominator > 1


#: by what it says of an answer, in words that follow "because of": the figure
FIGURES: dict[str, Callable[[_Seen], float]] = {
    "the calculation's size": lambda s: log1p(len(s.trace.operands())),
    "any step that does not hold": lambda s: any(not step.holds for step in s.trace.steps),
    "steps that lead nowhere": lambda s: len(s.trace.loose_ends()),
    "numbers of the question not mentioned": lambda s: sum(not q.spelled for q in s.trace.unmentioned()),
    "numbers of the question not used": _left_over,
    "numbers used again": _again,
    "results used again": _results_again,
    "steps that build on results": lambda s: s.count("result") / max(len(s.uses), 1),
    "numbers used out of order": _out_of_order,
    "a result that is marked": lambda s: s.trace.marked,
    "a result that was worked out": lambda s: s.trace.computed(),
    "a result with a fraction": lambda s: _split(s.trace.result),
    "steps with fractions": lambda s: sum(_split(step.result) for step in s.trace.steps),
    "an end in the middle": lambda s: cut_off(s.answer),
    "the answer's length": lambda s: log1p(len(s.answer)),
    "words of doubt": lambda s: s.sign("turns"),
    "words of argument": lambda s: s.sign("argues"),
    "a refusal": lambda s: s.sign("refuses"),
    "giving up": lambda s: s.sign("gives up"),
    "the question's length": lambda s: log1p(len(s.prompt)),
    "the question's names": lambda s: min(len(set(_NAME.findall(s.prompt))), 2 * _MOST_SIGNS),
    "the question's order in time": lambda s: min(len(_IN_TIME.findall(s.prompt.lower())), 2 * _MOST_SIGNS),
}


def figures(prompt: str, answer: str) -> list[float]:
    """The values of `FIGURES` for one answer, in their order; finite for any two strings."""
    prompt, answer = prompt[-LONGEST:], answer[-LONGEST:]
    found = trace(prompt, answer)
    seen = _Seen(prompt, answer, answer.lower(), found, found.uses())
    return [float(figure(seen)) for figure in FIGURES.values()]
