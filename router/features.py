"""What can be seen of a prompt before any model has read it: static vectors and counts, no network, no GPU.

The counts are of form (length, digits, code, signs, kind of question, listed choices), never of topics: those
are what the vectors are for. Other embedders take the place of the static one by the protocol `TextEmbedder`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log1p
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: of the static vectors; all that there are: routing looks for fine differences
DIMENSIONS = 256
#: characters that the counts are made from; a prompt's length counts in full
LONGEST_TEXT = 2_000

_CHOICE = re.compile(r"^[ \t]*\(?([A-Za-z]|\d{1,2})[.):][ \t]+(.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_CODE = re.compile(
    r"```|\b(?:def|return|import|class|function|SELECT|FROM|int|void|const|assert)\b|[{};]\s*$|==|->|=>", re.M
)
_NOT = re.compile(r"\b(?:not|except|least|never|no|none|without|incorrect|false)\b", re.I)
_LOUD = re.compile(r"\b(?:NOT|EXCEPT|LEAST|MOST|BEST|ALL|ONLY)\b")
_WRITE = re.compile(
    r"\b(?:write|implement|create|generate|compose|draft|rewrite|translate|summari[sz]e)\b", re.I
)
_REASON = re.compile(r"\b(?:why|explain|prove|derive|show that|calculate|compute|solve|step by step)\b", re.I)
_FACT = re.compile(r"\b(?:who|whose|when|where|which year|name of)\b", re.I)
_AMOUNT = re.compile(r"\b(?:how many|how much|how long|how far|how old|total|average|percent)\b|%|\$", re.I)
_IF = re.compile(r"\b(?:if|then|suppose|assume|given|let|each|every|all|some|only)\b", re.I)
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_GAP = re.compile(r"_{2,}|\.{3}|\[MASK\]|<mask>", re.I)

#: the counts, in the order of their columns
NAMES = (
    "length", "words", "lines", "word length", "longest word", "long words", "distinct words", "capitals",
    "digits", "numbers", "signs", "punctuation", "brackets", "quotes", "not ASCII", "code", "negation",
    "emphasis", "asks to write", "asks to reason", "asks for a fact", "asks for an amount", "conditions",
    "gap", "questions", "ends in a question", "choices", "choice length", "choice spread", "choice numbers",
    "choice overlap",
)  # fmt: skip
#: how the parts of a prompt lie to each other, by their vectors: columns after those of `NAMES`. Listed
#: choices that are all alike, or none of which is nearest to what is asked, are hard to tell apart
RELATIONS = (
    "choices near what is asked", "lead of the nearest choice", "range of nearness", "likeness of choices",
    "most alike choices", "length of what is asked", "sentences of what is asked",
)  # fmt: skip


class TextEmbedder(Protocol):
    """Anything that makes vectors of texts: `memory.vectors.StaticEmbedder`, or a dearer model."""

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of `dimensions` a text, of length 1 (or zeros)."""
        ...


@lru_cache(maxsize=1)
def default_embedder() -> TextEmbedder:
    """The static one of this process, with all its dimensions.

    Raises:
        ConfigError: the files of the package `wordllama` are missing.
    """
    from ..memory.retrieval.vectors import StaticEmbedder

    return StaticEmbedder(DIMENSIONS)


def counts(prompt: str) -> list[float]:
    """The figures of `NAMES` for one prompt; finite for any string, also an empty one."""
    text = prompt[:LONGEST_TEXT]
    size = len(text) + 1
    words = text.split()
    many = len(words) + 1
    lengths = [len(word) for word in words] or [0]
    share = _kinds(text)
    return [
        log1p(len(prompt)),
        log1p(len(prompt) * many / size),
        log1p(text.count("\n")),
        min(sum(lengths) / many, 20.0),
        log1p(max(lengths)),
        sum(n >= 8 for n in lengths) / many,
        len(set(words)) / many,
        share["upper"] / size,
        share["digit"] / size,
        log1p(len(_NUMBER.findall(text))),
        share["sign"] / size,
        share["stop"] / size,
        share["bracket"] / size,
        share["quote"] / size,
        share["other"] / size,
        log1p(len(_CODE.findall(text))),
        log1p(len(_NOT.findall(text))),
        log1p(len(_LOUD.findall(text))),
        *(float(form.search(text) is not None) for form in (_WRITE, _REASON, _FACT)),
        log1p(len(_AMOUNT.findall(text))),
        log1p(len(_IF.findall(text))),
        float(_GAP.search(text) is not None),
        log1p(text.count("?")),
        float(text.rstrip().endswith("?")),
        *_choices(text),
    ]


