"""The router that learns from outcomes: binds what predicts, what learns online and what doubts answers.

`LearnedRouter` is thin: each ability is a part of its own (`learning.predictor`, `learning.online`, `doubt`).
It is a function of its training rows and of the outcomes that it was told since: whoever keeps these (the
database) can make it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

from ..memory.errors import UsageError
from .decision.options import Gains
from .doubt import FEWEST_ROWS, DoubtModel, Graded
from .features import default_embedder
from .learning.online import ONLINE_CLASSES, Choice, OnlineRouter
from .learning.predictor import (
    PREDICTOR_CLASSES,
    Array,
    HierarchicalPredictor,
    Outcome,
    Prediction,
    Predictor,
)
from .learning.state import pack, unpack

#: latest training rows that the online part is begun with
_BEGIN = 300
#: how many times the length that nine in ten answers stay below is enough for one more
_AMPLE = 1.5
#: models that a weak one's answers may be escalated to
_STRONGER = 3


def arm(model: str, mode: str, samples: int = 1) -> str:
    """The name under which a way to use a model is learned: another column beside the model's own."""
    if mode == "samples":
        return f"{model} ×{samples}"
    named = {"refine": "refined", "template": "guided"}.get(mode)
    return f"{model} {named}" if named else model


@dataclass(frozen=True, slots=True)
class Judged:
    """What is expected of one model's answer to a prompt."""

    #: score 0…1, and the standard deviation of that expectation
    quality: float
    sd: float
    #: tokens of the answer, and what nine in ten stay below; None: not known
    out_tok: float | None = None
    enough_tokens: int | None = None


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
        #: rows of the last training, and outcomes since
        self.rows, self.since = 0, 0
        #: of a weak model's answers, by (weak, strong); strong '': whichever is asked then
        self.doubts: dict[tuple[str, str], DoubtModel] = {}
        self._doubt: DoubtModel | None = None

    # -- what is known

    def fit(self, rows: Iterable[Outcome | Mapping[str, Any]]) -> None:
        """Learns anew from outcomes (`Outcome.of` reads mappings); those of other models are left out."""
        self.predictor.fit([Outcome.of(row) for row in rows])

    def train(self, rows: Iterable[Outcome | Mapping[str, Any]]) -> None:
        """`fit`, the doubt of each weak model's answers, and a beginning for what is learned online."""
        known = [one for row in rows if (one := Outcome.of(row)).model in self.models]
        self.predictor.fit(known)
        self.doubts = _doubts(known)
        self.online = OnlineRouter(self.models)
        for row in known[-_BEGIN:]:
            self.follow(row)
        self.rows, self.since = len(known), 0

    def follow(self, row: Outcome) -> None:
        """One more outcome, after training: moves what is expected where it was expected wrongly."""
        if row.model not in self.models:
            return
        foretold = self.estimate([row.prompt], [row.task]).quality[0][self.models.index(row.model)]
        self.online.learn(row.prompt, row.task, row.model, row.score, row.cost_usd, float(foretold))
        self.since += 1

    def predict(
        self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None
    ) -> tuple[Array, Array]:
        """`(quality, cost)`, each [prompts, models]: score in [0, 1], and USD."""
        found = self.estimate(prompts, tasks)
        return found.quality, found.cost

    def estimate(self, prompts: Sequence[str], tasks: Sequence[str | None] | None = None) -> Prediction:
        """All that the predictor knows, with variance. Task names may be new; None: not known."""
        return self.predictor.predict(prompts, tasks)

    def judge(self, prompt: str, task: str | None = None) -> dict[str, Judged]:
        """What is expected of each model on one prompt: the predictor, moved by what was learned since."""
        found = self.estimate([prompt], [task])
        shift, variance = self.online.moved(prompt, task)
        judged = {}
        for j, model in enumerate(self.models):
            quality = min(1.0, max(0.0, float(found.quality[0, j] + shift[j])))
            sd = max(0.0, float(min(found.variance[0, j], variance[j]))) ** 0.5
            most = ceil(_AMPLE * float(found.out_tok_high[0, j]))
            judged[model] = Judged(quality, sd, float(found.out_tok[0, j]) or None, most or None)
        return judged

    def doubt_of(self, weak: str, strong: str) -> tuple[DoubtModel, bool] | None:
        """What doubts the answers of `weak`, and whether its gains are those of `strong`'s answers; None:
        not enough was seen of them."""
        for key in ((weak, strong), (weak, "")):
            found = self.doubts.get(key)
            if found is not None:
                return found, key[1] != ""
        return None

    def gains(self, weak: str, strong: str, more: float) -> Gains | None:
        """What `strong`, whose score is expected to be `more` points above that of `weak` on a prompt, is to
        bring on answers of `weak`; None: not known. On average over all answers it brings just that."""
        found = self.doubt_of(weak, strong)
        if found is None or not len(found[0].gains):
            return None
        # few different tables, so that they are quickly weighed together
        return _gains(found[0], round(50 * more) / 50)

    # -- states

    def to_state(self) -> bytes:
        """All that was learned, without any prompt's text."""
        tree = {
            "models": list(self.models), "rows": self.rows, "predictor": self.predictor,
            "online": self.online,
            "doubts": [[*pair, json.dumps(doubt.to_json())] for pair, doubt in self.doubts.items()],
        }  # fmt: skip
        return pack(tree, PREDICTOR_CLASSES | ONLINE_CLASSES)

    @classmethod
    def from_state(cls, state: bytes) -> LearnedRouter:
        """
        Raises:
            UsageError: no state, or one of another version.
        """
        tree = unpack(state, PREDICTOR_CLASSES | ONLINE_CLASSES)
        try:
            predictor, online = tree["predictor"].ready(), tree["online"].ready()
            made = cls(tree["models"], predictor, online)
            made.rows = int(tree["rows"])
            for weak, strong, text in tree["doubts"]:
                made.doubts[weak, strong] = DoubtModel.from_json(json.loads(text), default_embedder())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"this is no state of a router: {error!r}", mend="train again: podium router train"
            ) from error
        return made

    # -- one at a time, without a predictor

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


