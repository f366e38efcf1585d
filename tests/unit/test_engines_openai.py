"""The openai engine against a small endpoint on localhost: answers, streams, refusals and failures."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from podium.memory.chat import ChatRequest, Completion, Message, Usage
from podium.memory.errors import ConfigError, ContextTooLong, ProviderError
from podium.router.types import ModelSpec, Price
from podium.workers.engines.openai_engine import OpenAIEngine

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
#: what an endpoint does with a request's body: a status with a JSON body, or lines of a stream
Behaviour = Callable[[dict[str, Any]], tuple[int, Any]]


def answer(text: str, finish: str = "stop", usage: Any = USAGE, **message: Any) -> tuple[int, Any]:
    said = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return 200, body | ({"usage": usage} if usage else {})


def refusal(status: int, message: str, **fields: Any) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "invalid_request_error", **fields}}


def chunks(*pieces: str, finish: str | None = "stop", usage: Any = USAGE) -> tuple[int, Any]:
    base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    lines = [
        {**base, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        for piece in pieces
    ]
    if finish is not None:
        lines.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage:
        lines.append({**base, "choices": [], "usage": usage})
    return 200, lines


class Endpoint:
    """An OpenAI-compatible server whose next answers are given by `behave`; it keeps what it was asked."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.organisations: list[str | None] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.bodies.append(body)
                endpoint.keys.append(self.headers.get("Authorization", ""))
                endpoint.organisations.append(self.headers.get("OpenAI-Organization"))
                status, reply = endpoint.behave(body)
                if isinstance(reply, list):
                    lines = [f"data: {json.dumps(line)}\n\n" for line in reply] + ["data: [DONE]\n\n"]
                    data, kind = "".join(lines).encode(), "text/event-stream"
                else:
                    data, kind = json.dumps(reply).encode(), "application/json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data) + (50 if status == 299 else 0)))
                with suppress(ConnectionError):  # the client did not wait
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint(lambda body: chunks("Hel", "lo") if body.get("stream") else answer("Hello"))
    yield made
    made.close()


@pytest.fixture
def engine(endpoint: Endpoint) -> Iterator[OpenAIEngine]:
    made = engine_at(endpoint.url)
    yield made
    made.close()


def engine_at(url: str | None, **changes: Any) -> OpenAIEngine:
    fields: dict[str, Any] = {
        "name": "remote",
        "engine": "openai",
        "source": "gpt-x",
        "price": Price(input=Decimal(1), output=Decimal(2)),
        "base_url": url,
        "concurrency": 4,
        "timeout": 5.0,
    }
    made = OpenAIEngine(ModelSpec(**(fields | changes)), Path())
    made.load()
    return made


def ask(text: str = "hi", **changes: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), **changes)


def fails(engine: OpenAIEngine, request: ChatRequest | None = None) -> ProviderError:
    (result,) = engine.generate([request or ask()])
    assert isinstance(result, ProviderError), result
    return result


def test_an_answer_has_the_endpoints_own_counts(engine: OpenAIEngine, endpoint: Endpoint) -> None:
    (result,) = engine.generate([ask(max_tokens=7, temperature=0.5, seed=3, stop=("END",))])
    assert isinstance(result, Completion)
    assert (result.text, result.usage, result.finish_reason) == ("Hello", Usage(11, 3), "stop")
    assert result.model == "remote"
    sent = endpoint.bodies[0]
    assert sent["model"] == "gpt-x"
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert (sent["max_tokens"], sent["temperature"], sent["seed"], sent["stop"]) == (7, 0.5, 3, ["END"])


def test_a_batch_is_sent_at_once_and_answered_in_order(engine: OpenAIEngine, endpoint: Endpoint) -> None:
    together = threading.Barrier(3)

    def behave(body: dict[str, Any]) -> tuple[int, Any]:
        together.wait(timeout=5)
        text = body["messages"][0]["content"]
        return refusal(500, "no") if text == "b" else answer(text)

    endpoint.behave = behave
    first, second, third = engine.generate([ask("a"), ask("b"), ask("c")])
    assert isinstance(first, Completion)
    assert isinstance(second, ProviderError)
    assert isinstance(third, Completion)
    assert (first.text, third.text, first.batch_size) == ("a", "c", 3)


