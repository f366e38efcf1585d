"""Any OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, llama-server …) through the official client.

The client is told not to retry: the one retry loop is the run's engine. What an endpoint cannot do is learned
from its 400 answers, once per engine, and then left out or asked for in another way.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai

from ...memory.chat import ChatRequest, Completion, Usage
from ...memory.errors import ConfigError, ContextTooLong, ProviderError
from ...router.types import ModelSpec
from .common import bad_schema, estimated, not_loaded, options_of, too_late

OPENAI_URL = "https://api.openai.com/v1"
#: ways to ask for JSON, best first: constrained by the schema; constrained to JSON; only asked for
_JSON_MODES = ("json_schema", "json_object", "prompt")
#: parameters that some endpoints refuse, and what to send in their place
_OPTIONAL: Mapping[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "temperature": None,
    "seed": None,
    "stop": None,
    "stream_options": None,
}
_TOO_LONG = ("context_length_exceeded", "maximum context length", "exceed_context_size", "context window")
#: tokens of a chat template around one message, at most
_TEMPLATE_TOKENS = 16


class OpenAIEngine:
    """See `contract.ModelEngine`. `spec.source` is the model's name at `spec.base_url`.

    The key is read from the variable that `spec.api_key_env` names. Without that name an endpoint that is not
    OpenAI's gets no key at all, so that OPENAI_API_KEY never goes to a stranger.
    Option `body` ({}): further fields of every request, e.g. `{reasoning_effort: low}`.
    """

    def __init__(self, spec: ModelSpec, home: Path) -> None:
        self.spec = spec
        self.device = "remote"
        self._extra: Mapping[str, Any] = options_of(spec, body={})["body"]
        self._client: openai.OpenAI | None = None
        self._json_mode = _JSON_MODES[0]
        self._refused: frozenset[str] = frozenset()

    def load(self) -> None:
        """Make the client; nothing is sent.

        Raises:
            ConfigError: the variable with the key is not set.
        """
        url = self.spec.base_url or OPENAI_URL
        variable = self.spec.api_key_env or ("OPENAI_API_KEY" if self.spec.base_url is None else None)
        key = os.environ.get(variable, "") if variable else "none"
        if not key:
            raise ConfigError(
                f"model {self.spec.name}: the environment variable {variable} is not set",
                mend=f"export {variable}=… before you start podium",
            )
        try:
            client = openai.OpenAI(api_key=key, base_url=url, timeout=self.spec.timeout, max_retries=0)
        except (openai.OpenAIError, ValueError) as error:
            raise ConfigError(
                f"model {self.spec.name}: {error}", mend="correct `base_url` in the pool file"
            ) from error
        if self.spec.base_url is not None:
            # the client takes them from OPENAI_ORG_ID and OPENAI_PROJECT_ID, for whatever address
            client.organization = client.project = None
        self._client = client

    def generate(self, requests: Sequence[ChatRequest]) -> list[Completion | Exception]:
        """The requests are sent at the same time; the endpoint batches as it likes."""
        if len(requests) == 1:
            return [self._try(requests[0], 1)]
        with ThreadPoolExecutor(len(requests), thread_name_prefix=f"call {self.spec.name}") as threads:
            return list(threads.map(lambda request: self._try(request, len(requests)), requests))

    def stream(self, request: ChatRequest, emit: Callable[[str], None]) -> Completion:
        """Pieces come as the endpoint sends them."""
        return self._call(request, emit, 1)

    def count(self, texts: Sequence[str]) -> list[int]:
        """An estimate on the high side (`common.estimated`): the protocol has no call for it."""
        return estimated(texts)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _try(self, request: ChatRequest, batch_size: int) -> Completion | Exception:
        try:
            return self._call(request, None, batch_size)
        except ProviderError as error:
            return error

    def _call(self, request: ChatRequest, emit: Callable[[str], None] | None, batch_size: int) -> Completion:
        """One answer, in as many requests as the endpoint refuses parameters; a refused one costs nothing."""
        if self._client is None:
            raise not_loaded(self.spec)
        mode, refused = self._json_mode, self._refused
        while True:
            answer = _Answer(self.spec, request, emit)
            try:
                return self._send(self._client, self._body(request, mode, refused, emit), answer, batch_size)
            except openai.APIStatusError as error:
                learned = _learn(error, request, mode, refused)
                if learned is None:
                    raise _failure(self.spec, error) from error
                mode, refused = learned
                self._refused |= refused
                if not _schema_is_at_fault(error):
                    self._json_mode = max(self._json_mode, mode, key=_JSON_MODES.index)
            except (openai.OpenAIError, *_transport_errors()) as error:
                raise _failure(self.spec, error) from error

    def _send(
        self, client: openai.OpenAI, body: dict[str, Any], answer: _Answer, batch_size: int
    ) -> Completion:
        if not body.get("stream"):
            answer.take_whole(client.chat.completions.create(**body))
            return answer.completion(batch_size)
        with client.chat.completions.create(**body) as chunks:
            for chunk in chunks:
                answer.take_chunk(chunk)
        return answer.completion(batch_size)

    def _body(
        self,
        request: ChatRequest,
        mode: str,
        refused: frozenset[str],
        emit: Callable[[str], None] | None,
    ) -> dict[str, Any]:
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        body: dict[str, Any] = {
            "model": self.spec.source,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        if emit is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if request.schema is not None:
            if mode == "json_schema":
                body["response_format"] = _json_schema(request.schema)
            else:
                messages = _with_schema(messages, request.schema)
            if mode == "json_object":
                body["response_format"] = {"type": "json_object"}
        for name in refused & body.keys():
            value, other = body.pop(name), _OPTIONAL[name]
            if other is not None:
                body[other] = value
        extra = {"extra_body": dict(self._extra)} if self._extra else {}
        return {**body, "messages": messages, **extra}


def _json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": dict(schema), "strict": _strict(schema)},
    }


def _strict(node: Any) -> bool:
    """Whether OpenAI's strict mode takes the schema: closed objects with every property required."""
    if isinstance(node, Mapping):
        if node.get("type") == "object":
            properties = node.get("properties", {})
            if node.get("additionalProperties") is not False:
                return False
            if set(node.get("required", ())) != set(properties):
                return False
        return all(_strict(value) for value in node.values())
    return all(map(_strict, node)) if isinstance(node, list) else True


