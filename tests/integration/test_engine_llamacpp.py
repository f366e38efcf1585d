"""SmolLM2 through llama.cpp: real answers, constrained JSON, streams, limits, silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from podium.memory.chat import ChatRequest, Completion, Message
from podium.memory.errors import ConfigError, ContextTooLong, ProviderError
from podium.router.types import ModelSpec, Price
from podium.workers.contract import ModelEngine
from podium.workers.engines.factory import create_engine
from podium.workers.models import pull

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer"},
        "mood": {"$ref": "#/$defs/Mood"},
    },
    "required": ["name", "age", "mood"],
    "additionalProperties": False,
    "$defs": {"Mood": {"enum": ["calm", "angry"]}},
}


@pytest.fixture(scope="session")
def home() -> Path:
    """A PODIUM_HOME with SmolLM2 that outlives the tests."""
    folder = Path(os.environ.get("PODIUM_TEST_MODELS") or Path.home() / ".cache" / "podium-tests")
    pull("smollm2-135m", folder)
    return folder


def spec(**changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "small",
        "engine": "llamacpp",
        "source": "smollm2-135m",
        "price": Price(input=Decimal("0.08"), output=Decimal("0.28")),
        "context": 512,
        "concurrency": 2,
        "timeout": 120.0,
    }
    return ModelSpec(**(fields | changes))


@pytest.fixture(scope="module")
def engine(home: Path) -> Iterator[ModelEngine]:
    made = create_engine(spec(), home)
    made.load()
    yield made
    made.close()


def ask(text: str, **changes: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), **changes)


def test_it_answers_in_its_own_chat_template(engine: ModelEngine) -> None:
    request = ChatRequest(
        (
            Message("system", "You are a helpful assistant."),
            Message("user", "What is the capital of France?"),
        ),
        max_tokens=20,
    )
    (result,) = engine.generate([request])
    assert isinstance(result, Completion)
    assert "Paris" in result.text
    assert "<|im" not in result.text
    assert result.finish_reason == "stop"
    # 27 is what SmolLM2's own tokenizer and template give
    assert result.usage.input_tokens == 27
    assert 0 < result.usage.output_tokens < 20
    assert 0 < result.first_token_s <= result.total_s


def test_a_schema_holds_whatever_the_prompt_says(engine: ModelEngine) -> None:
    request = ask("Bob is 42 and calm. Say something about Bob.", schema=SCHEMA, max_tokens=100)
    (result,) = engine.generate([request])
    assert isinstance(result, Completion)
    jsonschema.validate(json.loads(result.text), SCHEMA)


def test_a_stream_is_the_same_answer_in_pieces(engine: ModelEngine) -> None:
    pieces: list[str] = []
    completion = engine.stream(ask("Count to five.", max_tokens=16), pieces.append)
    assert "".join(pieces) == completion.text
    assert len(pieces) > 3
    assert completion.usage.output_tokens <= 16


def test_limits_of_requests_in_one_batch_are_their_own(engine: ModelEngine) -> None:
    results = engine.generate([ask("Tell me a story.", max_tokens=n) for n in (3, 9)])
    done = [result for result in results if isinstance(result, Completion)]
    counts = [(c.usage.output_tokens, c.finish_reason, c.batch_size) for c in done]
    assert counts == [(3, "length", 2), (9, "length", 2)]


def test_a_prompt_that_does_not_fit_is_refused_unsent_and_alone(engine: ModelEngine) -> None:
    long, short = engine.generate([ask("word " * 600), ask("hi", max_tokens=2)])
    assert isinstance(long, ContextTooLong)
    assert not long.sent
    assert "512" in long.message
    assert isinstance(short, Completion)
    with pytest.raises(ContextTooLong):
        engine.stream(ask("word " * 600), print)


def test_every_slot_has_the_whole_context(engine: ModelEngine) -> None:
    results = engine.generate([ask("word " * 440, max_tokens=2)] * 2)
    assert [isinstance(r, Completion) and r.usage.input_tokens > 440 for r in results] == [True, True]


def test_a_schema_that_is_none_is_refused(engine: ModelEngine) -> None:
    (result,) = engine.generate([ask("hi", schema={"type": "objekt"})])
    assert isinstance(result, ProviderError)
    assert not result.retryable
    assert not result.sent


def test_a_stop_string_ends_the_answer(engine: ModelEngine) -> None:
    (whole,) = engine.generate([ask("What is 2+2? Answer in a sentence.", max_tokens=24)])
    assert isinstance(whole, Completion)
    word = whole.text.split()[2]
    (cut,) = engine.generate([ask("What is 2+2? Answer in a sentence.", max_tokens=24, stop=(word,))])
    assert isinstance(cut, Completion)
    assert word not in cut.text
    assert cut.finish_reason == "stop"


def test_tokens_are_those_of_the_prompt(engine: ModelEngine) -> None:
    texts = ["Hello world", "", "Grüße, 東京 😀", "12345", 'a "quoted"\nline', "a <|im_end|> b"]
    counts = engine.count(texts)
    assert counts[:2] == [2, 0]
    assert [engine.count([text]) for text in texts] == [[count] for count in counts]
    assert engine.count([]) == []
    assert engine.count(["half \ud83d of a pair"]) == engine.count(["half ? of a pair"])
    results = engine.generate(
        [ask(f"{before}", max_tokens=1) for before in ("Read:", *map("Read:{}".format, texts))]
    )
    first, *others = [r.usage.input_tokens for r in results if isinstance(r, Completion)]
    whole = engine.count(["Read:", *map("Read:{}".format, texts)])
    assert [other - first for other in others] == [count - whole[0] for count in whole[1:]]


def test_counting_waits_for_no_generation(engine: ModelEngine) -> None:
    speaks, ended = threading.Event(), threading.Event()

    def call() -> None:
        engine.generate([ask("word " * 300, max_tokens=100), ask("Tell me a long story.", max_tokens=300)])
        ended.set()

    def stream() -> None:
        engine.stream(ask("Tell me a long story.", max_tokens=300), lambda piece: speaks.set())
        ended.set()

    callers = [threading.Thread(target=work) for work in (call, stream)]
    for caller in callers:
        caller.start()
    assert speaks.wait(timeout=60)
    assert engine.count([f"Hello world {n}" for n in range(10)]) == [4] * 10
    assert not ended.is_set()
    for caller in callers:
        caller.join(timeout=120)


def test_engines_without_a_tokenizer_count_more_but_not_many_times_more(
    engine: ModelEngine, home: Path
) -> None:
    texts = [
        "The committee approved the loan on Monday, because the borrower's income had doubled since spring. "
        * 5,
        json.dumps(
            [{"id": n, "amount": n * 1234.5, "date": "2026-03-14", "ok": n % 2 == 0} for n in range(9)]
        ),
        " ".join(str(7919 * n) for n in range(1, 60)),
        "Die Prüfung ergab, dass der Kreditnehmer über ausreichende Sicherheiten verfügt. " * 3,
        "贷款申请已获批准，借款人拥有足够的抵押品，签署后将支付款项。",
        "d41d8cd98f00b204e9800998ecf8427e e3b0c44298fc1c149afbf4c8996fb924",
        "x",
        "",
    ]
    real = engine.count(texts)
    for kind in ("replay", "openai"):
        guessed = create_engine(spec(engine=kind), home).count(texts)
        assert all(r <= g <= 2.5 * r for r, g in zip(real, guessed, strict=True)), (kind, real, guessed)


def test_what_a_listener_raises_ends_the_call_and_nothing_else(engine: ModelEngine) -> None:
    def emit(piece: str) -> None:
        raise KeyError(piece)

    with pytest.raises(KeyError):
        engine.stream(ask("Tell me a story.", max_tokens=100), emit)
    assert isinstance(engine.generate([ask("hi", max_tokens=2)])[0], Completion)


def test_a_call_past_its_time_is_ended(home: Path) -> None:
    slow = create_engine(spec(timeout=0.05, context=2048), home)
    slow.load()
    (result,) = slow.generate([ask("word " * 1000)])
    assert isinstance(result, ProviderError)
    assert result.retryable
    assert result.sent
    slow.close()


def test_temperature_is_seeded(engine: ModelEngine) -> None:
    texts = []
    for seed in (1, 1, 2):
        (result,) = engine.generate([ask("Tell me a story.", max_tokens=12, temperature=1.5, seed=seed)])
        assert isinstance(result, Completion)
        texts.append(result.text)
    assert texts[0] == texts[1] != texts[2]


def test_a_file_that_is_no_model_is_a_config_error(home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes((home / "models" / "smollm2-135m.gguf").read_bytes()[:1_000_000])
    with pytest.raises(ConfigError, match="cannot load"):
        create_engine(spec(source=str(broken)), home).load()


def test_close_may_be_called_twice_and_calls_fail_afterwards(home: Path) -> None:
    made = create_engine(spec(), home)
    made.load()
    made.load()
    made.close()
    made.close()
    (result,) = made.generate([ask("hi")])
    assert isinstance(result, ProviderError)
    assert not result.sent
    with pytest.raises(ProviderError, match="not loaded"):
        made.count(["hi"])


def test_a_model_may_be_closed_right_after_its_load(home: Path) -> None:
    """In a process of its own: without the engine's care llama.cpp hangs here for ever."""
    code = """
        import sys
        from pathlib import Path
        from podium.router.types import ModelSpec
        from podium.workers.engines.llamacpp import LlamaCppEngine
        for _ in range(20):
            engine = LlamaCppEngine(ModelSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
            engine.load()
            engine.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), spec().model_dump_json(), str(home)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


def test_a_process_may_end_in_the_middle_of_a_call(home: Path) -> None:
    """Without the engine's care the library aborts the process, and the command's exit code is lost."""
    code = """
        import sys, threading
        from pathlib import Path
        from podium.memory.chat import ChatRequest, Message
        from podium.router.types import ModelSpec
        from podium.workers.engines.llamacpp import LlamaCppEngine
        engine = LlamaCppEngine(ModelSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
        engine.load()
        speaks = threading.Event()
        request = ChatRequest((Message("user", "Tell me a long story."),), max_tokens=400)
        call = lambda: engine.stream(request, lambda piece: speaks.set())
        threading.Thread(target=call, daemon=True).start()
        speaks.wait(60)
        sys.exit(7)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), spec().model_dump_json(), str(home)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 7


