"""How well items fit a question: the parts of a score, and their sum (`index.py` says what they are)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .entries import Items
from .postings import Counts, Numbers, Postings
from .terms import asks_time, label_term, query_words, term_of
from .vectors import Embedder, Vectors

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: BM25: how soon more of a word adds nothing, and how much of a text's length counts
_SATURATION, _LENGTH = 1.2, 0.5
_TOP = _SATURATION + 1
#: the same for groups, which are longer
_GROUP_SATURATION = 2.0
#: what a word counts in the neighbours of the item that says it, as `Items.near` gives them
_WINDOW = (0.8, 0.5, 0.4, 0.2)
#: a word that is a label somewhere (a name) says less about the content
_LABEL_WORD = 0.5
#: e to this power words are as good as more
_LONG = 4.0
#: a word in more than a share of 1 / this of all items: all places are gone through, which is faster then
_MANY = 20


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part of a score counts. Parts are about 0 to 1."""

    words: float = 5.4
    group_words: float = 1.1
    label: float = 1.0
    group_label: float = 8.0
    vector: float = 3.0
    group_vector: float = 2.5
    #: of the question that an item answers
    question_vector: float = 2.0
    #: an item that is itself a question
    is_question: float = -0.8
    #: how much an item says
    length: float = 2.9
    #: telling a time when a time is asked for
    time: float = 2.1


@dataclass(frozen=True, slots=True)
class Asked:
    """A question taken apart."""

    #: words that carry meaning, by their terms
    words: dict[int, str]
    vector: Vectors
    time: bool


@dataclass(frozen=True, slots=True)
class Derived:
    """What follows from the items, whatever is asked."""

    #: BM25's saturation, of each item's window and of each group
    window: Scores
    group: Scores
    #: what an item's own form counts
    prior: Scores
    #: items that follow somebody else's question, and these questions
    answers: Numbers
    questions: Numbers
    group_vector_lengths: Scores


@dataclass(slots=True)
class Parts:
    """Sums over a question's words. Arrays of items have one place more, for neighbours that are none."""

    window: Scores
    label: Scores
    group: Scores
    group_total: float = 0.0
    said: list[tuple[str, Numbers]] = field(default_factory=list)


def ask(query: str, embedder: Embedder) -> Asked:
    words: dict[int, str] = {}
    for word in query_words(query):
        words.setdefault(term_of(word), word)
    return Asked(words, embedder.embed([" ".join(words.values())])[0], asks_time(query))


def derive(items: Items, weights: Weights) -> Derived:
    lengths, labels, questions = items.lengths.all, items.labels.all, items.questions.all
    numbers = np.arange(len(items), dtype=np.int32)
    padded = items.lengths.padded
    around = lengths.copy()
    # an item gathers from the one after it what that one gives to the one before
    after, before, second_after, second_before = _WINDOW
    for weight, near in zip((before, after, second_before, second_after), items.near(numbers), strict=True):
        around += np.float32(weight) * padded[near]
    asking = items.before.all
    answers = numbers[:0]
    if len(items):
        answers = numbers[(asking >= 0) & questions[asking] & (labels[asking] != labels)]
    prior = weights.length * np.minimum(np.log1p(lengths) / _LONG, 1) + weights.is_question * questions
    vector_lengths = np.linalg.norm(items.group_vectors.all, axis=1)
    return Derived(
        _saturation(around, _SATURATION),
        _saturation(items.group_lengths.all, _GROUP_SATURATION),
        prior.astype(np.float32),
        answers,
        asking[answers],
        np.where(vector_lengths == 0, 1, vector_lengths).astype(np.float32),
    )


def _saturation(lengths: Scores, factor: float) -> Scores:
    mean = float(lengths.mean()) if len(lengths) else 0.0
    return (factor * (1 - _LENGTH + _LENGTH * lengths / (mean or 1.0))).astype(np.float32)


def sum_up(asked: Asked, items: Items, postings: Postings, derived: Derived) -> Parts:
    """The parts that words make."""
    adding = _Adding(items, postings, derived)
    for term, word in asked.words.items():
        adding.word(term, word)
    return adding.parts


