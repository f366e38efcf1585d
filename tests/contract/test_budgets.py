"""Budgets inside a run, of money and of tokens: every level holds, and gives back what it took."""

from __future__ import annotations

import pickle
import threading
import uuid
from typing import Any

import pytest
from books import SCOPES, TREE, Page, book, check_books, closing, nested_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from podium.memory import ledger, runs
from podium.memory.budgets import scopes_of
from podium.memory.database import Database
from podium.memory.errors import BudgetStopped, NotFound, PodiumError, StaleEpoch, UsageError
from podium.memory.ledger import BudgetRefused, Left, NewBudget
from podium.memory.tables import Budget, Run
from sqlalchemy import insert, update


@pytest.mark.parametrize(
    ("task", "scopes"),
    [
        ("a", ["a"]),
        ("a[3]", ["a", "a[3]"]),
        ("a[3]/b", ["a", "a[3]", "a[3]/b"]),
        ("loop[2]/sub/m[10]", ["loop", "loop[2]", "loop[2]/sub", "loop[2]/sub/m", "loop[2]/sub/m[10]"]),
    ],
)
def test_a_call_counts_against_all_that_its_task_is_inside_of(task: str, scopes: list[str]) -> None:
    assert scopes_of(task) == scopes


@pytest.mark.parametrize("task", TREE)
def test_every_level_is_reserved_and_settled(database: Database, task: str) -> None:
    nested_run(database, *(NewBudget(scope, 900, 90) for scope in SCOPES), budget_tokens=100)
    book(database, task, "c", 600, 60)
    levels = (None, *TREE[task])
    pages = check_books(database)
    assert {scope for scope, page in pages.items() if page.reserved == (600, 60)} == set(levels)
    database.transact(closing("sent", "c", 0, 0))
    database.transact(closing("settle", "c", 250, 7))
    pages = check_books(database)
    assert {scope for scope, page in pages.items() if page == Page((0, 0), (250, 7))} == set(levels)
    assert {pages[scope] for scope in pages.keys() - set(levels)} <= {Page((0, 0), (0, 0))}


@pytest.mark.parametrize(
    ("verb", "spent"),
    [("refund", (0, 0)), ("unknown", (600, 60)), ("settle", (600, 60))],
)
def test_what_closes_a_call_closes_it_on_every_level(
    database: Database, verb: str, spent: tuple[int, int]
) -> None:
    nested_run(database, *(NewBudget(scope, 900, 90) for scope in SCOPES), budget_tokens=100)
    book(database, "a[3]/b", "c", 600, 60)
    database.transact(closing(verb, "c", 800, 80))  # a bill above the reservation counts as far as it goes
    assert set(check_books(database).values()) == {Page((0, 0), spent)}


@pytest.mark.parametrize("refusing", SCOPES)
@pytest.mark.parametrize("unit", ["nano", "tokens"])
def test_one_level_that_refuses_leaves_all_as_they_were(database: Database, refusing: str, unit: str) -> None:
    limits = [NewBudget(s, 900, 90) for s in SCOPES if s != refusing]
    tight = NewBudget(refusing, 599, None) if unit == "nano" else NewBudget(refusing, None, 59)
    nested_run(database, *limits, tight, budget_tokens=100)
    with pytest.raises(BudgetStopped, match=f"of task {refusing}".replace("[", r"\[")) as caught:
        book(database, "a[3]/b", "c", 600, 60)
    error = caught.value
    assert isinstance(error, BudgetRefused)
    assert error.left == (Left(refusing, 599, None) if unit == "nano" else Left(refusing, None, 59))
    assert (error.scope, error.exit_code, error.run, error.task) == (refusing, 4, "r1", "a[3]/b")
    assert f"`budget` of task {refusing}" in error.mend
    assert set(check_books(database).values()) == {Page((0, 0), (0, 0))}
    book(database, "ab", "other", 600, 60)  # what is not inside of it goes on


