"""The index in memory: full text, neighbours, groups and vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.memory.errors import UsageError
from podium.memory.retrieval.index import Match, MemoryIndex
from podium.memory.retrieval.postings import Postings
from podium.memory.retrieval.terms import pack
from podium.memory.retrieval.vectors import StaticEmbedder, default_embedder

TALK = [
    ("Ann: I adopted a puppy last week", "g0"),
    ("Bob: what is its name?", "g0"),
    ("Ann: Rex", "g0"),
    ("Ann: I painted a sunrise over the lake", "g1"),
    ("Bob: lovely colours", "g1"),
    ("Cal: the train to Rome was late", "g2"),
    ("Dan: how late was it?", "g2"),
    ("Cal: an hour", "g2"),
]
VOCABULARY = ["ann:", "bob", "cat", "dog", "tree", "river", "walks", "sings", "late", "early", "lake?", "the"]
DOCUMENTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(VOCABULARY), max_size=6).map(" ".join),
        st.integers(0, 3),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=30,
)
QUERIES = st.lists(st.sampled_from(VOCABULARY), max_size=4).map(" ".join)


class NoVectors:
    """An embedder that knows no word: what is left is full text."""

    name = "none"
    dimensions = 1

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), 1), np.float32)


def talk(**options: object) -> MemoryIndex:
    index = MemoryIndex(**options)  # type: ignore[arg-type]
    for i, (text, group) in enumerate(TALK):
        index.add(i, text, group, i)
    return index


def keys(found: Sequence[Match]) -> list[object]:
    return [match.key for match in found]


def test_words_are_found_in_any_form() -> None:
    found = talk().search("Who paints sunrises?", 3)
    assert found[0].key == 3
    assert "says paints, sunrises" in found[0].why


def test_an_answer_is_found_by_its_question() -> None:
    assert 2 in keys(talk(embedder=NoVectors()).search("What is the puppy's name?", 3))
    assert 7 in keys(talk(embedder=NoVectors()).search("How late was the train?", 3))


def test_groups_are_not_neighbours() -> None:
    index = MemoryIndex(NoVectors())
    index.add("a", "the lighthouse", "g", 0)
    index.add("b", "unrelated things", "h", 1)
    assert keys(index.search("lighthouse", 5)) == ["a"]


def test_labels_in_the_question_prefer_their_items() -> None:
    index = MemoryIndex(NoVectors())
    index.add("ann", "Ann: I like pears", "g", 0)
    index.add("bob", "Bob: I like pears", "h", 1)
    assert keys(index.search("Does Bob like pears?", 2)) == ["bob", "ann"]
    assert keys(index.search("Does Ann like pears?", 2)) == ["ann", "bob"]


def test_a_talk_of_those_asked_about_comes_before_mixed_ones() -> None:
    index = MemoryIndex(NoVectors())
    for number, name in enumerate(["Bob", "Cal", "Dan", "Eve", "Fay", "Gus"]):
        index.add(f"mixed{number}", f"{name}: the boat left in the rain", "mixed", number)
    for number, name in enumerate(["Ann", "Bob", "Ann", "Bob"]):
        index.add(f"talk{number}", f"{name}: the boat left in the rain", "talk", number)
    found = keys(index.search("When did Bob see the boat leave?", 10))
    assert set(found[:2]) == {"talk1", "talk3"}
    assert found.index("talk0") < found.index("mixed1")


def test_an_answer_to_a_question_that_is_near_comes_first() -> None:
    answers = []
    for asked in ("which animals do children like", "which animals do children like?"):
        index = MemoryIndex()
        index.add("q", f"Ann: {asked}", "g", 0)
        index.add("a", "Bob: elephants", "g", 1)
        index.add("b", "Bob: elephants", "h", 2)
        scores = {match.key: match.score for match in index.search("elephants that children like", 3)}
        answers.append(scores["a"])
    assert answers[1] > answers[0]


def test_words_of_like_meaning_are_found() -> None:
    index = MemoryIndex()
    index.add("far", "the stone wall was grey", "g", 0)
    index.add("near", "three children in the garden", "h", 1)
    assert keys(index.search("kids", 1)) == ["near"]
    assert MemoryIndex(NoVectors()).search("kids", 1) == []


def test_nothing_is_found_of_nothing() -> None:
    assert MemoryIndex().search("anything", 5) == []
    assert talk().search("sunrise", 0) == []
    assert talk(embedder=NoVectors()).search("zebra", 5) == []


def test_only_what_may_be_found_is_found() -> None:
    index = talk()
    mask = np.array([i != 3 for i in range(len(TALK))])
    assert 3 in keys(index.search("sunrise", 8))
    assert 3 not in keys(index.search("sunrise", 8, among=mask))


def test_a_key_is_added_once() -> None:
    index = talk()
    with pytest.raises(UsageError, match="second time"):
        index.add(0, "again", "g", 0)
    assert len(index) == len(TALK)


@settings(deadline=None)
@given(DOCUMENTS, QUERIES, st.integers(0, 12), st.data())
def test_adding_one_by_one_is_adding_at_once(
    documents: list[tuple[str, int, int]], query: str, k: int, data: st.DataObject
) -> None:
    at_once, in_steps = MemoryIndex(), MemoryIndex()
    for i, (text, group, position) in enumerate(documents):
        at_once.add(i, text, group, position)
        in_steps.add(i, text, group, position)
        if data.draw(st.booleans()):
            in_steps.search("anything", 1)
    first, second = at_once.search(query, k), in_steps.search(query, k)
    # a group's vector is summed in another order, so the last bits of a score may differ
    assert [m.score for m in first] == pytest.approx([m.score for m in second], abs=1e-4)
    assert {m.key: m.why for m in first if clear(first, m)} == {
        m.key: m.why for m in second if clear(second, m)
    }


def clear(found: Sequence[Match], match: Match) -> bool:
    """Whether a match's place does not hang on the last bits of its score."""
    return match.score > found[-1].score + 1e-3


