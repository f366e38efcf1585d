"""Arithmetic that a text states, recomputed exactly: `2 boxes * 40 apples/box / 8 = 10`, `$12 x 3 = $36`,
`20% of 50 = 10`, chains `a + b = c - d = e`, LaTeX's `\\frac{1}{2} \\times 6 = 3` and the calculator marks
`<<12*3=36>>` of step-by-step answers (Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021).
A statement that cannot be read is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from .contract import Check
from .expressions import Token, Unreadable, plain, tokens_of, values

_UNIT_WORDS = 5
# how many of one unit make another: minutes, hours, days, weeks, months, ounces, feet, cents, grams …
_CONVERSIONS = frozenset(Fraction(n) for n in (3, 4, 7, 12, 16, 24, 30, 36, 52, 60, 100, 365, 1000, 3600))
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
_MARK = re.compile(r"<<([^<>]{1,200})>>")
_WORD_OPERATORS = {"times": "*", "plus": "+", "minus": "-", "of": "*"}


# longer runs of tokens are not a calculation that a person would write
_MOST_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Statement:
    """One `left = right` of a text."""

    text: str
    #: the numbers of the left side, as written: 20% is 20
    operands: tuple[Fraction, ...]
    result: Fraction
    holds: bool
    #: it stood between `<<` and `>>`
    marked: bool = False


def statements(text: str) -> list[Statement]:
    """Every equation between numbers that a text states, in the order of the text. What stands both in a
    mark and beside it (`2*3 = <<2*3=6>>6`) is found once."""
    found: list[Statement] = []
    for line in plain(text).splitlines():
        if "=" not in line:
            continue
        seen = [s for m in _MARK.finditer(line) for s in _statement_chain(tokens_of(m.group(1)), marked=True)]
        known = {s.result for s in seen if s.holds}
        bare = _BULLET.sub("", _MARK.sub(" ", line))
        found += seen
        found += [s for s in _statement_chain(tokens_of(bare)) if s.result not in known]
    return found


def _statement_chain(tokens: list[Token], *, marked: bool = False) -> list[Statement]:
    equals = [i for i, token in enumerate(tokens) if token.kind == "op" and token.text == "="]
    found = []
    for place, here in enumerate(equals):
        start = equals[place - 1] + 1 if place else 0
        end = equals[place + 1] if place + 1 < len(equals) else len(tokens)
        left = _ending(tokens[start:here])
        right = _beginning(tokens[here + 1 : end])
        if left and right and (statement := _statement(left, right, marked)):
            found.append(statement)
    return found


def _ending(tokens: Sequence[Token]) -> list[Token]:
    """The expression that a list of tokens ends with."""
    return _clean(_run(list(tokens[::-1]), closing="(", opening=")")[::-1])


def _beginning(tokens: Sequence[Token]) -> list[Token]:
    """The expression that a list of tokens begins with."""
    return _clean(_run(list(tokens), closing=")", opening="("))


def _run(tokens: list[Token], *, closing: str, opening: str) -> list[Token]:
    """The longest run of numbers, operators and units from the first token on. Words stand only between a
    number and an operator, as units do. Empty where an operand is no number: that is algebra."""
    kept: list[Token] = []
    depth = words = 0
    for i, token in enumerate(tokens[:_MOST_TOKENS]):
        if token.kind == "symbol":
            return []
        if token.kind == "word":
            if token.text in _WORD_OPERATORS and kept and _between_numbers(tokens, i):
                kept.append(Token("op", _WORD_OPERATORS[token.text]))
                continue
            words += 1
            if words > _UNIT_WORDS:
                break
            continue
        if token.kind not in ("number", "op"):
            break
        after_number = bool(kept) and kept[-1].kind == "number"
        # two numbers in a row, or a remark in brackets: `= 54 (rounded)`
        if after_number and (token.kind == "number" or (token.text == "(" and opening == "(")):
            break
        depth += (token.text == opening) - (token.text == closing)
        if depth < 0:
            break
        if token.kind == "op" and not kept and words:
            return []  # `4 * number of students`
        kept.append(token)
        words = 0
    return [] if words and kept and _operand_wanted(kept) else kept


def _operand_wanted(kept: Sequence[Token]) -> bool:
    return kept[-1].kind == "op" and kept[-1].text != ")"


def _between_numbers(tokens: Sequence[Token], i: int) -> bool:
    before = i > 0 and tokens[i - 1].kind in ("number", "op")
    after = i + 1 < len(tokens) and tokens[i + 1].kind in ("number", "op")
    return before and after


def _clean(tokens: list[Token]) -> list[Token]:
    """Without brackets around words only, and without operators at the rims."""
    changed = True
    while changed:
        changed = False
        for i, (first, second) in enumerate(pairwise(tokens)):
            if first.text == "(" and second.text == ")":
                del tokens[i : i + 2]
                changed = True
                break
    while tokens and tokens[0].kind == "op" and tokens[0].text not in "(-":
        tokens = tokens[1:]
    while tokens and tokens[-1].kind == "op" and tokens[-1].text != ")":
        tokens = tokens[:-1]
    return tokens


def _statement(left: list[Token], right: list[Token], marked: bool) -> Statement | None:
    operators = any(t.kind == "op" and t.text not in "()" for t in left)
    operands = tuple(t.value for t in left if t.kind == "number")
    if len(left) + len(right) > _MOST_TOKENS or not operands or not any(t.kind == "number" for t in right):
        return None
    try:
        before, after = values(left), values(right)
    except (Unreadable, RecursionError):
        return None
    if not operators:
        return None  # `1 pound = 16 ounces` is a definition, not a calculation
    places = max(t.places for t in right if t.kind == "number")
    holds = any(_same(a, b, places) for a in before for b in after)
    holds = holds or _percent_off(left, after) or _run_on(before, right)
    single = len([t for t in right if t.kind == "number"]) == 1
    result = next(t.value for t in right if t.kind == "number") if single else after[0]
    result = -result if single and right[0].text == "-" else result
    shown = " ".join(t.text for t in (*left, Token("op", "="), *right))
    return Statement(shown, operands, result, holds, marked)


def _same(left: Fraction, right: Fraction, places: int) -> bool:
    """Equal, rounded to the digits that are shown, or given in another unit (hours as minutes)."""
    if abs(left - right) < Fraction(1, 10**places) or abs(left - right) * 10**9 < abs(left):
        return True
    return bool(left and right) and (left / right in _CONVERSIONS or right / left in _CONVERSIONS)


def _run_on(before: Sequence[Fraction], right: Sequence[Token]) -> bool:
    """`4 + 2 = 6 * 3 = 18`, as people write it: the result goes on as the first number of the next step."""
    return len(right) > 2 and right[0].kind == "number" and right[0].value in before


def _percent_off(left: Sequence[Token], after: Sequence[Fraction]) -> bool:
    """`80 - 25% = 60`: the percentage is of what stands before it."""
    if len(left) != 3 or not left[2].percent or left[1].text not in "+-" or left[0].percent:
        return False
    share = left[0].value * left[2].value / 100
    return (left[0].value + share if left[1].text == "+" else left[0].value - share) in after


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Recomputes every `a op b = c` of the answer exactly. Score: the share of the steps that hold."""

    name: str = "arithmetic"

    def check(self, prompt: str, answer: str) -> Check:
        steps = statements(answer)
        if not steps:
            return Check.unknown(self.name, "no calculation in the answer")
        wrong = [step for step in steps if not step.holds]
        evidence = f"does not hold: {wrong[0].text}" if wrong else f"all {len(steps)} steps hold"
        return Check.of(self.name, 1 - len(wrong) / len(steps), evidence)
