"""What other texts say of an answer: sources that it cites, other answers to the same prompt, graded answers
to similar prompts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from .contract import Check
from .quantities import numbers_in, result_of

_CITED = re.compile(r"\[(\d{1,12}(?:\s*,\s*\d{1,12})*)\]")
_WORD = re.compile(r"\w+")
#: how much two texts are about the same, [0, 1] (less than 0 counts as 0)
Similarity = Callable[[str, str], float]


@dataclass(frozen=True, slots=True)
class Citations:
    """Every mark `[12]` of the answer is one of `known` (by default: the marks that the prompt has), and
    there is at least one. Score: the share of the marks that exist."""

    known: Sequence[int] | None = None
    name: str = "citations"

    def check(self, prompt: str, answer: str) -> Check:
        known = set(_marks(prompt) if self.known is None else self.known)
        if not known:
            return Check.unknown(self.name, "no sources given")
        cited = set(_marks(answer))
        if not cited:
            return Check.of(self.name, 0.0, "it cites nothing")
        strange = sorted(cited - known)
        evidence = f"no such source: {strange[:5]}" if strange else f"{len(cited)} sources cited"
        return Check.of(self.name, 1 - len(strange) / len(cited), evidence)


def _marks(text: str) -> list[int]:
    return [int(n) for group in _CITED.findall(text) for n in group.split(",")]


def normal_form(answer: str) -> str:
    """What an answer comes to, for comparison: its marked or only number, else its words in lower case."""
    result, marked = result_of(answer)
    if result is not None and (marked or numbers_in(answer) == [result]):
        return f"={result}"
    return " ".join(_WORD.findall(answer.lower()))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of `others`, answers to the same prompt, come to the same (Wang et al., "Self-Consistency",
    2022). Score: their share; passes with a majority."""

    others: Sequence[str]
    name: str = "agreement"

    def check(self, prompt: str, answer: str) -> Check:
        if not self.others:
            return Check.unknown(self.name, "no other answers")
        forms = [normal_form(other) for other in self.others]
        same = forms.count(normal_form(answer))
        return Check.of(self.name, same / len(forms), f"{same} of {len(forms)} others agree", needed=0.5)


def majority(answers: Sequence[str]) -> str | None:
    """The first of the answers whose normal form is most frequent; None of none."""
    forms = [normal_form(answer) for answer in answers]
    if not forms:
        return None
    counts = Counter(forms)
    return answers[max(range(len(forms)), key=lambda i: (counts[forms[i]], -i))]


@dataclass(frozen=True, slots=True)
class Reference:
    """A graded answer to another prompt; `score` in [0, 1]."""

    prompt: str
    answer: str
    score: float


def word_overlap(a: str, b: str) -> float:
    """Cosine of two texts' word sets, [0, 1]."""
    first, second = set(_WORD.findall(a.lower())), set(_WORD.findall(b.lower()))
    return len(first & second) / sqrt(len(first) * len(second)) if first and second else 0.0


@dataclass(frozen=True, slots=True)
class SimilarAnswers:
    """How graded answers to similar prompts fared: each of the `nearest` votes with its score, the more the
    more alike prompt and answer are. After Meta-Ranking (Liu et al., 2024), where a weak model compares the
    pairs; here `similarity` does, for free. Score: the weighted mean; passes at one half."""

    references: Sequence[Reference]
    similarity: Similarity = word_overlap
    nearest: int = 8
    #: a reference whose prompt is less alike has no vote
    least: float = 0.3
    name: str = "similar answers"

    def check(self, prompt: str, answer: str) -> Check:
        alike = sorted(((self.similarity(prompt, r.prompt), i) for i, r in enumerate(self.references)))
        near = [(s, self.references[i]) for s, i in alike[::-1][: self.nearest] if s >= self.least]
        if not near:
            return Check.unknown(self.name, "no graded answer to a similar prompt")
        weights = [s * (0.5 + max(self.similarity(answer, r.answer), 0.0)) for s, r in near]
        score = sum(w * r.score for w, (_, r) in zip(weights, near, strict=True)) / sum(weights)
        return Check.of(self.name, score, f"{len(near)} similar answers scored {score:.2f}", needed=0.5)