def _with_schema(messages: list[dict[str, str]], schema: Mapping[str, Any]) -> list[dict[str, str]]:
    text = "Answer with one JSON value that satisfies this JSON Schema, and with nothing else:\n"
    text += json.dumps(schema, ensure_ascii=False)
    if messages and messages[0]["role"] == "system":
        first = {"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _learn(
    error: openai.APIStatusError, request: ChatRequest, mode: str, refused: frozenset[str]
) -> tuple[str, frozenset[str]] | None:
    """How to ask again after a refusal: the next JSON mode, or without a parameter; None if neither helps."""
    if error.status_code not in (400, 404, 415, 422, 501):
        return None
    said = _said(error)
    if request.schema is not None and mode != _JSON_MODES[-1] and _about_json(said):
        return _JSON_MODES[_JSON_MODES.index(mode) + 1], refused
    for name in _OPTIONAL:
        if name not in refused and (f"'{name}'" in said or f'"{name}"' in said or error.param == name):
            return mode, refused | {name}
    return None


def _about_json(said: str) -> bool:
    return any(sign in said for sign in ("response_format", "json_schema", "json_object", "guided"))


def _schema_is_at_fault(error: openai.APIStatusError) -> bool:
    """The endpoint knows json_schema but not this schema: another one may pass."""
    return "invalid schema" in _said(error)


def _said(error: openai.APIStatusError) -> str:
    body = error.body if isinstance(error.body, str) else json.dumps(error.body or {}, default=str)
    return f"{error.message} {body}".replace('\\"', '"').lower()


def _transport_errors() -> tuple[type[Exception], ...]:
    """What breaks in the middle of a stream comes bare from the HTTP library under the client."""
    modules = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return tuple(module.TransportError for module in modules if module is not None)