def test_the_runs_own_budgets_refuse_first(database: Database) -> None:
    nested_run(database, NewBudget("a", 0, 0), budget_tokens=50)
    with pytest.raises(BudgetRefused, match="of the budget of 50 tokens are left") as caught:
        book(database, "a", "c", 600, 60)
    assert caught.value.scope is None
    assert "max_tokens" in caught.value.mend
    with pytest.raises(BudgetRefused, match=r"may cost 0\.000002 USD, 0\.000001 of the budget") as caught:
        book(database, "a", "c", 2000, 60)
    assert caught.value.scope is None


def test_a_refusal_is_recorded_as_what_it_means(database: Database) -> None:
    nested_run(database, NewBudget("a", 1))
    with pytest.raises(BudgetRefused) as caught:
        book(database, "a", "c", 2)
    data = caught.value.data()
    assert (data["kind"], data["scope"], data["exit_code"]) == ("BudgetStopped", "a", 4)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - errors cross process borders
    assert (again.scope, again.left, again.data()) == ("a", caught.value.left, data)


def test_no_limit_no_row_and_no_refusal(database: Database) -> None:
    nested_run(database, NewBudget("a"), NewBudget("ab", None, 10))
    book(database, "a", "c", 900, 10**9)
    assert set(check_books(database)) == {None, "ab"}


def test_a_crash_closes_calls_on_every_level(database: Database) -> None:
    nested_run(database, *(NewBudget(scope, 900, 90) for scope in SCOPES), budget_tokens=100)
    book(database, "a[3]/b", "never sent", 300, 30)
    book(database, "a[3]/b", "sent", 200, 20)
    database.transact(closing("sent", "sent", 0, 0))
    database.transact(lambda c: runs.claim(c, "r1", "h.p.e2", 1))
    assert set(check_books(database).values()) == {Page((0, 0), (200, 20))}
    with pytest.raises(StaleEpoch):
        database.transact(closing("settle", "sent", 1, 1))


def test_what_is_left(database: Database) -> None:
    nested_run(database, NewBudget("a[3]", 700, None), NewBudget("a", None, 80))
    book(database, "a[3]/b", "c", 600, 60)
    with database.read() as connection:
        found = ledger.left(connection, "r1")
    assert found == [Left(None, 400, None), Left("a", None, 20), Left("a[3]", 100, None)]


def test_a_budget_is_raised_and_lowered_as_far_as_it_is_used(database: Database) -> None:
    nested_run(database, budget_tokens=100)
    book(database, "a", "c", 600, 60)
    for changes in ({"budget_nano": 599}, {"budget_tokens": 59}, {"budget_nano": 5000, "budget_tokens": 59}):
        with pytest.raises(UsageError, match="too low a budget"):
            database.transact(lambda c, x=changes: ledger.raise_budget(c, "r1", **x))
    with database.read() as connection:
        assert ledger.left(connection, "r1") == [Left(None, 400, 40)]
    database.transact(lambda c: ledger.raise_budget(c, "r1", budget_nano=600, budget_tokens=60))
    with pytest.raises(BudgetStopped):
        book(database, "a", "d", 1)
    database.transact(lambda c: ledger.raise_budget(c, "r1", budget_nano=601))
    book(database, "a", "d", 1)
    database.transact(lambda c: ledger.raise_budget(c, "r1"))
    with database.read() as connection:
        assert ledger.left(connection, "r1") == [Left(None, 0, 0)]
    with pytest.raises(NotFound):
        database.transact(lambda c: ledger.raise_budget(c, "none", budget_nano=1))


