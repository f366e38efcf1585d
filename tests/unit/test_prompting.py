"""A thread that has tokens counted by a pool does not outwait the pool's event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest
from podium.memory.errors import PodiumError
from podium.orchestrator import prompting


def test_a_loop_that_ended_answers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompting, "LOOK_S", 0.01)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    never: Future[list[int]] = Future()
    loop.call_soon_threadsafe(loop.stop)
    with pytest.raises(PodiumError, match="engine ended"):
        prompting.counted(never, loop)
    thread.join()
    loop.close()


def test_what_the_count_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    late: Future[list[int]] = Future()
    late.set_exception(TimeoutError("the worker is slow"))
    loop = asyncio.new_event_loop()
    with pytest.raises(TimeoutError, match="slow"):
        prompting.counted(late, loop)
    loop.close()
