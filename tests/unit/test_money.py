"""Amounts: exact, rounded up, never floats."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.memory.errors import UsageError
from podium.memory.money import MOST, NANO, format_usd, parse_usd, token_cost


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0), ("0.05", 50_000_000), (0.1, 100_000_000), (1, NANO), ("$2.5", 2_500_000_000),
        (" 3 ", 3 * NANO), ("1e-9", 1), ("0.0000000001", 1), ("0.0000000011", 2),
        (Decimal("0.1"), 100_000_000), (MOST, MOST * NANO), ("-0", 0),
    ],
)  # fmt: skip
def test_parse(text: object, nano: int) -> None:
    assert parse_usd(text) == nano  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1,5", "1e30", "1e999999", True, MOST + 1])
def test_what_is_no_money_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="no amount of money") as caught:
        parse_usd(text)  # type: ignore[arg-type]
    assert "0.05" in caught.value.mend


@given(st.integers(0, MOST * NANO))
def test_what_is_shown_is_what_is_read(nano: int) -> None:
    shown = format_usd(nano)
    assert "E" not in shown
    assert parse_usd(shown) == nano
    assert nano < 2**63


@given(st.integers(0, 10**9), st.decimals(0, 10_000, places=6))
def test_tokens_cost_at_least_their_price(tokens: int, price: Decimal) -> None:
    exact = price * 1000 * tokens
    cost = token_cost(tokens, price)
    assert exact <= cost < exact + 1


def test_one_token_of_a_cheap_model_is_not_free() -> None:
    assert token_cost(1, Decimal("0.0001")) == 1
    assert token_cost(1_000_000, Decimal("0.15")) == 150_000_000
