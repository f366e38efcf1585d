"""The rows of one batch: each request keeps its own token limit, temperature, seed, stops and schema.

transformers' `generate` has one setting for a whole batch. So it is told to take the highest score, and the
scores are prepared row by row: a JSON Schema's mask first, then Gumbel noise, whose argmax is a sample of the
softmax (Gumbel-max, Maddison et al. 2014).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from transformers import LogitsProcessor, StoppingCriteria

from ...memory.chat import ChatRequest
from .common import NativeCalls
from .torch_sources import Loaded


@dataclass(eq=False, slots=True)
class Row:
    """One request in a batch."""

    request: ChatRequest
    #: prompt tokens
    prompt: list[int]
    #: tokens the answer may have: the request's limit and what the context leaves
    limit: int
    matcher: LLMatcher | None = None
    generator: torch.Generator | None = None
    tokens: list[int] = field(default_factory=list)
    #: the model ended, a stop string came, or the limit is reached
    finished: str = ""
    text: str = ""


def matcher_of(schema: Mapping[str, Any], tokenizer: LLTokenizer) -> LLMatcher:
    """A matcher that allows compact JSON of `schema`.

    Raises:
        ValueError: the schema uses what llguidance does not know.
    """
    options: Any = {"whitespace_flexible": False}
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options))
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    return matcher


class Scores(LogitsProcessor):
    """Masks and samples row by row; greedy rows without a schema pass as they are."""

    def __init__(self, rows: Sequence[Row], eos: Sequence[int]) -> None:
        self._rows = rows
        self._eos = list(eos)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - decorated in the base
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor
    ) -> torch.FloatTensor:
        for index, row in enumerate(self._rows):
            if row.finished:
                continue
            if row.matcher is not None:
                self._mask(row.matcher, scores[index])
            if row.request.temperature > 0:
                scores[index] = self._sampled(row, scores[index])
        return scores

    def _mask(self, matcher: LLMatcher, scores: torch.Tensor) -> None:
        blocked = torch.ones(scores.shape[0], dtype=torch.bool)
        if matcher.is_stopped():
            blocked[self._eos] = False
        else:
            packed = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
            bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
            allowed = bits.flatten()[: scores.shape[0]]
            blocked[: allowed.shape[0]] = allowed == 0
        scores.masked_fill_(blocked.to(scores.device), float("-inf"))

    @staticmethod
    def _sampled(row: Row, scores: torch.Tensor) -> torch.Tensor:
        if row.generator is None:
            row.generator = torch.Generator().manual_seed(row.request.seed)
        uniform = torch.rand(scores.shape[0], generator=row.generator, dtype=torch.float64)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        return scores / row.request.temperature + gumbel.to(scores)


class Stops(StoppingCriteria):
    """Ends each row by itself, and all of them when the time is over or the model is closed."""

    def __init__(
        self,
        rows: Sequence[Row],
        loaded: Loaded,
        deadline: float,
        calls: NativeCalls,
        pieces: Pieces | None = None,
    ) -> None:
        self._rows = rows
        self._calls = calls
        self._pieces = pieces
        self._loaded = loaded
        self._deadline = deadline
        self.first_token_at: float | None = None
        self.late = False

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - decorated in the base
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any
    ) -> torch.BoolTensor:
        now = time.monotonic()
        self.first_token_at = self.first_token_at or now
        self.late = now > self._deadline
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            if not row.finished:
                self._take(row, token)
        if self._pieces is not None:
            self._pieces.advance()
        over = self.late or self._calls.stopping
        done = [bool(row.finished) or over for row in self._rows]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]

    def _take(self, row: Row, token: int) -> None:
        row.tokens.append(token)
        if token in self._loaded.eos:
            row.finished = "stop"
        elif row.matcher is not None and not row.matcher.consume_token(token):
            row.finished = "error"
        elif row.request.stop and cut_at_stop(self._decode(row), row.request.stop)[1]:
            row.finished = "stop"
        elif len(row.tokens) >= row.limit:
            row.finished = "length"
        if row.finished:
            row.text = cut_at_stop(self._decode(row), row.request.stop)[0]

    def _decode(self, row: Row) -> str:
        return decode(self._loaded, row.tokens)


def decode(loaded: Loaded, tokens: Sequence[int]) -> str:
    return loaded.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there is one."""
    places = [place for place in (text.find(stop) for stop in stops if stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


class Pieces:
    """Gives a row's text on as far as it is settled: whole characters, and no beginning of a stop string."""

    def __init__(self, row: Row, loaded: Loaded, emit: Callable[[str], None]) -> None:
        self._row = row
        self._loaded = loaded
        self._emit = emit
        self._hold = max((len(stop) for stop in row.request.stop), default=1) - 1
        self._sent = 0

    def advance(self) -> None:
        """Send what the last token settled."""
        if self._row.finished:
            self._send(self._row.text)
            return
        settled = decode(self._loaded, self._row.tokens).rstrip("\ufffd")
        self._send(settled[: len(settled) - self._hold])

    def _send(self, text: str) -> None:
        if len(text) > self._sent:
            self._emit(text[self._sent :])
            self._sent = len(text)
