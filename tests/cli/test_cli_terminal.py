"""With a terminal: the live view is drawn, and an approval is asked for and answered on the spot."""

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


def test_live_view_and_approval_on_a_terminal(project: Any) -> None:
    code, out, screen = converse(
        project,
        "run", "brief.yaml", "-i", "docs=@papers/",
        answers={"approve?": "y\n", "comment": "fine\n"},
    )  # fmt: skip
    assert code == 0, screen
    assert '"title": "Tides"' in out
    assert "\x1b[" in screen
    assert "2/2" in screen
    assert "└ brief" in screen
    assert "Publish Tides?" in screen
    shown = project.json("show", "last", verb="show")
    assert {task["name"]: task["status"] for task in shown["tasks"]}["publish"] == "succeeded"


def test_an_open_question_leaves_the_run_waiting(project: Any) -> None:
    code, out, screen = converse(
        project, "run", "brief.yaml", "-i", "docs=@papers/", answers={"approve?": "\x04"}
    )
    assert (code, out) == (7, "")
    assert "podium approve" in screen


def test_no_color_is_honoured(project: Any) -> None:
    _, _, screen = converse(
        project, "run", "brief.yaml", "-i", "docs=@papers/", "--approve", "publish", answers={}, NO_COLOR="1"
    )
    assert "succeeded" in screen
    # bold and cursor movements may be there, colours may not
    assert "\x1b[32m" not in screen
    assert "\x1b[36m" not in screen
