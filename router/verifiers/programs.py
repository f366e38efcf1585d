"""Code and queries: run the code's tests, run the SQL. Nothing of an answer runs in this process: code goes
to a runner that the caller gives (an isolated worker), SQL to a read-only SQLite database in memory.

Source: code judged by running tests, as in CodeT (Chen et al., 2022).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from .contract import Check

#: runs a program in an isolated process, with a time limit; `(whether it ended well, its output's end)`
Runner = Callable[[str], tuple[bool, str]]

_FENCE = re.compile(r"```(\w*)[^\n]*\n(.*?)```", re.DOTALL)
#: virtual machine steps (in thousands) that a query may take, and rows that are fetched
_STEPS, _ROWS = 2_000, 100
#: bytes of a value that a query makes, and characters of a query
_LARGEST_VALUE, _LONGEST_QUERY = 1_000_000, 20_000
_READS = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


def code_in(answer: str, languages: Sequence[str] = ()) -> str:
    """The code of an answer: its fences of these languages (or of none said), else all of it."""
    blocks = _FENCE.findall(answer)
    wanted = [body for language, body in blocks if not language or language.lower() in languages]
    return "\n".join(wanted or [body for _, body in blocks]) or answer


@dataclass(frozen=True, slots=True)
class CodeTests:
    """The answer's code passes the tests, one program a test. Score: the share that passes."""

    tests: Sequence[str]
    runner: Runner
    name: str = "code tests"

    def check(self, prompt: str, answer: str) -> Check:
        if not self.tests:
            return Check.unknown(self.name, "no tests given")
        code = code_in(answer, ("python", "py"))
        if not code.strip():
            return Check.of(self.name, 0.0, "no code")
        results = [self.runner(f"{code}\n\n{test}\n") for test in self.tests]
        failed = [said.strip().splitlines()[-1:] for well, said in results if not well]
        said = f"{len(failed)} of {len(results)} fail: {' '.join(failed[0])}" if failed else "all tests pass"
        return Check.of(self.name, 1 - len(failed) / len(results), said)


@dataclass(frozen=True, slots=True)
class SqlRuns:
    """The answer's query runs on the tables of `schema` (the caller's statements that make and fill them).
    It can read only, and neither files nor extensions; its steps and the size of its values are bounded.

    Raises:
        sqlite3.Error: `schema` itself does not run.
    """

    schema: str
    name: str = "SQL runs"

    def check(self, prompt: str, answer: str) -> Check:
        query = code_in(answer, ("sql", "sqlite")).strip().rstrip(";")
        if not query or len(query) > _LONGEST_QUERY:
            return Check.of(self.name, 0.0, "no query, or one too long to run")
        with closing(sqlite3.connect(":memory:")) as database:
            database.executescript(self.schema)
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
            database.set_authorizer(_read_only)
            budget = iter(range(_STEPS))
            database.set_progress_handler(lambda: next(budget, None) is None, 1_000)
            try:
                rows = database.execute(query).fetchmany(_ROWS)
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                return Check.of(self.name, 0.0, f"it does not run: {error}")
        # no rows can be the right answer, but more often a condition is wrong
        return Check.of(self.name, 1.0 if rows else 0.7, f"it runs, {len(rows)} rows", needed=0.7)


def _read_only(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY
