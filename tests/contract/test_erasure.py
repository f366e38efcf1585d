"""Forgetting a subject: its items, what was made from them, and every copy of its words."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from podium.memory import content, control, effects, events, items, ledger, reads, runs
from podium.memory.damage import damage
from podium.memory.database import Database
from podium.memory.errors import NotFound
from podium.memory.items import Place, Producer, RevisionRecord
from podium.memory.ledger import NewCall
from podium.memory.lifecycle import erasure
from podium.memory.lifecycle.erasure import (
    Receipt,
    forget,
    forget_items,
    is_receipt_for,
    is_tombstone,
    preview,
)
from podium.memory.lifecycle.erasure_apply import COLUMNS
from podium.memory.lifecycle.erasure_words import Words, said
from podium.memory.steps import Keep, Retry, Wait
from podium.memory.tables import Blob, Cache, Call, Embedding, Erasure, Item, Link, Run, Term
from run_rows import BEGUN, answer, begin, claimed, ended, record, step, succeed, task_records
from sqlalchemy import func, insert, select

KEY = b"k" * 32
SECRET = "Ottilie Grünwald, born 1907"
PARAPHRASE = "The lady from the mountains was a hundred and one years old when we met her there."
PLACE = Place("t", "tenant", "", "guest.name")


def put(database: Database, value: Any, place: Place = PLACE, **options: Any) -> int:
    made = {"producer": Producer(), "subject": "ottilie", **options}
    return database.transact(lambda c: items.put_revision(c, place, "fact", value, **made))


def history(database: Database, place: Place = PLACE) -> list[RevisionRecord]:
    with database.read() as connection:
        return items.history(connection, place)


def call(database: Database, task: str, said_: str, got: str, run: str = "r1", **extra: Any) -> str:
    request = {"messages": [{"role": "user", "content": said_}], **extra}
    new = NewCall(f"{run}-{task}-{len(said_)}", task, 1, 0, "m", {"model": "m"}, request, "hash", 10)
    database.transact(lambda c: ledger.reserve(c, run, 1, new))
    database.transact(lambda c: ledger.mark_sent(c, run, 1, new.id, "m:0"))
    database.transact(lambda c: ledger.settle(c, run, 1, new.id, answer(got), 5))
    return new.id


def finish(database: Database, run: str = "r1", **outputs: Any) -> None:
    database.transact(lambda c: runs.finish_run(c, run, 1, "succeeded", outputs=outputs))


def everything(database: Database) -> str:
    """All that the tables hold, contents unpacked, as one text."""
    parts: list[str] = []
    with database.read() as connection:
        for row in connection.execute(select(Blob.tenant, Blob.hash)):
            parts.append(json.dumps(content.get(connection, row.tenant, row.hash), ensure_ascii=False))
        for table in Blob.metadata.sorted_tables:
            if table.name != "blob":
                parts += [repr(tuple(row)) for row in connection.execute(select(table))]
        search = "search" if not database.is_sqlite else "search_docsize"
        parts += [repr(tuple(row)) for row in connection.exec_driver_sql(f"SELECT * FROM {search}")]
    return "\n".join(parts)


def intact(database: Database, *run_ids: str) -> None:
    """The chains hold and no content is missing or damaged."""
    assert damage(database) == []
    with database.read() as connection:
        for run in run_ids:
            assert events.verify(connection, run) is None
        for column in COLUMNS:
            owner = column.class_
            for tenant, digest in connection.execute(select(owner.tenant, column).where(column.is_not(None))):
                content.get(connection, tenant, digest)


def scene(database: Database) -> None:
    """A finished run: `a` was shown the secret and paraphrased it, `b` only saw that."""
    number = put(database, {"name": SECRET, "age": 19070101})
    claimed(database, inputs={"who": SECRET, "x": 1}, spec={"name": "w", "outputs": {"brief": "b"}})
    attempt = begin(database, "a")
    call(database, "a", f"Who is\n{SECRET}?", PARAPHRASE, context={"citations": [{"revision": number}]})
    step(
        database,
        ended("a", attempt, output=PARAPHRASE, remember=True, keep=Keep("key", None), event={"model": "m"}),
    )
    attempt = begin(database, "b")
    call(database, "b", f"Shorten: {PARAPHRASE}", "An old lady.")
    step(database, ended("b", attempt, output="An old lady.", remember=True, derived_from=["a"]))
    finish(database, brief="An old lady.")


def test_every_column_of_contents_is_known() -> None:
    assert set(COLUMNS) == set(control._BLOBS)


def test_a_subject_and_all_that_was_made_from_it(database: Database) -> None:
    scene(database)
    database.transact(
        lambda c: c.execute(
            insert(Embedding).values(revision_id=1, model="e", tenant="t", dimensions=1, vector=b"0000")
        )
    )
    receipt = forget(database, "t", "ottilie", key=KEY)
    found = everything(database)
    for word in (SECRET, "Grünwald", "Gr\\u00fcnwald", "19070101", PARAPHRASE, "An old lady", "ottilie"):
        assert word not in found, word
    (revision,) = history(database)[:1] or [None]
    assert revision is not None
    assert revision.status == "erased"
    assert revision.value == {"erased": True, "receipt": receipt.id}
    assert (revision.subject, revision.digest, revision.tokens) == (None, None, None)
    assert receipt.runs == ("r1",)
    assert receipt.paused == ()
    assert receipt.counts["call"] >= 2
    assert receipt.counts["cache"] == 1
    assert receipt.counts["embedding"] == 1
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(Cache)).scalar() == 0
        assert {h for (h,) in connection.execute(select(Call.request_hash))} == {"erased"}
        run, tasks = reads.run(connection, "r1"), reads.tasks(connection, "r1")
        outputs = reads.value(connection, "t", run.outputs_blob)
        inputs = reads.value(connection, "t", run.inputs_blob)
        assert all(is_tombstone(reads.value(connection, "t", t.output_blob)) for t in tasks)
        (event,) = [e for e in events.read(connection, "r1") if e.kind == "memory.erased"]
    assert is_tombstone(outputs["brief"])
    assert is_tombstone(inputs["who"])
    assert inputs["x"] == 1
    assert event.data["receipt"] == receipt.id
    assert run.status == "succeeded"
    intact(database, "r1")


def test_the_receipt(database: Database) -> None:
    put(database, SECRET)
    keyed = forget(database, "t", "ottilie", key=KEY)
    assert keyed.salt is None
    assert is_receipt_for(keyed.subject_hash, "t", "ottilie", KEY)
    assert not is_receipt_for(keyed.subject_hash, "u", "ottilie", KEY)
    assert not is_receipt_for(keyed.subject_hash, "t", "ottilie", b"x" * 32)
    put(database, SECRET)
    salted = forget(database, "t", "ottilie")
    assert salted.salt is not None
    assert is_receipt_for(salted.subject_hash, "t", "ottilie", bytes.fromhex(salted.salt))
    assert salted.salt not in everything(database)
    with database.read() as connection:
        kept = erasure.receipts(connection, "t")
        assert erasure.receipts(connection, "u") == []
    assert [r.id for r in kept] == [salted.id, keyed.id]
    assert kept[1].counts == keyed.counts
    assert {r.bytes_cleared for r in kept} == {keyed.bytes_cleared} == {True if database.is_sqlite else None}
    assert ("VACUUM" in keyed.note) is not database.is_sqlite


def test_again_is_nothing_more(database: Database) -> None:
    scene(database)
    forget(database, "t", "ottilie", key=KEY)
    before = everything(database)
    again = forget(database, "t", "ottilie", key=KEY)
    assert (again.counts, again.runs) == ({}, ())
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(Erasure)).scalar() == 2
    lines = {line for line in everything(database).splitlines() if again.subject_hash not in line}
    assert lines == {line for line in before.splitlines() if again.subject_hash not in line}
    intact(database, "r1")


def test_what_came_after_is_found_by_its_link(database: Database) -> None:
    first = put(database, SECRET)
    forget(database, "t", "ottilie")
    late = Place("t", "tenant", "", "late")
    database.transact(
        lambda c: items.put_revision(
            c, late, "note", "An old lady.", producer=Producer(), derived_from=[first]
        )
    )
    receipt = forget(database, "t", "ottilie")
    assert receipt.counts["revision"] == 1
    assert history(database, late)[0].status == "erased"


def test_others_keep_theirs(database: Database) -> None:
    put(database, SECRET)
    other, theirs = Place("t", "tenant", "", "bert"), Place("u", "tenant", "", "guest.name")
    put(database, "Bert likes tea in the garden", other, subject="bert")
    put(database, SECRET, theirs)
    claimed(database, "r2", inputs={"x": "tea in the garden"})
    succeed(database, "a", "something else entirely", "r2", remember=True)
    before = record(database, "r2")
    receipt = forget(database, "t", "ottilie")
    assert receipt.runs == ()
    assert history(database, other)[0].value == "Bert likes tea in the garden"
    assert history(database, theirs)[0].value == SECRET
    assert record(database, "r2") == before
    with database.read() as connection:
        indexed = set(connection.execute(select(Term.revision_id)).scalars())
    assert indexed == {history(database, p)[0].id for p in (other, theirs)} | {
        history(database, Place("t", "run", "r2", "a"))[0].id
    }


def test_equal_short_values_stay_with_others(database: Database) -> None:
    other = Place("t", "tenant", "", "other")
    put(database, "tea")
    put(database, "tea", other, subject=None)
    forget(database, "t", "ottilie")
    assert history(database)[0].status == "erased"
    assert history(database, other)[0].value == "tea"
    intact(database)


def test_a_common_word_stays_with_others(database: Database) -> None:
    """Whose status is `confirmed` does not take every `confirmed` of the tenant along."""
    put(database, "confirmed")
    other = Place("t", "tenant", "", "order.7")
    put(database, "the order was confirmed on Monday", other, subject="order 7")
    forget(database, "t", "ottilie", key=KEY)
    assert [r.status for r in history(database)] == ["erased"]
    assert [r.status for r in history(database, other)] == ["active"]


def test_derivation_goes_through_links_only_downwards(database: Database) -> None:
    source, result = Place("t", "tenant", "", "source"), Place("t", "tenant", "", "result")
    first = put(database, "where it came from, a book", source, subject=None)
    second = put(database, SECRET, derived_from=[first])
    third = put(database, "made of it all, in the end", result, subject=None, derived_from=[second])
    related = Place("t", "tenant", "", "related")
    put(database, "only a neighbour of it", related, subject=None)
    fourth = history(database, related)[0].id
    database.transact(lambda c: items.link(c, "t", fourth, second, "relates"))
    forget(database, "t", "ottilie")
    states = {p.key: history(database, p)[-1].status for p in (source, PLACE, result, related)}
    assert states == {"source": "active", "guest.name": "erased", "result": "erased", "related": "active"}
    with database.read() as connection:
        assert connection.execute(select(Link.src).where(Link.src == third)).all()


def test_a_request_that_cites_it_shows_it(database: Database) -> None:
    number = put(database, "tea")
    claimed(database)
    attempt = begin(database, "a")
    call(
        database, "a", "What drink?", "It was hot.", context={"citations": [{"mark": 1, "revision": number}]}
    )
    step(database, ended("a", attempt, output="It was hot."))
    assert forget(database, "t", "ottilie").paused == ("r1",)
    assert "It was hot" not in everything(database)
    assert "What drink" not in everything(database)
    assert record(database).status == "paused"
    intact(database, "r1")


def test_many_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks at whole columns find what the looks at named contents do."""
    monkeypatch.setattr("podium.memory.lifecycle.erasure_trace.MANY", 2)
    monkeypatch.setattr("podium.memory.lifecycle.erasure_apply.MANY", 2)
    scene(database)
    put(database, "tea in the garden of the house", Place("t", "tenant", "", "kept"), subject=None)
    assert forget(database, "t", "ottilie").runs == ("r1",)
    found = everything(database)
    assert not any(word in found for word in (SECRET, PARAPHRASE, "An old lady"))
    assert "tea in the garden" in found
    intact(database, "r1")


