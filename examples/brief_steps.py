"""The Python steps of brief.yaml. They run in worker processes of their own."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

EXCERPTS = Path(__file__).parent / "data" / "federalist"


class Brief(BaseModel):
    title: str
    points: list[str]


def texts(docs: list[str]) -> list[str]:
    """`docs`, or without any the excerpts of the Federalist Papers."""
    return docs or [path.read_text(encoding="utf-8").strip() for path in sorted(EXCERPTS.glob("*.txt"))]


def save(brief: Brief, file: str) -> str:
    """Write the brief as Markdown and return where it lies. Doing it twice leaves the same file."""
    # small models number the points of a list, which is one already
    points = "\n".join(f"- {point.lstrip('0123456789. ')}" for point in brief.points)
    path = Path(file).absolute()
    path.write_text(f"# {brief.title}\n\n{points}\n", encoding="utf-8")
    return str(path)
