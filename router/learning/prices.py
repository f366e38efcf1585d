"""What calls cost, learned call by call: log-linear in the prompt's length, a level a model, a shift a task.

A price that jumps is told from chance by `Drift` and believed at once: prices change by decree, not slowly.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from .drift import Drift
from .ridge import Array

#: prior of a cost's elasticity in the prompt's characters, and its weight in calls
_SLOPE, _SLOPE_CALLS = 0.6, 1.0
#: calls whose memory the level has: half of what is known is younger than about 0.7 times that
_MEMORY = 200.0
#: calls that the expected spread (a factor e^0.3) counts for; and the least variance of a logarithm
_SPREAD, _SPREAD_CALLS, _LEAST = 0.09, 3.0, 1e-3
_TASK_CALLS = 4.0
_ALARM = 8.0
#: characters: the middle of the regression
_MIDDLE = 6.0


class RunningCost:
    """Cost of each model, in USD."""

    def __init__(self, models: int) -> None:
        self.calls = np.zeros(models)
        #: of each model: weighted sums of 1, x, x², r, xr with r the log of the cost without its task's shift
        self._sums = np.zeros((models, 5))
        self._squares = np.zeros(models)
        self._weight = np.zeros(models)
        self._tasks: dict[str, tuple[float, float]] = {}
        self._drifts = [Drift(_ALARM) for _ in range(models)]

    def __call__(self, length: int, task: str | None) -> Array:
        """[models] for a prompt of `length` characters; 0 for models that were never called."""
        x = log(length + 10.0) - _MIDDLE
        mean = np.array([self._line(j, x) for j in range(len(self.calls))])
        spread = np.minimum(self._spread(), 1.0)
        return np.where(self.calls > 0, np.exp(mean + self._shift(task) + spread / 2), 0.0)

    def learn(self, length: int, task: str | None, model: int, cost: float) -> bool:
        """One call's bill (above 0, or it is left out). True: the model's price has jumped."""
        if not cost > 0:
            return False
        x, shift = log(length + 10.0) - _MIDDLE, self._shift(task)
        rest = log(cost) - shift
        jumped = False
        if self.calls[model] > 0:
            error = rest - self._line(model, x)
            if self.calls[model] > 4:
                jumped = self._drifts[model].see(error, self._spread()[model] ** 0.5)
            if jumped:
                self._move(model, self._drifts[model].mean)
                error = rest - self._line(model, x)
            self._squares[model] = self._squares[model] * self._kept + error**2
            self._learn_task(task, error)
        self._weight[model] = self._weight[model] * self._kept + 1
        self._sums[model] = self._sums[model] * self._kept + np.array([1, x, x * x, rest, x * rest])
        self.calls[model] += 1
        return jumped

    _kept = exp(-1 / _MEMORY)

    def _line(self, model: int, x: float) -> float:
        """Log cost at `x`; the slope is drawn to its prior."""
        n, sx, sxx, sr, sxr = self._sums[model]
        if n == 0:
            return 0.0
        middle = sx / n
        slope = (sxr - sx * sr / n + _SLOPE * _SLOPE_CALLS) / (sxx - sx * middle + _SLOPE_CALLS)
        return float(sr / n + slope * (x - middle))

    def _spread(self) -> Array:
        found = (self._squares + _SPREAD * _SPREAD_CALLS) / (self._weight + _SPREAD_CALLS)
        return np.maximum(found, _LEAST)

    def _move(self, model: int, by: float) -> None:
        n, sx = self._sums[model, :2]
        self._sums[model, 3] += by * n
        self._sums[model, 4] += by * sx
        # an alarm's own errors are no spread
        self._squares[model] = 0.0
        self._weight[model] = 0.0

    def _shift(self, task: str | None) -> float:
        n, total = self._tasks.get(task or "", (0.0, 0.0))
        return total / (n + _TASK_CALLS)

    def _learn_task(self, task: str | None, error: float) -> None:
        if task and abs(error) < 3:
            n, total = self._tasks.get(task, (0.0, 0.0))
            # errors are of what the shift left: put back before they are averaged
            self._tasks[task] = n * self._kept + 1, total * self._kept + error + self._shift(task)
