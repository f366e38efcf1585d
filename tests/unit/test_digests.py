"""Digests: short, the same every time, made of the text's own words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from podium.memory.context.digests import CHARACTERS, digest, digest_tokens

LONG = (
    "The weather was dull. " * 30
    + "Flight BA117 leaves Oslo on 7th of March at 10:30. "
    + "We talked on. " * 30
)


def test_a_short_text_stays_as_it_is() -> None:
    assert digest("Two  words.\nMore.") == "Two words. More."


def test_the_sentence_with_the_values_is_kept_and_gaps_are_marked() -> None:
    short = digest(LONG)
    assert "Flight BA117 leaves Oslo on 7th of March at 10:30." in short
    assert "…" in short
    assert len(short) <= CHARACTERS


def test_one_long_sentence_is_cut_at_a_word() -> None:
    assert digest_tokens("a b c d e f g", 3, lambda t: len(t.split())) == "a b …"
    assert digest("x" * 1000) == "x" * CHARACTERS


@given(st.text(max_size=2000), st.integers(0, 60))
def test_a_digest_never_exceeds_its_size(text: str, size: int) -> None:
    assert len(digest(text)) <= CHARACTERS
    assert digest(text) == digest(text)
    short = digest_tokens(text, size, len)
    assert len(short) <= size
