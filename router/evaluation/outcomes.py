"""Rows of outcomes, from a CSV or from task memory, and their matrix of prompts × models."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...memory.errors import UsageError
from ..learning.predictor import Outcome

Array = NDArray[np.float64]

REQUIRED = ("prompt", "model", "score")
AMOUNTS = ("cost_usd", "in_tok", "out_tok", "seconds")
#: how the answer was made; a row without one is `direct`
ACTIONS = ("direct", "refine")
#: problems of a file that are told at once
_TOLD = 5
#: characters of the longest prompt that is read
_LONGEST = 1 << 30


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Rows to train on and to judge by."""

    #: answers at the first try
    rows: tuple[Outcome, ...]
    #: answers that a model refined once more; their tokens and cost include the first try
    refined: tuple[Outcome, ...] = ()
    #: rows left out since they had no score
    unscored: int = 0

    @classmethod
    def of(
        cls,
        rows: Iterable[Outcome | Mapping[str, Any]],
        refined: Iterable[Outcome | Mapping[str, Any]] = (),
    ) -> Outcomes:
        """
        Raises:
            UsageError: see `Outcome.of`.
        """
        return cls(tuple(map(Outcome.of, rows)), tuple(map(Outcome.of, refined)))

    @property
    def models(self) -> tuple[str, ...]:
        """The names in order; those with refined rows only do not count."""
        return tuple(sorted({row.model for row in self.rows}))

    def matrix(self, models: Sequence[str] | None = None) -> Matrix:
        """The rows of `models` (default: all).

        Raises:
            UsageError: no row at all, or none of a model that is asked for.
        """
        return Matrix.of(self.rows, models or self.models, self.unscored)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Outcomes as [prompts, models]; nan where there is none. Several samples of one cell count as their
    mean."""

    prompts: tuple[str, ...]
    #: '' where it is not known
    tasks: tuple[str, ...]
    models: tuple[str, ...]
    score: Array
    #: USD
    cost: Array
    #: tokens read and written together
    tokens: Array
    #: what a reader must know of the rows
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Outcome], models: Sequence[str], unscored: int = 0) -> Matrix:
        """See `Outcomes.matrix`."""
        column = {model: j for j, model in enumerate(models)}
        kept = [row for row in rows if row.model in column]
        absent = [model for model in models if model not in {row.model for row in kept}]
        if absent or not kept:
            raise UsageError(
                f"no outcome of {', '.join(absent) or 'any model'}",
                mend="give rows with a prompt, a model and a score, or leave the model out",
            )
        place: dict[tuple[str, str], int] = {}
        for row in kept:
            place.setdefault((row.prompt, row.task or ""), len(place))
        sums = np.zeros((3, 2, len(place), len(models)))
        for row in kept:
            cell = place[row.prompt, row.task or ""], column[row.model]
            for part, value in zip(sums, (row.score, row.cost_usd, _tokens(row)), strict=True):
                if value is not None:
                    part[0][cell] += value
                    part[1][cell] += 1
        count = sums[:, 1]
        means = np.where(count > 0, sums[:, 0] / np.maximum(count, 1), np.nan)
        notes = _notes(len(kept), count[0], unscored)
        prompts, tasks = zip(*place, strict=True)
        return cls(prompts, tasks, tuple(models), *means, notes=notes)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def priced(self) -> bool:
        """Whether most scores have a cost."""
        seen = np.isfinite(self.score)
        return bool(2 * (np.isfinite(self.cost) & seen).sum() > seen.sum())


def read_csv(path: str | Path) -> Outcomes:
    """Outcomes of a CSV (UTF-8, commas; `.gz` too) with the columns `prompt, model, score` and, where known,
    `task, cost_usd, in_tok, out_tok, seconds, answer` and `action` (`direct`, `refine`). Others are left
    out. A row without a score is a missing cell.

    Raises:
        UsageError: the file cannot be read, or has rows that are wrong: the first five, each with line
        and column.
    """
    path = Path(path)
    limit = csv.field_size_limit(_LONGEST)
    try:
        with _opened(path) as handle:
            return _read(path.name, handle)
    except FileNotFoundError as error:
        raise UsageError(f"no file {path}", mend="give the path of a CSV") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.name} is not UTF-8: {error.reason}", mend="save it as UTF-8") from error
    except (OSError, csv.Error, EOFError) as error:
        raise UsageError(f"{path.name} cannot be read: {error}", mend="check that it is a CSV") from error
    finally:
        csv.field_size_limit(limit)


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read(name: str, handle: IO[str]) -> Outcomes:
    reader = csv.DictReader(handle, strict=True)
    _check_header(name, reader.fieldnames or ())
    found: dict[str, list[Outcome]] = {action: [] for action in ACTIONS}
    problems: list[str] = []
    unscored = 0
    for row in reader:
        if not (row.get("score") or "").strip() and None not in row and row["score"] is not None:
            unscored += 1
            continue
        wrong = list(_problems(row))
        problems += [f"line {reader.line_num}, {text}" for text in wrong]
        if not wrong:
            found[_action(row)].append(_outcome(row))
    if problems:
        more = f"\n  and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise UsageError(
            f"{name} has wrong rows:\n  " + "\n  ".join(problems[:_TOLD]) + more,
            mend="mend these cells; a cell that is not known stays empty",
        )
    if not found["direct"]:
        raise UsageError(f"{name} has no row with a score", mend="give a row for each prompt and model")
    return Outcomes(tuple(found["direct"]), tuple(found["refine"]), unscored)


def _check_header(name: str, columns: Sequence[str]) -> None:
    absent = [column for column in REQUIRED if column not in columns]
    if not absent:
        return
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        raise UsageError(f"{name} is not separated by commas", mend="save it with commas between columns")
    hints = [f"{near[0]!r} → {want!r}" for want in absent if (near := get_close_matches(want, columns, 1))]
    raise UsageError(
        f"{name} has no column {', '.join(absent)}; it has {', '.join(columns) or 'none'}",
        mend=f"rename {', '.join(hints)}" if hints else f"the first line must name {', '.join(REQUIRED)}",
    )


def _problems(row: Mapping[Any, Any]) -> Iterator[str]:
    """What is wrong with one row, by column."""
    if None in row:
        yield "more fields than the header: put double quotes around text that has commas"
        return
    if any(value is None for value in row.values()):
        yield "fewer fields than the header: put double quotes around text that has line breaks"
        return
    for column in ("prompt", "model"):
        if not row[column].strip():
            yield f"column {column}: empty"
    score = _number(row["score"])
    if score is None:
        yield f"column score: {row['score']!r} is no number; write 0…1 with a decimal point"
    elif not 0 <= score <= 1:
        yield f"column score: {row['score']} is not in 0…1; scale all scores to 0…1"
    for column in AMOUNTS:
        text = (row.get(column) or "").strip()
        value = _number(text) if text else 0.0
        if value is None or value < 0:
            yield f"column {column}: {text!r} is no amount; write a number from 0 up, or nothing"
    if _action(row) not in ACTIONS:
        yield f"column action: {row['action']!r} is not one of {', '.join(ACTIONS)}"


def _action(row: Mapping[str, str]) -> str:
    return (row.get("action") or "").strip() or ACTIONS[0]


def _outcome(row: Mapping[str, str]) -> Outcome:
    amounts = {c: float(row[c]) for c in AMOUNTS if (row.get(c) or "").strip()}
    task, answer = (row.get("task") or "").strip() or None, row.get("answer") or None
    return Outcome(row["prompt"], row["model"].strip(), float(row["score"]), task, answer=answer, **amounts)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _tokens(row: Outcome) -> float | None:
    return None if row.in_tok is None or row.out_tok is None else row.in_tok + row.out_tok


def _notes(rows: int, count: Array, unscored: int) -> tuple[str, ...]:
    notes = []
    cells, empty = count.size, int((count == 0).sum())
    if empty:
        notes.append(f"{empty} of {cells} cells (prompts × models) have no outcome")
    if unscored:
        notes.append(f"{unscored} rows had no score and were left out")
    if rows > cells - empty:
        notes.append(f"{rows - cells + empty} rows repeat a prompt and model; they count as the mean")
    return tuple(notes)
