"""Superseded typed values: state that a newer step changed goes, a record's own fields stay."""

from __future__ import annotations

from podium.memory.context.assembly import Step, Workspace
from podium.memory.context.nodes import Node, node
from podium.memory.context.stated import RECORDS, Stated, without


def entries(count: int) -> list[Node]:
    """Entries of a register: each has a date of its own; the first and the last state one telephone."""
    made = []
    for n in range(count):
        writes = [("date", f"2031-01-{n + 1:02}")]
        writes += [("carrier.phone", f"555 010{n}")] if n in (0, count - 1) else []
        made.append(node(n, f"e{n}", "entry", tuple(writes)))
    return made


def test_what_few_steps_state_is_superseded_and_what_every_step_states_is_its_own() -> None:
    steps = entries(RECORDS + 4)
    stated = Stated(steps, range(len(steps)))
    assert stated.superseded(steps[0]) == [("carrier.phone", "555 0100")]
    assert stated.superseded(steps[1]) == []
    assert stated.holds("carrier.phone", len(steps) - 1)
    assert not stated.holds("carrier.phone", 0)


def test_records_that_differ_in_all_their_fields_are_of_several_things() -> None:
    rows = [
        [("guest", "Ada"), ("code", "1841")],
        [("guest", "Bo"), ("code", "2933")],
        [("guest", "Bo"), ("code", "4077")],
    ]
    stated = Stated([node(n, f"e{n}", "", tuple(row)) for n, row in enumerate(rows)], range(3))
    assert stated.holds("code", 0)
    assert not stated.holds("code", 1)


def test_only_the_steps_in_view_supersede() -> None:
    steps = entries(RECORDS + 4)
    assert Stated(steps, range(3)).superseded(steps[0])[0][0] == "date"


def test_a_line_that_states_a_value_by_its_key_goes_and_prose_is_cut() -> None:
    text = "date: 2031-01-01\ncarrier.phone: 555 0100\nnote: call 555 0100 before noon"
    assert without(text, [("carrier.phone", "555 0100")]) == "date: 2031-01-01\nnote: call … before noon"
    assert without(text, []) == text


def test_a_context_for_plain_words_tells_the_newest_state_only() -> None:
    made = Workspace()
    for n, step in enumerate(entries(RECORDS + 4)):
        said = "\n".join(f"{k}: {v}" for k, v in step.typed)
        made.add(Step(step.id, said, (f"e{n - 1}",) if n else (), writes=step.typed))
    last = f"e{RECORDS + 3}"
    found = made.context("x", [last], "What is the phone of the carrier?", 400, lambda t: len(t.split()))
    assert f"555 010{RECORDS + 3}" in found.text
    assert "555 0100" not in found.text
    assert ("e0", "superseded") in {(d.step, d.reason) for d in found.dropped}
