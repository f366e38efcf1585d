"""Figures of which more is better, beside those of `figures.py`."""

from __future__ import annotations

from benchmarks.figures import Figure


class AtLeast(Figure):
    """A figure of which more is better: `reach` and `beat` are what it has to be at least."""

    @property
    def verdict(self) -> str:
        if self.reach is None:
            return ""
        if self.measured is None:
            return "not measured"
        if self.beat is not None and self.measured >= self.beat:
            return "beats"
        return "reaches" if self.measured >= self.reach else "NO"

    def cells(self) -> tuple[str, ...]:
        return tuple(
            cell.replace("≤", "≥") if i in (3, 4) else cell for i, cell in enumerate(super().cells())
        )
