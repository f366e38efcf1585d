"""The router that learns from outcomes: binds what predicts, what learns online and what doubts answers.

`LearnedRouter` is thin: each ability is a part of its own (`learning.predictor`, `learning.online`, `doubt`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .doubt import DoubtModel, Graded
from .features import default_embedder
from .learning.online import Choice, OnlineRouter
from .learning.predictor import Array, HierarchicalPredictor, Outcome, Prediction, Predictor


class LearnedRouter:
    """What models will make of prompts (quality, its variance, cost), and which to take while learning."""

    def __init__(
        self,
        models: Sequence[str],
        predictor: Predictor | None = None,
        online: OnlineRouter | None = None,
    ) -> None:
        """`models`: the columns of all answers, in this order."""
        self.models = tuple(models)
        self.predictor: Predictor = predictor or HierarchicalPredictor(self.models)
        self.online = online or OnlineRouter(self.models)
        self._doubt: DoubtModel | None = None

    def fit(self, rows: Iterable[Outcome | Mapping[str, Any]]) -> None:
        """Learns anew from outcomes (`Outcome.of` reads mappings); those of other models are left out."""
        self.predictor.fit([Outcome.of(row) for row in rows])

    def predict(
        self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None
    ) -> tuple[Array, Array]:
        """`(quality, cost)`, each [prompts, models]: score in [0, 1], and USD."""
        found = self.estimate(prompts, tasks)
        return found.quality, found.cost

    def estimate(self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None) -> Prediction:
        """All that the predictor knows, with variance. Task names may be new; None: not known."""
        return self.predictor.predict(prompts, tasks)

    def begin_online(self, price: float) -> None:
        """From now on maximise score − `price` · USD."""
        self.online.price = price

    def choose(self, prompt: str, task: str | None = None) -> Choice:
        """The model to call next, with its propensity (`OnlineRouter.choose`)."""
        return self.online.choose(prompt, task)

    def choose_online(self, prompt: str, task: str | None = None) -> str:
        """The name of `choose`'s model."""
        return self.choose(prompt, task).model

    def learn(self, prompt: str, task: str | None, model: str, score: float, cost: float | None) -> None:
        """The outcome of a call, at once or later (`OnlineRouter.learn`)."""
        self.online.learn(prompt, task, model, score, cost)

    def fit_cascade(self, rows: Iterable[Graded | Mapping[str, Any]]) -> None:
        """Learns when to doubt a weak model's answer (`doubt.DoubtModel.fit`)."""
        self._doubt = DoubtModel(default_embedder())
        self._doubt.fit(rows)

    def doubt(self, prompts: Sequence[str], answers: Sequence[str]) -> Array:
        """[n]: who is to escalate sooner; one half for all while nothing was learned."""
        return (self._doubt or DoubtModel()).doubt(prompts, answers)
