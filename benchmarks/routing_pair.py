"""Two models with recorded answers, prices and scores, as `replay` models of a real pool: what the end-to-end
benchmarks of the router ask, train on and count.

Scores are looked up after a run, by prompt and model. The router sees those of the prompts that it is trained
on, and no others.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from podium import Podium, Price, Run, Settings, Workflow
from podium.memory import learning, reads
from podium.memory.learning import NewExample
from podium.memory.money import parse_usd
from podium.memory.reads import CallRecord
from podium.memory.tables import Ledger
from podium.orchestrator import routing
from podium.router.types import ModelSpec
from podium.workers.contract import Pool
from podium.workers.local import LocalPool
from sqlalchemy import select

from benchmarks.peers import NotThere, referee

Array = NDArray[np.float64]

#: calls of one model at the same time
CONCURRENCY = 8
#: task of the questions' map
TASK = "solve"
_ELEMENT = re.compile(r"(\w+)\[(\d+)\]")


class BillWrong(Exception):
    """The ledger, the run and its calls do not tell the same money."""


@dataclass(frozen=True, slots=True)
class Said:
    """One recorded answer."""

    text: str
    score: float
    cost_nano: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Pair:
    """The recorded answers of two models to the same prompts."""

    weak: str
    strong: str
    #: shuffled, each once
    prompts: Sequence[str]
    #: model → prompt → answer
    said: Mapping[str, Mapping[str, Said]]
    prices: Mapping[str, Price]
    task: str

    def scores(self, model: str, prompts: Sequence[str]) -> Array:
        return np.array([self.said[model][prompt].score for prompt in prompts])

    def nanos(self, model: str, prompts: Sequence[str]) -> Array:
        return np.array([self.said[model][prompt].cost_nano for prompt in prompts], float)

    def folds(self, count: int) -> list[Sequence[str]]:
        """Dealt by prompt: a prompt is in one fold only."""
        return [self.prompts[number::count] for number in range(count)]

    def examples(self, prompts: Sequence[str]) -> list[NewExample]:
        """Both models' graded answers to these prompts."""
        return [
            NewExample(
                prompt, model, one.score, self.task, one.text, one.cost_nano / 1e9, one.input_tokens,
                one.output_tokens,
            )
            for prompt in prompts
            for model in (self.weak, self.strong)
            for one in [self.said[model][prompt]]
        ]  # fmt: skip

    def specs(self, folder: Path, max_tokens: int) -> list[ModelSpec]:
        """Replay models, their recordings written to `folder`."""
        return [self._spec(model, folder, max_tokens) for model in (self.weak, self.strong)]

    def _spec(self, model: str, folder: Path, max_tokens: int) -> ModelSpec:
        path = folder / f"{model}.jsonl"
        rows = [
            {
                "prompt": prompt,
                "text": one.text,
                "input_tokens": one.input_tokens,
                "output_tokens": one.output_tokens,
                "cost_usd": f"{Decimal(one.cost_nano) / 10**9:f}",
            }
            for prompt, one in self.said[model].items()
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ModelSpec(
            name=model, engine="replay", source=str(path), price=self.prices[model], context=8192,
            max_output=max_tokens, concurrency=CONCURRENCY,
        )  # fmt: skip


def load(path: Path | None = None) -> Pair:
    """The pair in a file of the referees' data; the dearer model is the strong one.

    Raises:
        NotThere: no such file.
    """
    path = path or referee("..", "data", "routing", "gsm8k_pair.csv.gz")
    if not path.exists():
        raise NotThere(f"there is no {path}")
    csv.field_size_limit(1 << 30)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["score"] and row["response"]]
    found: dict[str, dict[str, Said]] = {}
    for row in rows:
        name = re.sub(r"[^a-z0-9.-]+", "-", row["model"].rpartition("/")[2].lower())
        found.setdefault(name, {})[row["prompt"]] = _said(row)
    weak, strong = sorted(found, key=lambda model: sum(one.cost_nano for one in found[model].values()))
    prompts = sorted(found[weak].keys() & found[strong].keys())
    random.Random(0).shuffle(prompts)
    prices = {model: _price(list(found[model].values())) for model in found}
    return Pair(weak, strong, prompts, found, prices, TASK)


def _said(row: Mapping[str, str]) -> Said:
    def tokens(key: str) -> int:
        return max(1, round(float(row[key])))

    return Said(
        row["response"], float(row["score"]), parse_usd(row["cost_usd"]), tokens("in_tok"), tokens("out_tok")
    )


def _price(said: Sequence[Said]) -> Price:
    """USD per million tokens that explain the recorded costs best."""
    tokens = np.array([[one.input_tokens, one.output_tokens] for one in said], float)
    nano = np.array([one.cost_nano for one in said], float)
    each = np.linalg.lstsq(tokens, nano, rcond=None)[0] / 1000
    return Price(input=Decimal(f"{each[0]:.2f}"), output=Decimal(f"{each[1]:.2f}"))


# -- the product


class Place:
    """Makes Podiums with a new database each, on one kind of pool."""

    def __init__(self, pair: Pair, folder: Path, make_pool: Callable[[], Pool]) -> None:
        self.pair, self._folder, self._make_pool = pair, folder, make_pool
        self._homes = iter(range(1_000_000))

    @contextmanager
    def podium(self, policy: Mapping[str, Any], known: Sequence[str]) -> Iterator[Podium]:
        """One that has learned from the answers to `known`, and from nothing else."""
        settings = Settings(home=self._folder / f"home-{next(self._homes)}", max_parallel=4 * CONCURRENCY)
        with Podium(settings, pool=self._make_pool(), policy=policy) as podium:
            rows, tenant = self.pair.examples(known), podium.settings.tenant
            if rows:
                podium.database.transact(lambda c: learning.put_examples(c, tenant, "known", rows))
                routing.train(podium.database, tenant, [self.pair.weak, self.pair.strong], "benchmark")
            yield podium