@dataclass(frozen=True, slots=True)
class Text:
    """Prompts as numbers: `vectors` [n, dimensions], `counts` [n, len(NAMES) + len(RELATIONS)]."""

    vectors: Array
    counts: Array


class Featurizer:
    """Makes `Text` of prompts. Keeps nothing of them, and knows no task: that is the predictor's."""

    def __init__(self, embedder: TextEmbedder | None = None) -> None:
        self._embedder = embedder

    def __call__(self, prompts: Sequence[str]) -> Text:
        """Rows in the order of `prompts`; all finite."""
        embedder = self._embedder or default_embedder()
        # lone surrogates are no text to a tokenizer
        texts = [prompt.encode("utf-8", "replace").decode() for prompt in prompts]
        vectors = np.asarray(embedder.embed(texts), np.float64).reshape(len(prompts), embedder.dimensions)
        table = np.array([counts(prompt) for prompt in prompts]).reshape(len(prompts), len(NAMES))
        vectors = np.nan_to_num(vectors, posinf=0.0, neginf=0.0)
        return Text(vectors, np.hstack([table, relations(texts, embedder)]))


def relations(texts: Sequence[str], embedder: TextEmbedder) -> Array:
    """The figures of `RELATIONS` [n, …] of texts; zeros but for the lengths where fewer than two choices are
    listed. All finite."""
    split = [_split(text) for text in texts]
    parts = [part for asked, choices in split if choices for part in (asked, *choices)]
    vectors = np.asarray(embedder.embed(parts), np.float64) if parts else np.zeros((0, embedder.dimensions))
    vectors, place = np.nan_to_num(vectors, posinf=0.0, neginf=0.0), 0
    found = np.zeros((len(texts), len(RELATIONS)))
    for i, (asked, choices) in enumerate(split):
        found[i, 5:] = log1p(len(asked)), log1p(len(_SENTENCE.findall(asked)))
        if choices:
            mine = vectors[place : place + len(choices) + 1]
            place += len(mine)
            found[i, :5] = _nearness(mine[1:] @ mine[0], mine[1:] @ mine[1:].T)
    return found


def _split(text: str) -> tuple[str, list[str]]:
    """What is asked, and the choices listed after it."""
    listed = list(_CHOICE.finditer(text[:LONGEST_TEXT]))[:26]
    if len(listed) < 2:
        return text[:LONGEST_TEXT], []
    return text[: listed[0].start()], [each.group(2) for each in listed]


def _nearness(near: Array, alike: Array) -> tuple[float, float, float, float, float]:
    order = np.sort(near)
    pairs = alike[np.triu_indices(len(near), 1)]
    lead, spread = order[-1] - order[-2], order[-1] - order[0]
    return float(near.mean()), float(lead), float(spread), float(pairs.mean()), float(pairs.max())


_SIGNS = {"upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "digit": "0123456789", "sign": "+-*/=<>^|~%&$#@\\",
          "stop": ".,;:!?", "bracket": "()[]{}", "quote": "\"'`"}  # fmt: skip
# one pass in C: each character becomes the letter of its kind
_TABLE = {ord(sign): kind[0] for kind, signs in _SIGNS.items() for sign in signs}
_FIRST = {kind: kind[0] for kind in _SIGNS}


def _kinds(text: str) -> dict[str, int]:
    """How many characters of each kind a text has; `other`: those beyond ASCII."""
    # the kinds' own letters must not be in the text
    plain = text.translate(_LOWER)
    coded = plain.translate(_TABLE)
    found = {kind: coded.count(letter) for kind, letter in _FIRST.items()}
    return found | {"other": len(text) - len(text.encode("ascii", "ignore"))}


_LOWER = {ord(letter): " " for letter in "abcdefghijklmnopqrstuvwxyz"}


def _choices(text: str) -> list[float]:
    """Listed choices (`A. …`, `1) …`): how many, how long, how unequal, numeric, how alike."""
    found = [body for _, body in _CHOICE.findall(text)][:26]
    if len(found) < 2:
        return [0.0] * 5
    lengths = [len(body) for body in found]
    mean = sum(lengths) / len(found)
    spread = (sum((n - mean) ** 2 for n in lengths) / len(found)) ** 0.5 / (mean + 1)
    words = [set(body.lower().split()) for body in found]
    pairs = [len(a & b) / max(1, len(a | b)) for a, b in pairwise(words)]
    numeric = sum(any(c.isdigit() for c in body) for body in found) / len(found)
    return [log1p(len(found)), log1p(mean), spread, numeric, sum(pairs) / len(pairs)]
