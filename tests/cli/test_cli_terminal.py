"""With a terminal: the live view is drawn, and an approval is asked for and answered on the spot."""

from __future__ import annotations

from typing import Any

from terminals import converse


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
