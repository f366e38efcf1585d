"""The policy that weighs quality against money: no rule is broken, prices of quality do what they say."""

from __future__ import annotations

import random
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.router.decision.options import Gains, Option, Tradeoff
from podium.router.decision.pacing import Left, Pacer
from podium.router.decision.policy import AIMS, Known, Learned, Shelf, Terms, make_learned
from podium.router.decision.review import review
from podium.router.estimates import NoRoute
from podium.router.learned import LearnedRouter
from podium.router.learning.predictor import Outcome
from podium.router.policy import make_policy
from podium.router.stats import Stats
from podium.router.types import ModelSpec, Price, Query, Route
from podium.router.verifiers.contract import OWN, SCHEMA, Check

NAMES = ("small", "middle", "large", "remote")


def model(name: str, price: str, **fields: Any) -> ModelSpec:
    cost = Price(input=Decimal(price), output=Decimal(price))
    return ModelSpec.model_validate(
        {"name": name, "engine": "replay", "source": "x.jsonl", "price": cost, "context": 4096, **fields}
    )


POOL = [
    model("small", "0.1", context=512),
    model("middle", "1"),
    model("large", "10"),
    model("remote", "20", engine="openai", base_url="https://api.example/v1"),
]


def query(prompt: str = "What is this?", **fields: Any) -> Query:
    usual = {"input_tokens_max": 400, "input_tokens": 100, "max_tokens": 100, "task": "t", "prompt": prompt}
    return Query(**{**usual, **fields})


def learned(shelf: Shelf | None = None, left: Any = Left, **terms: Any) -> Learned:
    return make_learned({"explore": 0.0, **terms}, Known(shelf or Shelf(), left))


def rows(task: str, quality: dict[str, float], count: int, seed: int = 0) -> list[Outcome]:
    """Graded answers: right with the model's probability."""
    draw = random.Random(seed)
    return [
        Outcome(
            f"{task} question {i} about {draw.choice('abcdefgh') * 3}", name, float(draw.random() < p), task
        )
        for i in range(count)
        for name, p in quality.items()
    ]


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    router = LearnedRouter(NAMES[:3])
    router.train(
        [
            *rows("easy", {"small": 0.9, "middle": 0.9, "large": 0.92}, 60),
            *rows("hard", {"small": 0.1, "middle": 0.5, "large": 0.9}, 60),
        ]
    )
    return Shelf(router, 7)


def test_an_easy_task_goes_to_the_cheap_model_and_a_hard_one_to_the_dear_one(shelf: Shelf) -> None:
    easy = learned(shelf).choose(query("easy question 70 about bbb", task="easy"), POOL[:3], Stats())
    hard = learned(shelf).choose(query("hard question 70 about bbb", task="hard"), POOL[:3], Stats())
    assert (easy.model, hard.model) == ("small", "large")
    assert easy.state == 7
    assert hard.est_quality is not None
    assert "expected score" in easy.reason
    assert "next best" in easy.reason
    assert {a.model for a in hard.alternatives} == {"small", "middle"}
    assert all(a.est_quality is not None for a in hard.alternatives)


def test_cheaper_aims_keep_less_and_pay_less(shelf: Shelf) -> None:
    paid: dict[str, int] = {}
    for aim in AIMS:
        policy = learned(shelf, aim=aim)
        total = 0
        for i in range(60):
            route = policy.choose(query(f"hard question {i}", task="hard"), POOL[:3], Stats())
            total += route.est_cost_nano
            singles = {a.model: a.est_quality or 0.0 for a in route.alternatives}
            policy.pacer.answered(
                route.est_quality or 0.0, singles | {route.model: route.est_quality or 0.0}, 1
            )
        paid[aim] = total
    assert paid["cheap"] < paid["balanced"] < paid["best"]


