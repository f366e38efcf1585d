"""Prices of hosted models, from the installed table. They change with the package: so few amounts here."""

from __future__ import annotations

from podium.router.prices import find, lookup, nearest


def test_a_known_model_has_a_price_per_million_tokens() -> None:
    price = lookup("gpt-4o-mini", "openai")
    assert price is not None
    assert 0 < price.input < price.output < 10
    assert lookup("gpt-4o-mini") == price
    assert lookup("gpt-4o-mini", "https://api.openai.com/v1") == price


def test_an_entry_names_its_provider_and_context() -> None:
    known = find("claude-sonnet-4-5")
    assert known is not None
    assert known.provider == "anthropic"
    assert known.context is not None
    assert known.context >= 100_000


def test_a_long_prompt_has_the_price_of_its_tier() -> None:
    short, long = lookup("gemini-2.5-pro"), lookup("gemini-2.5-pro", input_tokens=1_000_000)
    assert short is not None
    assert long is not None
    assert long.input > short.input


def test_a_miss_is_none_and_has_near_names() -> None:
    assert lookup("gpt-4o-minni") is None
    assert nearest("gpt-4o-minni")[0] == "gpt-4o-mini"
    assert lookup("llama3", "http://localhost:11434/v1") is None
    assert lookup("gpt-4o-mini", "no-such-provider") is None
    assert nearest("zzzzzzzzzzzzzzzzzz") == []


def test_models_that_are_not_billed_by_text_tokens_have_no_price() -> None:
    assert lookup("text-embedding-3-small", "openai") is None
    assert lookup("sonar", "perplexity") is None
    assert "text-embedding-3-small" not in nearest("text-embedding-3-small")
