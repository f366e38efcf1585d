"""How many tokens a prompt has, before any tokenizer has seen it: an estimate and an upper bound."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from ..memory.chat import Message

#: tokens of a chat template around one message: role, its markers, newlines
PER_MESSAGE = 16
#: tokens of a chat template around the whole: begin of text, a default system text, the answer's opening
PER_PROMPT = 32

#: the same two for the estimate: what templates need usually
_USUAL_PER_MESSAGE = 5
_USUAL_PER_PROMPT = 8

#: ASCII bytes a token covers on average in English prose, and bytes a token covers in other scripts
_ASCII_BYTES_PER_TOKEN = 4.0
_OTHER_BYTES_PER_TOKEN = 2.5


def estimate_tokens(
    messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
) -> tuple[int, int]:
    """`(estimate, upper_bound)` of the prompt's tokens, template included.

    The upper bound is the UTF-8 bytes of the contents plus 16 a message plus 32: a byte-level BPE tokenizer
    (GPT, Llama 3, Qwen, SmolLM, …) starts from one symbol a byte and only ever merges, so no text has more
    tokens than bytes. It does not hold for tokenizers that rewrite the text into a longer one first (NFKC).
    `schema` is the answer's JSON Schema: some endpoints bill it as input, so its bytes count in the bound;
    engines that turn it into a grammar do not, so it does not count in the estimate.

    The estimate takes 4 bytes of ASCII and 2.5 bytes of anything else for a token, plus the usual template.
    """
    contents = [m.content.encode("utf-8", "surrogatepass") for m in messages]
    size = sum(len(c) for c in contents)
    ascii_size = sum(len(c.decode("ascii", "ignore")) for c in contents)
    upper = size + PER_MESSAGE * len(messages) + PER_PROMPT
    if schema is not None:
        upper += len(json.dumps(schema, ensure_ascii=True).encode())
    text = ascii_size / _ASCII_BYTES_PER_TOKEN + (size - ascii_size) / _OTHER_BYTES_PER_TOKEN
    return ceil(text) + _USUAL_PER_MESSAGE * len(messages) + _USUAL_PER_PROMPT, upper
