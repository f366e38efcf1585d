"""A terminal for tests: the program runs on it as it would for a person."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from typing import Any


def converse(project: Any, *arguments: str, answers: dict[str, str], **env: str) -> tuple[int, str, str]:
    """Run the program on a terminal of its own, stdout on a pipe; answer its questions as they appear.

    Returns the exit code, stdout, and what stood on the terminal.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*project.program, *arguments],
        cwd=project.folder,
        env=project.env | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"} | env,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    screen, left = "", dict(answers)
    end = time.monotonic() + 90
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 0.05)[0]:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # Linux says so when the last writer has closed the terminal
                    break
                if not piece:
                    break
                screen += piece.decode(errors="replace")
            for question in [q for q in left if q in screen]:
                os.write(master, left.pop(question).encode())
        out = process.communicate(timeout=30)[0].decode()
    finally:
        process.kill()
        os.close(master)
    return process.returncode, out, screen