@settings(deadline=None)
@given(DOCUMENTS, QUERIES, st.integers(0, 12))
def test_results_are_sorted_once_each_and_the_same_again(
    documents: list[tuple[str, int, int]], query: str, k: int
) -> None:
    index = MemoryIndex()
    for i, (text, group, position) in enumerate(documents):
        index.add(i, text, group, position)
    found = index.search(query, k)
    assert len(found) <= k
    assert len(set(keys(found))) == len(found)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert index.search(query, k) == found
    assert index.search(query, len(documents))[:k] == found


def test_packed_items_are_the_same_as_texts() -> None:
    packed = MemoryIndex()
    vectors = default_embedder().embed([text for text, _ in TALK])
    for part in (slice(0, 5), slice(5, 8)):
        numbers = range(8)[part]
        packed.add_packed(
            numbers,
            [pack(TALK[i][0]) for i in numbers],
            [TALK[i][1] for i in numbers],
            numbers,
            vectors[part],
        )
    for query in ("puppy", "When was the train late?", "Ann", "art"):
        assert keys(packed.search(query, 8)) == keys(talk().search(query, 8))


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=12))
def test_postings_in_chunks_hold_every_count(documents: list[list[int]]) -> None:
    postings = Postings()
    for number, terms in enumerate(documents):
        postings.add(np.array(terms, np.uint32), np.full(len(terms), number, np.int32))
    for term in range(1, 10):
        items, counts = postings.find(term)
        expected = {i: terms.count(term) for i, terms in enumerate(documents) if term in terms}
        assert dict(zip(items.tolist(), counts.tolist(), strict=True)) == expected
        assert items.tolist() == sorted(items.tolist())


def test_vectors_have_length_one_and_do_not_hang_on_what_was_embedded_before() -> None:
    texts = ["the cat sat", "", "the cat sat", "ünïcode 東京 🙂"]
    vectors = StaticEmbedder(64).embed(texts)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 1], abs=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    other = StaticEmbedder(64)
    other.embed(["something else", "sat"])
    assert np.array_equal(other.embed(texts), vectors)
