"""What finished calls tell of the next one: how long its answer will be and how many seconds it takes.

A `Stats` is a snapshot; memory reads the rows, nothing here opens a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

#: model, task name, input tokens, output tokens, seconds of one finished call
Row = tuple[str, str, int, int, float]

#: how many calls the guess one level up counts for, against the calls that were seen
PRIOR_CALLS = 2.0
#: seconds that reading one prompt token takes, in units of writing one output token
INPUT_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over calls, and the means they give."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    #: seconds from dispatch to the end of the answer
    seconds: float = 0.0

    def plus(self, input_tokens: int, output_tokens: int, seconds: float) -> Figures:
        return Figures(
            self.calls + 1,
            self.input_tokens + input_tokens,
            self.output_tokens + output_tokens,
            self.seconds + seconds,
        )

    @property
    def mean_output(self) -> float:
        """Output tokens a call; 0 without calls."""
        return self.output_tokens / self.calls if self.calls else 0.0

    @property
    def mean_seconds(self) -> float:
        """Seconds a call; 0 without calls."""
        return self.seconds / self.calls if self.calls else 0.0

    @property
    def seconds_per_output_token(self) -> float | None:
        """Seconds of whole calls for each token written; None when nothing was written."""
        return self.seconds / self.output_tokens if self.output_tokens else None

    @property
    def work(self) -> float:
        """Tokens written, plus tokens read at `INPUT_WEIGHT` each: what a call's time grows with."""
        return self.output_tokens + INPUT_WEIGHT * self.input_tokens


_NONE = Figures()


def _empty() -> Mapping[str, Figures]:
    return MappingProxyType({})


def _empty_pairs() -> Mapping[tuple[str, str], Figures]:
    return MappingProxyType({})


def _shrink(mean: float, calls: float, prior: float) -> float:
    """The mean of `calls` observations and `PRIOR_CALLS` more at the value `prior`."""
    return (calls * mean + PRIOR_CALLS * prior) / (calls + PRIOR_CALLS)


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of past calls per model, per task name, and per both. `Stats()` knows nothing yet."""

    by_model: Mapping[str, Figures] = field(default_factory=_empty)
    by_task: Mapping[str, Figures] = field(default_factory=_empty)
    by_model_task: Mapping[tuple[str, str], Figures] = field(default_factory=_empty_pairs)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Stats:
        """Stats of finished calls, in any order."""
        models: dict[str, Figures] = {}
        tasks: dict[str, Figures] = {}
        both: dict[tuple[str, str], Figures] = {}
        for model, task, input_tokens, output_tokens, seconds in rows:
            models[model] = models.get(model, _NONE).plus(input_tokens, output_tokens, seconds)
            tasks[task] = tasks.get(task, _NONE).plus(input_tokens, output_tokens, seconds)
            key = (model, task)
            both[key] = both.get(key, _NONE).plus(input_tokens, output_tokens, seconds)
        return cls(MappingProxyType(models), MappingProxyType(tasks), MappingProxyType(both))

    def figures(self, model: str, task: str | None = None) -> Figures:
        """What was seen of `model`, in `task` only if given; zeros when nothing was."""
        if task is None:
            return self.by_model.get(model, _NONE)
        return self.by_model_task.get((model, task), _NONE)

    def est_output(self, model: str, task: str, max_tokens: int, expected: float | None = None) -> int:
        """Tokens that the answer will have, in 1…`max_tokens`. `expected`: a first guess, if there is one.

        A chain of shrunken means: half of `max_tokens`, moved by what the task's calls wrote on any model,
        moved by what they wrote on this one; at each step the guess counts as two calls. The length of an
        answer depends on the task far more than on the model, so a model that was never tried is compared
        by the task's figure and is neither favoured nor shunned for being new.
        """
        guess = max_tokens / 2 if expected is None else min(expected, float(max_tokens))
        for seen in (self.by_task.get(task, _NONE), self.figures(model, task)):
            guess = _shrink(seen.mean_output, seen.calls, guess)
        return max(1, min(max_tokens, round(guess)))

    def est_seconds(self, model: str, task: str, input_tokens: int, output_tokens: int) -> float | None:
        """Seconds that `model` will take for a call of this size, or None when it never answered one.

        The model's seconds for a unit of work (`Figures.work`), moved by those of its calls for this task,
        times the call's work.
        """
        seen = self.figures(model)
        if seen.calls == 0:
            return None
        if seen.work <= 0:
            return seen.mean_seconds
        rate = seen.seconds / seen.work
        same = self.figures(model, task)
        if same.work > 0:
            rate = _shrink(same.seconds / same.work, same.calls, rate)
        return rate * (output_tokens + INPUT_WEIGHT * input_tokens)
