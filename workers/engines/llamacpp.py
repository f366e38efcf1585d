"""Small models on any CPU: llama.cpp in this process, through xllamacpp.

The chat template is the model's own, the tokens are counted by llama.cpp, and JSON Schema constrains the
decoding by a grammar. llama.cpp's server object brings an HTTP port on localhost that cannot be turned off;
a random key that nobody but the engine learns shuts it. The engine counts tokens there: xllamacpp has no
method for it.
"""

from __future__ import annotations

import http.client
import importlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...memory.chat import ChatRequest, Completion, Usage
from ...memory.errors import ConfigError, ProviderError
from ...router.types import ModelSpec
from ..models import model_path
from .common import NativeCalls, bad_schema, not_loaded, options_of, plain, stopped, too_late, too_long

#: prompt tokens read between two looks at the clock
_PROMPT_STEP = 256
#: seconds llama.cpp may take to count; it does so beside the model, in milliseconds
_COUNT_TIMEOUT_S = 30.0
#: stands between the texts of one count: no token's number
_BETWEEN = -1


class LlamaCppEngine:
    """See `contract.ModelEngine`. `spec.concurrency` requests share the model, each with the whole context.

    Options: `threads` (default: the CPUs of its resources), `poll` (0–100: how long idle threads spin;
    0, since spinning starves a crowded machine: measured 25 times slower), `gpu_layers` (0),
    `repeat_penalty` (1.0 is none; small models repeat themselves without one) over the last 256 tokens.
    """

    def __init__(self, spec: ModelSpec, home: Path) -> None:
        self.spec = spec
        self.device = "cpu"
        self._home = home
        self._options = options_of(
            spec, threads=max(1, int(spec.resources.cpus)), poll=0, gpu_layers=0, repeat_penalty=1.0
        )
        self._server: Any = None
        self._key = secrets.token_hex(32)
        self._calls = NativeCalls()

    def load(self) -> None:
        """Map the model's file and make its slots; harmless when done already."""
        if self._server is not None:
            return
        xllamacpp: Any = importlib.import_module("xllamacpp")  # its type stubs name nothing
        path = model_path(self.spec.source, self._home)
        try:
            server = xllamacpp.Server(self._params(xllamacpp.CommonParams(), path))
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"llama.cpp cannot load {path} for model {self.spec.name}: {error}",
                mend="check that it is a whole GGUF file and that the memory suffices",
            ) from error
        # answered by llama.cpp's own loop: a server that is freed before that loop runs waits for it forever
        server.handle_metrics()
        self._server = server
        self._calls.open()
        if self._options["gpu_layers"]:
            self.device = "gpu"

    def _params(self, params: Any, path: Path) -> Any:
        params.model.path = str(path)
        params.n_parallel = self.spec.concurrency
        params.n_ctx = self.spec.context * self.spec.concurrency
        params.n_batch = params.n_ubatch = _PROMPT_STEP
        params.n_gpu_layers = self._options["gpu_layers"]
        for cpu in (params.cpuparams, params.cpuparams_batch):
            cpu.n_threads = self._options["threads"]
            cpu.poll = self._options["poll"]
        # a first token soon matters more than an even speed, and the size is configured, not fitted
        params.warmup = False
        params.fit_params = False
        # no word on stdout or stderr: stdout is data
        params.verbosity = -1
        params.cache_ram_mib = 0
        params.hostnames = ["127.0.0.1"]
        params.api_keys = [self._key]
        params.ui = False
        params.endpoint_slots = False
        params.endpoint_metrics = True
        return params

    def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | Exception]:
        """Requests of one call run in llama.cpp's slots at the same time."""
        if len(requests) == 1:
            return [self._try(requests[0], 1)]
        with ThreadPoolExecutor(len(requests), thread_name_prefix=f"slot {self.spec.name}") as slots:
            return list(slots.map(lambda request: self._try(request, len(requests)), requests))

    def stream(self, request: ChatRequest, emit: Callable[[str], None]) -> Completion:
        """Pieces come token by token, whole characters only."""
        return self._answer(request, emit, 1)

    def count(self, texts: Sequence[str]) -> list[int]:
        """All texts in one request; takes none of the slots."""
        if not texts:
            return []
        with self._calls.inside():
            server = self._server
            if server is None or self._calls.stopping:
                raise not_loaded(self.spec)
            try:
                tokens = _tokens(server.listening_address, self._key, texts)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ProviderError(
                    f"llama.cpp cannot count tokens for model {self.spec.name}: {error}", mend="try again"
                ) from error
        counts = [0]
        for token in tokens:
            if token == _BETWEEN:
                counts.append(0)
            else:
                counts[-1] += 1
        return counts

    def close(self) -> None:
        """End running calls and free the model; one that does not end in time keeps the memory."""
        if self._calls.stop():
            self._server = None

    def _try(self, request: ChatRequest, batch_size: int) -> Completion | Exception:
        try:
            return self._answer(request, None, batch_size)
        except ProviderError as error:
            return error

    def _answer(
        self, request: ChatRequest, emit: Callable[[str], None] | None, batch_size: int
    ) -> Completion:
        listener = _Listener(self.spec, self._calls, emit)
        try:
            with self._calls.inside():
                server = self._server
                if server is None or self._calls.stopping:
                    raise not_loaded(self.spec)
                server.handle_chat_completions(_body(request, self._options["repeat_penalty"]), listener)
        except ValueError as error:
            if request.schema is not None:
                raise bad_schema(self.spec, str(error)) from error
            raise ProviderError(
                f"llama.cpp refused the request to {self.spec.name}: {error}",
                mend="check the messages",
                retryable=False,
                sent=False,
            ) from error
        return listener.completion(batch_size)


