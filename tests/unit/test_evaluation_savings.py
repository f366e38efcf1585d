"""What a run saved, and the ranking of models: by hand."""

from __future__ import annotations

import json

import pytest
from podium.memory.errors import UsageError
from podium.router.evaluation.outcomes import Outcomes
from podium.router.evaluation.ranking import Weights, rank
from podium.router.evaluation.savings import Expected, MadeCall, savings

BOTH = {"small": Expected(100, 0.6, 0.01), "large": Expected(1000, 0.9, 0.04)}


def test_a_run_beside_always_best_and_always_cheapest() -> None:
    found = savings(
        [MadeCall("small", 110, BOTH), MadeCall("small", 90, BOTH), MadeCall("large", 1200, BOTH)]
    )
    assert (found.calls, found.decisions) == (3, 3)
    assert found.actual.cost_nano == 1400
    assert found.actual.quality == pytest.approx(0.7)
    # 2 · .1 of the small model's error and .2 of the large one's, independent of each other
    assert found.actual.low == pytest.approx(0.7 - 1.96 * (0.2**2 + 0.2**2) ** 0.5 / 3)
    assert found.best is not None
    assert found.cheapest is not None
    # the large model's own call is known by its bill, the other two by their estimates
    assert (found.best.other.name, found.best.other.cost_nano) == ("large", 1000 + 1000 + 1200)
    assert (found.best.saved_nano, found.best.saved_share) == (1800, pytest.approx(1800 / 3200))
    assert found.best.quality == pytest.approx(-0.2)
    assert (found.cheapest.other.name, found.cheapest.other.cost_nano) == ("small", 110 + 90 + 100)
    assert found.cheapest.saved_nano == -1100
    assert found.cheapest.quality == pytest.approx(0.1)
    assert (found.expected_nano, found.billed_nano) == (1200, 1400)


def test_all_calls_of_a_step_are_one_decision() -> None:
    cascade = [
        MadeCall("small", 100, BOTH, step="t1"),
        MadeCall("large", 900, BOTH, step="t1", quality=0.8, variance=0.0),
        MadeCall("small", 100, BOTH, step="t2", quality=0.95, variance=0.0),
    ]
    found = savings(cascade)
    assert (found.calls, found.decisions) == (3, 2)
    assert found.actual.cost_nano == 1100
    # what checks told of the answers counts, and is certain here
    assert (found.actual.quality, found.actual.low) == (pytest.approx(0.875), pytest.approx(0.875))
    assert found.best is not None
    assert found.cheapest is not None
    # the large model alone would not have paid for the small one's try
    assert found.best.other.cost_nano == 900 + 1000
    assert found.best.quality == pytest.approx((0.95 - 0.9) / 2)
    assert found.cheapest.other.cost_nano == 200
    assert found.cheapest.quality == pytest.approx((0.8 - 0.6) / 2)


def test_the_same_choices_differ_by_nothing() -> None:
    found = savings([MadeCall("large", 1000, BOTH)] * 2)
    assert found.best is not None
    assert (found.best.saved_nano, found.best.quality, found.best.low, found.best.high) == (0, 0, 0, 0)


def test_a_model_that_could_not_take_a_call_leaves_it_as_it_was() -> None:
    only = {"small": BOTH["small"], "local": Expected(1, 0.1)}
    found = savings([MadeCall("small", 100, {**BOTH, **only}), MadeCall("small", 100, only)])
    assert found.cheapest is not None
    assert found.cheapest.other.name == "local"
    assert found.best is not None
    # `large` could take one of two calls only: it is no model for always
    assert found.best.other.name == "small"


def test_nothing_known_is_nothing_said() -> None:
    found = savings([MadeCall("small", 7, {"small": Expected(5)}), MadeCall("other", 3, {})])
    assert found.best is None
    assert found.actual.quality is None
    assert found.cheapest is not None
    assert (found.cheapest.other.cost_nano, found.cheapest.other.kept) == (10, 1)
    assert (found.expected_nano, found.billed_nano) == (5, 7)
    empty = savings([])
    assert (empty.actual.cost_nano, empty.best, empty.cheapest) == (0, None, None)
    assert json.loads(json.dumps(found.data()))["actual"]["cost_nano"] == 10


def rows(action: float | None = None) -> Outcomes:
    made = []
    for i in range(10):
        made.append({"prompt": f"p{i}", "model": "small", "score": 0.5, "cost_usd": 0.001, **_tokens(100)})
        made.append({"prompt": f"p{i}", "model": "large", "score": 0.8, "cost_usd": 0.01, **_tokens(150)})
    refined = [
        {"prompt": f"p{i}", "model": "small", "score": action, "cost_usd": 0.003, **_tokens(150)}
        for i in range(4)
    ]
    return Outcomes.of(made, refined if action is not None else ())


def _tokens(count: int) -> dict[str, int]:
    return {"in_tok": count // 2, "out_tok": count - count // 2}


def test_models_are_ranked_by_stated_weights() -> None:
    found = rank(rows(), Weights(0.5, 0.2, 0.3), draws=10)
    assert found.weights == {"quality": pytest.approx(0.625), "cost": pytest.approx(0.375)}
    assert [r.model for r in found.models] == ["large", "small"]
    large, small = found.models
    assert large.score.value == pytest.approx(0.625 * 0.8 + 0.375 * 2 / 3)
    assert small.score.value == pytest.approx(0.625 * 0.5 + 0.375)
    assert (large.first, small.first) == (1, 0)
    assert large.gain is None
    assert any("no refined rows" in note for note in found.notes)
    cheap = rank(rows(), Weights(0.1, 0, 0.9), draws=10)
    assert [r.place for r in cheap.models if r.model == "small"] == [1]


def test_gain_from_refinement_is_of_prompts_that_have_both() -> None:
    found = rank(rows(0.75), Weights(1, 1, 0), draws=50)
    small = next(r for r in found.models if r.model == "small")
    large = next(r for r in found.models if r.model == "large")
    assert small.gain is not None
    assert small.gain.value == pytest.approx(0.25)
    # half as good again for half as many tokens again
    assert small.gain_tep == pytest.approx(1)
    assert small.score.value == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)
    assert large.gain is None
    assert any("not tried with large" in note for note in found.notes)
    assert json.loads(json.dumps(found.data(), allow_nan=False))["weights"]["refinement"] == 0.5


def test_weights_that_do_not_rank_are_refused() -> None:
    for weights in (Weights(-1, 1, 1), Weights(0, 1, 0)):
        with pytest.raises(UsageError, match="do not rank"):
            rank(rows(), weights)