def _failure(spec: ModelSpec, error: Exception) -> ProviderError:
    """A client error as ours. Retryable: 408, 409, 429, 5xx, timeouts, broken connections."""
    where = f"model {spec.name} at {spec.base_url or OPENAI_URL}"
    if isinstance(error, openai.APIStatusError):
        return _status_failure(spec, error, where)
    cause = error.__cause__ or error
    kind = type(cause).__name__
    if kind in ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"):
        return ProviderError(
            f"{where} cannot be reached: {cause}",
            mend="start the endpoint, or correct `base_url` in the pool file",
            retryable=kind != "UnsupportedProtocol",
            sent=False,
        )
    if isinstance(error, openai.APITimeoutError) or kind == "ReadTimeout":
        return too_late(spec)
    return ProviderError(f"{where} broke off: {cause}", mend="try again, or look at the endpoint's log")


def _status_failure(spec: ModelSpec, error: openai.APIStatusError, where: str) -> ProviderError:
    said, code = _said(error), error.status_code
    if code in (400, 413, 422) and any(sign in said for sign in _TOO_LONG):
        return ContextTooLong(
            f"the prompt does not fit {where}: {error.message}",
            mend="shorten the input, or add a model with a larger context to the pool",
        )
    if code in (400, 422) and _schema_is_at_fault(error):
        return bad_schema(spec, error.message)
    mends = {
        401: f"check the key in {spec.api_key_env or 'the environment'}",
        403: f"check what the key in {spec.api_key_env or 'the environment'} may do",
        404: "check `source` (the model's name there) and `base_url` in the pool file",
        429: "wait, lower the model's `concurrency`, or raise the limit at the provider",
    }
    retryable = code in (408, 409, 429) or code >= 500
    return ProviderError(
        f"{where} answered {code}: {error.message}",
        mend=mends.get(code, "try again later" if retryable else "check the request and the model's options"),
        retryable=retryable,
    )


class _Answer:
    """What came back so far."""

    def __init__(self, spec: ModelSpec, request: ChatRequest, emit: Callable[[str], None] | None) -> None:
        self._spec = spec
        self._request = request
        self._emit = emit
        self._start = time.monotonic()
        self._pieces: list[str] = []
        self._first_token_s = 0.0
        self._finish: str | None = None
        self._usage: Usage | None = None

    def take_whole(self, response: Any) -> None:
        self._count(response.usage)
        if not response.choices:
            raise ProviderError(f"model {self._spec.name} sent no answer", mend="try again")
        choice = response.choices[0]
        self._finish = choice.finish_reason or "stop"
        self._refusal(choice.message)
        self._say(choice.message.content)

    def take_chunk(self, chunk: Any) -> None:
        self._count(getattr(chunk, "usage", None))
        for choice in chunk.choices[:1]:
            self._finish = choice.finish_reason or self._finish
            self._refusal(choice.delta)
            self._say(choice.delta.content)
        if time.monotonic() - self._start > self._spec.timeout:
            raise too_late(self._spec)

    def _count(self, usage: Any) -> None:
        if usage is not None:
            self._usage = Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0)

    def _refusal(self, message: Any) -> None:
        if getattr(message, "refusal", None):
            raise ProviderError(
                f"model {self._spec.name} refused: {message.refusal}", mend="ask otherwise", retryable=False
            )

    def _say(self, piece: str | None) -> None:
        if not piece:
            return
        if not self._pieces:
            self._first_token_s = time.monotonic() - self._start
        self._pieces.append(piece)
        if self._emit is not None:
            self._emit(piece)

    def completion(self, batch_size: int) -> Completion:
        if self._finish is None:
            raise ProviderError(f"model {self._spec.name} stopped before its answer ended", mend="try again")
        if self._finish == "content_filter":
            raise ProviderError(
                f"the provider of {self._spec.name} filtered the answer",
                mend="ask otherwise",
                retryable=False,
            )
        text = "".join(self._pieces)
        return Completion(
            text=text,
            model=self._spec.name,
            usage=self._usage or self._upper_bound(text),
            finish_reason="length" if self._finish == "length" else "stop",
            first_token_s=self._first_token_s,
            total_s=time.monotonic() - self._start,
            batch_size=batch_size,
        )

    def _upper_bound(self, text: str) -> Usage:
        """For an endpoint that does not count: no tokenizer makes more tokens than there are bytes."""
        prompt = self._request.text_bytes() + _TEMPLATE_TOKENS * len(self._request.messages)
        return Usage(prompt, min(len(text.encode()), self._request.max_tokens))
