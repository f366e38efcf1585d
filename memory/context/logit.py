"""Weighing of evidence: sums, logistic and conditional logit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def weigh(told: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Weighted sum of evidence; what has no weight does not count."""
    total = 0.0
    for name, value in told.items():
        weight = weights.get(name)
        if weight is not None:
            total += weight * value
    return total


def logistic(score: float) -> float:
    """A chance from log-odds."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


def softmax(scores: Sequence[float]) -> list[float]:
    """Shares of 1."""
    top = max(scores)
    powers = [math.exp(s - top) for s in scores]
    total = sum(powers)
    return [p / total for p in powers]