TERMS = st.fixed_dictionaries(
    {},
    optional={
        "aim": st.sampled_from(sorted(AIMS)),
        "floor": st.floats(0, 1),
        "allow": st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
        "deny": st.lists(st.sampled_from(NAMES), unique=True, max_size=3),
        "local": st.booleans(),
        "explore": st.floats(0, 1),
        "second_usd": st.floats(0, 0.01),
        "fallback": st.lists(st.sampled_from(NAMES), unique=True, max_size=2),
    },
)
QUERIES = st.builds(
    query,
    st.sampled_from(["easy question 1 about aaa", "Something else entirely", ""]),
    task=st.sampled_from(["easy", "hard", "never seen", ""]),
    input_tokens=st.integers(1, 6000),
    needs_json=st.booleans(),
    private=st.booleans(),
    checked=st.booleans(),
    exclude=st.frozensets(st.sampled_from(NAMES), max_size=3),
    seconds_left=st.none() | st.floats(0, 10),
    weight=st.floats(0.25, 4),
    seed=st.integers(0, 2**32 - 1),
)
SEEN = Stats.of([(name, "easy", 100, 50, seconds) for name, seconds in zip(NAMES, (1, 2, 4, 8), strict=True)])


def breaks(spec: ModelSpec, asked: Query, terms: Terms, quality: float | None) -> str:
    """The rule that a model breaks, by the words of the docs and not by the policy's code."""
    found = {
        "excluded": spec.name in asked.exclude,
        "context": asked.input_tokens >= spec.context,
        "json": asked.needs_json and "json" not in spec.capabilities,
        "private": (asked.private or terms.local) and spec.engine == "openai",
        "allow": bool(terms.allow) and spec.name not in terms.allow,
        "deny": spec.name in terms.deny,
        "floor": quality is not None and quality < terms.floor,
    }
    return next((rule for rule, broken in found.items() if broken), "")


def _route_or_reasons(policy: Learned, asked: Query, pool: list[ModelSpec]) -> Route | Mapping[str, str]:
    try:
        return policy.choose(asked, pool, SEEN)
    except NoRoute as error:
        return error.reasons


@settings(max_examples=60, deadline=None)
@given(terms=TERMS, asked=QUERIES)
def test_no_rule_is_ever_broken(shelf: Shelf, terms: dict[str, Any], asked: Query) -> None:
    pool = [POOL[0], POOL[1].model_copy(update={"capabilities": frozenset({"stream"})}), *POOL[2:]]
    policy = make_learned(terms, Known(shelf))
    found = _route_or_reasons(policy, asked, pool)
    if not isinstance(found, Route):
        assert set(found) == set(NAMES)
        assert all(found.values())
        return
    route = found
    quality = {a.model: a.est_quality for a in route.alternatives} | {route.model: route.est_quality}
    for name in (route.model, *([route.then] if route.then else [])):
        spec = next(s for s in pool if s.name == name)
        assert breaks(spec, asked, policy.terms, quality[name]) == ""
    assert 0 < route.propensity <= 1


@settings(max_examples=30, deadline=None)
@given(asked=QUERIES, explore=st.floats(0, 1))
def test_the_same_seed_gives_the_same_choice(shelf: Shelf, asked: Query, explore: float) -> None:
    def choice() -> Route | str:
        try:
            return make_learned({"explore": explore}, Known(shelf)).choose(asked, POOL, SEEN)
        except NoRoute as error:
            return str(error)

    assert choice() == choice()


def test_trying_others_is_bounded_by_its_share_of_the_money(shelf: Shelf) -> None:
    policy = make_learned({"explore": 0.05, "aim": "best"}, Known(shelf))
    tried = spent = explored = 0
    for seed in range(400):
        route = policy.choose(
            query(f"easy question {seed} about bbb", task="easy", seed=seed), POOL[:3], Stats()
        )
        policy.pacer.begin(route.expected_nano, route.extra_nano)
        policy.pacer.end(route.expected_nano, route.est_cost_nano)
        spent, tried = spent + route.est_cost_nano, tried + route.extra_nano
        explored += route.explored
        assert route.explored == (route.extra_nano > 0 or "tried to learn" in route.reason)
    assert explored > 0
    assert tried <= 0.05 * spent + policy.pacer.credit


