"""Which model to take while outcomes come in one by one, of the model that was called only.

Linear Thompson sampling (Agrawal and Goyal 2013) on quality − price · cost, over a linear model whose parts
are shared between models (`linear`), with forgetting and with alarms where a model or its price has changed
(`drift`). How probable each choice was is exact: the chance of each model to be best is worked out, and the
choice is drawn from these chances, so that other policies can be judged from the log (Li et al. 2011).

*Floor.* What the text and the task say is believed as far as it has foretold outcomes so far; with thin
evidence the choice is that of the models' plain means, the best single model. *Budget.* Trying a model
that is dearer than the one that looks best is allowed for a share of what was spent, and
a few calls for a start.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...memory.errors import UsageError
from ..features import NAMES, RELATIONS, Featurizer
from .drift import Drift
from .linear import Posterior, Sums
from .prices import RunningCost
from .ridge import Array
from .state import pack, unpack

#: first dimensions of the static vectors that are looked at: each stands for the whole in coarser grain
VECTOR = 64
#: tasks that get a mean of their own; later ones are told by their text alone
MOST_TASKS = 128
_FORMS = len(NAMES) + len(RELATIONS)
#: prompts that the middle and the spread of the counts are taken from
_WARM = 32
#: what counts, vectors and tasks are multiplied by: their share in the prior
_COUNT, _TEXT, _TASK = 0.1, 0.3, 1.0
#: prior standard deviations: of the common part, of a model's own, of a model's mean; variance of an outcome
_COMMON, _OWN, _MEAN, _NOISE = 0.7, 0.15, 0.25, 0.16
#: how far sampling strays, in posterior standard deviations
STRAY = 0.4
#: kept of what is known with every outcome
_KEPT = 0.9998
_ALARM, _RECENT = 10.0, 15
#: outcomes' worth of disbelief in the text, in units of its squared forecast (about 0.1²) times this many
_DOUBT_ROWS = 0.5
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model, and what stood behind it. Tuples are in the order of the models."""

    model: str
    #: probability with which it was taken, for off-policy evaluation
    propensity: float
    #: it did not look best: it was tried to learn
    explored: bool
    quality: tuple[float, ...]
    cost_usd: tuple[float, ...]


