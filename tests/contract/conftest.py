from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from podium.workers.cluster import ClusterInfo, connect, disconnect, start_head, stop_head


@pytest.fixture(scope="session", autouse=True)
def meanwhile(request: pytest.FixtureRequest) -> None:
    """Lets the referee judge in the background, where its verdict is asked for later in this session."""
    if any("judged_on_sqlite" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("judged_on_sqlite")


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterInfo]:
    """A Ray head without dashboard that this process is connected to, for one test file."""
    home: Path = tmp_path_factory.mktemp("ray-home")
    info = start_head(home, dashboard=False, num_cpus=8)
    try:
        connect(info)
        yield info
    finally:
        disconnect()
        stop_head(home)
