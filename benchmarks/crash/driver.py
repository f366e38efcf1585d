"""What the crash referee starts, kills and asks.

    python -m benchmarks.crash.driver start|resume|state DIR EFFECTS RUN

    start    stores the run, says ACCEPTED, and drives it to its end
    resume   an engine that comes up after a crash: it finds what is unfinished and goes on with it
    state    what the database holds, as JSON

DIR is the Podium home, EFFECTS the effect log, RUN the idempotency key. CRASH_POSTGRES_URL names a server, on
which DIR gets a database of its own; CRASH_RAY_HOME is the home of a running Ray head, whose worker then
serves the model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium import Podium, Settings

if TYPE_CHECKING:
    from podium.orchestrator.views import Run
    from podium.workers.contract import Pool

FOLDER = Path(__file__).resolve().parent
NUMBERS = list(range(1, 11))
#: what a referee that killed the command before the run was stored is told: there is nothing to resume
NO_RUN = 3


def main(what: str, home: str, effects: str, key: str) -> int:
    settings = Settings(home=Path(home), database_url=_database(home), pool=FOLDER / "pool.yaml")
    if what == "state":
        with Podium(settings) as podium:
            print(json.dumps(_state(podium)))
        return 0
    with Podium(settings, pool=_pool()) as podium:
        if what == "start":
            inputs = {"log": effects, "numbers": NUMBERS}
            podium.submit(FOLDER / "crash.yaml", detached=False, idempotency_key=key, inputs=inputs)
            print("ACCEPTED", flush=True)
        return max((podium.drive(run.id).exit_code for run in podium.runs()), default=NO_RUN)


def _database(home: str) -> str:
    """The URL of the run's database; empty: SQLite in the home."""
    server = os.environ.get("CRASH_POSTGRES_URL")
    if not server:
        return ""
    from benchmarks.crash.databases import ensure_database

    return ensure_database(server, home)


def _pool() -> Pool | None:
    """Ray's pool where a head runs; None: the pool file's models in this process."""
    home = os.environ.get("CRASH_RAY_HOME")
    if not home:
        return None
    from benchmarks.crash.ray_head import ray_pool

    return ray_pool(Path(home))


def _state(podium: Podium) -> dict[str, Any]:
    """One row for each acceptance in the event chain, which is append-only: a second one would show."""
    runs = podium.runs()
    rows = [row for run in runs for row in accepted(podium, run)]
    sound = [run.status == "succeeded" and podium.verify(run.id) is None for run in runs]
    return {"finished": bool(sound) and all(sound), "accepted": rows}


def accepted(podium: Podium, run: Run) -> Iterator[dict[str, Any]]:
    """The accepted results of a run, as the referee wants them; `key` is None where there is no effect."""
    outputs = {task.record.name: task.output() for task in run.tasks if task.record.status == "succeeded"}
    told = [e.task for e in podium.events(run.id) if e.kind == "task.succeeded" and e.task is not None]
    for name in (*told, *(outputs.keys() - set(told))):
        output = outputs.get(name)
        effect = output if isinstance(output, dict) else {}
        yield {
            "step": name,
            "key": effect.get("key"),
            "attempt": effect.get("attempt"),
            "result": _unlabelled(output),
        }


def _unlabelled(value: Any) -> Any:
    """A result without its attempts' labels: these differ from run to run, the rest must not."""
    if isinstance(value, dict):
        return {key: _unlabelled(inner) for key, inner in value.items() if key != "attempt"}
    return [_unlabelled(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
