"""`up`, `down`, `status`: the Ray head, the pool's actors and the detached engine of a home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Json, Pool, emit, note, settings

if TYPE_CHECKING:
    from ...router.types import ModelSpec
    from ..settings import Settings
    from .output import ClusterOut


def up(
    cpus: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPUs that Ray may use.")] = None,
    gpus: Annotated[int | None, typer.Option(metavar="N", min=0, help="GPUs that Ray may use.")] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Default: the first free from 8265.")
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start the Ray dashboard.")] = True,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds to wait for the models.")] = 120.0,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Start the Ray pool and an engine that takes submitted runs. Harmless when they are up."""
    from ..service import engine_status

    found = settings(pool)
    if engine_status(found.home) is None:
        head = {"num_cpus": cpus, "num_gpus": gpus, "dashboard_port": dashboard_port, "dashboard": dashboard}
        _start(found, head, timeout)
    else:
        note("it is up already")
    record = _state(found)
    if as_json:
        emit(record)
    else:
        _tell(record)


def _start(found: Settings, head: dict[str, Any], timeout: float) -> None:
    """Head, actors and engine. What can be known to be missing is said before anything starts."""
    import time

    from ...memory.database import Database
    from ...workers.cluster import cluster_info, start_head, stop_head
    from ...workers.poolfile import load_pool
    from ..service import start_engine
    from .models import check_source

    file = load_pool(found.pool_file, found.home)
    for spec in file.models.values():
        check_source(spec, found.home)
    _check_room(list(file.models.values()), head["num_cpus"])
    database = Database(found.database)
    database.ensure_schema()
    database.close()
    began = time.monotonic()
    was_up = cluster_info(found.home) is not None
    note("starting the Ray head …")
    start_head(found.home, **head)
    note(f"starting {', '.join(file.models)} …")
    try:
        start_engine(found, seconds=timeout)
    except BaseException:
        if not was_up:
            stop_head(found.home)
        raise
    note(f"ready after {time.monotonic() - began:.1f} s")


def _check_room(specs: Sequence[ModelSpec], cpus: int | None) -> None:
    """Whether all workers fit the CPUs that Ray will have: Ray itself would say so only after a minute."""
    import os

    from ...memory.errors import ConfigError

    room = cpus if cpus is not None else os.cpu_count() or 1
    wanted = sum(spec.resources.cpus * spec.replicas for spec in specs)
    if wanted > room:
        raise ConfigError(
            f"the pool's workers want {wanted:g} CPUs, Ray has {room}",
            mend="give the models less, e.g. `resources: {cpus: 0.5}` in the pool file, or raise --cpus",
        )


def down(as_json: Json = False) -> None:
    """Stop the engine, which lets go of its runs, and then the Ray head."""
    from ...workers.cluster import stop_head
    from ..service import stop_engine
    from .output import DownOut

    home = settings().home
    engine = stop_engine(home)
    head = stop_head(home)
    if as_json:
        emit(DownOut(engine_stopped=engine, head_stopped=head))
    else:
        print("down" if engine or head else "nothing was up")


def status(as_json: Json = False) -> None:
    """Say what is up, and how many runs are open."""
    found = settings()
    record = _state(found)
    if as_json:
        emit(record)
    else:
        _tell(record)


def _state(found: Settings) -> ClusterOut:
    from ...workers.cluster import cluster_info
    from ..service import engine_status
    from .output import ClusterOut

    info, engine = cluster_info(found.home), engine_status(found.home)
    return ClusterOut(
        running=info is not None,
        ready=info is not None and engine is not None,
        address=info.address if info else None,
        dashboard_url=info.dashboard_url if info else None,
        token_path=str(info.token_path) if info else None,
        engine_pid=int(engine["pid"]) if engine else None,
        models=list(engine.get("models", [])) if engine else [],
        open_runs=_open_runs(found),
    )


def _open_runs(found: Settings) -> int:
    if not found.database_url and not (found.home / "podium.db").exists():
        return 0
    from ..client import Podium

    with Podium(found) as podium:
        return len(podium.runs(statuses=("queued", "running", "waiting", "paused"), limit=10_000))


def _tell(record: ClusterOut) -> None:
    if not record.running:
        print(f"down; {record.open_runs} open runs")
        note("  → podium up")
        return
    print(f"ray        {record.address}")
    if record.dashboard_url:
        print(f"dashboard  {record.dashboard_url}")
        print(f"token      {record.token_path}")
    print(f"engine     {f'pid {record.engine_pid}' if record.ready else 'not running'}")
    print(f"models     {', '.join(record.models) or '-'}")
    print(f"open runs  {record.open_runs}")
    if record.dashboard_url:
        note(f"the dashboard asks for a token: cat {record.token_path}")
    if not record.ready:
        note("  → podium down, then podium up")