class _Adding:
    """Adds one word of a question after the other to the parts."""

    def __init__(self, items: Items, postings: Postings, derived: Derived) -> None:
        self._items = items
        self._postings = postings
        self._derived = derived
        zeros = np.zeros((3, len(items) + 1), np.float32)
        groups = np.zeros(len(items.last.all), np.float32)
        self.parts = Parts(zeros[0], zeros[1], groups)
        # of one word, in windows: zero again after each word
        self._frequency = zeros[2]

    def word(self, term: int, word: str) -> None:
        parts = self.parts
        labelled = self._postings.find(label_term(word))[0]
        is_label = len(labelled) > 0
        parts.label[labelled] = 1
        found, counts = self._postings.find(term)
        weight = _LABEL_WORD if is_label else 1.0
        rarity = weight * _rarity(len(self._items), len(found))
        touched = self._spread(self._frequency, found, counts)
        if len(found):
            parts.said.append((word, found))
            self._add(parts.window, rarity, self._frequency, touched)
            self._add_group(weight, found, counts)
        self._frequency[touched] = 0

    def _spread(self, frequency: Scores, found: Numbers, counts: Counts) -> Numbers | slice:
        """Add a word's counts to `frequency`, there and around; returns the places touched, some twice."""
        near = self._items.near(found)
        frequency[found] += counts
        for weight, places in zip(_WINDOW, near, strict=True):
            # nobody is the neighbour of two: only the place that stands for none comes more than once
            frequency[places] += np.float32(weight) * counts
        frequency[-1] = 0
        if _MANY * len(found) > len(frequency):
            return slice(0, len(frequency) - 1)
        touched = np.concatenate([found, *near])
        return touched[touched >= 0]

    def _add(self, into: Scores, rarity: float, frequency: Scores, touched: Numbers | slice) -> None:
        said = frequency[touched]
        # what comes twice is set to the same sum twice
        into[touched] = into[touched] + rarity * said * _TOP / (said + self._derived.window[touched])

    def _add_group(self, weight: float, found: Numbers, counts: Counts) -> None:
        parts = self.parts
        said = np.bincount(self._items.groups.all[found], weights=counts, minlength=len(parts.group))
        rarity = weight * _rarity(len(said), int(np.count_nonzero(said)))
        parts.group_total += rarity
        parts.group += (rarity * (_GROUP_SATURATION + 1) * said / (said + self._derived.group)).astype(
            np.float32
        )


def _rarity(count: int, holding: int) -> float:
    """BM25's inverse document frequency."""
    return math.log(1 + (count - holding + 0.5) / (holding + 0.5))


def join(
    asked: Asked,
    parts: Parts,
    cosines: Scores,
    candidates: NDArray[np.int64],
    items: Items,
    derived: Derived,
    weights: Weights,
) -> Scores:
    """The score of each item: the sum of all parts."""
    best = float(parts.window[candidates].max(initial=0))
    scores = derived.prior + _of_groups(asked, parts, items, derived, weights)[items.groups.all]
    scores += weights.vector * cosines
    if best > 0:
        scores += (weights.words / best) * parts.window[:-1]
    scores += weights.label * parts.label[:-1]
    answers, questions = derived.answers, derived.questions
    scores[answers] += weights.question_vector * cosines[questions]
    if asked.time:
        scores += weights.time * items.times.all
    return scores


def _of_groups(asked: Asked, parts: Parts, items: Items, derived: Derived, weights: Weights) -> Scores:
    scores = (weights.group_words / (parts.group_total or 1.0)) * parts.group
    scores += weights.group_vector * (items.group_vectors.all @ asked.vector) / derived.group_vector_lengths
    labelled = np.flatnonzero(parts.label[:-1])
    if len(labelled):
        bearing = np.bincount(items.groups.all[labelled], minlength=len(scores))
        # more often than elsewhere; in a talk of two, each says half
        more = bearing / items.group_sizes.all - len(labelled) / len(items)
        scores += weights.group_label * np.clip(more, 0, 0.5)
    return scores.astype(np.float32)


def reasons(found: NDArray[np.int64], parts: Parts, cosines: Scores, items: Items) -> list[str]:
    """Why items were found, for people: `says camp, june; near it: lake; similar 0.41`."""
    near = items.near(found.astype(np.int32))
    itself: list[list[str]] = [[] for _ in found]
    around: list[list[str]] = [[] for _ in found]
    for word, holding in parts.said:
        says = _holds(holding, found)
        neighbour = np.any([_holds(holding, places) for places in near], axis=0)
        for i in range(len(found)):
            if says[i]:
                itself[i].append(word)
            elif neighbour[i]:
                around[i].append(word)
    return [
        _reason(own, by, float(cosine))
        for own, by, cosine in zip(itself, around, cosines[found], strict=True)
    ]


def _holds(holding: Numbers, places: NDArray[np.integer]) -> Mask:
    at = np.minimum(np.searchsorted(holding, places), len(holding) - 1)
    return holding[at] == places


def _reason(itself: list[str], around: list[str], cosine: float) -> str:
    said = [f"says {', '.join(itself)}"] if itself else []
    if around:
        said.append(f"near it: {', '.join(around)}")
    return "; ".join([*said, f"similar {cosine:.2f}"])
