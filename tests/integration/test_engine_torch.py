"""The torch engine: a tiny random model for every rule, and SmolLM2 from its GGUF once."""

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
from podium.workers.engines.torch_engine import TorchEngine
from podium.workers.models import pull

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
    "additionalProperties": False,
}


def engine_of(source: str, home: Path = Path(), **changes: Any) -> TorchEngine:
    fields: dict[str, Any] = {
        "name": "tiny",
        "engine": "torch",
        "source": source,
        "price": Price(input=Decimal(1), output=Decimal(1)),
        "context": 256,
        "concurrency": 4,
        "timeout": 60.0,
    }
    made = TorchEngine(ModelSpec(**(fields | changes)), home)
    made.load()
    return made


@pytest.fixture(scope="module")
def tiny() -> Iterator[TorchEngine]:
    made = engine_of("tiny-random")
    yield made
    made.close()


def ask(text: str, **changes: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), **changes)


def whole(results: list[Completion | Exception]) -> list[Completion]:
    for result in results:
        assert isinstance(result, Completion), result
    return [result for result in results if isinstance(result, Completion)]


def test_a_batch_gives_each_request_what_it_gets_alone(tiny: TorchEngine) -> None:
    requests = [
        ask("a", max_tokens=4),
        ask("a longer prompt than the first", max_tokens=12),
        ask("json", max_tokens=80, schema=SCHEMA),
        ask("warm", max_tokens=12, temperature=0.9, seed=5),
    ]
    together = whole(tiny.generate(requests))
    alone = [whole(tiny.generate([request]))[0] for request in requests]
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.usage for c in together] == [c.usage for c in alone]
    assert [c.batch_size for c in together] == [4, 4, 4, 4]
    assert together[0].usage.output_tokens == 4
    assert together[0].finish_reason == "length"
    assert together[1].usage.output_tokens == 12


def test_weights_are_the_same_in_every_load(tiny: TorchEngine) -> None:
    other = engine_of("tiny-random")
    request = ask("same?", max_tokens=16)
    assert whole(other.generate([request]))[0].text == whole(tiny.generate([request]))[0].text
    other.close()


def test_random_weights_still_write_valid_json(tiny: TorchEngine) -> None:
    hot = [ask(f"say {i}", max_tokens=120, schema=SCHEMA, temperature=2.0, seed=i) for i in range(4)]
    results = whole(tiny.generate(hot))
    for result in results:
        assert result.finish_reason == "stop"
        jsonschema.validate(json.loads(result.text), SCHEMA)
    assert len({result.text for result in results}) > 1


