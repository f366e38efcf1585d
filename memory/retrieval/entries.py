"""The items of an index as columns: lengths, neighbours, groups, and what their texts are like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .columns import Column
from .terms import LABEL, QUESTION, STOP_WORDS, TIME_TERMS, term_of

_STOP, _TIME, _MARK = 1, 2, 4
_SPECIAL = dict.fromkeys(map(term_of, STOP_WORDS), _STOP)
for _term in TIME_TERMS:
    _SPECIAL[_term] = _SPECIAL.get(_term, 0) | _TIME
_SPECIAL |= {LABEL: _MARK, QUESTION: _MARK}
_SPECIAL_TERMS = np.array(sorted(_SPECIAL), np.uint32)
_SPECIAL_KINDS = np.array([_SPECIAL[term] for term in sorted(_SPECIAL)], np.uint8)
#: whether a special term has these last 16 bits: most others are told apart by them
_SPECIAL_ENDS = np.zeros(1 << 16, np.bool_)
_SPECIAL_ENDS[_SPECIAL_TERMS & 0xFFFF] = True


@dataclass(frozen=True, slots=True)
class Said:
    """What new items say, read from their packed terms."""

    #: terms that can be asked for, and the item (counted from 0) of each
    terms: NDArray[np.uint32]
    items: NDArray[np.int32]
    #: words of each item
    lengths: NDArray[np.float32]
    #: first term of each item's label, 0: none
    labels: NDArray[np.uint32]
    #: whether an item ends as a question
    questions: NDArray[np.bool_]
    #: whether it tells a time
    times: NDArray[np.bool_]


def _kinds(terms: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """What is special about each term."""
    kinds = np.zeros(len(terms), np.uint8)
    maybe = np.flatnonzero(_SPECIAL_ENDS[terms & 0xFFFF])
    some = terms[maybe]
    at = np.minimum(np.searchsorted(_SPECIAL_TERMS, some), len(_SPECIAL_TERMS) - 1)
    kinds[maybe] = np.where(_SPECIAL_TERMS[at] == some, _SPECIAL_KINDS[at], 0)
    return kinds


def read_packed(packed: Sequence[bytes]) -> Said:
    """What `terms.pack` wrote."""
    flat = np.frombuffer(b"".join(packed), "<u4").astype(np.uint32, copy=False)
    sizes = np.fromiter(map(len, packed), np.int64, len(packed)) // 4
    items = np.repeat(np.arange(len(packed), dtype=np.int32), sizes)
    kinds = _kinds(flat)
    labelled = items[flat == LABEL]
    labels = np.zeros(len(packed), np.uint32)
    labels[labelled] = flat[(np.cumsum(sizes) - sizes)[labelled]]
    questions, times = np.zeros((2, len(packed)), np.bool_)
    questions[items[flat == QUESTION]] = True
    times[items[kinds & _TIME != 0]] = True
    marks = np.bincount(items[kinds & _MARK != 0], minlength=len(packed))
    asked = kinds & (_STOP | _MARK) == 0
    lengths = (sizes - marks).astype(np.float32)
    return Said(flat[asked], items[asked], lengths, labels, questions, times)


class Items:
    """Columns of all items, and of their groups. An item's number is the order in which it came."""

    def __init__(self, dimensions: int) -> None:
        self.lengths = Column(np.float32)
        self.labels = Column(np.uint32)
        self.questions = Column(np.bool_)
        self.times = Column(np.bool_)
        self.groups = Column(np.int32)
        self.positions = Column(np.float64)
        #: the neighbours in the group; -1: none
        self.before = Column(np.int32, -1)
        self.after = Column(np.int32, -1)
        self.vectors = Column(np.float32, width=dimensions)
        self.group_sizes = Column(np.float32)
        self.group_lengths = Column(np.float32)
        self.group_vectors = Column(np.float32, width=dimensions)
        #: the last item of each group
        self.last = Column(np.int32, -1)

    def __len__(self) -> int:
        return len(self.lengths.all)

    def append(
        self,
        said: Said,
        groups: NDArray[np.int32],
        positions: NDArray[np.float64],
        vectors: NDArray[np.float32],
    ) -> None:
        """Add items. A group's number is new or known; new ones follow on the known ones without a gap."""
        first = len(self)
        self.lengths.append(said.lengths)
        self.labels.append(said.labels)
        self.questions.append(said.questions)
        self.times.append(said.times)
        self.groups.append(groups)
        self.positions.append(positions)
        self.vectors.append(vectors)
        self.before.extend(len(groups))
        self.after.extend(len(groups))
        new = int(groups.max()) + 1 - len(self.last.all)
        for column in (self.group_sizes, self.group_lengths, self.group_vectors, self.last):
            column.extend(max(0, new))
        np.add.at(self.group_sizes.all, groups, 1)
        np.add.at(self.group_lengths.all, groups, said.lengths)
        np.add.at(self.group_vectors.all, groups, vectors)
        self._link(first)

    def _link(self, first: int) -> None:
        """Chain the items from `first` on to their neighbours: all of them when one goes in between."""
        groups, positions = self.groups.all, self.positions.all
        order = first + np.lexsort((positions[first:], groups[first:]))
        heads = order[_first_of(groups[order])]
        last = self.last.all[groups[heads]]
        if first and np.any((last >= 0) & (positions[last] > positions[heads])):
            self.before.all[:], self.after.all[:], self.last.all[:] = -1, -1, -1
            self._link(0)
            return
        starts = _first_of(groups[order])
        before = np.concatenate([[-1], order[:-1]])
        before[starts] = last
        self.before.all[order] = before
        known = before >= 0
        self.after.all[before[known]] = order[known]
        self.last.all[groups[order]] = order  # the last one of a group is written last

    def near(self, items: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """Of each item: the one after it, the one before, the second one after, the second one before."""
        before, after = self.before.padded, self.after.padded
        one_after, one_before = after[items], before[items]
        return [one_after, one_before, after[one_after], before[one_before]]


def _first_of(sorted_groups: NDArray[np.int32]) -> NDArray[np.bool_]:
    return np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]])
