"""How an answer gets from the numbers of its question to its result: which of them it uses, which steps lead
nowhere, and whether the result is one that was worked out.

An answer may compute everything right and still be wrong; then most often it left a number of the question
out, or the last step is not what was asked for. These are the plausibility checks that people make on word
problems (Polya, "How to Solve It", 1945: did you use all the data?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from .arithmetic import Statement, statements
from .contract import Check
from .expressions import plain
from .quantities import Quantity, quantities, result_of

#: numbers and steps that are read; a longer text is no calculation that a person would check
_MOST = 300

Origin = Literal["asked", "result", "again", "other"]


@dataclass(frozen=True, slots=True)
class Use:
    """Where an operand of a step comes from: `asked`: number `index` of the question; `result`: of step
    `index`; `again`: a number of the question that was taken before; `other`: a unit, a count, or nowhere."""

    origin: Origin
    index: int


@dataclass(frozen=True, slots=True)
class Trace:
    """An answer's calculation. `result`: the number that it gives in the end, None where there is none;
    `marked`: it is told from the rest by `####`, `\\boxed` or "the answer is"."""

    asked: tuple[Quantity, ...]
    steps: tuple[Statement, ...]
    result: Fraction | None
    marked: bool
    #: numbers that the answer's text mentions anywhere
    mentioned: frozenset[Fraction]

    def operands(self) -> frozenset[Fraction]:
        """The numbers that some step takes."""
        return frozenset(n for step in self.steps for n in step.operands)

    def unused(self) -> tuple[Quantity, ...]:
        """Numbers of the question that no step takes."""
        taken = self.operands()
        return tuple(q for q in self.asked if not q.forms() & taken)

    def unmentioned(self) -> tuple[Quantity, ...]:
        """Numbers of the question that the answer does not have at all."""
        there = self.mentioned | self.operands()
        return tuple(q for q in self.asked if not q.forms() & there)

    def loose_ends(self) -> tuple[Statement, ...]:
        """Steps whose result no later step takes and which is not the final result either."""
        later: set[Fraction] = set() if self.result is None else {self.result}
        found = []
        for step in reversed(self.steps):
            if not _roundings(step.result) & later:
                found.append(step)
            later.update(step.operands)
        return tuple(reversed(found))

    def computed(self) -> bool:
        """The result is that of some step."""
        return self.result is not None and any(self.result in _roundings(s.result) for s in self.steps)

    def uses(self) -> tuple[Use, ...]:
        """Where each operand comes from, in the order of the text. Results that wait to be used come first,
        then numbers of the question that wait, so that a 3 that was worked out is not taken for a 3 of the
        question."""
        forms = [q.forms() for q in self.asked]
        waiting, spent = set(range(len(forms))), set[int]()
        results = [_roundings(step.result) for step in self.steps]
        found = []
        for i, step in enumerate(self.steps):
            for value in step.operands:
                use = _use(value, forms, waiting, results[:i], spent)
                (spent.add if use.origin == "result" else waiting.discard)(use.index)
                found.append(use)
        return tuple(found)


def _use(
    value: Fraction,
    asked: Sequence[frozenset[Fraction]],
    waiting: set[int],
    results: Sequence[frozenset[Fraction]],
    spent: set[int],
) -> Use:
    made = [j for j in range(len(results) - 1, -1, -1) if value in results[j]]
    given = [k for k in range(len(asked)) if value in asked[k]]
    fresh = [j for j in made if j not in spent]
    # a plain 2 rather than a percentage or a half that may also appear as 2
    waits = sorted((k for k in given if k in waiting), key=lambda k: len(asked[k]))
    if fresh:
        return Use("result", fresh[0])
    if waits:
        return Use("asked", waits[0])
    if made:
        return Use("result", made[0])
    return Use("again", given[0]) if given else Use("other", -1)


@lru_cache(maxsize=4_096)
def _roundings(value: Fraction) -> frozenset[Fraction]:
    """A result and what a text may carry on with: rounded to cents or to a whole number, as a percentage."""
    if value.denominator == 1:
        return frozenset((value, -value))
    down = value.numerator // value.denominator
    near = (Fraction(round(value * 10**n), 10**n) for n in (1, 2))
    return frozenset((value, -value, value * 100, Fraction(down), Fraction(down + 1), *near))


@lru_cache(maxsize=64)  # several checks and the doubt look at the same answer
def trace(prompt: str, answer: str) -> Trace:
    """Reads an answer to a question; of any two strings."""
    answer = plain(answer)
    result, marked = result_of(answer)
    mentioned = frozenset(q.value for q in quantities(answer))
    asked, steps = quantities(plain(prompt))[:_MOST], tuple(statements(answer)[-_MOST:])
    return Trace(asked, steps, result, marked, mentioned)


@dataclass(frozen=True, slots=True)
class NumbersUsed:
    """Whether a calculation uses the numbers of its question. Score: the share of them that it takes."""

    name: str = "numbers used"

    def check(self, prompt: str, answer: str) -> Check:
        seen = trace(prompt, answer)
        if not seen.asked or not seen.steps:
            return Check.unknown(self.name, "no numbers to use, or no calculation")
        left = seen.unused()
        shown = ", ".join(str(q.value) for q in left[:5])
        evidence = f"not used: {shown}" if left else f"all {len(seen.asked)} numbers of the question are used"
        return Check.of(self.name, 1 - len(left) / len(seen.asked), evidence)


@dataclass(frozen=True, slots=True)
class ResultFollows:
    """Whether the result given is one that was worked out, and no step leads nowhere."""

    name: str = "result follows"

    def check(self, prompt: str, answer: str) -> Check:
        seen = trace(prompt, answer)
        if not seen.steps:
            return Check.unknown(self.name, "no calculation in the answer")
        if not seen.computed():
            return Check.of(self.name, 0.0, f"the result {seen.result} is of no step")
        if loose := seen.loose_ends():
            return Check.of(self.name, 0.5, f"leads nowhere: {loose[0].text}")
        return Check.of(self.name, 1.0, f"{seen.result} is worked out, every step is used")