@pytest.mark.parametrize("form", ["plain", "quoted", "twice", "spaces"])
def test_words_are_found_however_they_are_written(database: Database, form: str) -> None:
    secret = 'She said "nö"\nand left\\gone\tthere'
    shown = {
        "plain": secret,
        "quoted": json.dumps({"x": secret}),
        "twice": json.dumps(json.dumps([secret], ensure_ascii=False)),
        "spaces": secret.replace("\n", "  \n\n "),
    }[form]
    put(database, secret)
    claimed(database)
    succeed(database, "a", {"got": [f"before {shown} after"]})
    forget(database, "t", "ottilie")
    with database.read() as connection:
        assert is_tombstone(reads.value(connection, "t", task_records(database)["a"].output_blob))


def test_words_of_long_texts_are_known_by_their_sentences() -> None:
    text = "One sentence that stands for itself. " + "x" * 300 + ". Another sentence, at the very end of it!"
    words = Words.of_values([text])
    assert words.are_in("quoted: Another sentence, at the very end of it!")
    assert words.are_in(text.replace(" ", "\n"))
    assert not words.are_in("One sentence that stands for nothing at all.")
    many = Words.of_values([f"This is the sentence of number {n * 7919}" for n in range(2000)])
    assert many.are_in(f"he wrote: this. This is the sentence of number {77 * 7919}; and more")
    assert not many.are_in("This is the sentence of number that is none of them")
    assert list(said({"a": 5, "b": None, "c": True, "d": ["x", "y"]})) == ["5", "x", "y", "x, y"]