def test_the_check_constraints_themselves(database: Database) -> None:
    nested_run(database, NewBudget("a", 1000, 100), budget_tokens=100)
    wrong: list[tuple[type[Any], dict[str, int]]] = [
        (Budget, {"reserved_nano": 600, "settled_nano": 401}),
        (Budget, {"reserved_tokens": 60, "settled_tokens": 41}),
        (Budget, {"reserved_nano": -1}),
        (Budget, {"settled_tokens": -1}),
        (Budget, {"limit_nano": -1}),
        (Run, {"reserved_tokens": 60, "settled_tokens": 41}),
        (Run, {"reserved_tokens": -1}),
        (Run, {"budget_tokens": -1}),
    ]
    for table, values in wrong:
        with pytest.raises(PodiumError, match=r"(?i)check"):
            database.transact(lambda c, t=table, v=values: c.execute(update(t).values(**v)))
    with pytest.raises(PodiumError, match=r"(?i)unique|duplicate"):
        database.transact(lambda c: c.execute(insert(Budget).values(run_id="r1", scope="a", tenant="t")))
    assert set(check_books(database).values()) == {Page((0, 0), (0, 0))}


def test_threads_race_for_nested_budgets(database: Database) -> None:
    nested_run(database, NewBudget("a", 5000, 500), NewBudget("a[3]", 2500, None), budget_nano=10_000)
    gate, refused = threading.Barrier(24), []

    def spend(number: int) -> None:
        task = list(TREE)[number % len(TREE)]
        gate.wait()
        for step in range(2):
            try:
                call = book(database, task, f"{number}-{step}", 400 + number, 40)
            except BudgetRefused as error:
                refused.append(error.scope)
                continue
            verb = ("settle", "refund", "unknown")[number % 3]
            database.transact(closing(verb, call, 300 + number, 30))

    threads = [threading.Thread(target=spend, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        check_books(database)  # a snapshot: every committed state is in balance
    for thread in threads:
        thread.join()
    assert {page.reserved for page in check_books(database).values()} == {(0, 0)}
    assert "a" in refused


LIMIT = st.one_of(st.none(), st.integers(0, 1500))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "sent", "settle", "refund", "unknown", "recover", "raise"]),
        st.integers(0, 4),
        st.sampled_from(list(TREE)),
        st.integers(0, 700),
        st.integers(0, 700),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.fixed_dictionaries({scope: st.tuples(LIMIT, LIMIT) for scope in SCOPES}),
    budget=st.tuples(st.integers(0, 1500), LIMIT),
    steps=STEPS,
)
def test_any_interleaving_keeps_every_level(
    database: Database,
    limits: dict[str, tuple[int | None, int | None]],
    budget: tuple[int, int | None],
    steps: list[tuple[str, int, str, int, int]],
) -> None:
    run_id, epoch = uuid.uuid4().hex, 1
    rows = [NewBudget(scope, nano, tokens) for scope, (nano, tokens) in limits.items()]
    nested_run(database, *rows, run_id=run_id, budget_nano=budget[0], budget_tokens=budget[1])
    known: set[str] = set()
    for verb, number, task, nano, tokens in steps:
        call, before = f"{run_id}-{number}", check_books(database, run_id)
        try:
            if verb == "recover":
                seen = epoch
                epoch = database.transact(lambda c, e=seen: runs.claim(c, run_id, "h.p.e", e))
                assert {page.reserved for page in check_books(database, run_id).values()} == {(0, 0)}
            elif verb == "raise":
                database.transact(
                    lambda c, n=nano, t=tokens: ledger.raise_budget(c, run_id, budget_nano=n, budget_tokens=t)
                )
            elif verb == "reserve" and call not in known:
                book(database, task, call, nano, tokens, run_id=run_id, epoch=epoch)
                known.add(call)
            elif verb != "reserve":
                database.transact(closing(verb, call, nano, tokens, run_id=run_id, epoch=epoch))
        except BudgetRefused as error:
            left = error.left
            assert (left.nano is not None and nano > left.nano) or (
                left.tokens is not None and tokens > left.tokens
            )
            assert check_books(database, run_id) == before
        except UsageError:
            assert verb == "raise"
        except StaleEpoch:
            assert verb == "sent"
        check_books(database, run_id)
