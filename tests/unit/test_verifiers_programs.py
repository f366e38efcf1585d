"""Checks of JSON, code and SQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.agents.schemas import problems
from podium.router.verifiers import CodeTests, Schema, SqlRuns

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TABLES = """
CREATE TABLE town(name TEXT, people INTEGER);
INSERT INTO town VALUES ('Ulm', 128000), ('Linz', 210000);
"""


def person(value: Any) -> Iterator[str]:
    return problems(PERSON, value, "answer")


def run_python(program: str) -> tuple[bool, str]:
    """A process of its own; the tests' programs are their own, so that no sandbox is needed here."""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    return ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "answer", ['{"name": "Ada", "age": 36}', 'Here it is:\n```json\n{"name": "Ada", "age": 36}\n```']
)
def test_json_that_fits_passes(answer: str) -> None:
    assert Schema(person).check("", answer).verdict == "pass"


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        ('{"name": "Ada"}', "age"),
        ('{"name": "Ada", "age": -1}', "at least"),
        ("Ada is 36.", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5_000, "no JSON"),
    ],
)
def test_json_that_does_not_fit_fails_and_says_why(answer: str, evidence: str) -> None:
    check = Schema(person).check("", answer)
    assert check.verdict == "fail"
    assert evidence in check.evidence


def test_code_is_judged_by_its_tests() -> None:
    verifier = CodeTests(["assert double(2) == 4", "assert double(-1) == -2"], run_python)
    right = "```python\ndef double(x):\n    return 2 * x\n```\nIt doubles."
    assert verifier.check("", right).verdict == "pass"
    half = verifier.check("", "```python\ndef double(x):\n    return x ** 2\n```")
    assert (half.verdict, half.score) == ("fail", 0.5)
    assert "1 of 2 fail: AssertionError" in half.evidence
    assert verifier.check("", "I cannot write code").score == 0.0
    assert CodeTests([], run_python).check("", right).verdict == "unknown"


def test_an_answer_never_runs_in_this_process() -> None:
    programs: list[str] = []

    def runner(program: str) -> tuple[bool, str]:
        programs.append(program)
        return True, ""

    CodeTests(["pass"], runner).check("", "raise SystemExit(1)")
    assert programs == ["raise SystemExit(1)\n\npass\n"]


@pytest.mark.parametrize(
    ("query", "verdict", "score"),
    [
        ("SELECT name FROM town WHERE people > 200000;", "pass", 1.0),
        ("```sql\nWITH t AS (SELECT * FROM town) SELECT count(*) FROM t\n```", "pass", 1.0),
        ("SELECT name FROM town WHERE people > 900000", "pass", 0.7),
        ("SELECT nme FROM town", "fail", 0.0),
        ("SELECT 1; SELECT 2", "fail", 0.0),
        ("DROP TABLE town", "fail", 0.0),
        ("ATTACH 'stolen.db' AS s", "fail", 0.0),
        ("PRAGMA writable_schema = 1", "fail", 0.0),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n", "fail", 0.0),
        ("SELECT zeroblob(900000000)", "fail", 0.0),
        ("", "fail", 0.0),
    ],
)
def test_sql_runs_read_only_and_bounded(query: str, verdict: str, score: float) -> None:
    check = SqlRuns(TABLES).check("", query)
    assert (check.verdict, check.score) == (verdict, score), check.evidence


@given(st.text(max_size=80))
def test_no_check_raises_on_any_text(answer: str) -> None:
    verifiers = (Schema(person), SqlRuns(TABLES), CodeTests(["pass"], lambda program: (False, "")))
    for verifier in verifiers:
        assert verifier.check("", answer).evidence