@lru_cache(maxsize=2048)
def _gains(doubt: DoubtModel, mean: float) -> Gains:
    return Gains.tilted(doubt.gains, mean)


def _doubts(rows: Sequence[Outcome]) -> dict[tuple[str, str], DoubtModel]:
    """A doubt for each model with enough graded answers: one for each better model that answered the same
    prompts, and one for all others."""
    scores: dict[tuple[str, str | None], dict[str, float]] = {}
    answers: dict[str, dict[tuple[str, str | None], Outcome]] = {}
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        if " " in row.model:
            continue  # a way to use a model (`arm`): nothing escalates from it or to it
        key = row.prompt, row.task
        scores.setdefault(key, {})[row.model] = row.score
        total, count = sums.get(row.model, (0.0, 0))
        sums[row.model] = total + row.score, count + 1
        if row.answer:
            answers.setdefault(row.model, {})[key] = row
    mean = {model: total / count for model, (total, count) in sums.items()}
    made = {}
    for weak, seen in answers.items():
        better = sorted((m for m in mean if mean[m] > mean[weak]), key=lambda m: -mean[m])
        if len(seen) < FEWEST_ROWS or (len(mean) > 1 and not better):
            continue
        for strong in [*better[:_STRONGER], ""]:
            pairs = [
                Graded(row.prompt, row.answer or "", row.score, scores[key].get(strong))
                for key, row in seen.items()
            ]
            common = sum(pair.strong_score is not None for pair in pairs)
            if strong == "" or common >= FEWEST_ROWS:
                doubt = DoubtModel(default_embedder())
                doubt.fit(pairs)
                if len(doubt.gains):
                    made[weak, strong] = doubt
    return made