def test_seeds_decide_samples(tiny: TorchEngine) -> None:
    requests = [ask("x", max_tokens=12, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    first, second, third = whole(tiny.generate(requests))
    assert first.text == second.text != third.text


def test_a_stream_is_the_same_answer_in_pieces(tiny: TorchEngine) -> None:
    for request in (ask("flow", max_tokens=24), ask("flow", max_tokens=80, schema=SCHEMA)):
        pieces: list[str] = []
        completion = tiny.stream(request, pieces.append)
        assert "".join(pieces) == completion.text == whole(tiny.generate([request]))[0].text
        assert len(pieces) > 3
        assert 0 < completion.first_token_s <= completion.total_s


def test_a_stop_string_ends_its_row_and_is_never_streamed(tiny: TorchEngine) -> None:
    request = ask("json", max_tokens=80, schema=SCHEMA)
    stopped = ask("json", max_tokens=80, schema=SCHEMA, stop=('"ok',))
    long, cut = whole(tiny.generate([request, stopped]))
    assert long.text.startswith(cut.text + '"ok')
    assert cut.finish_reason == "stop"
    pieces: list[str] = []
    assert tiny.stream(stopped, pieces.append).text == "".join(pieces) == cut.text


def test_errors_stay_in_their_places(tiny: TorchEngine) -> None:
    long, bad, good = tiny.generate(
        [ask("x" * 300), ask("hi", schema={"type": "objekt"}), ask("hi", max_tokens=2)]
    )
    assert isinstance(long, ContextTooLong)
    assert not long.sent
    assert isinstance(bad, ProviderError)
    assert not bad.retryable
    assert isinstance(good, Completion)
    assert good.batch_size == 1
    with pytest.raises(ContextTooLong):
        tiny.stream(ask("x" * 300), print)


def test_an_answer_ends_where_the_context_ends(tiny: TorchEngine) -> None:
    (result,) = whole(tiny.generate([ask("x" * 200, max_tokens=500)]))
    assert result.usage.input_tokens + result.usage.output_tokens <= 256
    assert result.finish_reason == "length"


def test_callers_that_wait_together_share_a_batch(tiny: TorchEngine) -> None:
    running, release = threading.Event(), threading.Event()

    def block(piece: str) -> None:
        running.set()
        release.wait(timeout=30)

    blocker = threading.Thread(target=lambda: tiny.stream(ask("first", max_tokens=2), block))
    blocker.start()
    assert running.wait(timeout=30)
    results: list[Completion] = []

    def call(text: str) -> None:
        results.extend(whole(tiny.generate([ask(text, max_tokens=4)])))

    callers = [threading.Thread(target=call, args=(f"number {i}",)) for i in range(3)]
    for caller in callers:
        caller.start()
    while len(tiny._waiting) < 3:
        release.wait(timeout=0.005)
    release.set()
    for thread in (blocker, *callers):
        thread.join(timeout=30)
    assert [result.batch_size for result in results] == [3, 3, 3]


def test_counting_needs_no_turn_and_adds_no_special_tokens(tiny: TorchEngine) -> None:
    texts = ["", "abc", "Grüße", "a<|im_end|>", "half \ud83d of a pair"]
    counts: list[list[int]] = []
    # the model is held by the stream, whose listener counts from another thread
    counter = threading.Thread(target=lambda: counts.append(tiny.count(texts)))

    def count_now(piece: str) -> None:
        if counter.ident is None:
            counter.start()
            counter.join(timeout=30)

    tiny.stream(ask("x", max_tokens=4), count_now)
    # one token a byte, and one for the special token that the text spells
    assert counts == [[0, 3, 7, 2, 16]]
    assert tiny.count([]) == []
    short, long = whole(tiny.generate([ask("x", max_tokens=1), ask("xGrüße", max_tokens=1)]))
    assert long.usage.input_tokens - short.usage.input_tokens == 7


def test_time_over_ends_the_batch() -> None:
    slow = engine_of("tiny-random", timeout=0.001)
    (result,) = slow.generate([ask("x", max_tokens=200)])
    assert isinstance(result, ProviderError)
    assert result.retryable
    slow.close()


def test_a_process_may_end_in_the_middle_of_a_call() -> None:
    code = """
        import sys, threading
        from pathlib import Path
        from podium.memory.chat import ChatRequest, Message
        from podium.router.types import ModelSpec
        from podium.workers.engines.torch_engine import TorchEngine
        price = {"input": 1, "output": 1}
        made = {"name": "t", "engine": "torch", "source": "tiny-random", "price": price, "context": 8192}
        engine = TorchEngine(ModelSpec.model_validate(made), Path())
        engine.load()
        speaks = threading.Event()
        request = ChatRequest((Message("user", "hi"),), max_tokens=8000)
        call = lambda: engine.stream(request, lambda piece: speaks.set())
        threading.Thread(target=call, daemon=True).start()
        speaks.wait(60)
        sys.exit(7)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 7


def test_closed_and_wrong_sources(tmp_path: Path) -> None:
    made = engine_of("tiny-random")
    made.close()
    made.close()
    (result,) = made.generate([ask("hi")])
    assert isinstance(result, ProviderError)
    assert not result.sent
    with pytest.raises(ProviderError, match="not loaded"):
        made.count(["hi"])
    with pytest.raises(ConfigError, match="cannot load"):
        engine_of(str(tmp_path))
    with pytest.raises(ConfigError, match="neither a pulled model"):
        engine_of("no-such-model", tmp_path)
    with pytest.raises(ConfigError, match="no dtype"):
        engine_of("tiny-random", options={"dtype": "float31"})


def test_a_local_folder_is_loaded(tiny: TorchEngine, tmp_path: Path) -> None:
    assert tiny._loaded is not None
    tiny._loaded.model.save_pretrained(tmp_path)
    tiny._loaded.tokenizer.save_pretrained(tmp_path)
    saved = tmp_path / "tokenizer.json"
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"truncation": cut}))
    request = ask("the same words", max_tokens=16)
    local = engine_of(str(tmp_path))
    assert local.count(["the same words"]) == [14]
    assert whole(local.generate([request]))[0].text == whole(tiny.generate([request]))[0].text
    local.close()


def test_smollm2_from_its_gguf(capfd: pytest.CaptureFixture[str]) -> None:
    home = Path(os.environ.get("PODIUM_TEST_MODELS") or Path.home() / ".cache" / "podium-tests")
    pull("smollm2-135m", home)
    engine = engine_of("smollm2-135m", home, context=512)
    chat, data = whole(
        engine.generate(
            [
                ask("What is the capital of France?", max_tokens=16),
                ask("Bob is fine. Answer in JSON.", max_tokens=60, schema=SCHEMA),
            ]
        )
    )
    assert "Paris" in chat.text
    assert engine.count(["Hello world", ""]) == [2, 0]
    jsonschema.validate(json.loads(data.text), SCHEMA)
    pieces: list[str] = []
    streamed = engine.stream(ask("What is the capital of France?", max_tokens=16), pieces.append)
    assert streamed.text == chat.text == "".join(pieces)
    engine.close()
    assert capfd.readouterr() == ("", "")