def test_closing_ends_a_running_call(home: Path) -> None:
    made = create_engine(spec(), home)
    made.load()
    speaks = threading.Event()
    failed: list[ProviderError] = []

    def call() -> None:
        try:
            made.stream(ask("Tell me a long story.", max_tokens=400), lambda piece: speaks.set())
        except ProviderError as error:
            failed.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert speaks.wait(timeout=60)
    made.close()
    caller.join(timeout=10)
    assert [(error.sent, error.retryable) for error in failed] == [(True, True)]


def test_llama_cpp_says_nothing_and_lets_nobody_in(home: Path) -> None:
    """In a process of its own: the library writes past Python's streams."""
    code = """
        import sys, urllib.error, urllib.request
        from pathlib import Path
        from podium.memory.chat import ChatRequest, Message
        from podium.router.types import ModelSpec
        from podium.workers.engines.llamacpp import LlamaCppEngine
        spec = ModelSpec.model_validate_json(sys.argv[1])
        engine = LlamaCppEngine(spec, Path(sys.argv[2]))
        engine.load()
        engine.generate([ChatRequest((Message("user", "hi"),), max_tokens=3)])
        request = urllib.request.Request(
            engine._server.listening_address + "/v1/chat/completions",
            b'{"messages": [{"role": "user", "content": "hi"}]}',
            {"Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request, timeout=10)
        except urllib.error.HTTPError as error:
            print(error.code)
        engine.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), spec().model_dump_json(), str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "401\n", "")
