"""A serving engine's share of the open runs, as pure logic under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from podium.memory.engines import EngineRecord, OpenRun
from podium.orchestrator import leases, sharing
from podium.orchestrator.leases import Watch
from podium.orchestrator.sharing import Share, fair_share


def run(name: str, **changes: Any) -> OpenRun:
    fields: dict[str, Any] = {"priority": 0, "created_at": 0.0, "engine": None, "epoch": 0, "beat": 0}
    return OpenRun(**({"id": name, "detached": True} | fields | changes))


def queued(count: int) -> list[OpenRun]:
    return [run(f"r{number}") for number in range(count)]


def names(runs: Iterable[OpenRun]) -> list[str]:
    return [r.id for r in runs]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    return now


def share(tmp_path: Path, capacity: int = 100) -> Share:
    return Share("h.p.me", Watch(tmp_path), capacity)


@pytest.mark.parametrize(
    ("capacity", "others", "runs", "expected"),
    [
        (100, [], 30, 30),
        (5, [], 30, 5),
        (100, [100, 100], 30, 10),
        (100, [100, 100], 31, 11),
        (100, [2, 100], 30, 14),  # what the small one cannot take, the two others share
        (100, [0], 7, 7),
        (2, [100], 30, 2),
        (100, [1, 1, 1], 3, 1),
        (100, [100], 0, 0),
    ],
)
def test_the_fair_share(capacity: int, others: list[int], runs: int, expected: int) -> None:
    assert fair_share(capacity, others, runs) == expected


def test_all_shares_together_are_enough(tmp_path: Path) -> None:
    """No run is left over that some engine has room for."""
    for runs in range(40):
        for capacities in ([3, 5, 50], [1, 1, 100], [7, 7, 7], [10]):
            shares = [
                fair_share(own, [c for j, c in enumerate(capacities) if j != i], runs)
                for i, own in enumerate(capacities)
            ]
            assert sum(shares) >= min(runs, sum(capacities))
            assert all(s <= c for s, c in zip(shares, capacities, strict=True))


def test_alone_it_takes_all_up_to_its_capacity_in_the_order_given(tmp_path: Path, clock: list[float]) -> None:
    assert names(share(tmp_path).choose(queued(30), [], ()).take) == names(queued(30))
    assert names(share(tmp_path, 4).choose(queued(30), [], ("x", "y")).take) == ["r0", "r1"]


def test_beside_living_engines_it_takes_its_share_and_gives_nothing_up(
    tmp_path: Path, clock: list[float]
) -> None:
    mine = share(tmp_path)
    others = [EngineRecord("h.p.me", 1, 100), EngineRecord("h.q.a", 1, 100), EngineRecord("h.q.b", 1, 100)]
    assert len(mine.choose(queued(30), others, ()).take) == 10
    theirs = [run(f"t{n}", engine="h.q.a", epoch=1) for n in range(10)]
    assert len(mine.choose(queued(20) + theirs, others, ()).take) == 10
    has = [f"m{n}" for n in range(15)]  # from a time when it was alone
    choice = mine.choose([run(n, engine="h.p.me") for n in has] + queued(5), others, has)
    assert (choice.take, choice.dead) == ([], [])


def test_a_dead_engine_frees_its_share_and_its_runs(tmp_path: Path, clock: list[float]) -> None:
    mine = share(tmp_path)
    others = [EngineRecord("h.q.a", 1, 100)]
    runs = [run("theirs", engine="h.q.a", epoch=1), *queued(9)]
    assert len(mine.choose(runs, others, ()).take) == 5
    for _ in range(int(leases.LEASE)):
        clock[0] += 1
        mine.choose(runs, others, ())
    choice = mine.choose(runs, others, ())
    assert names(choice.take) == names(runs)
    assert choice.dead == ["h.q.a"]


def test_runs_of_engines_that_do_not_serve_count_for_nobody(tmp_path: Path, clock: list[float]) -> None:
    others = [EngineRecord("h.q.a", 1, 100)]
    alone = [run(f"p{n}", engine="h.q.inprocess", epoch=1, detached=bool(n % 2)) for n in range(20)]
    assert len(share(tmp_path).choose(alone + queued(10), others, ()).take) == 5


def test_an_in_process_run_is_first_left_to_its_person(tmp_path: Path, clock: list[float]) -> None:
    mine = share(tmp_path)
    gone = run("r", engine=f"{mine._watch._place}.gone", epoch=1, detached=False)  # its lock is free
    assert mine.choose([gone], [], ()).take == []
    clock[0] += sharing.GRACE - 0.1
    assert mine.choose([gone], [], ()).take == []
    clock[0] += 0.2
    assert names(mine.choose([gone], [], ()).take) == ["r"]
    mine.refused.add("r")
    assert mine.choose([gone], [], ()).take == []
    assert names(mine.choose([run("r", engine=gone.engine, epoch=1)], [], ()).take) == ["r"]
    assert mine.choose([], [], ()).take == []
    assert mine.refused == set()


def test_a_run_resumed_by_its_person_begins_a_new_grace(tmp_path: Path, clock: list[float]) -> None:
    mine = share(tmp_path)
    gone = run("r", engine=f"{mine._watch._place}.gone", epoch=1, detached=False)
    mine.choose([gone], [], ())
    clock[0] += sharing.GRACE - 1
    mine.choose([run("r", engine="far.q.person", epoch=2, detached=False)], [], ())
    clock[0] += 2
    gone_again = run("r", engine=gone.engine, epoch=3, detached=False)
    assert mine.choose([gone_again], [], ()).take == []