def _tokens(address: str, key: str, texts: Sequence[str]) -> list[int]:
    """The tokens of all texts, with `_BETWEEN` between them. Raises ValueError when they are refused."""
    content: list[str | int] = [plain(texts[0])]
    for text in texts[1:]:
        content += [_BETWEEN, plain(text)]
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_COUNT_TIMEOUT_S)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        connection.request("POST", "/tokenize", json.dumps({"content": content}), headers)
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ValueError(f"{answer.status} {said[:200].decode(errors='replace')}")
    return json.loads(said)["tokens"]


def _body(request: ChatRequest, repeat_penalty: float) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "repeat_penalty": repeat_penalty,
        "repeat_last_n": 256,
        "stop": list(request.stop),
        "stream": True,
        "stream_options": {"include_usage": True},
        # chunks while the prompt is read, so that the clock can be looked at
        "return_progress": True,
    }
    if request.schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": dict(request.schema)},
        }
    return body


class _Listener:
    """Called by llama.cpp with each chunk; returning True stops the generation."""

    def __init__(self, spec: ModelSpec, calls: NativeCalls, emit: Callable[[str], None] | None) -> None:
        self._spec = spec
        self._calls = calls
        self._emit = emit
        self._start = time.monotonic()
        self._pieces: list[str] = []
        self._first_token_s = 0.0
        self._finish = "stop"
        self._usage: Usage | None = None
        # llama.cpp swallows what a callback raises: it is kept and raised at the end
        self._error: BaseException | None = None

    def __call__(self, chunk: dict[str, Any]) -> bool:
        try:
            self._take(chunk)
        except BaseException as error:  # noqa: BLE001 - raised again by completion()
            self._error = error
        return self._error is not None

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            raise self._failure(chunk["error"])
        if self._calls.stopping:
            raise stopped(self._spec)
        for choice in chunk.get("choices", ()):
            piece = choice.get("delta", {}).get("content")
            if piece:
                self._say(piece)
            self._finish = choice.get("finish_reason") or self._finish
        if "usage" in chunk:
            usage = chunk["usage"]
            self._usage = Usage(usage["prompt_tokens"], usage["completion_tokens"])
        elif time.monotonic() - self._start > self._spec.timeout:
            raise too_late(self._spec)

    def _say(self, piece: str) -> None:
        if not self._pieces:
            self._first_token_s = time.monotonic() - self._start
        self._pieces.append(piece)
        if self._emit is not None:
            self._emit(piece)

    def _failure(self, error: dict[str, Any]) -> ProviderError:
        if error.get("type") == "exceed_context_size_error":
            return too_long(self._spec, error.get("n_prompt_tokens", 0))
        return ProviderError(
            f"model {self._spec.name} failed: {error.get('message', error)}",
            mend="try again; if it stays so, check the request",
            retryable=error.get("code", 500) >= 500,
        )

    def completion(self, batch_size: int) -> Completion:
        if self._error is not None:
            raise self._error
        if self._usage is None:
            raise ProviderError(f"model {self._spec.name} ended without an answer", mend="try again")
        return Completion(
            text="".join(self._pieces),
            model=self._spec.name,
            usage=self._usage,
            finish_reason="length" if self._finish == "length" else "stop",
            first_token_s=self._first_token_s,
            total_s=time.monotonic() - self._start,
            batch_size=batch_size,
        )
