"""The crash workflow under the crash referee, with the services it needs started around it.

    python -m benchmarks.crash [--on sqlite|ray|postgres] [--kills 50] [--seed 0] [--referee kill9.py]

Prints the referee's report, one line of JSON. Exit status 1 on any violation, 2 where a service is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.crash.databases import NoServer, postgres_server
from benchmarks.peers import referee

ROOT = Path(__file__).resolve().parent.parent.parent
PLACES = ("sqlite", "ray", "postgres")


def commands() -> dict[str, str]:
    """START, RESUME and STATE of commands.env."""
    text = Path(__file__).with_name("commands.env").read_text()
    return dict(word.split("=", 1) for word in shlex.split(text, comments=True))


def judge(
    script: Path, *, kills: int, seed: int, per_run: int = 3, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run the referee `script` and return its report.

    Raises:
        RuntimeError: it gave none; says what it printed.
    """
    command = [sys.executable, str(script), "--json", "--kills", str(kills), "--seed", str(seed)]
    command += ["--kills-per-run", str(per_run), "--timeout", "60"]
    for name, line in commands().items():
        command += [f"--{name.lower()}", line]
    given = {**os.environ, **(environment or {})}
    done = subprocess.run(
        command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=30 * kills + 120
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"{script.name}: exit {done.returncode}\n{done.stdout}{done.stderr}") from None


@contextmanager
def place(name: str) -> Iterator[dict[str, str]]:
    """The environment of the commands at one of `PLACES`, with what it needs running.

    Raises:
        NoServer: there is no PostgreSQL.
    """
    if name == "sqlite":
        yield {}
    elif name == "postgres":
        with postgres_server() as url:
            yield {"CRASH_POSTGRES_URL": url}
    else:
        from benchmarks.crash.ray_head import ray_head

        with tempfile.TemporaryDirectory(prefix="podium-crash-") as home, ray_head(Path(home)):
            yield {"CRASH_RAY_HOME": home}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--on", choices=PLACES, default="sqlite")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--referee", type=Path, help="kill9.py; default: that in PODIUM_REFEREE")
    asked = parser.parse_args()
    try:
        with place(asked.on) as environment:
            script = asked.referee or referee("kill9.py")
            report = judge(script, kills=asked.kills, seed=asked.seed, environment=environment)
    except NoServer as missing:
        print(missing, file=sys.stderr)
        return 2
    print(json.dumps(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
