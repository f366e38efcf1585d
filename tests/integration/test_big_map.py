"""A map over 10,000 elements: right, in bounded memory, and taken up again after a kill in its middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_project import check_books
from inline_steps import drive_elsewhere
from podium import Podium, Settings, Workflow
from podium.memory.tables import Attempt, Task
from sqlalchemy import func, select

ELEMENTS = 10_000
#: MiB that the engine may grow by
MOST = 150.0


@pytest.fixture
def podium(home: Path, tmp_path: Path) -> Iterator[Podium]:
    with Podium(Settings(home=tmp_path / "home", database_url=f"sqlite:///{tmp_path / 'p.db'}")) as podium:
        yield podium


def test_ten_thousand_elements(podium: Podium, tmp_path: Path) -> None:
    wf = Workflow("big", inputs={"xs": "list[int]"})
    each = wf.map("each", over="xs", python="inline_steps:double", with_={"x": "{item}"}, inline=True)
    wf.output("each", each)
    run = podium.submit(wf, detached=False, xs=list(range(ELEMENTS)))
    url = podium.settings.database
    killed = drive_elsewhere(tmp_path, url, str(ELEMENTS))
    assert killed.returncode < 0
    with podium.database.read() as connection:
        count = select(func.count()).where(Task.run_id == run.id, Task.status == "succeeded")
        done = connection.execute(count).scalar_one()
    assert 0 < done < ELEMENTS
    ended = drive_elsewhere(tmp_path, url)
    assert ended.returncode == 0, ended.stderr
    status, grown = ended.stdout.split()
    assert status == "succeeded"
    assert float(grown) < MOST
    run = run.refresh()
    assert run.outputs == {"each": [2 * x for x in range(ELEMENTS)]}
    with podium.database.read() as connection:
        statuses = dict(
            connection.execute(
                select(Attempt.status, func.count()).where(Attempt.run_id == run.id).group_by(Attempt.status)
            ).all()
        )
    assert statuses["succeeded"] == ELEMENTS + 1
    assert statuses.get("lost", 0) <= podium.settings.max_parallel
    check_books(podium, run)