@pytest.mark.parametrize("seed", range(3))
def test_on_unseen_tasks_that_deceive_it_is_no_worse_than_a_mix_of_models(seed: int) -> None:
    """What was learned of other tasks is turned upside down on new ones: the router must not do worse there
    than the best static mix of models for the same money (the zero router), but for chance."""
    draw = random.Random(seed)
    truth = {"small": 0.85, "middle": 0.6, "large": 0.4}
    router = LearnedRouter(NAMES[:3])
    router.train([row for t in range(4) for row in rows(f"seen {t}", truth, 40, seed + t)])
    new = {"small": 0.3, "middle": 0.6, "large": 0.9}
    policy = learned(Shelf(router))
    cost: dict[str, float] = {s.name: 0.0 for s in POOL[:3]}
    quality = money = 0.0
    for i in range(200):
        asked = query(f"question {i} of a new kind {draw.random()}", task=f"new {i % 5}")
        route = policy.choose(asked, POOL[:3], Stats())
        quality += new[route.model] / 200
        money += route.est_cost_nano / 200
        cost |= {a.model: a.est_cost_nano for a in route.alternatives} | {route.model: route.est_cost_nano}
    # the mix of the cheapest and the dearest model that costs as much: the upper hull of this pool
    share = (money - cost["small"]) / (cost["large"] - cost["small"])
    floor = new["small"] + share * (new["large"] - new["small"])
    assert quality >= floor - 0.05


def test_with_nothing_learned_dearer_is_presumed_better_and_said() -> None:
    best = learned(aim="best").choose(query(), POOL[:3], Stats())
    assert best.model == "large"
    assert "nothing is learned yet" in best.reason
    assert best.state is None


@pytest.mark.parametrize("pool", [POOL[:2], POOL[1::-1]], ids=["cheap first", "dear first"])
def test_the_guess_goes_by_price_and_not_by_place(pool: list[ModelSpec]) -> None:
    route = learned(aim="best").choose(query(), pool, Stats())
    assert route.model == "middle"
    guessed = {a.model: a.est_quality for a in route.alternatives} | {route.model: route.est_quality}
    assert guessed == {"small": pytest.approx(0.5), "middle": pytest.approx(0.8)}


def test_local_only_binds_a_pinned_model_too() -> None:
    with pytest.raises(NoRoute, match="not local"):
        learned(local=True).choose(query(pinned="remote"), POOL, Stats())


def test_a_model_that_was_never_seen_is_judged_by_its_price(shelf: Shelf) -> None:
    route = learned(shelf, aim="best").choose(query(task="hard"), POOL, Stats())
    known = {a.model: a for a in route.alternatives} | {route.model: route}
    assert known["remote"].quality_sd == pytest.approx(0.2)
    assert (known["remote"].est_quality or 0) >= (known["middle"].est_quality or 0)


def test_a_task_that_matters_more_gets_the_dearer_model() -> None:
    options = [Option("cheap", 0.6, 0.0, 1e6), Option("dear", 0.7, 0.0, 2e7)]
    pacer = Pacer(1.0)
    left = Left(round(40 * 1.2e7), 40)

    def taken(weight: float) -> str:
        point = pacer.point(options, weight, left)
        return max(options, key=lambda o: o.worth(point)).model

    light = [taken(0.5) for _ in range(20)]
    heavy = [taken(2.0) for _ in range(20)]
    assert heavy.count("dear") > light.count("dear")


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.15, 0.85), seed=st.integers(0, 1000), count=st.integers(150, 400))
def test_a_budget_is_kept_and_used(share: float, seed: int, count: int) -> None:
    """Bills that differ from what was expected by up to a half; the pacer alone, without the ledger's no."""
    rng = np.random.default_rng(seed)
    cheap, dear = rng.uniform(0.8e5, 1.2e5, count), rng.uniform(0.7e7, 1.3e7, count)
    budget = cheap.sum() + share * (dear.sum() - cheap.sum())
    pacer, spent = Pacer(1.0), 0.0
    for i in range(count):
        options = [
            Option("cheap", 0.5 + rng.uniform(-0.1, 0.1), 0.0, cheap[i]),
            Option("dear", 0.8 + rng.uniform(-0.1, 0.1), 0.0, dear[i]),
        ]
        point = pacer.point(options, 1.0, Left(round(budget - spent), count - i))
        option = max(options, key=lambda o: o.worth(point))
        paid = min(option.cost * rng.uniform(0.7, 1.3), max(0.0, budget - spent))
        pacer.begin(option.cost, 0)
        pacer.end(option.cost, paid)
        spent += paid
    assert spent <= budget * (1 + 1e-9)
    assert spent >= 0.95 * budget


