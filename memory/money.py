"""Money is an integer number of nano-dollars (10⁻⁹ USD). Floats never hold money.

A price is given in USD per million tokens, the unit in which providers publish them:
1 USD / 10⁶ tokens = 1,000 nano-dollars a token.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation

from .errors import UsageError

NANO = 1_000_000_000
#: USD that an amount may be at most: nano-dollars are 64-bit integers in the database
MOST = 9_000_000_000


def parse_usd(text: str | int | float | Decimal) -> int:
    """Nano-dollars in a decimal amount of USD, rounded up.

    Raises:
        UsageError: `text` is no finite amount from 0 to `MOST`.
    """
    try:
        amount = Decimal(str(text).strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= MOST:
        raise UsageError(
            f"{text!r} is no amount of money",
            mend=f"give US dollars as a number from 0 to {MOST:,}, e.g. 0.05",
        )
    return int((amount * NANO).to_integral_value(ROUND_CEILING))


def format_usd(nano: int) -> str:
    """The exact decimal string of an amount, without an exponent: 1_500_000 → '0.0015'."""
    text = f"{Decimal(nano) / NANO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def token_cost(tokens: int, usd_per_million: Decimal) -> int:
    """Nano-dollars for `tokens` at a price in USD per million tokens, rounded up."""
    return int((usd_per_million * 1000 * tokens).to_integral_value(ROUND_CEILING))
