"""The program in processes forked from one that has imported it: the same to look at, and much sooner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

#: what most verbs import; the rest is imported by whoever needs it
MODULES = (
    "podium.orchestrator.cli.main", "podium.orchestrator.client", "podium.memory.store",
    "podium.memory.retrieval.search", "podium.memory.retrieval.tenant", "podium.memory.context.workspace",
    "podium.memory.lifecycle.erasure", "podium.memory.transfer.exchange", "alembic.command",
    "sqlalchemy.dialects.sqlite", "podium.orchestrator.loader", "podium.orchestrator.graph",
)  # fmt: skip


class Warm:
    """Runs the command line, one call after the other, each in a process of its own."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def run(
        self, arguments: Sequence[str], folder: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """One call with nothing on stdin: its exit code, stdout and stderr."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place, "out"), Path(place, "err")
            request = {"arguments": list(arguments), "folder": str(folder), "env": dict(env)}
            self._server.stdin.write(json.dumps(request | {"out": str(out), "err": str(err)}) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), code, out.read_text(), err.read_text())

    def close(self) -> None:
        self._server.communicate()


def serve() -> None:
    import importlib

    for module in MODULES:
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(arguments: list[str], folder: str, env: dict[str, str], out: str, err: str) -> None:
    """Be the program, as a shell would have started it."""
    from podium.orchestrator.cli.main import execute

    code = 70  # what follows broke
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        for number, name in enumerate((os.devnull, out, err)):
            file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        code = execute(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
