"""Programs forked from a process that has imported what they need: the same to look at, much sooner."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: what most verbs and drivers import; the rest is imported by whoever needs it
MODULES = (
    "podium.orchestrator.cli.main", "podium.orchestrator.client", "podium.orchestrator.engine",
    "podium.orchestrator.loader", "podium.orchestrator.graph", "podium.orchestrator.cli.convert",
    "podium.workers.local", "podium.workers.engines.replay", "podium.memory.store",
    "podium.memory.retrieval.search", "podium.memory.retrieval.tenant", "podium.memory.context.workspace",
    "podium.memory.lifecycle.erasure", "podium.memory.transfer.exchange", "alembic.command",
    "sqlalchemy.dialects.sqlite", "psycopg", "sqlalchemy.dialects.postgresql.psycopg",
)  # fmt: skip
#: seconds that a program may take
LIMIT = 120


class Warm:
    """Runs programs one after the other, each in a process of its own."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, arguments: Sequence[str], folder: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """The command line with nothing on stdin: its exit code, stdout and stderr."""
        return self._ask(arguments, folder, env, None)

    def script(
        self, path: Path, arguments: Sequence[str], folder: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """The same of a Python file; a negative code is the signal that killed it."""
        return self._ask(arguments, folder, env, path)

    def _ask(
        self, arguments: Sequence[str], folder: Path, env: Mapping[str, str], script: Path | None
    ) -> subprocess.CompletedProcess[str]:
        server = self._server = self._server or _started()
        assert server.stdin is not None
        assert server.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place, "out"), Path(place, "err")
            request = {"arguments": list(arguments), "folder": str(folder), "env": dict(env)}
            request |= {"out": str(out), "err": str(err), "script": script and str(script)}
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            if not select.select([server.stdout], [], [], LIMIT)[0]:
                self._server = None  # the next one gets a new one
                os.killpg(server.pid, signal.SIGKILL)
                server.communicate()
                raise subprocess.TimeoutExpired(list(arguments), LIMIT, out.read_text(), err.read_text())
            code = int(server.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), code, out.read_text(), err.read_text())

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate()


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
    )


def serve() -> None:
    import gc
    import importlib
    import threading

    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    assert threading.active_count() == 1, "a fork would lose a thread that an import has started"
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(folder: str, env: dict[str, str], out: str, err: str, **program: Any) -> None:
    """Be the program, as a shell would have started it."""
    code = 70  # what follows broke
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        for number, name in enumerate((os.devnull, out, err)):
            file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        code = _told(lambda: _run(**program))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(arguments: list[str], script: str | None) -> int:
    if script is None:
        from podium.orchestrator.cli.main import execute

        return execute(arguments)
    import importlib
    import runpy

    from podium.memory import faults

    importlib.reload(faults)  # it reads the environment when it is imported
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    return 0


def _told(program: Callable[[], int]) -> int:
    """The exit code of a program whose threads and exit handlers have ended, as at an interpreter's end."""
    import atexit
    import threading
    import traceback

    try:
        code = program()
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:  # noqa: BLE001 - the interpreter would say it too
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    return code


if __name__ == "__main__":
    serve()