def test_errors_questions_and_events_lose_it_and_the_chain_holds(database: Database) -> None:
    put(database, SECRET)
    claimed(database, idempotency_key=f"for {SECRET}")
    begin(database, "a")
    error = {"kind": "TaskError", "message": f"no {SECRET}", "mend": "", "exit_code": 1}
    step(database, Retry("a", 1, BEGUN, error, None))
    begin(database, "b")
    step(database, Wait("b", 1, BEGUN, f"May I greet {SECRET}?"))
    with database.read() as connection:
        before = {e.seq: e for e in events.read(connection, "r1")}
    receipt = forget(database, "t", "ottilie", key=KEY)
    found = everything(database)
    assert SECRET not in found
    assert json.dumps(SECRET)[1:-1] not in found
    task = task_records(database)["a"]
    assert task.error == {"kind": "TaskError", "message": "[erased]", "mend": "", "exit_code": 1}
    assert task_records(database)["b"].approval_text == "[erased]"
    with database.read() as connection:
        after = events.read(connection, "r1")
        assert connection.execute(select(Run.idempotency_key)).scalar() is None
    changed = [e.seq for e in after if e.seq in before and e.data != before[e.seq].data]
    (told,) = [e for e in after if e.kind == "memory.erased"]
    assert told.data["events"] == changed != []
    assert told.data["receipt"] == receipt.id
    untouched = [e.seq for e in after if e.seq < changed[0]]
    assert [before[s].hash for s in untouched] == [e.hash for e in after if e.seq in untouched]
    intact(database, "r1")


