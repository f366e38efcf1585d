"""Estimates from past calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.router.stats import Figures, Row, Stats

ROWS: list[Row] = [
    ("small", "summary", 200, 40, 6.0),
    ("small", "summary", 200, 60, 8.0),
    ("small", "label", 100, 2, 1.2),
    ("large", "summary", 200, 80, 2.0),
]


def test_figures_are_sums_with_means() -> None:
    stats = Stats.of(ROWS)
    summary = stats.figures("small", "summary")
    assert summary == Figures(calls=2, input_tokens=400, output_tokens=100, seconds=14.0)
    assert (summary.mean_output, summary.mean_seconds) == (50.0, 7.0)
    assert summary.seconds_per_output_token == pytest.approx(0.14)
    assert stats.figures("small").calls == 3
    assert stats.figures("nobody") == Figures()
    assert Figures().mean_output == 0
    assert Figures().seconds_per_output_token is None


def test_without_history_half_of_the_answer_is_expected_and_no_time() -> None:
    assert Stats().est_output("small", "summary", 256) == 128
    assert Stats().est_output("small", "summary", 1) == 1
    assert Stats().est_seconds("small", "summary", 100, 100) is None


def test_the_estimate_goes_to_what_was_seen() -> None:
    few = Stats.of([("small", "label", 50, 3, 0.1)])
    many = Stats.of([("small", "label", 50, 3, 0.1)] * 50)
    assert 3 < few.est_output("small", "label", 256) < 128
    assert many.est_output("small", "label", 256) == 3
    assert many.est_output("small", "another", 256) == 128


def test_a_new_model_is_expected_to_answer_as_long_as_the_others_in_the_task() -> None:
    stats = Stats.of([("small", "label", 50, 3, 0.1)] * 50)
    assert stats.est_output("large", "label", 256) < 10


def test_the_estimate_never_passes_the_limit() -> None:
    stats = Stats.of([("small", "essay", 50, 900, 9.0)] * 9)
    assert stats.est_output("small", "essay", 100) == 100


def test_seconds_grow_with_the_answer_and_with_the_prompt() -> None:
    stats = Stats.of([("small", "summary", 100, 40, 5.0)] * 10)
    same = stats.est_seconds("small", "summary", 100, 40)
    assert same == pytest.approx(5.0)
    assert stats.est_seconds("small", "summary", 100, 90) == pytest.approx(10.0)
    assert stats.est_seconds("small", "summary", 600, 40) == pytest.approx(10.0)
    assert stats.est_seconds("large", "summary", 100, 40) is None


def test_seconds_of_calls_without_tokens_are_the_mean() -> None:
    assert Stats.of([("small", "t", 0, 0, 3.0)]).est_seconds("small", "t", 10, 10) == 3.0


rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["t", "u"]),
        st.integers(0, 10_000),
        st.integers(0, 10_000),
        st.floats(0, 1e4),
    )
)


@given(history=rows, limit=st.integers(1, 5000))
def test_estimates_are_in_range_for_any_history(history: list[Row], limit: int) -> None:
    stats = Stats.of(history)
    assert 1 <= stats.est_output("a", "t", limit) <= limit
    seconds = stats.est_seconds("a", "t", 100, limit)
    assert (seconds is None) == (not any(row[0] == "a" for row in history))
    assert seconds is None or seconds >= 0
    assert Stats.of(reversed(history)).figures("a").calls == stats.figures("a").calls
