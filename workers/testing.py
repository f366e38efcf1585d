"""A fake model engine for tests: deterministic, and told by the prompt what to do.

The last message of a request decides; what follows a command is echoed where there is an answer at all:

=================== ==========================================================
`any text`          the answer is `echo: any text`
`!fail [text]`      a retryable `ProviderError`
`!refuse [text]`    a `ProviderError` that is not retryable and was not sent
`!broken [text]`    a `RuntimeError` in the whole batch, as a bug in an engine
`!crash [text]`     the process ends at once, if it is a Ray worker; else as `!fail`
`!stall PATH`       answers when the file PATH exists, or after 30 s
`!batches`          the answer lists the sizes of all batches so far, e.g. `1 4 2`
`!pid`              the answer is the process id
`!env NAME`         the answer is the repr of that environment variable
`!model [text]`     the answer is the model's name
`!choose a|b|c`     the answer is the one that the request's seed counts to, from 0
`a !cut b`          a stream breaks with a `ProviderError` after the word `!cut`
=================== ==========================================================

A schema in the request is answered with the smallest JSON object that satisfies simple ones.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..memory.chat import ChatRequest, Completion, Message, Usage
from ..memory.errors import ConfigError, ContextTooLong, ProviderError
from ..router.types import ModelSpec, Price

#: the engine factory, as the pools take it
ECHO = "podium.workers.testing:create_echo"
_STALL_LIMIT_S = 30.0
_POLL_S = 0.005


def echo_spec(name: str = "echo", **changes: Any) -> ModelSpec:
    """A spec whose engine is an `EchoEngine` when the pool was made with `create=ECHO`.

    `source` may be the path of a file that has to exist for the load to succeed; each load adds a line to it.
    """
    fields: dict[str, Any] = {
        "name": name,
        "engine": "replay",
        "source": "",
        "price": Price(input=Decimal("0.1"), output=Decimal("0.2")),
        "concurrency": 4,
        "timeout": 30.0,
    }
    return ModelSpec(**(fields | changes))


def ask(text: str, **changes: Any) -> ChatRequest:
    """A request with one user message."""
    return ChatRequest((Message("user", text),), **changes)


def create_echo(spec: ModelSpec, home: Path) -> EchoEngine:
    """An engine factory; `home` is not used."""
    return EchoEngine(spec)


class EchoEngine:
    """See `contract.ModelEngine`. Tokens are words; `batches` records the size of every batch."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.device = "cpu"
        self.batches: list[int] = []
        self.loaded = False
        self._lock = threading.Lock()

    def load(self) -> None:
        if self.spec.source:
            source = Path(self.spec.source)
            if not source.is_file():
                raise ConfigError(f"no model at {source}", mend=f"create {source}")
            with source.open("a") as file:
                file.write("load\n")
        self.loaded = True

    def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | Exception]:
        with self._lock:
            self.batches.append(len(requests))
        return [self._try(request, len(requests)) for request in requests]

    def stream(self, request: ChatRequest, emit: Callable[[str], None]) -> Completion:
        with self._lock:
            self.batches.append(1)
        completion = self._answer(request, 1)
        for index, word in enumerate(completion.text.split(" ")):
            emit(word if index == 0 else " " + word)
            if word == "!cut":
                raise ProviderError("the stream was cut, as the prompt says", mend="try again")
        return completion

    def count(self, texts: Sequence[str]) -> list[int]:
        if any(text.startswith("!broken") for text in texts):
            raise RuntimeError("broken as the text says")
        return [len(text.split()) for text in texts]

    def close(self) -> None:
        self.loaded = False

    def _try(self, request: ChatRequest, batch: int) -> Completion | Exception:
        try:
            return self._answer(request, batch)
        except ProviderError as error:
            return error

    def _answer(self, request: ChatRequest, batch: int) -> Completion:
        prompt = request.messages[-1].content
        words = sum(len(m.content.split()) for m in request.messages)
        if words > self.spec.context:
            raise ContextTooLong(
                f"{words} words do not fit {self.spec.context}",
                mend="shorten the prompt or take a larger model",
            )
        if request.schema is not None:
            text = json.dumps(_smallest(request.schema))
        else:
            text = self._say(prompt, request.seed)
        spoken = text.split(" ")
        kept = spoken[: request.max_tokens]
        return Completion(
            text=" ".join(kept),
            model=self.spec.name,
            usage=Usage(words, len(kept)),
            finish_reason="stop" if len(kept) == len(spoken) else "length",
            batch_size=batch,
        )

    def _say(self, prompt: str, seed: int) -> str:
        command, _, rest = prompt.partition(" ")
        if command == "!model":
            return self.spec.name
        if command == "!choose":
            return rest.split("|")[seed % (rest.count("|") + 1)]
        if command == "!crash":
            _crash_ray_worker()
        if command in ("!fail", "!crash"):
            raise ProviderError(f"failed as the prompt says: {rest}", mend="try again")
        if command == "!refuse":
            raise ProviderError(
                f"refused as the prompt says: {rest}", mend="ask otherwise", retryable=False, sent=False
            )
        if command == "!broken":
            raise RuntimeError(f"broken as the prompt says: {rest}")
        if command == "!stall":
            _wait_for(Path(rest))
        if command == "!batches":
            return " ".join(map(str, self.batches))
        if command == "!pid":
            return str(os.getpid())
        if command == "!env":
            return repr(os.environ.get(rest))
        return f"echo: {prompt}"


def _crash_ray_worker() -> None:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
        os._exit(1)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + _STALL_LIMIT_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _smallest(schema: Mapping[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    match schema.get("type", "object"):
        case "object":
            return {name: _smallest(part) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [_smallest(schema.get("items", {"type": "string"}))] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return "x" * schema.get("minLength", 0)
