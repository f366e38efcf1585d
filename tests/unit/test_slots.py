"""The waiting line of one model, with a link that answers when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from podium.memory.chat import ChatRequest, Completion, Usage
from podium.memory.errors import ClusterError, ConfigError, ProviderError
from podium.workers import slots as slots_module
from podium.workers.answers import WorkerLost, batch_label
from podium.workers.slots import Slots
from podium.workers.testing import ask, echo_spec

LABEL = "run/1 task/a model=echo"


class FakeLink:
    """Holds each batch until `let_go`."""

    device = "cpu"
    pid = 1

    def __init__(self, worker: str, *, held: bool = False) -> None:
        self.worker = worker
        self.batches: list[list[str]] = []
        self.labels: list[str] = []
        self.prepared = 0
        self.prepare_error: Exception | None = None
        self.send_error: Exception | None = None
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    async def prepare(self) -> None:
        self.prepared += 1
        await asyncio.sleep(0)
        if self.prepare_error is not None:
            raise self.prepare_error

    async def generate(self, requests: Sequence[ChatRequest], label: str) -> Sequence[Completion | Exception]:
        self.batches.append([r.messages[-1].content for r in requests])
        self.labels.append(label)
        await self.gate.wait()
        if self.send_error is not None:
            raise self.send_error
        return [_answer(r) for r in requests]

    async def stream(self, request: ChatRequest, label: str, emit: Callable[[str], None]) -> Completion:
        self.batches.append([request.messages[-1].content])
        emit("one")
        await self.gate.wait()
        emit(" two")
        return _answer(request)


def _answer(request: ChatRequest) -> Completion | Exception:  # type: ignore[return]
    text = request.messages[-1].content
    if text == "bad":
        return ProviderError("bad")
    return Completion(text=text.upper(), model="echo", usage=Usage(1, 1))


async def _turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _submit(slots: Slots, *texts: str, **more) -> list[asyncio.Task[Completion]]:
    return [asyncio.create_task(slots.submit(ask(text), LABEL, **more)) for text in texts]


async def test_requests_that_wait_together_leave_as_one_batch_of_at_most_the_free_slots():
    link = FakeLink("echo:0")
    slots = Slots(echo_spec(concurrency=4), [link])
    answers = await asyncio.gather(*_submit(slots, *"abcdef"))
    assert [a.text for a in answers] == list("ABCDEF")
    assert link.batches == [["a", "b", "c", "d"], ["e", "f"]]
    assert [a.batch_size for a in answers] == [4, 4, 4, 4, 2, 2]
    assert {a.worker for a in answers} == {"echo:0"}
    assert link.prepared == 1


async def test_free_slots_are_used_while_another_batch_runs():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(concurrency=3), [link])
    first = _submit(slots, "a")
    await _turns()
    rest = _submit(slots, "b", "c", "d")
    await _turns()
    assert link.batches == [["a"], ["b", "c"]]
    assert (slots.status()[0].running, slots.status()[0].waiting) == (3, 1)
    link.gate.set()
    await asyncio.gather(*first, *rest)
    assert link.batches[2] == ["d"]
    assert slots.status()[0].calls == 4


async def test_torch_takes_one_batch_at_a_time_and_an_endpoint_single_requests():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(engine="torch", concurrency=4), [link])
    first = _submit(slots, "a")
    await _turns()
    rest = _submit(slots, "b", "c")
    await _turns()
    assert link.batches == [["a"]]
    link.gate.set()
    await asyncio.gather(*first, *rest)
    assert link.batches == [["a"], ["b", "c"]]

    remote = FakeLink("echo:0")
    await asyncio.gather(*_submit(Slots(echo_spec(engine="openai", concurrency=4), [remote]), "a", "b"))
    assert remote.batches == [["a"], ["b"]]


async def test_replicas_share_what_waits_and_the_least_loaded_is_taken():
    links = [FakeLink(f"echo:{i}", held=True) for i in range(2)]
    slots = Slots(echo_spec(concurrency=4), links)
    await slots.start()
    tasks = _submit(slots, "a", "b", "c", "d")
    await _turns()
    assert [link.batches for link in links] == [[["a", "b"]], [["c", "d"]]]
    links[1].gate.set()
    await _turns()
    tasks += _submit(slots, "e")
    await _turns()
    assert links[1].batches[-1] == ["e"]
    links[0].gate.set()
    await asyncio.gather(*tasks)


async def test_a_second_replica_is_started_only_when_the_line_needs_it():
    links = [FakeLink(f"echo:{i}") for i in range(2)]
    slots = Slots(echo_spec(concurrency=2), links)
    await asyncio.gather(*_submit(slots, "a", "b"))
    assert [link.prepared for link in links] == [1, 0]
    await asyncio.gather(*_submit(slots, "a", "b", "c", "d", "e"))
    assert links[1].prepared == 1


async def test_on_dispatch_is_told_the_worker_before_the_batch_leaves():
    link = FakeLink("echo:0")
    slots = Slots(echo_spec(), [link])
    seen: list[tuple[str, int]] = []

    async def record(worker: str) -> None:
        await asyncio.sleep(0)
        seen.append((worker, len(link.batches)))

    await asyncio.gather(*_submit(slots, "a", "b", on_dispatch=record))
    assert seen == [("echo:0", 0), ("echo:0", 0)]
    assert link.batches == [["a", "b"]]


async def test_a_raising_on_dispatch_removes_just_its_request():
    link = FakeLink("echo:0")
    slots = Slots(echo_spec(concurrency=2), [link])

    async def refuse(worker: str) -> None:
        raise ConfigError("no money")

    good, bad = _submit(slots, "a")[0], _submit(slots, "b", on_dispatch=refuse)[0]
    with pytest.raises(ConfigError, match="no money"):
        await bad
    assert (await good).text == "A"
    assert link.batches == [["a"]]
    assert slots.status()[0].running == 0


async def test_an_on_dispatch_that_hangs_gives_its_slot_back(monkeypatch):
    monkeypatch.setattr(slots_module, "DISPATCH_TIMEOUT_S", 0.01)
    slots = Slots(echo_spec(concurrency=1), [FakeLink("echo:0")])
    never = asyncio.Event()

    async def hang(worker: str) -> None:
        await never.wait()

    with pytest.raises(ProviderError, match="could not be recorded") as caught:
        await slots.submit(ask("a"), LABEL, hang)
    assert not caught.value.sent
    assert (await slots.submit(ask("b"), LABEL)).text == "B"


async def test_cancelling_a_waiting_request_gives_back_its_place():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(concurrency=1), [link])
    running, waiting, last = _submit(slots, "a", "b", "c")
    await _turns()
    waiting.cancel()
    await _turns()
    assert slots.status()[0].waiting == 1
    link.gate.set()
    assert (await running).text == "A"
    assert (await last).text == "C"
    assert link.batches == [["a"], ["c"]]


async def test_cancelling_between_grant_and_dispatch_gives_back_the_slot():
    link = FakeLink("echo:0")
    slots = Slots(echo_spec(concurrency=1), [link])
    asked = asyncio.Event()

    async def slow(worker: str) -> None:
        asked.set()
        await asyncio.Event().wait()

    (task,) = _submit(slots, "a", on_dispatch=slow)
    await asked.wait()
    task.cancel()
    assert (await slots.submit(ask("b"), LABEL)).text == "B"
    assert link.batches == [["b"]]


async def test_a_cancelled_running_request_keeps_its_slot_until_the_engine_is_done():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(concurrency=1), [link])
    running, waiting = _submit(slots, "a", "b")
    await _turns()
    running.cancel()
    await _turns()
    assert slots.status()[0].running == 1
    assert link.batches == [["a"]]
    link.gate.set()
    assert (await waiting).text == "B"
    assert running.cancelled()


async def test_a_failing_request_fails_alone():
    slots = Slots(echo_spec(), [FakeLink("echo:0")])
    good, bad = _submit(slots, "a", "bad")
    with pytest.raises(ProviderError, match="bad"):
        await bad
    assert (await good).text == "A"


async def test_a_bug_in_an_engine_becomes_a_provider_error():
    link = FakeLink("echo:0")
    link.send_error = ValueError("shape")
    slots = Slots(echo_spec(), [link])
    with pytest.raises(ProviderError, match="ValueError: shape") as caught:
        await slots.submit(ask("a"), LABEL)
    assert caught.value.sent
    assert not caught.value.retryable


async def test_a_failed_start_is_told_to_all_who_wait_and_tried_again_at_the_next_call():
    link = FakeLink("echo:0")
    link.prepare_error = ConfigError("no file")
    slots = Slots(echo_spec(concurrency=1), [link])
    results = await asyncio.gather(*_submit(slots, "a", "b", "c"), return_exceptions=True)
    assert results == [link.prepare_error] * 3
    assert link.prepared == 1
    assert (slots.status()[0].state, slots.status()[0].error) == ("failed", "no file")
    link.prepare_error = None
    assert (await slots.submit(ask("d"), LABEL)).text == "D"
    assert slots.status()[0].state == "ready"


async def test_one_replica_that_does_not_start_leaves_the_work_to_the_other():
    links = [FakeLink(f"echo:{i}") for i in range(2)]
    links[0].prepare_error = ClusterError("no node")
    slots = Slots(echo_spec(concurrency=1), links)
    answers = await asyncio.gather(*_submit(slots, "a", "b", "c"))
    assert {a.worker for a in answers} == {"echo:1"}
    with pytest.raises(ClusterError, match="no node"):
        await slots.start()


async def test_a_lost_worker_fails_its_calls_as_sent_and_is_prepared_again():
    link = FakeLink("echo:0")
    link.send_error = WorkerLost("killed")
    slots = Slots(echo_spec(), [link])
    with pytest.raises(ProviderError, match="killed") as caught:
        await slots.submit(ask("a"), LABEL)
    assert caught.value.retryable
    assert caught.value.sent
    assert slots.status()[0].state == "stopped"
    link.send_error = None
    assert (await slots.submit(ask("b"), LABEL)).text == "B"
    assert link.prepared == 2


async def test_a_call_that_takes_too_long_is_given_up_as_sent():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(timeout=0.01), [link])
    with pytest.raises(ProviderError, match="no answer") as caught:
        await slots.submit(ask("a"), LABEL)
    assert caught.value.sent
    assert slots.status()[0].running == 1


async def test_a_line_that_does_not_move_is_given_up_as_not_sent(monkeypatch):
    monkeypatch.setattr(slots_module, "DISPATCH_TIMEOUT_S", 0.01)
    slots = Slots(echo_spec(timeout=0.01, concurrency=1), [FakeLink("echo:0", held=True)])
    first, second = _submit(slots, "a", "b")
    with pytest.raises(ProviderError, match="no answer"):
        await first
    with pytest.raises(ProviderError, match="no slot") as caught:
        await second
    assert not caught.value.sent


async def test_streams_yield_pieces_as_they_come_and_end_with_the_completion():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(), [link])
    stream = slots.stream(ask("a"), LABEL)
    assert (await anext(stream)).text == "one"
    link.gate.set()
    chunks = [chunk async for chunk in stream]
    assert [c.text for c in chunks] == [" two", ""]
    completion = chunks[-1].completion
    assert completion is not None
    assert completion.text == "A"
    assert 0 < completion.first_token_s <= completion.total_s


async def test_a_stream_that_is_left_early_drops_the_rest():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(concurrency=1), [link])
    stream = slots.stream(ask("a"), LABEL)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    link.gate.set()
    assert (await slots.submit(ask("b"), LABEL)).text == "B"


async def test_close_refuses_what_waits_and_what_comes_and_lets_running_calls_finish():
    link = FakeLink("echo:0", held=True)
    slots = Slots(echo_spec(concurrency=1), [link])
    running, waiting = _submit(slots, "a", "b")
    await _turns()
    closing = asyncio.create_task(slots.close())
    with pytest.raises(ProviderError, match="closed") as caught:
        await waiting
    assert not caught.value.sent
    link.gate.set()
    assert (await running).text == "A"
    await closing
    with pytest.raises(ProviderError, match="closed"):
        await slots.submit(ask("c"), LABEL)
    await slots.close()
    assert slots.status()[0].state == "stopped"


async def test_close_lets_go_of_calls_that_do_not_end(monkeypatch):
    monkeypatch.setattr(slots_module, "CLOSE_GRACE_S", 0.01)
    slots = Slots(echo_spec(), [FakeLink("echo:0", held=True)])
    (running,) = _submit(slots, "a")
    await _turns()
    await slots.close()
    with pytest.raises(ProviderError, match="closed") as caught:
        await running
    assert caught.value.sent


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ([LABEL], LABEL),
        ([LABEL, LABEL], LABEL),
        ([LABEL, "run/1 task/b model=echo"], "run/1 2 calls model=echo"),
        ([LABEL, "run/2 task/b model=echo"], "2 calls model=echo"),
    ],
)
def test_a_batch_is_named_by_what_its_calls_have_in_common(labels, shown):
    assert batch_label(labels, "echo") == shown
