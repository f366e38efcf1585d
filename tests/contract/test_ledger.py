"""Money: reserved + settled never passes the budget, in any state that anybody can see."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from podium.memory import events, ledger, reads, runs
from podium.memory.database import Database
from podium.memory.errors import BudgetStopped, NotFound, PodiumError, StaleEpoch
from podium.memory.tables import Call, Ledger, Run
from run_rows import answer, begin, claimed, ended, new_call, record, reserve
from run_rows import step as commit
from sqlalchemy import Connection, func, select, update


def books(database: Database, run_id: str = "r1") -> tuple[int, int]:
    """(reserved, settled) of a run, after checking them against its calls and entries."""
    with database.read() as connection:
        run = reads.run(connection, run_id)
        calls = reads.calls(connection, run_id)
        sums = dict(
            connection.execute(
                select(Ledger.kind, func.sum(Ledger.amount_nano))
                .where(Ledger.run_id == run_id)
                .group_by(Ledger.kind)
            ).all()
        )
    assert 0 <= run.reserved_nano + run.settled_nano <= run.budget_nano
    assert run.reserved_nano == sum(c.reserved_nano for c in calls if c.status in ("reserved", "sent"))
    assert run.settled_nano == sum(min(c.cost_nano or 0, c.reserved_nano) for c in calls)
    reserved, settled, refunded = (int(sums.get(kind) or 0) for kind in ("reserve", "settle", "refund"))
    assert (reserved - settled - refunded, settled) == (run.reserved_nano, run.settled_nano)
    return run.reserved_nano, run.settled_nano


def act(database: Database, verb: str, call: str, amount: int, run_id: str = "r1") -> None:
    """Do to a call what the verb says."""
    verbs: dict[str, Callable[[Connection], None]] = {
        "sent": lambda c: ledger.mark_sent(c, run_id, 1, call, "m:0"),
        "settle": lambda c: ledger.settle(c, run_id, 1, call, answer(), amount),
        "refund": lambda c: ledger.refund(c, run_id, 1, call, "not sent"),
        "unknown": lambda c: ledger.settle_unknown(c, run_id, 1, call, "lost"),
    }
    if verb in verbs:
        database.transact(verbs[verb])


def test_the_life_of_a_call(database: Database) -> None:
    claimed(database)
    call = reserve(database, 600)
    assert books(database) == (600, 0)
    database.transact(lambda c: ledger.mark_sent(c, "r1", 1, call, "m:0"))
    database.transact(lambda c: ledger.settle(c, "r1", 1, call, answer(), 250))
    assert books(database) == (0, 250)
    with database.read() as connection:
        (row,) = reads.calls(connection, "r1")
        found = ledger.recorded(connection, "r1", "a", 0, "h0")
    assert (row.status, row.cost_nano, row.input_tokens, row.output_tokens, row.worker) == (
        "settled",
        250,
        3,
        2,
        "m:0",
    )
    assert found is not None
    assert (found.text, found.cost_nano) == ("hi", 250)


REVIEW = {
    "checks": [{"name": "arithmetic", "verdict": "wrong", "score": 0.0, "evidence": "2 + 2 = 5"}],
    "wrong": 0.81,
    "gain": None,
    "reason": "a sum is wrong",
    "escalate": True,
}


def test_what_was_found_of_an_answer_is_settled_with_it(database: Database) -> None:
    claimed(database)
    first, second, plain = (reserve(database, 200, name) for name in ("first", "second", "plain"))
    settle = ledger.settle
    database.transact(lambda c: settle(c, "r1", 1, first, answer("5"), 9, verdict="escalated", review=REVIEW))
    database.transact(lambda c: settle(c, "r1", 1, second, answer("4"), 90, verdict="accepted"))
    database.transact(lambda c: settle(c, "r1", 1, plain, answer("so"), 1))
    with database.read() as connection:
        found = {call.id: (call.verdict, call.review) for call in reads.calls(connection, "r1")}
        told = [e.data.get("verdict", "") for e in events.read(connection, "r1") if e.kind == "call.settled"]
        nulls = connection.execute(select(func.count()).where(Call.review.is_(None))).scalar()
    assert found == {first: ("escalated", REVIEW), second: ("accepted", None), plain: (None, None)}
    assert told == ["escalated", "accepted", ""]
    assert nulls == 2


def test_the_answers_of_a_step(database: Database) -> None:
    """An interrupted attempt's answers are given in their order, a failed one's and other steps' are not."""
    claimed(database)
    begin(database, "a")
    for name in ("weak", "strong", "open"):
        reserve(database, 100, name)
    reserve(database, 100, "other", step=1)
    for name, text, verdict in (("weak", "5", "escalated"), ("strong", "4", None), ("other", "x", None)):
        database.transact(
            lambda c, n=name, t=text, v=verdict: ledger.settle(c, "r1", 1, n, answer(t), 7, verdict=v)
        )

    def answers() -> list[ledger.Answered]:
        with database.read() as connection:
            return ledger.answered(connection, "r1", "a", 0)

    weak, strong = answers()
    assert (weak.id, weak.answer.text, weak.verdict, weak.review) == ("weak", "5", "escalated", None)
    assert (strong.id, strong.answer.text, strong.verdict) == ("strong", "4", None)
    assert (weak.request_hash, weak.route, weak.answer.cost_nano) == ("h0", {"model": "m"}, 7)
    commit(database, ended("a", 1, "failed", error={"kind": "TaskError"}))
    assert answers() == []


