"""What every pool does, run over both."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from podium.memory.errors import ConfigError, ContextTooLong, NotFound, ProviderError
from podium.router.types import ModelSpec, Resources
from podium.workers.contract import Pool
from podium.workers.host import EngineHost
from podium.workers.local import Counts, LocalPool
from podium.workers.testing import ECHO, EchoEngine, ask, echo_spec

LABEL = "run/1 task/a model=echo"
_numbers = itertools.count()

MakePool = Callable[..., Pool]


def spec_of(**changes) -> ModelSpec:
    """A spec of its own name, so that no test meets another's actors."""
    return echo_spec(f"echo-{next(_numbers)}", resources=Resources(cpus=0.1), **changes)


@pytest.fixture(params=["local", "ray"])
async def make_pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakePool]:
    pools: list[Pool] = []

    def make(*specs: ModelSpec) -> Pool:
        if request.param == "local":
            pools.append(LocalPool(specs, tmp_path, ECHO))
        else:
            request.getfixturevalue("ray_head")
            from podium.workers.ray_pool import RayPool

            pools.append(RayPool(specs, tmp_path, ECHO))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


async def test_an_answer_tells_who_gave_it_and_what_it_took(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    answer = await pool.generate(spec.name, ask("two words"), label=LABEL)
    assert answer.text == "echo: two words"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 3)
    assert (answer.model, answer.worker, answer.batch_size) == (spec.name, f"{spec.name}:0", 1)
    assert answer.total_s > 0
    assert list(pool.specs) == [spec.name]


async def test_requests_that_wait_together_run_as_one_batch_within_the_concurrency(make_pool: MakePool):
    spec = spec_of(concurrency=4)
    pool = make_pool(spec)
    calls = [pool.generate(spec.name, ask(f"n{i}"), label=LABEL) for i in range(6)]
    answers = await asyncio.gather(*calls)
    assert [a.text for a in answers] == [f"echo: n{i}" for i in range(6)]
    assert [a.batch_size for a in answers] == [4, 4, 4, 4, 2, 2]
    assert (await pool.generate(spec.name, ask("!batches"), label=LABEL)).text == "4 2 1"


