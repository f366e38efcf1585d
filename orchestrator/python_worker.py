"""The child process in which user code runs: JSON lines in, JSON lines out.

    {"do": "call", "ref": "module:name", "arguments": {…}}  →  {"value": …} or {"error": …, "kind": …}
    {"do": "describe", "refs": ["module:name", …]}          →  {"value": [tool, …]}

Whatever user code prints goes to stderr: stdout belongs to the protocol. The child dies with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from typing import Any, TextIO

from ..agents.tools import call_tool, describe_refs, load_function
from ..memory.errors import PodiumError


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["do"] == "describe":
            return {"value": describe_refs(request["refs"])}
        function = load_function(request["ref"])
        return {"value": asyncio.run(call_tool(function, request["arguments"]))}
    except PodiumError as error:
        return {
            "error": error.message,
            "mend": error.mend,
            "kind": type(error).__name__,
            "retryable": error.retryable,
        }
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, also SystemExit
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
        traceback.print_exc(file=sys.stderr)
        return {
            "error": f"{type(error).__name__}: {error}",
            "where": where,
            "kind": "user",
            "retryable": True,
        }


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; Linux only


def serve(lines: TextIO, out: TextIO) -> None:
    """Answer requests until `lines` ends."""
    for line in lines:
        out.write(json.dumps(_answer(json.loads(line))) + "\n")
        out.flush()


def main() -> None:
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.insert(0, sys.argv[1])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, out)


if __name__ == "__main__":
    main()