def test_a_stream_gives_pieces_and_the_usage(engine: OpenAIEngine, endpoint: Endpoint) -> None:
    pieces: list[str] = []
    completion = engine.stream(ask(), pieces.append)
    assert pieces == ["Hel", "lo"]
    assert (completion.text, completion.usage) == ("Hello", Usage(11, 3))
    assert 0 < completion.first_token_s <= completion.total_s
    assert endpoint.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("finish", [None, "content_filter"])
def test_a_stream_without_a_proper_end_is_an_error(
    engine: OpenAIEngine, endpoint: Endpoint, finish: str | None
) -> None:
    endpoint.behave = lambda body: chunks("Hel", finish=finish)
    with pytest.raises(ProviderError) as caught:
        engine.stream(ask(), lambda piece: None)
    assert caught.value.sent
    assert caught.value.retryable is (finish is None)


def test_a_connection_that_breaks_in_the_middle_is_retryable(
    engine: OpenAIEngine, endpoint: Endpoint
) -> None:
    endpoint.behave = lambda body: (299, chunks("Hel", finish=None, usage=None)[1][:1])
    with pytest.raises(ProviderError) as caught:
        engine.stream(ask(), lambda piece: None)
    assert caught.value.retryable
    assert caught.value.sent


def test_a_schema_goes_as_response_format(engine: OpenAIEngine, endpoint: Endpoint) -> None:
    endpoint.behave = lambda body: answer('{"n": 1}')
    engine.generate([ask(schema=SCHEMA), ask(schema={**SCHEMA, "required": []})])
    formats = [body["response_format"]["json_schema"] for body in endpoint.bodies]
    assert sorted(f["strict"] for f in formats) == [False, True]
    assert all(f["schema"]["properties"] == SCHEMA["properties"] for f in formats)


def test_an_endpoint_without_json_schema_is_asked_in_the_prompt_and_remembered(
    engine: OpenAIEngine, endpoint: Endpoint
) -> None:
    def behave(body: dict[str, Any]) -> tuple[int, Any]:
        if body.get("response_format", {}).get("type") == "json_schema":
            return refusal(400, "'response_format.type' must be 'json_object' or 'text'")
        return answer('{"n": 1}')

    endpoint.behave = behave
    for _ in range(2):
        (result,) = engine.generate([ask(schema=SCHEMA)])
        assert isinstance(result, Completion)
    kinds = [body["response_format"]["type"] for body in endpoint.bodies]
    assert kinds == ["json_schema", "json_object", "json_object"]
    system = endpoint.bodies[-1]["messages"][0]
    assert system["role"] == "system"
    assert json.dumps(SCHEMA) in system["content"]


def test_an_endpoint_without_any_response_format_still_answers(
    engine: OpenAIEngine, endpoint: Endpoint
) -> None:
    endpoint.behave = lambda body: (
        refusal(422, "unknown field response_format") if "response_format" in body else answer('{"n": 1}')
    )
    request = ChatRequest((Message("system", "be brief"), Message("user", "hi")), schema=SCHEMA)
    assert isinstance(engine.generate([request])[0], Completion)
    first = endpoint.bodies[-1]["messages"][0]["content"]
    assert first.startswith("be brief\n\nAnswer with one JSON value")


def test_one_bad_schema_does_not_cost_the_others_their_constraint(
    engine: OpenAIEngine, endpoint: Endpoint
) -> None:
    bad = {"type": "object", "title": "bad"}

    def behave(body: dict[str, Any]) -> tuple[int, Any]:
        sent = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        if sent.get("title") == "bad":
            return refusal(400, "Invalid schema for response_format 'answer'", param="response_format")
        return answer('{"n": 1}')

    endpoint.behave = behave
    for schema in (bad, SCHEMA):
        assert isinstance(engine.generate([ask(schema=schema)])[0], Completion)
    kinds = [body["response_format"]["type"] for body in endpoint.bodies]
    assert kinds == ["json_schema", "json_object", "json_schema"]


