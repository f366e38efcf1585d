"""ruff: rules and format, over the whole project."""

from __future__ import annotations

import subprocess
import sys

import pytest
from source_files import ROOT


@pytest.mark.parametrize(
    "arguments", [("check",), ("format", "--check", "--diff")], ids=lambda words: words[0]
)
def test_ruff(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
