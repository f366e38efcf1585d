"""The Python steps of headline.yaml. They run in worker processes of their own."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

FOLDER = Path(__file__).parent / "data" / "federalist"


class Measured(BaseModel):
    text: str
    #: words beyond those that were allowed; 0 or less: short enough
    over: int


def read(file: str) -> str:
    """The text of a file in the examples' folder, or of any other file by its whole path."""
    return (FOLDER / file).read_text(encoding="utf-8").strip()


def measure(text: str, words: int) -> Measured:
    """How many words too long the first line of `text` is."""
    line = next((line.strip(' "') for line in text.splitlines() if line.strip(' "')), "")
    return Measured(text=line, over=len(line.split()) - words)
