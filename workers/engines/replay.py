"""Recorded answers of real models with their real prices: deterministic tests and offline evaluation, no key.

A recording is a JSONL file. Each row says what it answers, and with what:

    {"prompt": "Say hi", "text": "Hi!", "input_tokens": 9, "output_tokens": 2, "cost_usd": 0.0001}
    {"messages": [{"role": "system", "content": "…"}, …], "text": "…", "input_tokens": 40, "output_tokens": 7}
    {"match": "invoice", "text": "…", "input_tokens": 80, "output_tokens": 20, "latency_s": 1.4}
    {"default": true, "text": "I do not know.", "input_tokens": 10, "output_tokens": 5}

Exact messages win over `match` (a part of the last message; the first such row in the file), which wins over
`default`. Of two rows for the same messages the later one holds, so that recorders can append.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...memory.chat import ChatRequest, Completion, Message, Usage
from ...memory.errors import ConfigError, ProviderError
from ...memory.money import format_usd, parse_usd
from ...router.types import ModelSpec
from .common import estimated, options_of, too_late, too_long


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class Row(BaseModel):
    """One line of a recording."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: one user message and nothing else
    prompt: str | None = None
    messages: list[_Said] | None = Field(default=None, min_length=1)
    match: str | None = Field(default=None, min_length=1)
    default: Literal[True] | None = None
    text: str
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    #: what the provider billed; without it tokens × the spec's price
    cost_usd: Decimal | None = Field(default=None, ge=0)
    #: seconds the recorded call took
    latency_s: float = Field(default=0.0, ge=0)
    finish_reason: Literal["stop", "length"] = "stop"

    @model_validator(mode="after")
    def _one_key(self) -> Row:
        keys = [self.prompt, self.messages, self.match, self.default]
        if sum(key is not None for key in keys) != 1:
            raise ValueError("a row has exactly one of prompt, messages, match, default")
        return self


def messages_hash(messages: Sequence[Message]) -> str:
    """SHA-256 of roles and contents: the key of exact matches."""
    rendered = json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False)
    return hashlib.sha256(rendered.encode()).hexdigest()


def record_row(request: ChatRequest, completion: Completion) -> dict[str, Any]:
    """The row that replays `completion` for the messages of `request`."""
    row: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "text": completion.text,
        "input_tokens": completion.usage.input_tokens,
        "output_tokens": completion.usage.output_tokens,
        "latency_s": round(completion.total_s, 3),
        "finish_reason": completion.finish_reason,
    }
    if completion.billed_nano is not None:
        row["cost_usd"] = format_usd(completion.billed_nano)
    return row


class ReplayEngine:
    """See `contract.ModelEngine`. Option `latency` (false): take as long as the recorded call took.

    `Completion.total_s` is the recorded latency in either case.
    """

    def __init__(self, spec: ModelSpec, home: Path) -> None:
        self.spec = spec
        self.device = "replay"
        self._latency: bool = options_of(spec, latency=False)["latency"]
        self._exact: dict[str, Row] = {}
        self._rules: list[Row] = []
        self._default: Row | None = None

    def load(self) -> None:
        """Read the whole file.

        Raises:
            ConfigError: no such file, or a line that is no row.
        """
        path = Path(self.spec.source).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"model {self.spec.name}: cannot read the recording {path}: {error}",
                mend="correct `source` in the pool file",
            ) from error
        self.close()
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._add(_row(line, f"{path} line {number}"))

    def _add(self, row: Row) -> None:
        if row.default:
            self._default = row
        elif row.match is not None:
            self._rules.append(row)
        elif row.messages is not None:
            self._exact[messages_hash([Message(m.role, m.content) for m in row.messages])] = row
        else:
            self._exact[messages_hash([Message("user", row.prompt or "")])] = row

    def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | Exception]:
        """With `latency`, a batch takes as long as its slowest answer."""
        answers = [self._try(request, len(requests)) for request in requests]
        self._wait([a for a in answers if isinstance(a, Completion)])
        return [self._in_time(a) if isinstance(a, Completion) else a for a in answers]

    def stream(self, request: ChatRequest, emit: Callable[[str], None]) -> Completion:
        """Pieces are words with the space before them."""
        answer = self._answer(request, 1)
        self._wait([answer])
        checked = self._in_time(answer)
        if isinstance(checked, Exception):
            raise checked
        for piece in re.findall(r"\s*\S+|\s+$", checked.text):
            emit(piece)
        return checked

    def count(self, texts: Sequence[str]) -> list[int]:
        """An estimate on the high side (`common.estimated`): a recording has no tokenizer."""
        return estimated(texts)

    def close(self) -> None:
        """Forget the rows."""
        self._exact, self._rules, self._default = {}, [], None

    def _wait(self, answers: Sequence[Completion]) -> None:
        if self._latency and answers:
            time.sleep(min(max(a.total_s for a in answers), self.spec.timeout))

    def _in_time(self, answer: Completion) -> Completion | Exception:
        return too_late(self.spec) if self._latency and answer.total_s > self.spec.timeout else answer

    def _try(self, request: ChatRequest, batch_size: int) -> Completion | Exception:
        try:
            return self._answer(request, batch_size)
        except ProviderError as error:
            return error

    def _answer(self, request: ChatRequest, batch_size: int) -> Completion:
        row = self._find(request)
        if row.input_tokens >= self.spec.context:
            raise too_long(self.spec, row.input_tokens)
        if row.output_tokens > request.max_tokens:
            raise ProviderError(
                f"the recorded answer of {self.spec.name} has {row.output_tokens} tokens and the call allows "
                f"{request.max_tokens}: replaying it would pass what was reserved",
                mend="allow more tokens (max_tokens, the model's `max_output`, the budget), or record anew",
                retryable=False,
                sent=False,
            )
        return Completion(
            text=row.text,
            model=self.spec.name,
            usage=Usage(row.input_tokens, row.output_tokens),
            finish_reason=row.finish_reason,
            first_token_s=row.latency_s,
            total_s=row.latency_s,
            billed_nano=None if row.cost_usd is None else parse_usd(row.cost_usd),
            batch_size=batch_size,
        )

    def _find(self, request: ChatRequest) -> Row:
        key = messages_hash(request.messages)
        if key in self._exact:
            return self._exact[key]
        last = request.messages[-1].content if request.messages else ""
        for row in self._rules:
            if row.match is not None and row.match in last:
                return row
        if self._default is not None:
            return self._default
        shown = last if len(last) <= 120 else f"{last[:117]}…"
        raise ProviderError(
            f"{self.spec.source} has no recording for the prompt {shown!r} (messages {key[:12]})",
            mend='add a line {"messages": […], "text": …, "input_tokens": …, "output_tokens": …} for it, '
            "made from a real answer by `podium.workers.engines.replay.record_row`",
            retryable=False,
            sent=False,
        )


def _row(line: str, place: str) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ConfigError(
            f"{place} is no recorded answer: {where + ': ' if where else ''}{problem['msg']}",
            mend="see podium.workers.engines.replay for the form of a row",
        ) from error