class OnlineRouter:
    """Starts from nothing. The same seed and the same history give the same choices."""

    LEFT_OUT: ClassVar[tuple[str, ...]] = ("_featurizer", "_last")

    def __init__(
        self, models: Sequence[str], price: float = 0.0, *, seed: int = 0, explore: float = 0.1,
        featurizer: Featurizer | None = None,
    ) -> None:  # fmt: skip
        """`price`: score that a USD must bring (λ of quality − λ·cost). `explore`: share of the spent money
        that may go into trying dearer models."""
        self.models = tuple(models)
        self.price, self.seed, self.explore = price, seed, explore
        self.choices, self.outcomes, self.alarms = 0, 0, 0
        #: USD: of all calls, of what trying cost on top, and what it may cost before anything was spent
        self.spent, self.tried, self.credit = 0.0, 0.0, 0.0
        self._tasks: dict[str, int] = {}
        self._sums = Sums.empty(len(self.models), self._width)
        self._costs = RunningCost(len(self.models))
        self._drifts = [Drift(_ALARM) for _ in self.models]
        self._recent: list[list[tuple[Array, float]]] = [[] for _ in self.models]
        self._warm, self._scale = np.zeros((3, _FORMS)), np.zeros((2, _FORMS))
        self._middle = np.zeros(self._width)
        # sums of forecast × outcome and of forecast² : what the text was good for
        self._proof = np.zeros(2)
        self.ready(featurizer)
        self._solve()

    def choose(self, prompt: str, task: str | None = None, allowed: Collection[str] | None = None) -> Choice:
        """The model to call. `allowed`: the only ones that may be taken (None: all).

        Raises:
            UsageError: no model of the router is allowed.
        """
        open_to = np.array([allowed is None or model in allowed for model in self.models])
        if not open_to.any():
            raise UsageError("no model of the router is allowed", mend="allow one of its models")
        x = self._features(prompt, task)
        # what is believed decides, and what is not yet known of this very prompt asks to be tried
        quality = self._posterior(self._believed(x))[0] + 0.5
        variance = self._posterior(x)[1]
        cost = self._costs(len(prompt), task)
        value = np.where(open_to, quality - self.price * cost, -np.inf)
        chances = chances_of(value, STRAY * np.sqrt(variance))
        best = int(np.argmax(value))
        chances = self._affordable(chances, best, cost)
        rng = np.random.default_rng((self.seed, self.choices))
        taken = int(np.searchsorted(np.cumsum(chances), rng.random() * chances.sum(), side="right"))
        taken = min(taken, len(chances) - 1) if chances[min(taken, len(chances) - 1)] > 0 else best
        self.choices += 1
        if cost[best] > 0:
            self.tried += max(0.0, float(cost[taken] - cost[best]))
        return Choice(
            self.models[taken], float(chances[taken]), taken != best,
            tuple(np.clip(quality, 0, 1).tolist()), tuple(cost.tolist()),
        )  # fmt: skip

    def moved(self, prompt: str, task: str | None) -> tuple[Array, Array]:
        """`(shift, variance)` [models]: how far outcomes lie above what was foretold of them (`learn`), as
        far as is believed, and what is not known of that."""
        x = self._features(prompt, task)
        return self._posterior(self._believed(x))[0], self._posterior(x)[1]

    def learn(
        self, prompt: str, task: str | None, model: str, score: float, cost_usd: float | None,
        foretold: float = 0.5,
    ) -> None:  # fmt: skip
        """An outcome, at once or much later; the order does not have to be that of the choices.

        `foretold`: the score that was expected by a predictor, which this one then corrects.

        Raises:
            UsageError: a model that the router does not have, or a score that is not in 0…1.
        """
        if model not in self.models or not 0 <= score <= 1:
            raise UsageError(
                f"an outcome of {model!r} with score {score}", mend="name a model of the router, score 0…1"
            )
        j, x, above = self.models.index(model), self._features(prompt, task), score - foretold
        self._prove(j, x, above)
        changed = self._watch(j, x, above)
        self._sums.forget(_KEPT)
        self._sums.add(j, x, above)
        self._middle += (x - self._middle) / min(self.outcomes + 1, 500)
        self.outcomes += 1
        if cost_usd is not None:
            self._pay(j, prompt, task, cost_usd)
        self._warm_up(prompt)
        if changed or self.outcomes < 20 or self.outcomes % max(10, self.outcomes // 50) == 0:
            self._solve()

    def to_state(self) -> bytes:
        """All that was learned; no text. `from_state` goes on where this one is."""
        return pack(self, ONLINE_CLASSES)

    @classmethod
    def from_state(cls, state: bytes, featurizer: Featurizer | None = None) -> OnlineRouter:
        """
        Raises:
            UsageError: no state, or one of another version.
        """
        made = unpack(state, ONLINE_CLASSES)
        if not isinstance(made, cls):
            raise UsageError("this is another router's state", mend="give the state of an OnlineRouter")
        return made.ready(featurizer)

    def ready(self, featurizer: Featurizer | None = None) -> OnlineRouter:
        """Itself, made whole after it was read as a part of a larger state."""
        self._featurizer = featurizer or Featurizer()
        self._last: tuple[str, Array, Array] | None = None
        return self

    # ------------------------------------------------------------ inside

    @property
    def _width(self) -> int:
        return 1 + _FORMS + VECTOR + len(self._tasks)

    def _solve(self) -> None:
        common, own = np.full(self._width, _COMMON**2), np.full(self._width, _OWN**2)
        common[0], own[0] = 1.0, _MEAN**2
        self._posterior = Posterior.of(self._sums, common, own, _NOISE)

    def _features(self, prompt: str, task: str | None) -> Array:
        """[width]: 1, counts, vector, tasks; a new task widens everything."""
        if task and task not in self._tasks and len(self._tasks) < MOST_TASKS:
            self._tasks[task] = len(self._tasks)
            self._sums = self._sums.widened(self._width)
            self._middle = np.append(self._middle, 0.0)
            self._recent = [[(np.append(x, 0.0), y) for x, y in rows] for rows in self._recent]
            self._solve()
        if self._last is None or self._last[0] != prompt:
            text = self._featurizer([prompt])
            vector = text.vectors[0, :VECTOR]
            vector = np.pad(vector / max(float(np.linalg.norm(vector)), 1e-9), (0, VECTOR - len(vector)))
            self._last = prompt, text.counts[0], vector
        _, counts, vector = self._last
        forms = np.clip((counts - self._scale[0]) * self._scale[1], -3, 3)
        x = np.zeros(self._width)
        x[0], x[1 : 1 + _FORMS], x[1 + _FORMS : 1 + _FORMS + VECTOR] = 1.0, _COUNT * forms, _TEXT * vector
        if task in self._tasks:
            x[1 + _FORMS + VECTOR + self._tasks[task]] = _TASK
        return x

    def _warm_up(self, prompt: str) -> None:
        """The counts are looked at once their middle and spread are known; then these stay."""
        if self.outcomes > _WARM or self._last is None or self._last[0] != prompt:
            return
        counts = self._last[1]
        self._warm += np.array([np.ones(_FORMS), counts, counts**2])
        if self.outcomes == _WARM:
            n, total, squares = self._warm
            spread = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0.0))
            usable = np.where(spread > 1e-6, 1 / np.maximum(spread, 0.02), 0.0)
            self._scale = np.array([total / n, usable])

    def _believed(self, x: Array) -> Array:
        """The features as far as they have foretold outcomes: between the middle and `x`."""
        gain, size = self._proof
        share = min(1.0, max(0.0, gain / (size + _DOUBT_ROWS)))
        middle = self._middle if self.outcomes else np.eye(1, self._width)[0]
        return middle + share * (x - middle)

    def _prove(self, j: int, x: Array, above: float) -> None:
        """Did what was foretold of this model against the others, beyond its mean, come true?"""
        if self.outcomes < 2:
            return
        here, usual = self._posterior.weights @ x, self._posterior.weights @ self._middle
        forecast = (here - here.mean()) - (usual - usual.mean())
        rest = above - here.mean() - (usual[j] - usual.mean())
        self._proof = self._proof * 0.999 + np.array([forecast[j] * rest, forecast[j] ** 2])

    def _watch(self, j: int, x: Array, above: float) -> bool:
        """Forgets what was known of a model whose answers have become better or worse."""
        mean, variance = self._posterior(x)
        self._recent[j] = [*self._recent[j][-_RECENT + 1 :], (x, above)]
        if len(self._recent[j]) < _RECENT:
            return False
        error = above - mean[j]
        if not self._drifts[j].see(error, float(np.sqrt(_NOISE + variance[j]))):
            return False
        self.alarms += 1
        self._hold_others(j)
        self._sums.reset(j)
        for seen, y in self._recent[j][:-1]:
            self._sums.add(j, seen, y)
        self._recent[j] = []
        return True

    def _hold_others(self, j: int) -> None:
        """What is known of the other models, partly by this one, stays known when it is forgotten."""
        mean, variance = self._posterior(self._middle)
        for k in range(len(self.models)):
            rows = min(_NOISE / max(float(variance[k]), 1e-6), float(_RECENT))
            if k != j:
                x = self._middle * rows**0.5
                self._sums.add(k, x, float(mean[k]) * rows**0.5)

    def _pay(self, j: int, prompt: str, task: str | None, cost_usd: float) -> None:
        self.alarms += self._costs.learn(len(prompt), task, j, cost_usd)
        self.spent += cost_usd
        if self._costs.calls[j] <= _RECENT:
            self.credit += cost_usd

    def _affordable(self, chances: Array, best: int, cost: Array) -> Array:
        """The chances without models that cost more on top than trying may still cost."""
        left = self.credit + self.explore * self.spent - self.tried
        dear = (cost > cost[best] + max(left, 0.0)) & (cost[best] > 0)
        kept = np.where(dear, 0.0, chances)
        return kept / kept.sum()


def chances_of(value: Array, deviation: Array) -> Array:
    """[m]: the chance of each independent normal to be the largest, by quadrature; −inf has none."""
    deviation = np.maximum(deviation, 1e-9)
    found = np.zeros(len(value))
    for j in np.flatnonzero(np.isfinite(value)):
        points = value[j] + deviation[j] * _NODES
        # the normal distribution function to three digits (Page 1977)
        z = np.clip((points - value[:, None]) / deviation[:, None], -8.0, 8.0)
        below = 1 / (1 + np.exp(-1.5976 * z - 0.07056 * z**3))
        below[j] = 1.0
        found[j] = _WEIGHTS @ below.prod(0)
    return found / found.sum()


ONLINE_CLASSES = {
    "online": OnlineRouter,
    "sums": Sums,
    "posterior": Posterior,
    "costs": RunningCost,
    "drift": Drift,
}
