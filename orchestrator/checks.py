"""A task's own check of an answer: what its function says, as a `Check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..memory.errors import TaskError
from ..router.verifiers.contract import OWN, Check

#: score from which an answer passes
PASSES = 0.5


def own_check(ref: str, said: Any) -> Check:
    """The check of a function that returned `said`: true or false, a score 0…1, or {score, evidence}.

    Raises:
        TaskError: it returned something else.
    """
    evidence, score = f"{ref} says {said}", said
    if isinstance(said, Mapping) and "score" in said:
        score, evidence = said["score"], str(said.get("evidence") or evidence)
    if isinstance(score, bool):
        score = float(score)
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise TaskError(
            f"the check {ref} returned {said!r:.80}",
            retryable=False,
            mend="return true or false, a score from 0 to 1, or {score, evidence}",
        )
    return Check.of(OWN, score, evidence[:500], needed=PASSES)