def test_effects_plans_and_specs(database: Database) -> None:
    put(database, SECRET)
    spec = {"name": "w", "tasks": {"a": {"prompt": f"Greet {SECRET} with {{x}}"}}, "outputs": {}}
    claimed(database, spec=spec)
    begin(database, "a")
    new = effects.NewEffect("e", "a", 1, 0, "m:f", "write", {"to": SECRET})
    database.transact(lambda c: effects.request(c, "r1", 1, new, status="started"))
    database.transact(lambda c: effects.finish(c, "r1", 1, "e", result=f"sent to {SECRET}"))
    step(database, ended("a", 1, output="fine"))
    finish(database)
    forget(database, "t", "ottilie")
    assert SECRET not in everything(database)
    with database.read() as connection:
        kept = reads.value(connection, "t", reads.run(connection, "r1").spec_blob)
        (effect,) = reads.effects(connection, "r1")
        assert is_tombstone(reads.value(connection, "t", effect.result_blob))
        # only the effect showed it: what the task came to is not made from it
        assert reads.value(connection, "t", task_records(database)["a"].output_blob) == "fine"
    assert kept["tasks"]["a"]["prompt"] == "[erased] {x}"
    intact(database, "r1")


def test_tasks_that_read_an_input_that_shows_it(database: Database) -> None:
    put(database, SECRET)
    tasks = {"a": {"python": "m:f", "args": {"who": "guest"}}, "b": {"python": "m:g", "args": {"n": "other"}}}
    claimed(database, inputs={"guest": SECRET, "other": 5}, spec={"name": "w", "tasks": tasks}, edges=[])
    succeed(database, "a", 1907)
    succeed(database, "b", 25)
    finish(database, a=1907, b=25)
    forget(database, "t", "ottilie")
    with database.read() as connection:
        outputs = reads.value(connection, "t", reads.run(connection, "r1").outputs_blob)
    assert is_tombstone(outputs["a"])
    assert outputs["b"] == 25


def test_keys_of_items_that_tell_whom(database: Database) -> None:
    mine = Place("t", "tenant", "", "Ottilie.drink")
    put(database, "tea", mine)
    forget(database, "t", "ottilie")
    assert history(database, mine) == []
    with database.read() as connection:
        key, item = connection.execute(select(Item.key, Item.id)).one()
    assert key == f"erased/{item}"
    put(database, "coffee", mine, subject=None)
    assert history(database, mine)[0].value == "coffee"


