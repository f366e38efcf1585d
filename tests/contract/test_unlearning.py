"""What goes of graded answers and learned states when runs are pruned and when somebody is forgotten."""

from __future__ import annotations

import pytest
from graded import active, call, examples, grade, save, take
from podium.memory import control, items, learning, ledger, reads, runs
from podium.memory.content import put
from podium.memory.database import Database
from podium.memory.errors import UsageError
from podium.memory.items import Place, Producer
from podium.memory.learning import NewExample
from podium.memory.lifecycle.erasure import forget
from podium.memory.steps import Start
from podium.memory.tables import Blob, Outcome, RouterState
from run_rows import BEGUN, answer, claimed, step
from sqlalchemy import select

SECRET = "Ottilie Grünwald, born 1907"


def test_a_pruned_run_takes_its_outcomes_along_and_no_id_comes_twice(database: Database) -> None:
    claimed(database)
    take(database)
    last = grade(database, call(database), "feedback", 1)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "succeeded"))
    database.transact(lambda c: control.prune(c, "t", before=9e9))
    assert [e.source for e in examples(database)] == ["import"] * 3
    assert [e.answer for e in examples(database)] == ["far", "12 km", None]
    claimed(database, "r2")
    assert grade(database, call(database, run="r2"), "feedback", 1) > last


def put_secret(database: Database) -> None:
    place, made = Place("t", "tenant", "", "guest"), {"producer": Producer(), "subject": "ottilie"}
    database.transact(lambda c: items.put_revision(c, place, "fact", SECRET, **made))


def everything(database: Database) -> str:
    parts: list[str] = []
    with database.read() as connection:
        for table in (Outcome, RouterState):
            parts += [repr(tuple(row)) for row in connection.execute(select(*table.__table__.columns))]
        contents = connection.execute(select(Blob.data)).scalars()
        parts += [bytes(data).decode("utf-8", "replace") for data in contents]
    return "\n".join(parts)


def test_forgetting_takes_imported_prompts_and_what_was_learned_from_them(database: Database) -> None:
    put_secret(database)
    take(database)
    save(database, b"learned before")
    rows = [
        NewExample(f"Who is {SECRET}?", "m", 1, answer="A lady of the mountains."),
        NewExample("Who is she?", "m", 1, answer=f"It is {SECRET}."),
        NewExample("Who is he?", "m", 0.5, answer="A man of the sea."),
    ]
    take(database, rows, f"{SECRET}.csv")
    save(database, b"learned from it", note=SECRET)
    receipt = forget(database, "t", "ottilie")
    found = everything(database)
    for gone in (SECRET, "Gr\\u00fcnwald", "A lady of the mountains", "Who is she?", "learned from it"):
        assert gone not in found, gone
    assert [(e.prompt, e.answer) for e in examples(database)][3:] == [("Who is he?", "A man of the sea.")]
    assert receipt.counts["outcome"] >= 4
    assert receipt.counts["router_state"] == 1
    state = active(database)
    assert state is not None
    assert (state.version, state.state) == (1, b"learned before")
    with database.read() as connection:
        newest = learning.states(connection, "t")[0]
    assert (newest.version, newest.active, newest.note) == (2, False, f"erased by receipt {receipt.id}")
    with pytest.raises(UsageError, match="erased"):
        database.transact(lambda c: learning.roll_back(c, "t", 2))
    assert save(database, b"learned anew") == 3
    assert "router_state" not in forget(database, "t", "ottilie").counts


def test_forgetting_takes_graded_calls_their_notes_and_their_reviews(database: Database) -> None:
    put_secret(database)
    claimed(database)
    claimed(database, "r2")
    step(database, Start("a", 1, BEGUN))
    kept = call(database, "What is 2 + 2?", call_id="call-kept", run="r2")
    shown = call(database, f"Who is {SECRET}?", got=None)
    review = {
        "checks": [{"name": "quote", "verdict": "ok", "score": 1.0, "evidence": "from the mountains"}],
        "wrong": 0.1,
        "gain": None,
        "reason": "says where she is from",
        "escalate": False,
    }
    database.transact(
        lambda c: ledger.settle(c, "r1", 1, shown, answer("A lady."), 5, verdict="accepted", review=review)
    )
    save(database, b"nothing read", upto=0)
    grade(database, kept, "feedback", 1, "well done")
    save(database, b"one read")
    grade(database, shown, "feedback", 1, "she is from the mountains")
    grade(database, kept, "judge", 1, f"not {SECRET}")
    save(database, b"all read")
    forget(database, "t", "ottilie")
    found = everything(database)
    for gone in (SECRET, "mountains", "all read"):
        assert gone not in found, gone
    assert "well done" in found
    assert [e.call_id for e in examples(database)] == [kept]
    state = active(database)
    assert state is not None
    assert state.state == b"one read"
    with database.read() as connection:
        (reviewed,) = [c.review for c in reads.calls(connection, "r1") if c.id == shown]
    assert reviewed is not None
    assert (reviewed["wrong"], reviewed["checks"][0]["score"]) == (0.1, 1.0)
    assert (reviewed["reason"], reviewed["checks"][0]["evidence"]) == ("[erased]", "[erased]")


def test_contents_of_void_rows_stay_whole(database: Database) -> None:
    """A void row still refers to its contents, which pruning must not take from under it."""
    take(database, [NewExample("only here", "m", 1)])
    take(database, [])
    database.transact(lambda c: put(c, "t", "nobody needs it"))
    claimed(database)
    database.transact(lambda c: runs.finish_run(c, "r1", 1, "succeeded"))
    database.transact(lambda c: control.prune(c, "t", before=9e9))
    found = everything(database)
    assert "only here" in found
    assert "nobody needs it" not in found
