"""What hosted models cost, from the price table inside the package genai-prices. No network.

Source of the table: https://github.com/pydantic/genai-prices (the installed version's snapshot).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .types import Price

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo


@dataclass(frozen=True, slots=True)
class KnownModel:
    """An entry of the price table."""

    provider: str
    model: str
    price: Price
    #: tokens the model takes at most, None where the table does not say
    context: int | None


def find(
    model_ref: str, provider: str | None = None, *, input_tokens: int = 0, at: datetime | None = None
) -> KnownModel | None:
    """The table's entry for `model_ref`, or None when it has none that is billed by tokens alone.

    `provider` is an id (`openai`, `mistral`) or the address of an endpoint; without one it is guessed from
    the model's name. Where the price rises with the prompt, it is the one for prompts of `input_tokens`.
    `at` is the moment of the call (UTC; default now): some prices change with time.
    """
    try:
        entry = _snapshot().find_provider_model(model_ref, None, *_where(provider))
    except LookupError:
        return None
    found, model = entry
    price = _price(model, input_tokens, at or datetime.now(UTC))
    return KnownModel(found.id, model.id, price, model.context_window) if price else None


def lookup(model_ref: str, provider: str | None = None, *, input_tokens: int = 0) -> Price | None:
    """USD per million tokens of `model_ref`, or None; see `find`."""
    known = find(model_ref, provider, input_tokens=input_tokens)
    return known.price if known else None


def nearest(model_ref: str, provider: str | None = None, count: int = 3) -> list[str]:
    """At most `count` names in the table that look like `model_ref`, best first."""
    snapshot = _snapshot()
    try:
        providers = (
            snapshot.providers if provider is None else [snapshot.find_provider(None, *_where(provider))]
        )
    except LookupError:
        providers = snapshot.providers
    now = datetime.now(UTC)
    names = sorted({model.id for p in providers for model in p.models if _price(model, 0, now)})
    return get_close_matches(model_ref.lower(), names, n=count, cutoff=0.5)


def _where(provider: str | None) -> tuple[str | None, str | None]:
    """`(provider id, address)`, one of them None."""
    return (None, provider) if provider and "://" in provider else (provider, None)


def _price(model: ModelInfo, input_tokens: int, at: datetime) -> Price | None:
    """The model's price at that size and moment; None when it is not billed by text tokens alone."""
    prices = model.get_prices(at)
    # getattr: the package creates its price fields at run time
    if getattr(prices, "requests_kcount", None) is not None:
        return None
    read = _at_size(getattr(prices, "input_mtok", None), input_tokens)
    write = _at_size(getattr(prices, "output_mtok", None), input_tokens)
    return None if read is None or write is None else Price(input=read, output=write)


def _at_size(price: Any, input_tokens: int) -> Decimal | None:
    """The price at this size of prompt: a tier covers all tokens of a prompt longer than its start."""
    if price is None or isinstance(price, Decimal):
        return price
    best = price.base
    for tier in price.tiers:
        if input_tokens > tier.start:
            best = tier.price
    return best


def _snapshot() -> DataSnapshot:
    # 40 ms and a large table: only when somebody asks for a price
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()
