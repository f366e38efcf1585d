"""The numbers of a text, in digits or in words, and the one that an answer gives as its result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from .expressions import plain

_SPELLED = {
    word: Fraction(value)
    for value, words in (
        (1, "one single"), (2, "two twice double doubled doubles pair couple both twins"),
        (3, "three thrice triple tripled triplets"), (4, "four quadruple"), (5, "five"), (6, "six"),
        (7, "seven"), (8, "eight"), (9, "nine"), (10, "ten"), (11, "eleven"), (12, "twelve dozen"),
        (13, "thirteen"), (14, "fourteen"), (15, "fifteen"), (16, "sixteen"), (17, "seventeen"),
        (18, "eighteen"), (19, "nineteen"), (20, "twenty"), (30, "thirty"), (40, "forty"), (50, "fifty"),
        (60, "sixty"), (70, "seventy"), (80, "eighty"), (90, "ninety"), (100, "hundred"),
        (1000, "thousand"), (1_000_000, "million"), ("1/2", "half halves halved"),
        ("1/3", "third thirds"), ("1/4", "quarter quarters fourth fourths"), ("1/5", "fifth fifths"),
        ("1/6", "sixth sixths"), ("1/8", "eighth eighths"), ("1/10", "tenth tenths"),
    )
    for word in words.split()
}  # fmt: skip
_NUMBER = re.compile(
    r"(?<![\w.])(?P<above>\d{1,20})\s?/\s?(?P<below>\d{1,20})(?![\w/])|"
    r"(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d*\.\d+|\d+)(?P<percent>\s?%|\s?percent\b)?|"
    rf"\b(?P<word>(?:{'|'.join(_SPELLED)})(?:-[a-z]+)?)\b",
    re.IGNORECASE,
)
_MARKED = re.compile(
    r"(?:####|\\boxed\s*\{|\b(?:final )?answer(?: is|:)|\*\*answer:?\*\*)\s*([^\n]*)", re.IGNORECASE
)
_DIGITS = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?")
# a longer one is no amount, and Python refuses to read very long ones
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a question. `spelled`: a word such as `twice`; `percent`: it was followed by %."""

    value: Fraction
    spelled: bool = False
    percent: bool = False

    def forms(self) -> frozenset[Fraction]:
        """The numbers by which a calculation may use it: 20% also as 0.2, 0.8, 1.2 and 80, a half also as
        2."""
        return _forms(self.value, self.percent)


@lru_cache(maxsize=4_096)
def _forms(value: Fraction, percent: bool) -> frozenset[Fraction]:
    found = {value, -value}
    if percent:
        part = value / 100
        found |= {part, 1 - part, 1 + part, 100 - value, 100 + value}
    elif value.denominator != 1:
        found |= {Fraction(value.numerator), Fraction(value.denominator)} - {Fraction(1)}
        found |= {1 - value, 1 + value} | ({1 / value} if value else set())
    return frozenset(found)


def _read(digits: str) -> Fraction | None:
    """`1,200`, `.5` or `3/4` as a number; None for what is too long or divides by zero."""
    text = re.sub(r"[,\s]", "", digits)
    if len(text) > _LONGEST:
        return None
    above, _, below = text.partition("/")
    divisor = Fraction(below) if below else Fraction(1)
    return Fraction(above) / divisor if divisor else None


def _quantity(match: re.Match[str]) -> Quantity | None:
    if match["above"]:
        value = _read(f"{match['above']}/{match['below']}")
        return None if value is None else Quantity(value)
    if match["number"]:
        value = _read(match["number"])
        return None if value is None else Quantity(value, percent=match["percent"] is not None)
    value = _spelled(match["word"].lower())
    return None if value is None or value == 1 else Quantity(value, spelled=True)


def _spelled(word: str) -> Fraction | None:
    first, _, second = word.partition("-")
    value = _SPELLED.get(first)
    if not second or value is None:
        return value
    unit = _SPELLED.get(second)
    if unit is None:
        return value  # `three-toed`
    if unit.denominator != 1:
        return value * unit  # `two-thirds`
    return value + unit if value >= 20 and unit < 10 else value * unit  # `twenty-five`, `two-hundred`


def quantities(text: str) -> tuple[Quantity, ...]:
    """The numbers of a text in its order; `one` and `a` do not count."""
    found = (_quantity(match) for match in _NUMBER.finditer(text))
    return tuple(quantity for quantity in found if quantity is not None)


def numbers_in(text: str) -> list[Fraction]:
    """The numbers in digits of a text; `1,200`, `-3` and `3/4` are one each."""
    found = (_read(match.group()) for match in _DIGITS.finditer(text))
    return [number for number in found if number is not None]


def result_of(answer: str) -> tuple[Fraction | None, bool]:
    """`(number, marked)`: what an answer gives as its result, marked by `####`, `\\boxed` or "the answer is".
    Without a mark it is the last number of the last line that has one; None of an answer without numbers."""
    answer = plain(answer)
    marked = [found[0] for m in _MARKED.finditer(answer) if (found := numbers_in(m.group(1)))]
    if marked:
        return marked[-1], True
    for line in reversed(answer.splitlines()):
        if found := numbers_in(line):
            return found[-1], False
    return None, False
