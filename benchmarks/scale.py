"""A run of 10,000 tasks: the engine's memory, `podium show`, and going on after SIGKILL.

    python -m benchmarks.scale [--tasks 10000]

Prints one JSON line: `rss_mb`, the peak of the engine's process, the larger one of an undisturbed run and of
an engine that took a run up half-way; `show_s` of that run, with the CLI's start; `resume_s`, from the start
of the new engine's process to the first task that it finished. Each list has all values.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from podium import Podium, Settings, Workflow
from sqlalchemy import text

from benchmarks import noop

ROOT = Path(__file__).resolve().parent.parent
#: seconds that a run may take
LIMIT = 900.0


def engine(home: Path, tasks: int) -> None:
    """An engine's process: goes on with what is unfinished in `home`, else starts a run there."""
    with Podium(Settings(home=home)) as podium:
        unfinished = [run for run in podium.runs() if run.status == "running"]
        run = unfinished[0] if unfinished else podium.submit(_fan(), detached=False, xs=list(range(tasks)))
        run = podium.drive(run.id)
        assert run.output == list(range(tasks)), run.error
    print(json.dumps({"rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}))


def _fan() -> Workflow:
    workflow = Workflow("scale")
    xs = workflow.input("xs", list[int])
    workflow.output("result", workflow.map("each", over=xs, python=noop.same, inline=True))
    return workflow


def measure(folder: Path, tasks: int, repeats: int) -> dict[str, list[float]]:
    memory, resumes, shows = [_finish(_start(folder / "whole", tasks))], [], []
    for number in range(repeats):
        home = folder / f"home-{number}"
        killed = _start(home, tasks)
        with Podium(Settings(home=home)) as podium:
            _until(lambda watched=podium: _done(watched) >= tasks / 2, killed)
            os.kill(killed.pid, signal.SIGKILL)
            killed.communicate()
            done, begin = _done(podium), time.perf_counter()
            resumed = _start(home, tasks)
            _until(lambda watched=podium, before=done: _done(watched) > before, resumed)
            resumes.append(time.perf_counter() - begin)
        memory.append(_finish(resumed))
        shows.append(_show(home))
    return {"rss_mb": memory, "show_s": shows, "resume_s": resumes}


def _start(home: Path, tasks: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.scale", "--engine", str(home), "--tasks", str(tasks)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> float:
    """Wait for an engine's process to end well; its peak memory in MB."""
    out, _ = process.communicate(timeout=LIMIT)
    if process.returncode != 0:
        raise RuntimeError(f"the engine ended with {process.returncode}")
    return json.loads(out)["rss_mb"]


def _done(podium: Podium) -> int:
    """Finished tasks, of the only run."""
    with podium.database.read() as connection:
        return int(
            connection.execute(text("SELECT COUNT(*) FROM task WHERE status = 'succeeded'")).scalar_one()
        )


def _until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the engine ended too soon, or hangs: exit {process.poll()}")
        time.sleep(0.01)


def _show(home: Path) -> float:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
    command = [str(Path(sys.executable).with_name("podium")), "show", "last"]
    begin = time.perf_counter()
    subprocess.run(
        command, env=clean | {"PODIUM_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL, timeout=120
    )
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine is not None:
        engine(asked.engine, asked.tasks)
        return
    with tempfile.TemporaryDirectory(prefix="podium-scale-") as folder:
        print(json.dumps(measure(Path(folder), asked.tasks, asked.repeats)))


if __name__ == "__main__":
    main()
