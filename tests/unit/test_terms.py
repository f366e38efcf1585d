"""Words, stems and packed terms."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.memory.retrieval.terms import (
    LABEL,
    LONGEST,
    LONGEST_TEXT,
    QUESTION,
    asks_time,
    label_term,
    pack,
    query_words,
    stem,
    term_of,
    terms,
    words,
)

#: all suffixes of the algorithm's steps, and words that they must not be taken from
FORMS = """
caresses ponies ties caress cats feed agreed plastered bled motoring sing conflated troubled sized
hopping tanned falling hissing fizzed failing filing happy sky relational conditional rational
valenci hesitanci digitizer conformabli radicalli differentli vileli analogousli vietnamization
predication operator feudalism decisiveness hopefulness callousness formaliti sensitiviti
sensibiliti triplicate formative formalize electriciti electrical hopeful goodness revival allowance
inference airliner gyroscopic adjustable defensible irritant replacement adjustment dependent
adoption homologou communism activate angulariti homologous effective bowdlerize probate rate cease
controll roll logi apology university generalizations oscillators yes syzygy toy boyish enjoyed
crying dying bus gas by owed seed red
"""


def porter(word: str) -> str:
    """The stem as SQLite's own implementation of the algorithm has it."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE VIRTUAL TABLE f USING fts5(t, tokenize='porter unicode61')")
        connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab(f, instance)")
        connection.execute("INSERT INTO f VALUES (?)", (word,))
        return str(connection.execute("SELECT term FROM v").fetchone()[0])


@pytest.mark.parametrize("word", [word for word in FORMS.split() if word != "bled"])
def test_stems_are_porters(word: str) -> None:
    assert stem(word) == porter(word)


@given(st.from_regex(r"[a-z]{5,12}(s|ed|ing|ational|iveness|ment|y|e|ll|ion)", fullmatch=True))
def test_stems_of_any_letters_are_porters(word: str) -> None:
    assert stem(word) == porter(word)


def test_irregular_forms_share_the_stem_of_their_word() -> None:
    for forms in (("went", "go"), ("drew", "drawn", "drawing"), ("children", "child"), ("bled", "bleeds")):
        assert len({stem(form) for form in forms}) == 1


def test_words_have_no_case_and_no_accents() -> None:
    assert words("Café-Müller, O'Neil 3.5 snake_case") == [
        "cafe", "muller", "o", "neil", "3", "5", "snake", "case",
    ]  # fmt: skip


def test_scripts_without_spaces_are_taken_in_pairs() -> None:
    assert words("東京都 x") == ["東京", "京都", "x"]
    assert set(terms("東京")) <= set(terms("私は東京都に"))


def test_packed_terms_are_little_endian_and_in_order() -> None:
    assert pack("Dogs bark, dogs run") == struct.pack(
        "<4I", *(term_of(word) for word in ("dog", "bark", "dog", "run"))
    )


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Ann: hello", ["ann"]),
        ("Mary Ann: hello", ["mary", "ann"]),
        ("notes.first\nAnn: hello", ["ann"]),
        ("city: Rome\nstate: open", ["city"]),
        ("this is no label at all: because it is long, you see", []),
        ("at 10:30 we met", []),
    ],
)
def test_labels_are_terms_of_their_own(text: str, label: list[str]) -> None:
    packed = list(struct.unpack(f"<{len(pack(text)) // 4}I", pack(text)))
    assert packed[: len(label)] == [label_term(word) for word in label]
    assert (LABEL in packed) == bool(label)
    body = packed[len(label) + 1 :] if label else packed
    assert body == terms(text)


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Who?", True),
        ('He said "why?"', True),
        ("Where? [a photo]", True),
        ("Who? I did.", False),
        ("?", False),
    ],
)
def test_texts_that_end_as_questions_are_marked(text: str, asks: bool) -> None:
    assert (QUESTION in struct.unpack(f"<{len(pack(text)) // 4}I", pack(text))) == asks


@given(st.text())
def test_any_text_can_be_packed(text: str) -> None:
    assert len(pack(text)) % 4 == 0
    assert (pack(text) == b"") == (words(text) == [])


def test_data_has_no_words() -> None:
    data = base64.b64encode(hashlib.shake_256(b"seed").digest(768)).decode()
    assert pack(data) == b""
    assert pack(f"The key is {data[:100]}") != b""
    assert pack(" ".join(["Donaudampfschifffahrt"[:19], "und", "so", "weiter"]) * 20) != b""
    assert pack("word" + " " * 500 + "another") != b""


def test_long_texts_are_cut() -> None:
    assert len(terms("word " * (LONGEST + 10))) == LONGEST
    assert terms("x" * (LONGEST_TEXT + 10)) == terms("x" * LONGEST_TEXT)


def test_questions_keep_the_words_that_say_something() -> None:
    assert query_words("When did Ann go to the beach, the beach?") == ["ann", "go", "beach"]
    assert query_words("who are you") == ["who", "are", "you"]


def test_questions_about_time_are_known() -> None:
    assert asks_time("When was it?")
    assert asks_time("In what year was it?")
    assert asks_time("And for how long?")
    assert not asks_time("What did she say when it was over?")
