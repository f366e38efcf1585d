"""The replay engine: recorded answers, matched and priced as recorded."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from podium.memory.chat import ChatRequest, Completion, Message, Usage
from podium.memory.errors import ConfigError, ContextTooLong, ProviderError
from podium.router.types import ModelSpec, Price
from podium.workers.engines.factory import create_engine
from podium.workers.engines.replay import ReplayEngine, record_row

FREE = Price(input=Decimal(0), output=Decimal(0))


def engine(folder: Path, *rows: dict[str, Any], **changes: Any) -> ReplayEngine:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    fields: dict[str, Any] = {
        "name": "gpt",
        "engine": "replay",
        "source": str(path),
        "price": Price(input=Decimal(1), output=Decimal(2)),
    }
    made = create_engine(ModelSpec(**(fields | changes)), folder)
    assert isinstance(made, ReplayEngine)
    made.load()
    return made


def row(text: str, **key: Any) -> dict[str, Any]:
    return {"text": text, "input_tokens": 10, "output_tokens": 3, **key}


def ask(text: str, **changes: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), **changes)


def only(results: list[Completion | Exception]) -> Completion:
    (result,) = results
    assert isinstance(result, Completion), result
    return result


def test_exact_prompt_wins_over_match_and_default(tmp_path: Path) -> None:
    made = engine(
        tmp_path,
        row("rule", match="invoice"),
        row("second rule", match="invoice 7"),
        row("exact", prompt="the invoice 7"),
        row("else", default=True),
    )
    assert only(made.generate([ask("the invoice 7")])).text == "exact"
    assert only(made.generate([ask("an invoice 7")])).text == "rule"
    assert only(made.generate([ask("hello")])).text == "else"


def test_roles_are_part_of_the_key_and_the_later_row_holds(tmp_path: Path) -> None:
    messages = (Message("system", "be brief"), Message("user", "hi"))
    said = [{"role": m.role, "content": m.content} for m in messages]
    made = engine(tmp_path, row("old", messages=said), row("new", messages=said), row("bare", prompt="hi"))
    assert only(made.generate([ChatRequest(messages)])).text == "new"
    assert only(made.generate([ask("hi")])).text == "bare"


def test_cost_tokens_and_latency_are_the_recorded_ones(tmp_path: Path) -> None:
    made = engine(tmp_path, row("a", prompt="a", cost_usd=0.0015, latency_s=2.5), row("b", prompt="b"))
    first, second = made.generate([ask("a"), ask("b")])
    assert isinstance(first, Completion)
    assert isinstance(second, Completion)
    assert first.billed_nano == 1_500_000
    assert first.usage == Usage(10, 3)
    assert (first.total_s, first.batch_size) == (2.5, 2)
    assert second.billed_nano is None


def test_a_missing_recording_is_final_and_names_the_prompt(tmp_path: Path) -> None:
    made = engine(tmp_path, row("a", prompt="a"))
    ok, missing = made.generate([ask("a"), ask("never heard")])
    assert isinstance(ok, Completion)
    assert isinstance(missing, ProviderError)
    assert not missing.retryable
    assert not missing.sent
    assert "never heard" in missing.message
    assert "record_row" in missing.mend
    with pytest.raises(ProviderError, match="never heard"):
        made.stream(ask("never heard"), print)


def test_an_answer_never_passes_the_calls_limits(tmp_path: Path) -> None:
    made = engine(tmp_path, row("long", prompt="a", finish_reason="length"), context=64)
    (refused,) = made.generate([ask("a", max_tokens=2)])
    assert isinstance(refused, ProviderError)
    assert not refused.sent
    big = engine(tmp_path, {"prompt": "a", "text": "x", "input_tokens": 64, "output_tokens": 1}, context=64)
    assert isinstance(big.generate([ask("a")])[0], ContextTooLong)


def test_stream_gives_the_whole_text_in_pieces(tmp_path: Path) -> None:
    made = engine(tmp_path, row("Hello  big\nworld ", prompt="a"))
    pieces: list[str] = []
    completion = made.stream(ask("a"), pieces.append)
    assert "".join(pieces) == completion.text == "Hello  big\nworld "
    assert len(pieces) == 4


def test_latency_is_slept_only_when_asked_and_bounded_by_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("podium.workers.engines.replay.time.sleep", slept.append)
    rows = (row("a", prompt="a", latency_s=2.0), row("b", prompt="b", latency_s=9.0))
    engine(tmp_path, *rows).generate([ask("a")])
    assert slept == []
    made = engine(tmp_path, *rows, options={"latency": True}, timeout=5)
    first, late = made.generate([ask("a"), ask("b")])
    assert slept == [5.0]
    assert isinstance(first, Completion)
    assert isinstance(late, ProviderError)
    assert late.retryable


def test_record_row_replays_what_was_answered(tmp_path: Path) -> None:
    request = ChatRequest((Message("system", "s"), Message("user", "q")))
    answer = Completion("it is 4", "gpt", Usage(12, 4), total_s=1.25, billed_nano=700)
    made = engine(tmp_path, record_row(request, answer))
    replayed = only(made.generate([request]))
    assert (replayed.text, replayed.usage, replayed.billed_nano) == (answer.text, answer.usage, 700)
    assert replayed.total_s == 1.25


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "JSON"),
        ('{"text": "a", "input_tokens": 1, "output_tokens": 1}', "exactly one of"),
        ('{"prompt": "a", "text": "a", "input_tokens": -1, "output_tokens": 1}', "input_tokens"),
        ('{"promt": "a", "text": "a", "input_tokens": 1, "output_tokens": 1}', "promt"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, line: str, said: str) -> None:
    engine(tmp_path, row("a", prompt="a"))
    path = tmp_path / "answers.jsonl"
    path.write_text(path.read_text().rstrip() + "\n" + line + "\n")
    spec = ModelSpec(name="r", engine="replay", source=str(path), price=FREE)
    with pytest.raises(ConfigError, match="line 2") as caught:
        create_engine(spec, tmp_path).load()
    assert said in str(caught.value)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    spec = ModelSpec(
        name="r",
        engine="replay",
        source=str(tmp_path / "no"),
        price=FREE,
    )
    with pytest.raises(ConfigError, match="cannot read the recording"):
        create_engine(spec, tmp_path).load()
