"""The learned router in the real system: two models with recorded answers, through engine, router and ledger.

    python -m benchmarks.routing_e2e [--quick] [--frontier] [--local] [--quality 0.95] [--data FILE]

The GSM8K pair as `replay` models with their recorded answers and prices, on Ray, in five folds. Each fold has
a new database and a router trained on the four other folds; its questions are one run. Beside it, from the
same rows: always the strong model, the random mix of both with the same accuracy (the zero router), and a
check that knows whether the weak answer is right, asked until it has the same accuracy. What the ledger says
must be what the calls cost, to the nano-dollar; else the benchmark fails.

`--quick`: one fold. `--frontier`: several qualities instead of one. `--local`: models in the engine's
process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, table
from benchmarks.memory_figures import AtLeast
from benchmarks.peers import NotThere
from benchmarks.routing_pair import Answers, Array, Pair, Place, ask, load, place, questions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "routing_e2e.json"
FOLDS = 5
FRONTIER = (0.8, 0.9, 0.95, 1.0)
#: share of the strong model's accuracy that the price is told of
WANTED = 0.95
MAX_TOKENS = 1024
#: nano-dollars: a limit that is never met
BUDGET = 100 * 10**9
ROUNDS = 1000
COLUMNS = (
    "accuracy", "strong model's", "share of it", "cost", "strong calls", "escalated", "random mix",
    "perfect check",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What some prompts came to, and what both models alone come to on them; arrays are over prompts."""

    score: Array
    nano: Array
    strong: Array
    escalated: Array
    weak_score: Array
    strong_score: Array
    weak_nano: Array
    strong_nano: Array

    @classmethod
    def of(cls, pair: Pair, answers: Answers) -> Outcome:
        prompts = answers.prompts
        return cls(
            answers.score, answers.nano, answers.strong, answers.escalated,
            pair.scores(pair.weak, prompts), pair.scores(pair.strong, prompts),
            pair.nanos(pair.weak, prompts), pair.nanos(pair.strong, prompts),
        )  # fmt: skip

    @classmethod
    def pooled(cls, parts: Sequence[Outcome]) -> Outcome:
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__slots__))

    def figures(self, weight: Array | None = None) -> Array:
        """As `COLUMNS` names them; costs are parts of always asking the strong model."""
        w = np.ones(len(self.score)) if weight is None else weight
        w = w / w.sum()
        got, weak, strong = float(w @ self.score), float(w @ self.weak_score), float(w @ self.strong_score)
        all_strong, all_weak = float(w @ self.strong_nano), float(w @ self.weak_nano)
        mixed = (got - weak) / (strong - weak)
        wrong = w * (self.weak_score < 1)
        checked = (got - weak) / float(wrong @ (self.strong_score - self.weak_score))
        return np.array([
            got, strong, got / strong,
            float(w @ self.nano) / all_strong, float(w @ self.strong), float(w @ self.escalated),
            (all_weak + mixed * (all_strong - all_weak)) / all_strong,
            (all_weak + checked * float(wrong @ self.strong_nano)) / all_strong,
        ])  # fmt: skip

    def interval(self) -> Array:
        """[2, columns]: 95 % of a bootstrap over prompts."""
        rng, n = np.random.default_rng(12345), len(self.score)
        draws = [
            self.figures(np.bincount(rng.integers(0, n, n), minlength=n).astype(float)) for _ in range(ROUNDS)
        ]
        return np.percentile(np.array(draws), [2.5, 97.5], axis=0)


def run_fold(where: Place, number: int, policy: dict[str, Any]) -> Answers:
    """One fold's questions as one run, by a router that was trained on the other folds."""
    folds = where.pair.folds(FOLDS)
    known = [prompt for other, fold in enumerate(folds) if other != number for prompt in fold]
    with where.podium(policy, known if policy["kind"] == "learned" else ()) as podium:
        fold = folds[number]
        return ask(podium, where.pair, fold, questions(MAX_TOKENS), BUDGET, questions=list(fold))[1]


def learned(quality: float) -> dict[str, Any]:
    return {"kind": "learned", "quality": quality, "explore": 0}