async def test_a_stream_comes_word_by_word_and_ends_with_the_completion(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    chunks = [chunk async for chunk in pool.stream(spec.name, ask("one two three"), label=LABEL)]
    assert [c.text for c in chunks[:-1]] == ["echo:", " one", " two", " three"]
    last = chunks[-1].completion
    assert last is not None
    assert last.text == "echo: one two three"
    assert last.worker == f"{spec.name}:0"
    assert 0 < last.first_token_s <= last.total_s


async def test_a_stream_that_breaks_raises_after_its_pieces(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    seen: list[str] = []

    async def listen() -> None:
        async for chunk in pool.stream(spec.name, ask("a !cut b"), label=LABEL):
            seen.append(chunk.text)

    with pytest.raises(ProviderError, match="cut"):
        await listen()
    assert "".join(seen) == "echo: a !cut"
    assert (await pool.generate(spec.name, ask("b"), label=LABEL)).text == "echo: b"


async def test_on_dispatch_is_awaited_with_the_worker_for_calls_and_streams(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    workers: list[str] = []

    async def record(worker: str) -> None:
        workers.append(worker)

    await pool.generate(spec.name, ask("a"), label=LABEL, on_dispatch=record)
    assert [c async for c in pool.stream(spec.name, ask("a"), label=LABEL, on_dispatch=record)]
    assert workers == [f"{spec.name}:0"] * 2


async def test_a_raising_on_dispatch_sends_nothing_and_takes_no_slot(make_pool: MakePool):
    spec = spec_of(concurrency=2)
    pool = make_pool(spec)

    async def refuse(worker: str) -> None:
        raise ConfigError("no money")

    refused = pool.generate(spec.name, ask("a"), label=LABEL, on_dispatch=refuse)
    kept = pool.generate(spec.name, ask("b"), label=LABEL)
    results = await asyncio.gather(refused, kept, return_exceptions=True)
    assert isinstance(results[0], ConfigError)
    assert (await pool.generate(spec.name, ask("!batches"), label=LABEL)).text == "1 1"
    assert (await pool.status())[0].running == 0


async def test_errors_keep_their_kind_and_say_whether_the_request_was_sent(make_pool: MakePool):
    spec = spec_of(context=64)
    pool = make_pool(spec)
    good, failed, refused, long = await asyncio.gather(
        pool.generate(spec.name, ask("a"), label=LABEL),
        pool.generate(spec.name, ask("!fail now"), label=LABEL),
        pool.generate(spec.name, ask("!refuse"), label=LABEL),
        pool.generate(spec.name, ask("w " * 65), label=LABEL),
        return_exceptions=True,
    )
    assert not isinstance(good, BaseException)
    assert isinstance(failed, ProviderError)
    assert (failed.message, failed.mend) == ("failed as the prompt says: now", "try again")
    assert (failed.retryable, failed.sent) == (True, True)
    assert isinstance(refused, ProviderError)
    assert (refused.retryable, refused.sent) == (False, False)
    assert isinstance(long, ContextTooLong)


async def test_a_bug_in_an_engine_is_a_provider_error_that_names_it(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    with pytest.raises(ProviderError, match="RuntimeError: broken as the prompt says: x") as caught:
        await pool.generate(spec.name, ask("!broken x"), label=LABEL)
    assert not caught.value.retryable


async def test_a_model_is_loaded_at_its_first_call_and_only_once(make_pool: MakePool, tmp_path: Path):
    source = tmp_path / "model"
    source.touch()
    spec = spec_of(source=str(source), concurrency=1)
    pool = make_pool(spec)
    assert [(s.state, s.calls) for s in await pool.status()] == [("stopped", 0)]
    assert source.read_text() == ""
    await asyncio.gather(*(pool.generate(spec.name, ask("a"), label=LABEL) for _ in range(3)))
    assert source.read_text() == "load\n"
    (row,) = await pool.status()
    assert (row.state, row.device, row.calls, row.running, row.waiting) == ("ready", "cpu", 3, 0, 0)
    assert row.pid is not None


async def test_a_failing_load_is_told_to_all_who_wait_and_tried_again_later(
    make_pool: MakePool, tmp_path: Path
):
    source = tmp_path / "model"
    spec = spec_of(source=str(source), concurrency=1)
    pool = make_pool(spec)
    calls = [pool.generate(spec.name, ask("a"), label=LABEL) for _ in range(3)]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, ConfigError)
        assert error.mend == f"create {source}"
    source.touch()
    assert (await pool.generate(spec.name, ask("a"), label=LABEL)).text == "echo: a"


async def test_replicas_are_listed_and_share_the_work(make_pool: MakePool, tmp_path: Path):
    spec = spec_of(replicas=2, concurrency=1)
    pool = make_pool(spec)
    held = tmp_path / "go"
    both = asyncio.Barrier(3)

    async def meet(worker: str) -> None:
        await both.wait()

    calls = [
        asyncio.create_task(pool.generate(spec.name, ask(f"!stall {held}"), label=LABEL, on_dispatch=meet))
        for _ in range(2)
    ]
    await both.wait()
    assert [row.running for row in await pool.status()] == [1, 1]
    held.touch()
    workers = {(await call).worker for call in calls}
    assert workers == {f"{spec.name}:0", f"{spec.name}:1"}


async def test_a_cancelled_call_does_not_disturb_the_next(make_pool: MakePool, tmp_path: Path):
    spec = spec_of(concurrency=1)
    pool = make_pool(spec)
    held = tmp_path / "go"
    sent = asyncio.Event()

    async def tell(worker: str) -> None:
        sent.set()

    call = asyncio.create_task(pool.generate(spec.name, ask(f"!stall {held}"), label=LABEL, on_dispatch=tell))
    await sent.wait()
    call.cancel()
    following = asyncio.create_task(pool.generate(spec.name, ask("b"), label=LABEL))
    held.touch()
    assert (await following).text == "echo: b"
    assert call.cancelled()


async def test_schemas_and_token_limits_reach_the_engine(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert (await pool.generate(spec.name, ask("x", schema=schema), label=LABEL)).text == '{"n": 0}'
    cut = await pool.generate(spec.name, ask("a b c", max_tokens=2), label=LABEL)
    assert (cut.text, cut.finish_reason) == ("echo: a", "length")


async def test_tokens_are_counted_by_a_model_that_is_loaded_for_it_and_is_then_ready(
    make_pool: MakePool, tmp_path: Path
):
    source = tmp_path / "model"
    spec = spec_of(source=str(source), replicas=2)
    pool = make_pool(spec)
    with pytest.raises(ConfigError) as caught:
        await pool.count(spec.name, ["a"])
    assert caught.value.mend == f"create {source}"
    source.touch()
    assert await pool.count(spec.name, ["one two", "", "one", "one two"]) == [2, 0, 1, 2]
    assert await pool.count(spec.name, []) == []
    assert source.read_text() == "load\n"
    states = [(row.state, row.calls, row.running) for row in await pool.status()]
    assert states == [("ready", 0, 0), ("stopped", 0, 0)]
    assert (await pool.generate(spec.name, ask("a"), label=LABEL)).worker == f"{spec.name}:0"
    assert source.read_text() == "load\n"


async def test_counting_takes_no_slot_and_waits_for_no_call(make_pool: MakePool, tmp_path: Path):
    spec = spec_of(concurrency=1)
    pool = make_pool(spec)
    held = tmp_path / "go"
    sent = asyncio.Event()

    async def tell(worker: str) -> None:
        sent.set()

    calls = [
        asyncio.create_task(pool.generate(spec.name, ask(f"!stall {held}"), label=LABEL, on_dispatch=tell)),
        asyncio.create_task(pool.generate(spec.name, ask("waits"), label=LABEL)),
    ]
    await sent.wait()
    counts = await asyncio.gather(*(pool.count(spec.name, ["w " * n]) for n in range(40)))
    assert counts == [[n] for n in range(40)]
    assert not any(call.done() for call in calls)
    assert not held.exists()
    held.touch()
    assert (await calls[0]).text.startswith("echo")
    assert (await calls[1]).text == "echo: waits"


async def test_a_bug_in_a_tokenizer_is_a_provider_error_that_names_it(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    with pytest.raises(ProviderError, match="RuntimeError: broken as the text says"):
        await pool.count(spec.name, ["a", "!broken"])
    assert await pool.count(spec.name, ["a"]) == [1]


async def test_counts_are_asked_for_once_and_the_one_used_longest_ago_is_forgotten():
    asked: list[list[str]] = []

    async def ask_lengths(texts: list[str]) -> list[int]:
        asked.append(texts)
        return [len(text) for text in texts]

    counts = Counts(kept=2)
    assert await counts.of("m", ["a", "bb", "a"], ask_lengths) == [1, 2, 1]
    assert await counts.of("m", ["a"], ask_lengths) == [1]
    assert await counts.of("other", ["a"], ask_lengths) == [1]
    assert await counts.of("m", ["a", "bb"], ask_lengths) == [1, 2]
    assert await counts.of("m", ["x", "yy", "zzz"], ask_lengths) == [1, 2, 3]
    assert asked == [["a", "bb"], ["a"], ["bb"], ["x", "yy", "zzz"]]


class SlowEngine(EchoEngine):
    """Loads when it is let."""

    go = threading.Event()
    loads: int = 0

    def load(self) -> None:
        SlowEngine.loads += 1
        assert self.go.wait(30)
        super().load()


def create_slow(spec: ModelSpec, home: Path) -> SlowEngine:
    return SlowEngine(spec)


async def test_one_load_serves_those_who_wait_for_it_in_several_event_loops(tmp_path: Path):
    host = EngineHost(spec_of(), tmp_path, f"{__name__}:create_slow")
    here = asyncio.create_task(host.count(["a b"]))
    await asyncio.sleep(0)

    async def elsewhere() -> list[int]:
        there = asyncio.create_task(host.count(["a b c"]))
        await asyncio.sleep(0)
        SlowEngine.go.set()
        return await asyncio.wait_for(there, 20)

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == [3]
    assert await here == [2]
    assert SlowEngine.loads == 1
    await host.close()


async def test_an_unknown_model_is_not_found_and_the_nearest_named(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    with pytest.raises(NotFound, match=f"did you mean {spec.name}"):
        await pool.generate(spec.name + "x", ask("a"), label=LABEL)
    with pytest.raises(NotFound, match=f"did you mean {spec.name}"):
        await pool.count(spec.name + "x", ["a"])
    with pytest.raises(NotFound):
        pool.stream("nothing alike", ask("a"), label=LABEL)


async def test_a_closed_pool_refuses_and_can_be_closed_again(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    await pool.generate(spec.name, ask("a"), label=LABEL)
    await pool.close()
    with pytest.raises(ProviderError, match="closed") as caught:
        await pool.generate(spec.name, ask("a"), label=LABEL)
    assert not caught.value.sent
    with pytest.raises(ProviderError, match="closed"):
        await pool.count(spec.name, ["a"])
    await pool.close()
    assert [row.state for row in await pool.status()] == ["stopped"]


async def test_where_the_engine_runs(make_pool: MakePool):
    spec = spec_of()
    pool = make_pool(spec)
    pid = int((await pool.generate(spec.name, ask("!pid"), label=LABEL)).text)
    assert (pid == os.getpid()) == (pool.kind == "local")
