"""How long one decision of the learned policy takes, in one thread: part of `make bench`.

    python -m benchmarks.routing_decision [--quick] [--decisions 500]

Pools of 2 and of 10 models, 10,000 graded calls in memory, half of them with the answer, so that cheap
answers can be doubted and cascades are weighed. Prompts are made up from a small vocabulary, each seen once.
A decision is all that the engine asks of the policy: `choose` with the pacer, and apart from it `review` of
an answer. Times are those of this process, on a clock; the load stands below.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from podium.router.decision.pacing import Left
from podium.router.decision.policy import Known, Learned, Shelf, make_learned
from podium.router.learned import LearnedRouter
from podium.router.learning.predictor import Outcome
from podium.router.stats import Stats
from podium.router.types import ModelSpec, Price, Query

from benchmarks.figures import Figure, table

CALLS = 10_000
TASKS = ("sort", "sum", "say", "plan")
WORDS = ("river", "stone", "apples", "seven", "train", "ticket", "cost", "total", "list", "month", "water")


def pool(count: int) -> list[ModelSpec]:
    """Models, each twice as dear as the one before it."""
    price = [Price(input=Decimal(2**i) / 10, output=Decimal(2**i) / 5) for i in range(count)]
    return [
        ModelSpec(name=f"m{i}", engine="replay", source="x.jsonl", price=price[i], context=8192)
        for i in range(count)
    ]


def prompt(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=40)) + f" {draw.randrange(10**6)}?"


def taught(models: Sequence[ModelSpec], draw: random.Random) -> LearnedRouter:
    """A router that has learned from `CALLS` graded calls."""
    rows = []
    for number in range(CALLS // len(models)):
        asked, task = prompt(draw), TASKS[number % len(TASKS)]
        for place, model in enumerate(models):
            right = float(draw.random() < 0.5 + 0.4 * place / len(models))
            answer = f"{draw.randrange(90)} * 2 = {draw.randrange(90)} #### {right:g}" if number % 2 else None
            rows.append(Outcome(asked, model.name, right, task, 0.001, 60.0, 40.0, 1.0, answer))
    made = LearnedRouter([model.name for model in models])
    made.train(rows)
    return made


def decide(
    policy: Learned, models: Sequence[ModelSpec], draw: random.Random, count: int
) -> list[list[float]]:
    """Seconds of each choice, and of each review of an answer to it."""
    chosen, reviewed = [], []
    for number in range(count):
        asked = prompt(draw)
        query = Query(400, 100, 256, task=TASKS[number % len(TASKS)], prompt=asked, seed=number)
        begin = time.perf_counter()
        route = policy.choose(query, models, Stats())
        middle = time.perf_counter()
        policy.review(query, route, f"12 * 2 = {draw.randrange(90)}, so it is {number}.", ())
        chosen.append(middle - begin)
        reviewed.append(time.perf_counter() - middle)
    return chosen, reviewed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 decisions")
    parser.add_argument("--decisions", type=int, default=500)
    asked = parser.parse_args()
    count = 100 if asked.quick else asked.decisions
    load, rows = os.getloadavg()[0], []
    for size in (2, 10):
        draw, models = random.Random(size), pool(size)
        begin = time.perf_counter()
        router = taught(models, draw)
        seconds = time.perf_counter() - begin
        policy = make_learned({}, Known(Shelf(router, 1), lambda: Left(10**12, 1000)))
        decide(policy, models, draw, 20)  # the first ones load what they need
        for name, times in zip(("choose", "review"), decide(policy, models, draw, count), strict=True):
            for share in (50, 99):
                limits = (5.0, 1.0) if (name, share) == ("choose", 99) else (None, None)
                value = 1000 * float(np.percentile(times, share))
                rows.append(Figure(f"{name}, {size} models, p{share}", "ms", (value,), *limits))
        print(
            f"{size} models: {CALLS:,} graded calls learned in {seconds:.1f} s, {len(router.doubts)} doubts"
        )
    print(table(rows))
    now = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, {platform.machine()}; load average before {load:.1f}, after {now:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