def show(names: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """A line for each outcome in percent, its interval below it."""
    lines = [" " * 14 + "".join(column.rjust(17) for column in COLUMNS)]
    for name, outcome in zip(names, outcomes, strict=True):
        low, high = 100 * outcome.interval()
        at = 100 * outcome.figures()
        lines.append(name.ljust(14) + "".join(f"{value:17.1f}" for value in at))
        spans = [f"[{a:.1f}, {b:.1f}]" for a, b in zip(low, high, strict=True)]
        lines.append(" " * 14 + "".join(span.rjust(17) for span in spans))
    return "\n".join(lines)


def limits(outcome: Outcome, per_task: Sequence[float], fixed: float) -> list[Figure]:
    """The figures with limits: share of the strong model's accuracy, its price, the routing's own time."""
    found = dict(zip(COLUMNS, 100 * outcome.figures(), strict=True))
    low, high = 100 * outcome.interval()
    at = COLUMNS.index
    beside = {"random mix": found["random mix"], "perfect check": found["perfect check"]}

    def span(column: str) -> str:
        return f"[{low[at(column)]:.1f}, {high[at(column)]:.1f}]"

    return [
        AtLeast("share of the strong model's accuracy", "%", (found["share of it"],), 95,
                note=span("share of it")),
        Figure("part of the strong model's bill", "%", (found["cost"],), 42, 36, beside, span("cost")),
        Figure("bill of the ledger less the calls' costs", "nano-dollars", (0.0,), 0),
        Figure("CPU of the engine's process, a question", "ms", tuple(per_task),
               peers={"one fixed model, no router": fixed}),
    ]  # fmt: skip


def per_task_ms(answers: Answers) -> float:
    return 1e3 * answers.cpu_seconds / len(answers.prompts)


def compare(where: Place, folds: int, quality: float) -> list[Figure]:
    """Fold by fold and pooled."""
    outcomes: list[Outcome] = []
    cpu: list[float] = []
    fixed = run_fold(where, 0, {"kind": "fixed", "model": where.pair.weak})
    for number in range(folds):
        answers = run_fold(where, number, learned(quality))
        outcomes.append(Outcome.of(where.pair, answers))
        cpu.append(per_task_ms(answers))
        print(f"fold {number}: {len(answers.prompts)} questions, {answers.seconds:.1f} s", file=sys.stderr)
    pooled = Outcome.pooled(outcomes)
    names = [f"fold {number}" for number in range(folds)]
    print(show([*names, "all"], [*outcomes, pooled]) if folds > 1 else show(names, outcomes))
    return limits(pooled, cpu, per_task_ms(fixed))


def frontier(where: Place, folds: int) -> None:
    """What several asked qualities come to, and the price of `WANTED` between the two beside it."""
    outcomes = [
        Outcome.pooled(
            [Outcome.of(where.pair, run_fold(where, number, learned(quality))) for number in range(folds)]
        )
        for quality in FRONTIER
    ]
    print(show([f"quality {quality:g}" for quality in FRONTIER], outcomes))
    points = [
        outcome.figures()[[COLUMNS.index("share of it"), COLUMNS.index("cost")]] for outcome in outcomes
    ]
    for (low, cheap), (high, dear) in pairwise(points):
        if low <= WANTED < high:
            part = (WANTED - low) / (high - low)
            price = 100 * (cheap + part * (dear - cheap))
            print(f"{100 * WANTED:g} % of its accuracy cost {price:.1f} % of its bill, between two qualities")


def measured(asked: argparse.Namespace) -> list[Figure]:
    pair = load(asked.data)
    print(
        f"{len(pair.prompts)} questions; {pair.weak}, strong: {pair.strong}; percent, 95 % intervals below; "
        "costs are parts of always asking the strong model, those of the mix and of the check at our accuracy"
    )
    with place(pair, ray=not asked.local, max_tokens=MAX_TOKENS) as where:
        if asked.frontier:
            frontier(where, 1 if asked.quick else FOLDS)
            return []
        return compare(where, 1 if asked.quick else FOLDS, asked.quality)


def report(figures: Sequence[Figure], name: Path, before: float) -> None:
    """Prints the figures with limits and keeps them. `before`: the load average at the start."""
    print(table(figures))
    name.parent.mkdir(exist_ok=True)
    name.write_text(json.dumps([figure.as_data() for figure in figures], indent=1, ensure_ascii=False) + "\n")
    now = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, {platform.machine()}; load average before {before:.1f}, after {now:.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one fold")
    parser.add_argument("--frontier", action="store_true", help="several qualities instead of one")
    parser.add_argument("--local", action="store_true", help="models in the engine's process, without Ray")
    parser.add_argument("--quality", type=float, default=0.95, help="share of the strong model's to be kept")
    parser.add_argument("--data", type=Path, help="another file of the same form")
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    try:
        figures = measured(asked)
    except NotThere as missing:
        print(f"not measured: {missing}")
        return 0
    if figures:
        report(figures, RESULTS, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
