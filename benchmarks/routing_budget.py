"""A run's budget and the router that paces it: nothing overspent, nearly all of it used, and what for.

    python -m benchmarks.routing_budget [--quick] [--ray] [--max-tokens 600] [--data FILE]

400 questions to the pair of `routing_e2e`, `aim: best`, the router trained on the other prompts. The budget
is a quarter, half and three quarters of the way from the weak model's bill to the strong one's. Once as one
map, and once as four maps, of which each is known only when the one before has ended. Beside the accuracy
stands that of the zero router: the random mix of both models that costs as much as the whole budget.

`aim: best` wants answers as good as the strong model's for the least money: a budget beyond that stays
unused. No committed state may pass the budget: the ledger's rows are summed in their order, what is settled
with what is reserved; if one does, the exit status is 1. `--quick`: one budget.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from podium import Podium, Workflow
from podium.memory.tables import Ledger
from sqlalchemy import select

from benchmarks.figures import Figure
from benchmarks.memory_figures import AtLeast
from benchmarks.peers import NotThere
from benchmarks.routing_e2e import report
from benchmarks.routing_pair import Pair, Place, ask, load, place, questions, rest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "routing_budget.json"
ASKED = 400
WAYS = (0.25, 0.5, 0.75)
#: maps of the workflow that grows
PARTS = 4
MAX_TOKENS = 600
POLICY = {"kind": "learned", "aim": "best", "explore": 0}


@dataclass(frozen=True, slots=True)
class Spent:
    """One run against its budget."""

    name: str
    budget: int
    settled: int
    #: nano-dollars by which a committed state passed the budget at most: settled and reserved together
    over: int
    accuracy: float
    #: of the random mix that costs the whole budget, and of the strong model alone
    mix: float
    best: float
    #: percent of the questions that the strong model was asked
    strong: float
    unanswered: int
    #: share of the budget that each part of the questions took
    parts: Sequence[float]

    @property
    def used(self) -> float:
        return 100 * self.settled / self.budget


def growing(max_tokens: int, count: int) -> Workflow:
    """`PARTS` maps of `count` questions; a task that waits for the map before gives each its elements."""
    workflow = Workflow("growing")
    workflow.output("done", f"s{PARTS - 1}")
    for part in range(PARTS):
        xs = f"q{part}"
        workflow.input(xs, list[str])
        over = xs
        if part:
            over = f"rest{part}"
            given = {"xs": f"{{{xs}}}", "done": f"{{s{part - 1}}}", "count": count}
            workflow.python(over, rest, with_=given, inline=True)
        workflow.map(f"s{part}", over=over, prompt="{item}", max_tokens=max_tokens)
    return workflow


def overspent(podium: Podium, run_id: str, budget: int) -> int:
    """The most by which settled and reserved money together passed the budget, over the ledger's rows."""
    query = select(Ledger.kind, Ledger.amount_nano).where(Ledger.run_id == run_id).order_by(Ledger.id)
    reserved = settled = worst = 0
    with podium.database.read() as connection:
        for kind, amount in connection.execute(query):
            reserved += amount if kind == "reserve" else -amount
            settled += amount if kind == "settle" else 0
            worst = max(worst, reserved + settled)
    if reserved:
        raise RuntimeError(f"{reserved} nano-dollars are still reserved")
    return max(0, worst - budget)


def spend(where: Place, way: float, max_tokens: int, *, grows: bool) -> Spent:
    """One run with a budget that lies so far between both bills."""
    pair = where.pair
    asked, known = pair.prompts[:ASKED], pair.prompts[ASKED:]
    low, high = (int(pair.nanos(model, asked).sum()) for model in (pair.weak, pair.strong))
    budget = low + round(way * (high - low))
    count = len(asked) // PARTS
    with where.podium(POLICY, known) as podium:
        if grows:
            given = {f"q{part}": list(asked[part * count : (part + 1) * count]) for part in range(PARTS)}
            workflow = growing(max_tokens, count)
        else:
            given, workflow = {"questions": list(asked)}, questions(max_tokens)
        run, answers = ask(podium, pair, asked, workflow, budget, **given)
        over = overspent(podium, run.id, budget)
    return Spent(
        f"{100 * way:.0f} % of the way, {f'{PARTS} maps in a row' if grows else 'one map'}",
        budget,
        run.record.settled_nano,
        over,
        100 * float(answers.score.mean()),
        100 * _mix(pair, asked, way),
        100 * _mix(pair, asked, 1.0),
        100 * float((answers.strong > 0).mean()),
        int((answers.nano == 0).sum()),
        [float(answers.nano[i * count : (i + 1) * count].sum()) / budget for i in range(PARTS)],
    )


def _mix(pair: Pair, prompts: Sequence[str], way: float) -> float:
    weak, strong = (float(pair.scores(model, prompts).mean()) for model in (pair.weak, pair.strong))
    return weak + way * (strong - weak)


def figures(spent: Spent) -> list[Figure]:
    """What is left of a budget is a fault only where the aim was missed."""
    parts = ", ".join(f"{100 * part:.0f}" for part in spent.parts)
    note = f"by quarters of the questions: {parts}; strong calls {spent.strong:.0f} %"
    met = spent.accuracy >= spent.best and spent.used < 97
    if met:
        note = f"the aim is met, the strong model alone has {spent.best:.1f}; {note}"
    return [
        Figure(f"overspent, {spent.name}", "nano-dollars", (float(spent.over),), 0),
        AtLeast(f"share of the budget that is used, {spent.name}", "%", (spent.used,),
                None if met else 97, None if met else 99, note=note),
        Figure(f"questions without an answer, {spent.name}", "", (float(spent.unanswered),), 0),
        AtLeast(f"accuracy, {spent.name}", "%", (spent.accuracy,), round(spent.mix, 1),
                peers={"random mix for the whole budget": spent.mix}),
    ]  # fmt: skip


def measured(asked: argparse.Namespace) -> list[Figure]:
    pair, found = load(asked.data), []
    with place(pair, ray=asked.ray, max_tokens=asked.max_tokens) as where:
        for grows in (False, True):
            for way in WAYS[1:2] if asked.quick else WAYS:
                found += figures(spend(where, way, asked.max_tokens, grows=grows))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one budget")
    parser.add_argument("--ray", action="store_true", help="models on Ray, not in the engine's process")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help="of an answer: what is reserved")
    parser.add_argument("--data", type=Path, help="another file of the same form")
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    try:
        found = measured(asked)
    except NotThere as missing:
        print(f"not measured: {missing}")
        return 0
    report(found, RESULTS, before)
    return int(any(one.name.startswith("overspent") and one.measured for one in found))


if __name__ == "__main__":
    sys.exit(main())
