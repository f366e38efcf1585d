"""examples/maths.yaml: two models of different skill and price, with what they really answered and cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_project import check_books
from podium import Podium, Run
from podium.memory import learning
from podium.memory.learning import NewExample
from podium.orchestrator import routing
from podium.router.evaluation.outcomes import read_csv
from podium.workers.poolfile import load_pool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
POOL = EXAMPLES / "maths_pool.yaml"
ALWAYS_DEAR = 114_495_000


@pytest.fixture
def podium(home: Path) -> Callable[[], Podium]:
    return lambda: Podium(home=home, pool=POOL)


def run(podium: Podium) -> Run:
    found = podium.run(EXAMPLES / "maths.yaml", budget="1")
    assert found.status == "succeeded", found.error
    assert len(found.output) == 24
    check_books(podium, found)
    return found


def test_it_asks_the_dear_model_only_where_the_cheap_answer_is_in_doubt(podium: Callable[[], Podium]) -> None:
    rows = read_csv(EXAMPLES / "data" / "maths" / "graded.csv.gz").rows
    graded = [
        NewExample(
            r.prompt, r.model, r.score, r.task, r.answer, r.cost_usd, int(r.in_tok or 0), int(r.out_tok or 0)
        )
        for r in rows
    ]
    with podium() as first:
        tenant = first.settings.tenant
        first.database.transact(lambda c: learning.put_examples(c, tenant, "graded", graded))
        made = routing.train(
            first.database, tenant, list(load_pool(POOL, first.settings.home).models), "test"
        )
        assert made.rows == 300
        assert ("mixtral-8x7b", "gpt-4") in made.doubts
    with podium() as second:  # what was learned is in the database, not in the process
        found = run(second)
        verdicts = {(call.model, call.verdict) for call in found.calls}
        assert ("mixtral-8x7b", "escalated") in verdicts
        assert ("mixtral-8x7b", "accepted") in verdicts
        assert {call.route["state"] for call in found.calls} == {made.version}
        assert found.cost_nano < 0.7 * ALWAYS_DEAR
        assert found.savings is not None
        assert found.savings.best is not None
        assert found.savings.best.other.name == "gpt-4"
        assert found.savings.best.saved_nano > 0
        assert found.savings.actual.cost_nano == found.cost_nano


def test_with_nothing_learned_the_dear_model_is_presumed_better(podium: Callable[[], Podium]) -> None:
    with podium() as first:
        found = run(first)
        dear = sum(call.model == "gpt-4" for call in found.calls)
        assert dear > 12
        assert "nothing is learned yet" in found.calls[0].route["reason"]
