"""Causal language models in this process, through transformers: on a GPU when torch sees one, else on CPU.

Requests that wait together run as one left-padded batch, whatever limits, schemas or temperatures they have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from llguidance import LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from ...memory.chat import ChatRequest, Completion, Usage
from ...memory.errors import ConfigError, ProviderError
from ...router.types import ModelSpec
from .common import NativeCalls, bad_schema, not_loaded, options_of, plain, stopped, too_late, too_long
from .torch_rows import Pieces, Row, Scores, Stops, matcher_of
from .torch_sources import Loaded, load_source

_Result = Completion | Exception


@dataclass(eq=False, slots=True)
class _Ticket:
    """Requests of one caller, waiting for the model."""

    requests: Sequence[ChatRequest]
    results: list[_Result] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)


class TorchEngine:
    """See `contract.ModelEngine`.

    Options: `device` ("auto": the first GPU, else cpu), `dtype` ("auto": bfloat16 on GPU, float32 on CPU),
    `threads` (on CPU; default: the CPUs of its resources; holds for the whole process).
    """

    def __init__(self, spec: ModelSpec, home: Path) -> None:
        self.spec = spec
        self._home = home
        self._options = options_of(
            spec, device="auto", dtype="auto", threads=max(1, int(spec.resources.cpus))
        )
        device = self._options["device"]
        gpu = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.device: str = gpu if device == "auto" else device
        self._loaded: Loaded | None = None
        self._grammar_tokenizer: LLTokenizer | None = None
        #: held while the model computes
        self._turn = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._waiting_lock = threading.Lock()
        self._calls = NativeCalls()

    def load(self) -> None:
        """Read the weights to the device; harmless when done already."""
        if self._loaded is not None:
            return
        if self.device == "cpu":
            torch.set_num_threads(self._options["threads"])
        self._loaded = load_source(self.spec, self._home, self._dtype(), self.device)
        self._calls.open()

    def _dtype(self) -> torch.dtype:
        name = self._options["dtype"]
        if name == "auto":
            return torch.float32 if self.device == "cpu" else torch.bfloat16
        found = getattr(torch, name, None)
        if not isinstance(found, torch.dtype):
            raise ConfigError(
                f"model {self.spec.name}: {name!r} is no dtype of torch", mend="use float32 or bfloat16"
            )
        return found

    def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | Exception]:
        """Who gets the model takes along everyone who waits, up to `spec.concurrency` requests."""
        ticket = _Ticket(requests)
        with self._waiting_lock:
            self._waiting.append(ticket)
        with self._my_turn(ticket) as mine:
            if not mine:
                return [too_late(self.spec) for _ in requests]
            if not ticket.results:
                self._run_tickets(self._take_waiting(ticket))
        return ticket.results

    def stream(self, request: ChatRequest, emit: Callable[[str], None]) -> Completion:
        """Pieces come token by token, whole characters only. A stream runs alone, not in a batch."""
        with self._my_turn(None) as mine:
            result = self._run([request], emit)[0] if mine else too_late(self.spec)
        if isinstance(result, Exception):
            raise result
        return result

    def count(self, texts: Sequence[str]) -> list[int]:
        """Waits for no turn: the tokenizer works beside the model."""
        loaded = self._loaded
        if loaded is None:
            raise not_loaded(self.spec)
        with self._calls.inside():
            given = [plain(text) for text in texts]
            ids = loaded.tokenizer(given, add_special_tokens=False)["input_ids"] if given else []
        return [len(tokens) for tokens in ids]

    def close(self) -> None:
        """End running calls and free the weights."""
        self._calls.stop()
        self._loaded = None
        self._grammar_tokenizer = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @contextmanager
    def _my_turn(self, ticket: _Ticket | None) -> Iterator[bool]:
        mine = self._turn.acquire(timeout=self.spec.timeout)
        if not mine and ticket is not None:
            with self._waiting_lock:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
        try:
            yield mine
        finally:
            if mine:
                self._turn.release()

    def _take_waiting(self, own: _Ticket) -> list[_Ticket]:
        taken, room = [own], self.spec.concurrency - len(own.requests)
        with self._waiting_lock:
            self._waiting.remove(own)
            for other in list(self._waiting):
                if len(other.requests) <= room:
                    self._waiting.remove(other)
                    taken.append(other)
                    room -= len(other.requests)
        return taken

    def _run_tickets(self, tickets: Sequence[_Ticket]) -> None:
        try:
            results: list[_Result] = self._run([request for ticket in tickets for request in ticket.requests])
        except Exception as error:  # noqa: BLE001 - the others' threads must not find empty results
            results = [_broken(self.spec, error) for ticket in tickets for _ in ticket.requests]
        for ticket in tickets:
            count = len(ticket.requests)
            ticket.results, results = results[:count], results[count:]

    def _run(
        self, requests: Sequence[ChatRequest], emit: Callable[[str], None] | None = None
    ) -> list[_Result]:
        """One batch. Requests that cannot run have their error in their place, the others run."""
        with self._calls.inside():
            loaded = self._loaded
            if loaded is None or self._calls.stopping:
                return [not_loaded(self.spec) for _ in requests]
            return self._run_loaded(loaded, requests, emit)

    def _run_loaded(
        self, loaded: Loaded, requests: Sequence[ChatRequest], emit: Callable[[str], None] | None
    ) -> list[_Result]:
        rows = [self._row(loaded, request) for request in requests]
        runnable = [row for row in rows if isinstance(row, Row)]
        started = time.monotonic()
        stops: Stops | None = None
        if runnable:
            pieces = Pieces(runnable[0], loaded, emit) if emit is not None else None
            stops = Stops(runnable, loaded, started + self.spec.timeout, self._calls, pieces)
            try:
                self._decode(loaded, runnable, stops)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                failure = _broken(self.spec, error)
                return [failure if isinstance(row, Row) else row for row in rows]
        return [
            self._completion(row, stops, started, len(runnable)) if isinstance(row, Row) else row
            for row in rows
        ]

    def _row(self, loaded: Loaded, request: ChatRequest) -> Row | ProviderError:
        prompt = _render(loaded.tokenizer, request)
        room = self.spec.context - len(prompt)
        if room < 1:
            return too_long(self.spec, len(prompt))
        row = Row(request, prompt, min(request.max_tokens, room))
        if request.schema is not None:
            try:
                row.matcher = matcher_of(request.schema, self._grammar(loaded))
            except ValueError as error:
                return bad_schema(self.spec, str(error))
        return row

    def _grammar(self, loaded: Loaded) -> LLTokenizer:
        if self._grammar_tokenizer is None:
            size = max(loaded.model.config.vocab_size, len(loaded.tokenizer))
            self._grammar_tokenizer = from_tokenizer(
                loaded.tokenizer, n_vocab=size, eos_token=list(loaded.eos)
            )
        return self._grammar_tokenizer

    def _decode(self, loaded: Loaded, rows: Sequence[Row], stops: Stops) -> None:
        width = max(len(row.prompt) for row in rows)
        padded = [[loaded.pad] * (width - len(row.prompt)) + row.prompt for row in rows]
        mask = [[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
        config = GenerationConfig(
            max_new_tokens=max(row.limit for row in rows),
            do_sample=False,
            eos_token_id=list(loaded.eos),
            pad_token_id=loaded.pad,
        )
        with torch.inference_mode():
            loaded.model.generate(
                torch.tensor(padded, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([Scores(rows, loaded.eos)]),
                stopping_criteria=StoppingCriteriaList([stops]),
            )

    def _completion(self, row: Row, stops: Stops | None, started: float, batch_size: int) -> _Result:
        if row.finished not in ("stop", "length"):
            if self._calls.stopping:
                return stopped(self.spec)
            return too_late(self.spec) if stops is not None and stops.late else _broken(self.spec, None)
        first = stops.first_token_at if stops is not None else None
        return Completion(
            text=row.text,
            model=self.spec.name,
            usage=Usage(len(row.prompt), len(row.tokens)),
            finish_reason="length" if row.finished == "length" else "stop",
            first_token_s=(first or started) - started,
            total_s=time.monotonic() - started,
            batch_size=batch_size,
        )


def _render(tokenizer: Any, request: ChatRequest) -> list[int]:
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    if not tokenizer.chat_template:
        text = "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"
        return tokenizer(text)["input_ids"]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _broken(spec: ModelSpec, error: Exception | None) -> ProviderError:
    if isinstance(error, torch.OutOfMemoryError):
        return ProviderError(
            f"model {spec.name} ran out of GPU memory: {error}",
            mend="lower the model's `concurrency` or `context` in the pool file",
        )
    return ProviderError(
        f"model {spec.name} broke while it computed: {error}", mend="try again; if it stays so, report it"
    )
