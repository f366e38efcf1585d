"""Expressions such as `(3 + 4) x 1/2` or `20% of 50`, read out of text into exact fractions.

Nothing is executed: a small parser reads numbers, `+ - * / ^`, brackets and what people and LaTeX write for
them. What cannot be read raises `Unreadable` and is never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

#: characters of a text that are read; a longer one is an essay, not a calculation
LONGEST_TEXT = 20_000
# a power or a denominator beyond this is not arithmetic of everyday texts, and could take for ever
_LARGEST_POWER = 12
_LARGEST_SIZE = 10**30
_LONGEST_NUMBER = 40
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)"), "*"),
    (re.compile(r"\\div"), "/"),
    (re.compile(r"\\(?:approx|simeq)"), "="),
    (re.compile(r"\\text\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\([*$%()\[\]])"), r"\1"),
)
_TOKEN = re.compile(
    r"""(?P<mixed>\d+\s\d+/\d+(?![\d/]))
      | (?P<symbol>\d*(?![xX]\s*[\d$(])[^\W\d_](?![^\W_/'’]))
      | (?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+\.\d+|\.\d+|\d+)(?P<percent>\s?%|\s?percent\b)?
      | (?P<word>/?[^\W\d_]+(?:[/'’-][^\W\d_]+)*\.?(?=\s*[-+*/=×÷)]|))
      | (?P<op>==|[-+*/^=()×÷≈−–])
      | (?P<stop>[\n;:?!]|[.,](?=\s|$))
      | (?P<skip>[$€£¥\s]+)
      | (?P<other>.)""",
    re.VERBOSE,
)
_OPERATORS = {"×": "*", "÷": "/", "−": "-", "–": "-", "≈": "=", "==": "=", "x": "*", "X": "*", "·": "*"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text: `kind` is number, word, symbol (a variable, as in `3c`), op, stop or other."""

    kind: str
    text: str
    value: Fraction = Fraction(0)
    percent: bool = False
    #: digits after the decimal point
    places: int = 0


class Unreadable(ValueError):
    """Not an expression, or one too large for an everyday text."""


def plain(text: str) -> str:
    """A text with LaTeX's operators as plain ones."""
    text = text[:LONGEST_TEXT]
    if "\\" in text:
        for pattern, new in _LATEX:
            text = pattern.sub(new, text)
    return text


def tokens_of(text: str) -> list[Token]:
    """The pieces of a text, blanks and currency signs left out."""
    found = []
    for match in _TOKEN.finditer(text):
        kind, part = match.lastgroup or "other", match.group()
        if len(part) > _LONGEST_NUMBER and part[0].isdigit():
            found.append(Token("other", part))
            continue
        if match.group("number"):
            digits = match.group("number").replace(",", "")
            places = len(digits.partition(".")[2])
            percent = match.group("percent") is not None
            found.append(Token("number", part, Fraction(digits), percent, places))
        elif kind == "mixed":
            whole, above, below = (int(n) for n in re.findall(r"\d+", part))
            kind = "number" if below else "other"
            found.append(Token(kind, part, whole + Fraction(above, below or 1), places=2))
        elif kind == "op" or (kind != "symbol" and part in ("x", "X", "·")):
            found.append(Token("op", _OPERATORS.get(part, part)))
        elif kind == "symbol" and part in ("a", "I", "s"):
            found.append(Token("word", part))
        elif kind != "skip":
            found.append(Token(kind, part))
    return found


class _Parser:
    """expression := term (±term)*; term := power (*/ power)*; power := atom (^ atom)?"""

    def __init__(self, tokens: Sequence[Token], percent_is_part: bool) -> None:
        self.tokens = tokens
        self.at = 0
        self.part = percent_is_part

    def whole(self) -> Fraction:
        value = self.expression()
        if self.at != len(self.tokens):
            raise Unreadable
        return value

    def peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def expression(self) -> Fraction:
        value = self.term()
        while (sign := self.peek()) in ("+", "-"):
            self.at += 1
            other = self.term()
            value = value + other if sign == "+" else value - other
        return value

    def term(self) -> Fraction:
        value = self.power()
        while (sign := self.peek()) in ("*", "/"):
            self.at += 1
            other = self.power()
            if sign == "/" and not other:
                raise Unreadable
            value = value / other if sign == "/" else value * other
            if abs(value.numerator) > _LARGEST_SIZE or value.denominator > _LARGEST_SIZE:
                raise Unreadable
        return value

    def power(self) -> Fraction:
        base = self.atom()
        if self.peek() != "^":
            return base
        self.at += 1
        power = self.atom()
        if power.denominator != 1 or abs(power) > _LARGEST_POWER or (not base and power < 0):
            raise Unreadable
        return base ** int(power)

    def atom(self) -> Fraction:
        if self.at >= len(self.tokens):
            raise Unreadable
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "number":
            return token.value / 100 if token.percent and self.part else token.value
        if token.text == "-":
            return -self.atom()
        if token.text != "(":
            raise Unreadable
        value = self.expression()
        if self.peek() != ")":
            raise Unreadable
        self.at += 1
        return value


def values(tokens: Sequence[Token]) -> list[Fraction]:
    """What an expression may mean: percentages as parts of one, or as plain numbers."""
    readings = (True, False) if any(t.percent for t in tokens) else (False,)
    return [_Parser(tokens, reading).whole() for reading in readings]


def evaluate(text: str) -> Fraction | None:
    """The exact value of an expression such as `(3 + 4) x 1/2`; None where it is none."""
    tokens = tokens_of(plain(text))
    try:
        return values(tokens)[0] if tokens and len(tokens) < 400 else None
    except (Unreadable, RecursionError):
        return None