@contextmanager
def place(pair: Pair, *, ray: bool, max_tokens: int) -> Iterator[Place]:
    """A place on a Ray head of its own, or on models in this process."""
    with tempfile.TemporaryDirectory(prefix="podium-routing-") as name:
        folder = Path(name)
        specs = pair.specs(folder, max_tokens)
        if not ray:
            yield Place(pair, folder, lambda: LocalPool(specs, folder))
            return
        from podium.workers.cluster import connect, disconnect, start_head, stop_head
        from podium.workers.ray_pool import RayPool

        head = folder / "ray"
        try:
            connect(start_head(head, dashboard=False, num_cpus=2))
            yield Place(pair, folder, lambda: RayPool(specs, head, detached=True))
        finally:
            disconnect()
            stop_head(head)


def questions(max_tokens: int) -> Workflow:
    """One model call for each question."""
    workflow = Workflow("questions")
    asked = workflow.input("questions", list[str])
    workflow.output("answers", workflow.map(TASK, over=asked, prompt="{item}", max_tokens=max_tokens))
    return workflow


def rest(xs: list[str], done: list[str], count: int) -> list[str]:
    """A task: questions of a map, known when the one before has ended with the answers `done`."""
    if not done:
        raise ValueError("the map before has no answers")
    return xs[:count]


# -- what came of a run


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run made of its prompts; arrays are over prompts."""

    prompts: Sequence[str]
    score: Array
    #: nano-dollars of all its calls
    nano: Array
    #: calls of the strong model: at once, or since the weak answer was in doubt
    strong: Array
    escalated: Array
    seconds: float
    #: of this process, all threads
    cpu_seconds: float
    calls: Sequence[CallRecord]


def ask(
    podium: Podium, pair: Pair, prompts: Sequence[str], workflow: Workflow, budget_nano: int, **inputs: Any
) -> tuple[Run, Answers]:
    """Run `workflow` and look up what its answers score. Its maps of model calls, in order, ask equal parts
    of `prompts`, in order. What a run that its budget stopped did not answer scores nothing.

    Raises:
        BillWrong: the money does not agree.
        RuntimeError: the run failed.
    """
    run = podium.submit(workflow, detached=False, budget=f"{budget_nano / 1e9:.9f}", inputs=inputs)
    begun, cpu = time.perf_counter(), time.process_time()
    run = podium.drive(run.id)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    if run.status not in ("succeeded", "stopped"):
        raise RuntimeError(f"the run {run.status}: {run.error}")
    calls = podium.database.query(lambda c: reads.calls(c, run.id))
    maps = [name for name, task in workflow.tasks.items() if task.kind == "map"]
    at = {call.id: _number(call, maps, len(prompts) // len(maps)) for call in calls}
    check_bill(podium, pair, run, calls, {call: prompts[number] for call, number in at.items()})
    return run, _answers(pair, prompts, calls, at, seconds, cpu)


def _number(call: CallRecord, maps: Sequence[str], size: int) -> int:
    """The place of the prompt that a call is about."""
    found = _ELEMENT.fullmatch(call.task)
    if found is None:
        raise RuntimeError(f"the call of {call.task} is of no map")
    return maps.index(found[1]) * size + int(found[2])


def _answers(
    pair: Pair,
    prompts: Sequence[str],
    calls: Sequence[CallRecord],
    at: Mapping[str, int],
    seconds: float,
    cpu: float,
) -> Answers:
    score, nano, strong, escalated = (np.zeros(len(prompts)) for _ in range(4))
    for call in calls:  # the earliest first: the last answer of a task is the one that counts
        if call.status != "settled":
            continue
        i = at[call.id]
        score[i] = pair.said[call.model][prompts[i]].score
        nano[i] += call.cost_nano or 0
        strong[i] += call.model == pair.strong
        escalated[i] += call.verdict == "escalated"
    return Answers(prompts, score, nano, strong, escalated, seconds, cpu, calls)


def check_bill(
    podium: Podium, pair: Pair, run: Run, calls: Sequence[CallRecord], about: Mapping[str, str]
) -> None:
    """The run's bill, the ledger's rows, the calls' costs and the recorded prices are the same money.

    `about`: the prompt of each call, by its id.

    Raises:
        BillWrong: they are not.
    """
    query = select(Ledger.kind, Ledger.amount_nano).where(Ledger.run_id == run.id)
    with podium.database.read() as connection:
        rows = [(kind, int(amount)) for kind, amount in connection.execute(query)]
    sums = {kind: sum(amount for k, amount in rows if k == kind) for kind in ("reserve", "settle", "refund")}
    paid = [call for call in calls if call.status == "settled"]
    bills = {
        "the run's record": run.record.settled_nano,
        "the ledger's settlements": sums["settle"],
        "the ledger's reservations less what was given back": sums["reserve"] - sums["refund"],
        "the calls' costs": sum(call.cost_nano or 0 for call in calls),
        "the recorded prices": sum(pair.said[call.model][about[call.id]].cost_nano for call in paid),
    }
    if len(set(bills.values())) > 1 or run.record.reserved_nano:
        raise BillWrong(f"nano-dollars: {bills}; still reserved: {run.record.reserved_nano}")
