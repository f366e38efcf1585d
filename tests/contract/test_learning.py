"""Graded answers and what the router learned from them, in SQL: what counts, what is set aside."""

from __future__ import annotations

import dataclasses
import random
import threading
from typing import Any

import pytest
from graded import ROWS, active, call, examples, grade, save, take
from podium.memory import learning, sealing
from podium.memory.chat import Message, asked_text
from podium.memory.database import Database
from podium.memory.errors import ConfigError, NotFound, PodiumError, UsageError
from podium.memory.learning import Example, NewExample
from podium.memory.router_states import KEEP_STATES
from podium.memory.tables import Outcome, RouterState
from run_rows import claimed
from sqlalchemy import func, insert, select

# -- what a call is named by


def test_a_call_is_named_by_its_id_or_the_beginning_of_it(database: Database) -> None:
    claimed(database)
    for call_id in ("abcd1111", "abcd2222", "abc", "x_yz1"):
        call(database, call_id=call_id)
    with database.read() as connection:
        found = learning.find_call(connection, "t", "abcd1")
        assert found == learning.CallRef("abcd1111", "r1", "a", "m", "settled", 5, None)
        assert learning.find_call(connection, "t", "abc").id == "abc"
        with pytest.raises(UsageError, match="several calls: abcd1111, abcd2222"):
            learning.find_call(connection, "t", "abcd")
        with pytest.raises(UsageError) as short:
            learning.find_call(connection, "t", "x_y")
        assert "4 letters" in short.value.mend
        for missing in ("abcd3", "xAyz", "%abcd"):
            with pytest.raises(NotFound):
                learning.find_call(connection, "t", missing)
        with pytest.raises(NotFound):
            learning.find_call(connection, "other", "abcd1111")


# -- grades


def test_an_example_is_made_of_its_call(database: Database) -> None:
    claimed(database)
    number = grade(database, call(database, task="sums[3]/add@2"), "check", 0.5)
    (found,) = examples(database)
    assert dataclasses.replace(found, at=0.0) == Example(
        id=number, prompt="What is 2 + 2?", task="sums/add", model="m", score=0.5, source="check", at=0.0,
        answer="4", cost_usd=5e-9, in_tok=3, out_tok=2, seconds=0.5, call_id="call-1", origin=None,
        run_id="r1", step=2, propensity=0.9,
    )  # fmt: skip
    assert examples(database, "other") == []


def test_of_one_call_the_one_that_counts_is_given(database: Database) -> None:
    """People before judges before checks before failures, of each the newest; whatever came last."""
    claimed(database)
    one = call(database)
    expected = []
    for source, score in (("failure", 0), ("check", 0.4), ("check", 0.5), ("judge", 0.6), ("feedback", 0.7),
                          ("feedback", 0.8), ("judge", 0.1), ("check", 0.2)):  # fmt: skip
        grade(database, one, source, score)
        expected.append([(e.source, e.score) for e in examples(database)])
    counting = [*range(6), 5, 5]
    steps = [("failure", 0), ("check", 0.4), ("check", 0.5), ("judge", 0.6), ("feedback", 0.7),
             ("feedback", 0.8)]  # fmt: skip
    assert expected == [[steps[at]] for at in counting]


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_grades_counts_as_the_rule_says(database: Database, seed: int) -> None:
    """Against the rule in plain Python, with `after` and `most`."""
    rng = random.Random(seed)
    claimed(database)
    calls = [call(database, call_id=f"call-{n}") for n in range(4)]
    said: dict[str, tuple[int, int]] = {}
    for _ in range(25):
        one, rank = rng.choice(calls), rng.randrange(4)
        number = grade(database, one, learning.SOURCES[rank], 0.5)
        if one not in said or rank <= said[one][0]:
            said[one] = (rank, number)
    counting = sorted(number for _, number in said.values())
    assert [e.id for e in examples(database)] == counting
    after = counting[1]
    assert [e.id for e in examples(database, after=after)] == [n for n in counting if n > after]
    assert [e.id for e in examples(database, most=2)] == counting[-2:]


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf"), "good", None])
def test_a_score_is_between_0_and_1(database: Database, score: Any) -> None:
    claimed(database)
    one = call(database)
    with pytest.raises(UsageError, match="score"):
        grade(database, one, "feedback", score)
    with pytest.raises(UsageError, match="score of row 2"):
        take(database, [ROWS[0], dataclasses.replace(ROWS[1], score=score)])
    assert examples(database) == []


def test_the_database_keeps_scores_in_their_range(database: Database) -> None:
    row = {"tenant": "t", "source": "check", "score": 1.5, "void": False, "at": 0.0}
    with pytest.raises(PodiumError, match=r"(?i)check"):
        database.transact(lambda c: c.execute(insert(Outcome).values(row)))


def test_what_cannot_be_graded(database: Database) -> None:
    claimed(database)
    one, open_one = call(database), call(database, call_id="call-2", got=None)
    with pytest.raises(UsageError, match="is reserved"):
        grade(database, open_one, "feedback", 1)
    with pytest.raises(UsageError, match="guess"):
        grade(database, one, "guess", 1)
    with pytest.raises(NotFound):
        grade(database, "call", "feedback", 1)
    with pytest.raises(NotFound):
        database.transact(lambda c: learning.grade(c, "other", one, "feedback", 1))


def test_asked_text_is_what_the_user_said() -> None:
    sent = (
        Message("system", "brief"),
        Message("user", "one"),
        Message("assistant", "so"),
        Message("user", "two"),
    )
    assert asked_text(sent) == "one\n\ntwo"
    assert asked_text([dataclasses.asdict(m) for m in sent]) == "one\n\ntwo"
    assert asked_text([]) == ""