def test_what_does_not_fit_is_refused_and_leaves_nothing(database: Database) -> None:
    claimed(database)
    reserve(database, 600)
    with pytest.raises(BudgetStopped) as caught:
        reserve(database, 401)
    assert "0.0000004 of the budget of 0.000001 are left" in str(caught.value)
    assert "podium resume r1 --budget" in caught.value.mend
    assert books(database) == (600, 0)
    reserve(database, 400)
    assert books(database) == (1000, 0)


def test_closing_twice_changes_nothing(database: Database) -> None:
    claimed(database)
    call = reserve(database, 500)
    database.transact(lambda c: ledger.settle(c, "r1", 1, call, answer(), 100))
    for close in (ledger.refund, ledger.settle_unknown):
        database.transact(lambda c, close=close: close(c, "r1", 1, call, "late"))
        database.transact(lambda c, close=close: close(c, "r1", 1, "no such call", "late"))
    database.transact(lambda c: ledger.settle(c, "r1", 1, call, answer(), 400))
    assert books(database) == (0, 100)
    with pytest.raises(StaleEpoch):  # a closed call must not be sent
        database.transact(lambda c: ledger.mark_sent(c, "r1", 1, call, "m:0"))


def test_a_bill_above_the_reservation_counts_as_far_as_it_goes(database: Database) -> None:
    claimed(database)
    call = reserve(database, 500)
    database.transact(lambda c: ledger.settle(c, "r1", 1, call, answer(), 800))
    assert books(database) == (0, 500)
    with database.read() as connection:
        assert reads.calls(connection, "r1")[0].cost_nano == 800


def test_a_crash_settles_what_was_sent_and_refunds_the_rest(database: Database) -> None:
    claimed(database)
    reserve(database, 300, "never sent")
    sent = reserve(database, 200, "sent")
    database.transact(lambda c: ledger.mark_sent(c, "r1", 1, sent, "m:0"))
    database.transact(lambda c: runs.claim(c, "r1", "h.p.e2", 1))
    assert books(database) == (0, 200)
    with database.read() as connection:
        assert {c.id: c.status for c in reads.calls(connection, "r1")} == {
            "never sent": "refunded",
            "sent": "unknown",
        }
    for write in (
        lambda c: ledger.reserve(c, "r1", 1, new_call(1)),
        lambda c: ledger.mark_sent(c, "r1", 1, sent, "m:0"),
        lambda c: ledger.settle(c, "r1", 1, sent, answer(), 1),
        lambda c: ledger.refund(c, "r1", 1, sent, ""),
    ):
        with pytest.raises(StaleEpoch):
            database.transact(write)


def test_a_run_that_is_not_there(database: Database) -> None:
    with pytest.raises(NotFound):
        reserve(database, 1, run_id="none")


def test_the_check_constraint_itself(database: Database) -> None:
    claimed(database)
    for values in ({"reserved_nano": 1001}, {"settled_nano": 1001}, {"reserved_nano": -1},
                   {"reserved_nano": 600, "settled_nano": 600}, {"budget_nano": -1}):  # fmt: skip
        with pytest.raises(PodiumError, match=r"(?i)check"):
            database.transact(lambda c, v=values: c.execute(update(Run).values(**v)))
    assert books(database) == (0, 0)


def test_64_threads_race_for_the_budget(database: Database) -> None:
    claimed(database, budget_nano=10_000)
    gate, refused = threading.Barrier(64), []

    def spend(number: int) -> None:
        gate.wait()
        for step in range(2):
            try:
                call = reserve(database, 300 + number, f"c{number}-{step}")
            except BudgetStopped:
                refused.append(number)
                continue
            verb = ("settle", "refund", "unknown", "")[number % 4]
            act(database, verb, call, 100 + number)

    threads = [threading.Thread(target=spend, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = record(database)
        assert found.reserved_nano + found.settled_nano <= 10_000
    for thread in threads:
        thread.join()
    assert refused
    for number in itertools.count():  # what was given back after the last refusal can be had
        try:
            reserve(database, 300, f"after-{number}")
        except BudgetStopped:
            break
    reserved, settled = books(database)
    assert 10_000 - 300 < reserved + settled <= 10_000


@pytest.fixture(scope="module")
def ledger_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder: Path = tmp_path_factory.mktemp("ledger")
    database = Database(f"sqlite:///{folder}/podium.db")
    database.ensure_schema()
    yield database
    database.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "sent", "settle", "refund", "unknown"]),
        st.integers(0, 5),
        st.integers(0, 700),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(budget=st.integers(0, 1500), steps=STEPS)
def test_any_sequence_keeps_the_books(
    ledger_database: Database, budget: int, steps: list[tuple[str, int, int]]
) -> None:
    database, run_id = ledger_database, new_call(0).id
    claimed(database, run_id, budget_nano=budget)
    known: set[str] = set()
    for verb, number, amount in steps:
        call = f"{run_id}-{number}"
        before = books(database, run_id)
        try:
            if verb == "reserve" and call not in known:
                reserve(database, amount, call, run_id)
                known.add(call)
            else:
                act(database, verb, call, amount, run_id)
        except BudgetStopped:
            assert sum(before) + amount > budget
            assert books(database, run_id) == before
        except StaleEpoch:
            assert verb == "sent"
        books(database, run_id)