def test_the_price_of_quality_is_the_least_that_reaches_it() -> None:
    gains = Gains.of(np.linspace(-0.2, 1.0, 101))
    options = [
        Option("weak", 0.5, 0.0, 1e5),
        Option("strong", 0.9, 0.0, 1e7),
        Option("weak", 0.5, 0.0, 1e5, "strong", 1e7, gains),
    ]
    tradeoff = Tradeoff([options] * 10)
    assert tradeoff.best_model == "strong"
    assert tradeoff.best == pytest.approx(0.9)
    for share in (0.7, 0.8, 0.95):
        point = tradeoff.point_for_quality(share * 0.9)
        assert tradeoff.at(point)[0] >= share * 0.9 - 1e-6
        assert tradeoff.at(point * 0.98)[0] < share * 0.9 + 0.01
    point = tradeoff.point_for_cost(3e6)
    assert tradeoff.at(point)[1] <= 3e6
    # a cascade asks the strong model where it gains most: better than a mix of both for the same money
    assert tradeoff.at(point)[0] > 0.5 + 0.4 * (3e6 - 1e5) / (1e7 - 1e5)


def cascade(**fields: Any) -> Route:
    """A route from small to large, as the policy makes it."""
    route = learned(aim="best").choose(query(checked=True), POOL[:3], Stats())
    usual = {"mode": "cascade", "model": "small", "then": "large", "point_nano": 10**9}
    return Route(**{**{n: getattr(route, n) for n in Route.__slots__}, **usual, **fields})


def test_a_rule_that_is_broken_escalates_and_one_that_is_kept_does_not() -> None:
    base = learned(aim="best").choose(query(checked=True), POOL[:3], Stats())
    route = cascade(
        alternatives=tuple(a for a in [*base.alternatives] if a.model != "small") or base.alternatives
    )
    if all(a.model != "large" for a in route.alternatives):
        dear = learned(allow=["large"]).choose(query(), POOL[:3], Stats())
        route = cascade(alternatives=(*route.alternatives, _alternative(dear)))
    broken = review(None, query(checked=True), route, "no json", [Check.of(SCHEMA, 0.0, "no JSON")])
    assert (broken.then, broken.score, broken.wrong) == ("large", 0.0, 1.0)
    assert "schema: no JSON" in broken.reason
    kept = review(None, query(checked=True), route, "{}", [Check.of(SCHEMA, 1.0, "it has the form")])
    assert (kept.then, kept.score) == (None, None)  # the right form says nothing of what is in it
    own = review(None, query(checked=True), route, "{}", [Check.of(OWN, 1.0, "passes")])
    assert (own.then, own.score) == (None, 1.0)


def _alternative(route: Route) -> Any:
    from podium.router.types import Alternative

    return Alternative(route.model, True, route.est_cost_nano, "", 0.9, 0.1)


def test_what_is_not_worth_its_price_is_not_escalated() -> None:
    route = cascade(alternatives=(_alternative(learned(allow=["large"]).choose(query(), POOL[:3], Stats())),))
    cheap = cascade(alternatives=route.alternatives, point_nano=10)
    broken = [Check.of(SCHEMA, 0.0, "no JSON")]
    assert review(None, query(), route, "x", broken).then == "large"
    kept = review(None, query(), cheap, "x", broken)
    assert kept.then is None
    assert "no more than" in kept.reason


def test_a_fallback_order_holds_after_a_failure(shelf: Shelf) -> None:
    policy = make_policy({"kind": "learned", "fallback": ["middle"]}, NAMES, Known(shelf))
    route = policy.choose(query(task="easy", exclude=frozenset({"small"})), POOL[:3], Stats())
    assert route.model == "middle"
    assert "fallback order after small" in route.reason
