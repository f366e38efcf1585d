"""Facts: typed fields, keys with values, calls; mentions are no rows of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.memory.context.calls import asked, calls, kind_of_key
from podium.memory.context.facts import MOST, Fact, extract
from podium.memory.context.values import mentions, norm, same


def durable(facts: list[Fact]) -> dict[str, object]:
    return {f.key: f.value for f in facts if f.durable}


def test_typed_fields_by_path_without_nulls() -> None:
    value = {"hotel": {"rooms": [{"price": 3.5, "free": True}], "note": None}, "city": "Oslo"}
    assert durable(extract(value, "")) == {
        "hotel.rooms[0].price": 3.5,
        "hotel.rooms[0].free": True,
        "city": "Oslo",
    }
    kinds = {f.key: f.kind for f in extract(value, "")}
    assert kinds == {"hotel.rooms[0].price": "number", "hotel.rooms[0].free": "boolean", "city": "name"}


def test_keys_and_values_in_text() -> None:
    found = durable(extract(None, "Status: done\ncity = Oslo; date: 2019-03-04\nwith rate=0.2 set"))
    assert found == {"Status": "done", "city": "Oslo", "date": "2019-03-04", "rate": "0.2"}


def test_a_speaker_or_a_sentence_is_no_key() -> None:
    assert not durable(
        extract(None, "USER: I want a room.\nThe plan I had in mind: what do you think of it?")
    )


def test_calls_and_their_results() -> None:
    found = durable(extract(None, 'CALL W.Get(city=Menlo Park, CA, day=4) -> [{"t": 3}]'))
    assert found == {"W.Get.city": "Menlo Park, CA", "W.Get.day": "4", "W.Get[0].t": 3}


def test_mentions_are_not_durable() -> None:
    facts = extract(
        None, "I want 'single malt' from 7th of March in Seattle at ten am, see report.pdf, for $5"
    )
    assert not any(f.durable for f in facts)
    assert [(f.kind, f.value) for f in facts] == [
        ("quote", "single malt"),
        ("date", "7th of March"),
        ("name", "Seattle"),
        ("time", "ten am"),
        ("file", "report.pdf"),
        ("money", "$5"),
    ]


def test_prose_is_no_fact_and_no_value_comes_twice() -> None:
    assert extract({"text": "word " * 100}, "") == []
    assert len(extract({"a": "Oslo"}, "We went to Oslo.")) == 1
    assert len(extract({str(n): n for n in range(3 * MOST)}, "")) == MOST


def test_a_typed_value_is_no_second_fact_where_the_text_writes_it() -> None:
    found = extract({"open": True, "guests": 4}, "open: true\nguests: 4")
    assert [(f.key, f.value) for f in found] == [("open", True), ("guests", 4)]


@pytest.mark.parametrize(
    ("kind", "a", "b", "equal"),
    [
        ("date", "the 12th", "2019-03-12", True),
        ("date", "March 11th", "2019-03-12", False),
        ("date", "this Sunday", "Sunday", True),
        ("time", "quarter to 5 in the evening", "16:45", True),
        ("time", "10 am", "22:00", False),
        ("number", "one thousand three hundred and eighty", "1,380", True),
        ("name", "New York", "new york", True),
    ],
)
def test_when_two_values_are_the_same(kind: str, a: str, b: str, equal: bool) -> None:
    assert same(kind, norm(kind, a), norm(kind, b)) is equal


def test_names_end_where_dates_begin() -> None:
    found = [(m.kind, m.surface) for m in mentions("I go to San Bruno on March 13th, to 175 Sutter Street")]
    assert found == [("name", "San Bruno"), ("date", "March 13th"), ("name", "175 Sutter Street")]


def test_what_an_ask_wants() -> None:
    assert asked("Call Hotels.Reserve with city, date").slots == ("city", "date")
    assert asked("Run sort, reading 2 .bam, 1 .bai").counted == ((2, ".bam"), (1, ".bai"))
    assert asked("Write about {{ city }}").slots == ("city",)
    assert kind_of_key("pickupDate") == "date"
    assert kind_of_key("number_of_days") == "number"


def test_calls_inside_prose_and_broken_results() -> None:
    assert calls("f (a b) g(c d)") == ()
    assert calls('get(a=1) -> {"x": ')[0].result is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.text(max_size=300))
def test_any_output_gives_scalars_once(value: object, text: str) -> None:
    facts = extract(value, text)
    assert facts == extract(value, text)
    assert all(isinstance(f.value, (str, int, float, bool)) for f in facts)
    assert len({(f.key, type(f.value), str(f.value)) for f in facts}) == len(facts)
