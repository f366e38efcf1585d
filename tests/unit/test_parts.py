"""How long a task waits before it is tried again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from podium.orchestrator.parts import Retry


@given(
    backoff=st.floats(0, 3600),
    most=st.floats(0, 3600),
    jitter=st.floats(0, 1),
    failures=st.integers(1, 20),
    chance=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_a_pause_grows_to_its_bound(
    backoff: float, most: float, jitter: float, failures: int, chance: float
) -> None:
    retry = Retry(backoff=backoff, max_backoff=most, jitter=jitter)
    bound = max(backoff, most)
    middle = Retry(backoff=backoff, max_backoff=most, jitter=0).pause(failures, chance)
    assert backoff <= middle <= bound
    assert middle == bound or middle == backoff * 2.0 ** (failures - 1)
    assert middle * (1 - jitter) - 1e-6 <= retry.pause(failures, chance) <= middle * (1 + jitter) + 1e-6


def test_the_defaults_of_a_pause() -> None:
    retry = Retry()
    assert [retry.pause(n, 0.5) for n in (1, 2, 3, 8, 9)] == [0.5, 1, 2, 60, 60]
    assert (retry.pause(2, 0), retry.pause(2, 1)) == (0.75, 1.25)