def test_refused_parameters_are_left_out_from_then_on(engine: OpenAIEngine, endpoint: Endpoint) -> None:
    def behave(body: dict[str, Any]) -> tuple[int, Any]:
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in body:
            return refusal(400, "Only the default is supported", param="temperature")
        return answer("ok")

    endpoint.behave = behave
    for _ in range(2):
        assert isinstance(engine.generate([ask(max_tokens=9)])[0], Completion)
    assert len(endpoint.bodies) == 4
    assert endpoint.bodies[-1]["max_completion_tokens"] == 9
    assert "temperature" not in endpoint.bodies[-1]


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (408, True),
        (429, True),
        (500, True),
        (503, True),
    ],
)
def test_statuses(engine: OpenAIEngine, endpoint: Endpoint, status: int, retryable: bool) -> None:
    endpoint.behave = lambda body: refusal(status, "because")
    error = fails(engine)
    assert (error.retryable, error.sent) == (retryable, True)
    assert str(status) in error.message
    assert "because" in error.message
    assert error.mend
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize(
    "reply",
    [
        refusal(400, "too long", code="context_length_exceeded"),
        refusal(400, "This model's maximum context length is 4096 tokens"),
        refusal(400, "request (631 tokens) exceeds", type="exceed_context_size_error"),
    ],
)
def test_a_long_prompt_is_told_apart(
    engine: OpenAIEngine, endpoint: Endpoint, reply: tuple[int, Any]
) -> None:
    endpoint.behave = lambda body: reply
    error = fails(engine)
    assert isinstance(error, ContextTooLong)
    assert not error.sent


def test_a_refused_connection_was_not_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = engine_at(f"http://127.0.0.1:{port}/v1")
    error = fails(engine)
    assert (error.sent, error.retryable) == (False, True)
    assert "base_url" in error.mend
    engine.close()


def test_a_slow_endpoint_is_a_retryable_timeout(endpoint: Endpoint) -> None:
    release = threading.Event()

    def behave(body: dict[str, Any]) -> tuple[int, Any]:
        release.wait(timeout=10)
        return answer("late")

    endpoint.behave = behave
    engine = engine_at(endpoint.url, timeout=0.1)
    error = fails(engine)
    release.set()
    assert (error.sent, error.retryable) == (True, True)
    assert "0.1 s" in error.message
    engine.close()


def test_an_uncounted_answer_is_counted_from_above(engine: OpenAIEngine, endpoint: Endpoint) -> None:
    endpoint.behave = lambda body: answer("four", usage=None)
    (result,) = engine.generate([ask("12345", max_tokens=3)])
    assert isinstance(result, Completion)
    assert result.usage.input_tokens >= 5
    assert result.usage.output_tokens == 3


def test_a_refusal_and_no_choice_are_errors(engine: OpenAIEngine, endpoint: Endpoint) -> None:
    endpoint.behave = lambda body: answer("", refusal="I cannot")
    assert not fails(engine).retryable
    status, body = answer("x")
    endpoint.behave = lambda _: (status, {**body, "choices": []})
    assert fails(engine).retryable


def test_keys_come_from_the_named_variable_only(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("MY_KEY", "mine")
    for variable in (None, "MY_KEY"):
        engine = engine_at(endpoint.url, api_key_env=variable)
        engine.generate([ask()])
        engine.close()
    assert endpoint.keys == ["Bearer none", "Bearer mine"]
    assert endpoint.organisations == [None, None]
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        engine_at(endpoint.url, api_key_env="NO_SUCH_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        engine_at(None)


def test_option_body_adds_fields(endpoint: Endpoint) -> None:
    engine = engine_at(endpoint.url, options={"body": {"reasoning_effort": "low"}})
    engine.generate([ask()])
    assert endpoint.bodies[0]["reasoning_effort"] == "low"
    engine.close()
    engine.close()


def test_a_closed_engine_was_not_sent(engine: OpenAIEngine) -> None:
    engine.close()
    assert not fails(engine).sent
