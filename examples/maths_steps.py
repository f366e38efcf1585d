"""The steps of `maths.yaml`."""

from __future__ import annotations

import json
import re
from pathlib import Path

QUESTIONS = Path(__file__).parent / "data" / "maths" / "questions.json"


def questions() -> list[str]:
    """Twenty-four word problems of GSM8K's test part."""
    return json.loads(QUESTIONS.read_text(encoding="utf-8"))


def results(answers: list[str]) -> list[str]:
    """The last number of each answer: there the result stands."""
    found = [re.findall(r"-?\d[\d,]*(?:\.\d+)?", answer) for answer in answers]
    return [numbers[-1] if numbers else "?" for numbers in found]
