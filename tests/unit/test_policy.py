"""Policies: which model a call gets, and what the Route says of the others."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.memory.errors import ConfigError
from podium.router.policy import CheapestThatFits, Fixed, NoRoute, Policy, make_policy
from podium.router.stats import Stats
from podium.router.testing import ScriptedPolicy
from podium.router.types import ModelSpec, Price, Query, Route


def model(name: str, price: str = "1", **fields: Any) -> ModelSpec:
    cost = Price(input=Decimal(price), output=Decimal(price))
    return ModelSpec.model_validate(
        {"name": name, "engine": "replay", "source": "x.jsonl", "price": cost, "context": 4096, **fields}
    )


def query(**fields: Any) -> Query:
    return Query(**{"input_tokens_max": 400, "input_tokens": 100, "max_tokens": 100, "task": "t", **fields})


SMALL, MIDDLE, LARGE = model("small", "0.1", context=512), model("middle", "1"), model("large", "10")
POOL = [LARGE, MIDDLE, SMALL]


def reasons(route: Route) -> dict[str, str]:
    return {a.model: a.reason for a in route.alternatives}


def test_the_cheapest_model_that_fits_is_taken_and_all_others_are_listed() -> None:
    route = CheapestThatFits().choose(query(), POOL, Stats())
    assert (route.model, route.policy, route.mode, route.propensity) == ("small", "cheapest", "direct", 1.0)
    assert route.reason == "cheapest of 3 models that fit"
    assert reasons(route) == {"large": "price 100.0× of the chosen", "middle": "price 10.0× of the chosen"}
    assert all(a.fits for a in route.alternatives)


def test_costs_are_estimated_at_half_the_answer_and_bounded_at_the_whole() -> None:
    route = Fixed("middle").choose(query(), POOL, Stats())
    assert route.max_tokens == 100
    assert route.est_cost_nano == MIDDLE.price.cost(100, 50)
    assert route.worst_cost_nano == MIDDLE.price.cost(400, 100)
    assert route.est_seconds is None


def test_a_prompt_that_is_too_long_for_the_cheapest_goes_to_the_next() -> None:
    route = CheapestThatFits().choose(query(input_tokens=1850), POOL, Stats())
    assert route.model == "middle"
    (small,) = [a for a in route.alternatives if a.model == "small"]
    assert (small.fits, small.reason) == (False, "context 512 < 1,900 needed")
    assert small.est_cost_nano == SMALL.price.cost(1850, 50)


def test_json_needs_the_capability_but_a_model_chosen_by_name_may_do_without() -> None:
    plain = model("plain", "0.01", capabilities=["stream"])
    route = CheapestThatFits().choose(query(needs_json=True), [plain, MIDDLE], Stats())
    assert route.model == "middle"
    assert reasons(route) == {"plain": "cannot constrain its answer to JSON"}
    pinned = CheapestThatFits().choose(query(needs_json=True, pinned="plain"), [plain, MIDDLE], Stats())
    assert pinned.model == "plain"
    assert "the answer is only checked" in pinned.reason


def test_ties_go_to_the_faster_model_and_then_to_the_first_of_the_pool() -> None:
    pool = [model("a"), model("b"), model("c")]
    assert CheapestThatFits().choose(query(), pool, Stats()).model == "a"
    history = Stats.of([("a", "t", 100, 50, 9.0), ("b", "t", 100, 50, 2.0)])
    route = CheapestThatFits().choose(query(), pool, history)
    assert route.model == "b"
    assert "fastest of equal price" in route.reason
    assert route.est_seconds == pytest.approx(2.0)
    assert reasons(route)["a"] == "price the same as the chosen, slower"


def test_history_moves_the_expected_cost() -> None:
    short_answers = Stats.of([("small", "t", 100, 4, 1.0)] * 20)
    assert CheapestThatFits().choose(query(), POOL, short_answers).est_cost_nano < SMALL.price.cost(100, 15)


def test_after_a_failure_the_fallback_order_comes_first_and_then_the_cost() -> None:
    policy = CheapestThatFits(fallback=("large",))
    assert policy.choose(query(), POOL, Stats()).model == "small"
    second = policy.choose(query(exclude=frozenset({"small"})), POOL, Stats())
    assert (second.model, second.reason) == ("large", "next in the fallback order after small")
    assert reasons(second)["small"] == "failed before in this call, or its price was refused"
    third = policy.choose(query(exclude=frozenset({"small", "large"})), POOL, Stats())
    assert third.model == "middle"
    assert third.reason == "the only model left after large, small that fits"


def test_when_everything_failed_each_model_has_its_reason() -> None:
    with pytest.raises(NoRoute) as error:
        CheapestThatFits().choose(query(exclude=frozenset({"small", "middle", "large"})), POOL, Stats())
    assert error.value.exhausted
    assert set(error.value.reasons) == {"small", "middle", "large"}
    assert "podium show" in error.value.mend
    assert error.value.exit_code == 3
    again = pickle.loads(pickle.dumps(error.value))  # noqa: S301
    assert again.reasons == error.value.reasons


def test_a_prompt_longer_than_every_context_says_so() -> None:
    with pytest.raises(NoRoute, match=r"large: context 4,096 < 9,016 needed") as error:
        CheapestThatFits().choose(query(input_tokens=9000), POOL, Stats())
    assert not error.value.exhausted
    assert "shorten the prompt" in error.value.mend


def test_without_room_for_the_expected_answer_the_roomiest_model_answers_cut() -> None:
    pool = [model("a", "0.1", context=512), model("b", context=600, max_output=512)]
    route = CheapestThatFits().choose(query(input_tokens=450, max_tokens=400), pool, Stats())
    assert (route.model, route.max_tokens) == ("b", 150)
    assert route.reason.startswith("most room for the answer, of too little; the answer is cut to the 150")


def test_a_pinned_model_is_taken_whatever_it_costs() -> None:
    for policy in (CheapestThatFits(), Fixed("small"), Fixed("small", fallback=("middle",))):
        route = policy.choose(query(pinned="large"), POOL, Stats())
        assert route.model == "large"
        assert "pinned" in route.reason
        assert reasons(route)["small"] == "the call is pinned to another; price below 0.1× of the chosen"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pinned": "midle"}, "did you mean 'middle'"),
        ({"pinned": "middle", "exclude": frozenset({"middle"})}, "failed before in this call"),
        ({"pinned": "small", "input_tokens": 510}, "context 512 < 526 needed"),
    ],
)
def test_a_pinned_model_that_cannot_answer_is_no_route(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(NoRoute) as error:
        CheapestThatFits().choose(query(**fields), POOL, Stats())
    assert message in str(error.value)


def test_fixed_takes_its_model_then_its_fallback_and_no_other() -> None:
    policy = Fixed("large", fallback=("middle",))
    assert policy.choose(query(), POOL, Stats()).model == "large"
    second = policy.choose(query(exclude=frozenset({"large"})), POOL, Stats())
    assert (second.model, second.reason) == ("middle", "fallback for large, which failed or was refused")
    with pytest.raises(NoRoute, match="allows only large, middle") as error:
        policy.choose(query(exclude=frozenset({"large", "middle"})), POOL, Stats())
    assert error.value.exhausted
    too_long = Fixed("small", fallback=("large",)).choose(query(input_tokens=600), POOL, Stats())
    assert too_long.reason == "fallback for small, which does not fit (context 512 < 616 needed)"


def test_a_free_model_has_a_comparison_too() -> None:
    route = CheapestThatFits().choose(query(), [model("free", "0"), MIDDLE], Stats())
    assert reasons(route) == {"middle": "price 0.00015 USD, the chosen costs nothing"}


def test_an_empty_pool_has_no_route() -> None:
    with pytest.raises(NoRoute, match="podium models add"):
        CheapestThatFits().choose(query(), [], Stats())


def test_policies_are_made_from_a_pool_file() -> None:
    assert make_policy({}) == CheapestThatFits()
    assert make_policy({"kind": "cheapest", "model": None, "fallback": ["a"]}) == CheapestThatFits(("a",))
    assert make_policy({"kind": "fixed", "model": "a"}, ["a"]) == Fixed("a")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "best"}, "unknown kind 'best'"),
        ({"kind": "fixed"}, "needs a model"),
        ({"kind": "cheapest", "model": "small"}, "takes no 'model'"),
        ({"fallbacks": ["small"]}, "takes no 'fallbacks'"),
        ({"kind": "learned", "aim": "cheep"}, "unknown aim 'cheep'"),
        ({"kind": "learned", "quality": 1.5}, "not between 0 and 1"),
        ({"kind": "learned", "allow": ["smal"]}, "did you mean 'small'"),
        ({"fallback": ["smal"]}, "did you mean 'small'"),
    ],
)
def test_a_wrong_policy_is_a_config_error_with_a_mend(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_policy(spec, ["small", "large"])
    assert message in str(error.value)
    assert error.value.mend


@pytest.mark.parametrize("policy", [Fixed("lrage"), CheapestThatFits(("lrage",))])
def test_a_policy_that_names_no_model_of_the_pool_is_a_config_error(policy: Policy) -> None:
    with pytest.raises(ConfigError, match="did you mean 'large'"):
        policy.choose(query(), POOL, Stats())


def test_the_scripted_policy_follows_its_script() -> None:
    policy = ScriptedPolicy(["small", "large"])
    taken = [policy.choose(query(), POOL, Stats()).model for _ in range(3)]
    assert taken == ["small", "large", "large"]
    assert len(policy.asked) == 3


def route_or_reasons(asked: Query, pool: list[ModelSpec]) -> Route | Mapping[str, str]:
    try:
        return CheapestThatFits().choose(asked, pool, Stats())
    except NoRoute as error:
        return error.reasons


specs = st.lists(
    st.tuples(st.integers(0, 50), st.integers(64, 5000), st.integers(1, 2000), st.booleans()),
    min_size=1,
    max_size=6,
).map(
    lambda rows: [
        model(f"m{i}", str(price), context=context, max_output=output, capabilities=["json"] if json else [])
        for i, (price, context, output, json) in enumerate(rows)
    ]
)


@given(
    pool=specs,
    size=st.integers(0, 6000),
    wanted=st.integers(1, 3000),
    json=st.booleans(),
    gone=st.sets(st.integers(0, 5)),
)
def test_every_route_keeps_its_word(
    pool: list[ModelSpec], size: int, wanted: int, json: bool, gone: set[int]
) -> None:
    asked = query(
        input_tokens=size,
        input_tokens_max=size * 4,
        max_tokens=wanted,
        needs_json=json,
        exclude=frozenset(f"m{i}" for i in gone),
    )
    route = route_or_reasons(asked, pool)
    if not isinstance(route, Route):
        assert set(route) == {m.name for m in pool}
        assert all(route.values())
        return
    taken = next(m for m in pool if m.name == route.model)
    assert taken.name not in asked.exclude
    assert not json or "json" in taken.capabilities
    assert 1 <= route.max_tokens <= min(wanted, taken.max_output, taken.context - size)
    assert route.est_cost_nano <= route.worst_cost_nano == taken.price.cost(size * 4, route.max_tokens)
    assert {a.model for a in route.alternatives} | {route.model} == {m.name for m in pool}
    assert all(a.reason for a in route.alternatives)
