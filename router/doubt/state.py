"""What a fit found, as plain JSON: for the database, so that a restart or a rollback needs no graded rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...memory.errors import UsageError
from .features import FIGURES
from .learner import Logistic, Ridge, Scale


@dataclass(frozen=True, slots=True)
class Learned:
    """All that a `DoubtModel` knows; `checks`: the names of the verifiers that have a column each."""

    checks: tuple[str, ...]
    scale: Scale
    wrong: Logistic
    #: of the log-odds of `wrong` without their bias
    calibration: Logistic
    rest: Ridge | None
    #: of the gain
    ordering: Logistic | None

    def to_json(self) -> dict[str, Any]:
        """A value that `json.dumps` takes."""
        rest, ordering = self.rest, self.ordering
        return {
            "figures": list(FIGURES),
            "checks": list(self.checks),
            "scale": [self.scale.centre.tolist(), self.scale.spread.tolist()],
            "wrong": _of(self.wrong),
            "calibration": _of(self.calibration),
            "rest": rest and [rest.centre.tolist(), rest.weights.tolist(), rest.mean],
            "ordering": ordering and _of(ordering),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Learned:
        """What `to_json` gave.

        Raises:
            UsageError: it was written by another version, or is damaged.
        """
        try:
            if state["figures"] != list(FIGURES):
                raise ValueError("it was learned from other figures")
            rest = None
            if state["rest"]:
                centre, weights, mean = state["rest"]
                rest = Ridge(np.array(centre, dtype=float), np.array(weights, dtype=float), float(mean))
            ordering = state["ordering"] and _logistic(state["ordering"])
            centre, spread = state["scale"]
            scale = Scale(np.array(centre, dtype=float), np.array(spread, dtype=float))
            wrong, calibration = _logistic(state["wrong"]), _logistic(state["calibration"])
            return cls(tuple(state["checks"]), scale, wrong, calibration, rest, ordering)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UsageError(
                f"a saved doubt cannot be read: {error}", mend="learn it again from the graded answers"
            ) from error


def _of(learner: Logistic) -> list[Any]:
    return [learner.weights.tolist(), learner.bias]


def _logistic(state: Any) -> Logistic:
    weights, bias = state
    return Logistic(np.array(weights, dtype=float), float(bias))
