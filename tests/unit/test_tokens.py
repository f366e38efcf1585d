"""Token counts before a tokenizer has seen the prompt."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from podium.memory.chat import Message
from podium.memory.retrieval.vectors import default_embedder
from podium.router.tokens import PER_MESSAGE, PER_PROMPT, estimate_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROSE = (
    "The accumulation of all powers, legislative, executive, and judiciary, in the same hands, whether of "
    "one, a few, or many, and whether hereditary, self-appointed, or elective, may justly be pronounced the "
    "very definition of tyranny. Were the federal Constitution, therefore, really chargeable with the "
    "accumulation of power, no further arguments would be necessary to inspire a universal reprobation."
)


@cache
def byte_level_bpe() -> Tokenizer:
    """A small GPT-style tokenizer: byte alphabet, merges learned from the prose above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([PROSE], trainer)
    return tokenizer


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(contents=st.lists(texts, max_size=5))
def test_the_upper_bound_holds_for_a_byte_level_tokenizer(contents: list[str]) -> None:
    messages = [Message("user", text) for text in contents]
    estimate, upper = estimate_tokens(messages)
    counted = sum(len(byte_level_bpe().encode(text).ids) for text in contents)
    assert counted + PER_MESSAGE * len(messages) + PER_PROMPT <= upper
    assert 0 < estimate <= upper


@given(st.text())
def test_any_string_is_counted_even_lone_surrogates(text: str) -> None:
    estimate, upper = estimate_tokens([Message("user", text + "\ud800")])
    assert estimate <= upper


def _counted(text: str) -> int:
    """Tokens of a real byte-pair tokenizer, the only one that the base install brings."""
    return len(default_embedder()._tokenizer.encode(text).ids)


def test_a_default_system_text_is_inside_the_overhead() -> None:
    """ChatML writes its own system text when the caller gives none."""
    template = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    )
    markers = template.count("<|im")
    words = template.replace("<|im_start|>", "").replace("<|im_end|>", "")
    written = _counted(words)
    assert written + markers <= PER_MESSAGE + PER_PROMPT


def test_the_estimate_is_close_for_prose() -> None:
    counted = _counted(PROSE)
    estimate, _ = estimate_tokens([Message("user", PROSE)])
    assert 0.7 * counted < estimate < 1.5 * counted


def test_other_scripts_take_more_tokens_a_character_than_english() -> None:
    english, _ = estimate_tokens([Message("user", "a" * 300)])
    chinese, upper = estimate_tokens([Message("user", "言" * 300)])
    assert english < chinese <= upper


def test_a_schema_counts_in_the_bound_only() -> None:
    messages = [Message("user", "List three rivers.")]
    plain = estimate_tokens(messages)
    with_schema = estimate_tokens(messages, schema={"type": "array", "items": {"type": "string"}})
    assert with_schema[0] == plain[0]
    assert with_schema[1] > plain[1] + 20


def test_no_messages_still_need_the_template() -> None:
    assert estimate_tokens([]) == (8, 32)