def test_items_by_name(database: Database) -> None:
    other = Place("t", "tenant", "", "other")
    put(database, SECRET)
    put(database, "something that stays", other)
    receipt = forget_items(database, "t", [PLACE], key=KEY)
    assert receipt.counts["revision"] == 1
    assert [history(database, p)[0].status for p in (PLACE, other)] == ["erased", "active"]
    assert is_receipt_for(receipt.subject_hash, "t", history(database)[0].item_id, KEY)
    with pytest.raises(NotFound):
        forget_items(database, "t", ["none"])
    with pytest.raises(NotFound):
        forget_items(database, "u", [history(database, other)[0].item_id])


def test_preview_changes_nothing(database: Database) -> None:
    scene(database)
    before = everything(database)
    found = preview(database, "t", "ottilie")
    assert everything(database) == before
    assert (found["items"], found["tasks"], found["runs"]) == (1, 2, 1)
    assert found["revisions"] >= 3
    assert preview(database, "u", "ottilie") == dict.fromkeys(found, 0)


def test_a_fork_loses_what_it_took_over(database: Database) -> None:
    scene(database)
    from podium.memory.forks import fork
    from run_rows import new_run

    spec = {"name": "w", "outputs": {"brief": "b"}}
    new = new_run("r2", inputs={"x": 2}, spec=spec)
    database.transact(lambda c: fork(c, "r1", new, "b", {}))
    receipt = forget(database, "t", "ottilie")
    assert receipt.runs == ("r1", "r2")
    assert receipt.paused == ("r2",)
    assert PARAPHRASE not in everything(database)
    with database.read() as connection:
        assert is_tombstone(reads.value(connection, "t", task_records(database, "r2")["a"].output_blob))
    intact(database, "r1", "r2")


def test_an_engine_that_still_knows_it_is_refused(database: Database) -> None:
    from podium.memory.errors import StaleEpoch

    put(database, SECRET)
    claimed(database)
    attempt = begin(database, "a")
    call(database, "a", f"Who is {SECRET}?", "nobody")
    assert forget(database, "t", "ottilie").paused == ("r1",)
    with pytest.raises(StaleEpoch):
        step(database, ended("a", attempt, output=SECRET))
    assert SECRET not in everything(database)


def test_what_is_written_meanwhile_is_not_lost(database: Database) -> None:
    scene(database)
    stop, made, failures = threading.Event(), [], []

    def write(number: int) -> None:
        try:
            while not stop.is_set():
                place = Place("t", "tenant", "", f"w{number}.{len(made)}")
                value = {"text": f"written by {number}", "same": "a content that all of them share " * 10}
                put(database, value, place, subject=None)
                made.append(place)
        except Exception as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        receipts: list[Receipt] = [forget(database, "t", "ottilie") for _ in range(2)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert receipts[0].counts["revision"] >= 3
    assert {history(database, p)[0].status for p in made} == {"active"}
    assert SECRET not in everything(database)
    intact(database, "r1")


def test_what_is_said_of_the_subject_meanwhile_goes_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, SECRET)
    late = "And her address is Elm Street 5"
    original = erasure._looked

    def look(*arguments: Any) -> Any:
        scan = original(*arguments)
        put(database, late, Place("t", "tenant", "", "late"))
        claimed(database)
        succeed(database, "a", [late, SECRET])
        return scan

    monkeypatch.setattr(erasure, "_looked", look)
    forget(database, "t", "ottilie")
    assert late not in everything(database)
    assert SECRET not in everything(database)
    intact(database, "r1")


def test_a_map_loses_the_elements_that_show_it(database: Database) -> None:
    from podium.memory.graphs import NewTask

    put(database, SECRET)
    children = [NewTask(f"a[{n}]", "llm", "a", n) for n in range(2)]
    claimed(database, tasks=[NewTask("a", "map"), *children, NewTask("b", "llm")])
    for n, text in enumerate((SECRET, "an element that has nothing to do with it")):
        attempt = begin(database, f"a[{n}]")
        call(database, f"a[{n}]", f"Say {text}", text)
        step(database, ended(f"a[{n}]", attempt, output=text))
    succeed(database, "a", [SECRET, "an element that has nothing to do with it"])
    finish(database)
    forget(database, "t", "ottilie")
    with database.read() as connection:
        outputs = {t.name: reads.value(connection, "t", t.output_blob) for t in reads.tasks(connection, "r1")}
    assert is_tombstone(outputs["a"])
    assert is_tombstone(outputs["a[0]"])
    assert outputs["a[1]"] == "an element that has nothing to do with it"


def test_what_a_tombstone_is() -> None:
    assert is_tombstone({"erased": True, "receipt": 3, "text": ""})
    assert not is_tombstone({"erased": True})
    assert not is_tombstone({"erased": "yes", "receipt": 3})
    assert not is_tombstone("erased")