# -- imports


def test_rows_are_taken_over_as_they_are(database: Database) -> None:
    assert take(database) == 3
    found = examples(database)
    fields = [field.name for field in dataclasses.fields(NewExample)]
    assert [NewExample(**{name: getattr(e, name) for name in fields}) for e in found] == list(ROWS)
    assert {(e.source, e.origin, e.call_id, e.run_id, e.propensity) for e in found} == {
        ("import", "f.csv", None, None, None)
    }
    assert take(database, ROWS[:1], "mine", source="profile") == 1
    assert examples(database)[-1].source == "profile"


def test_a_second_import_of_the_same_origin_takes_the_firsts_place(database: Database) -> None:
    take(database)
    take(database, ROWS[:1], "g.csv")
    take(database, ROWS, tenant="other")
    take(database, [dataclasses.replace(ROWS[0], score=0.75)])
    assert [(e.origin, e.score) for e in examples(database)] == [("g.csv", 0.25), ("f.csv", 0.75)]
    assert len(examples(database, "other")) == 3
    take(database, [])
    assert [e.origin for e in examples(database)] == ["g.csv"]


def test_more_rows_than_one_batch(database: Database) -> None:
    rows = (NewExample(f"prompt {n}", "m", n % 2, answer=f"a{n % 7}") for n in range(learning.BATCH + 3))
    with database.write() as connection:
        assert learning.put_examples(connection, "t", "f", rows) == learning.BATCH + 3
    found = examples(database)
    assert [(e.prompt, e.answer) for e in found] == [(f"prompt {n}", f"a{n % 7}") for n in range(len(found))]
    assert len(found) == learning.BATCH + 3
    assert [e.prompt for e in examples(database, most=2)] == [e.prompt for e in found[-2:]]


def test_a_bad_row_leaves_the_earlier_import_as_it_was(database: Database) -> None:
    take(database)
    for bad in (NewExample("  ", "m", 1), NewExample("p", "", 1)):
        with pytest.raises(UsageError, match="row 1 has no"):
            take(database, [bad])
    with pytest.raises(UsageError, match="feedback"):
        take(database, source="feedback")
    assert len(examples(database)) == 3


def test_any_text_is_kept(database: Database) -> None:
    odd = "NUL \0, a lone surrogate \ud800, 漢字"
    take(database, [NewExample(odd, "m", 1, answer=odd, task="t\0")], "o\0")
    (found,) = examples(database)
    assert (found.prompt, found.answer, found.task, found.origin) == (odd, odd, "t\ufffd", "o\ufffd")


# -- states


def test_a_new_state_is_the_one_in_use(database: Database) -> None:
    assert active(database) is None
    take(database)
    assert save(database, b"one", note="first") == 1
    assert save(database, b"\0two", note="second") == 2
    found = active(database)
    assert found is not None
    assert (found.version, found.state, found.rows, found.note, found.active) == (
        2,
        b"\0two",
        3,
        "second",
        True,
    )
    assert found.upto == examples(database)[-1].id
    with database.read() as connection:
        assert [(s.version, s.active, s.note) for s in learning.states(connection, "t")] == [
            (2, True, "second"),
            (1, False, "first"),
        ]
        assert learning.active_state(connection, "other") is None
    with pytest.raises(UsageError, match="empty"):
        save(database, b"")


def test_the_newest_states_are_kept(database: Database) -> None:
    for number in range(KEEP_STATES + 5):
        save(database, str(number).encode())
    with database.read() as connection:
        kept = [s.version for s in learning.states(connection, "t")]
    assert kept == list(range(KEEP_STATES + 5, 5, -1))


def test_those_who_save_at_the_same_time_get_numbers_of_their_own(database: Database) -> None:
    got: list[int] = []
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        gate.wait()
        got.append(save(database, str(number).encode(), upto=0))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(1, 9))
    with database.read() as connection:
        assert [s.version for s in learning.states(connection, "t") if s.active] == [8]


def test_a_rollback_sets_aside_what_came_after(database: Database) -> None:
    claimed(database)
    take(database)
    save(database, b"good")
    kept = [e.id for e in examples(database)]
    grade(database, call(database), "feedback", 0)
    take(database, ROWS[:1], "bad.csv")
    take(database, ROWS[:1], "theirs.csv", tenant="other")
    save(database, b"bad")
    assert database.transact(lambda c: learning.roll_back(c, "t", 1)) == 3
    found = active(database)
    assert found is not None
    assert (found.version, found.state, found.note, found.rows) == (3, b"good", "rolled back to 1", 3)
    assert [e.id for e in examples(database)] == kept
    assert len(examples(database, "other")) == 1
    with database.read() as connection:
        assert found.upto == learning.last_outcome(connection, "t")
        assert connection.execute(select(func.count()).where(Outcome.tenant == "t")).scalar() == 5
    number = grade(database, "call-1", "feedback", 1)
    assert [e.id for e in examples(database, after=found.upto)] == [number]
    with pytest.raises(NotFound) as missing:
        database.transact(lambda c: learning.roll_back(c, "t", 9))
    assert "3, 2, 1" in missing.value.mend


def test_a_state_is_sealed_with_the_memory_key(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_KEY", (b"k" * 32).hex())
    sealing.use(database, "env:MEMORY_KEY")
    save(database, b"learned from secrets")
    with database.read() as connection:
        (stored,) = connection.execute(select(RouterState.state)).scalars()
        found = learning.active_state(connection, "t")
    assert b"secrets" not in bytes(stored)
    assert found is not None
    assert found.state == b"learned from secrets"
    other = Database(database_url)
    with pytest.raises(ConfigError, match="none is given"):
        active(other)
    other.close()
