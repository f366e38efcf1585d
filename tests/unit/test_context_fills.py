"""Values of an argument: the last statement wins, and what it replaced is told apart."""

from __future__ import annotations

from podium.memory.context.fills import Fill, fills
from podium.memory.context.nodes import node
from podium.memory.context.slots import Known, last_part, slot
from podium.memory.context.threads import Threads

from benchmarks.dialogue_chains import chains
from benchmarks.dialogues import run


def told(name: str, *texts: str) -> dict[str, Fill]:
    """The values of an argument in a thread, by their text."""
    threads = Threads()
    for n, text in enumerate(texts):
        threads.add(node(n, f"s{n}", text, None), [f"s{n - 1}"] if n else [])
    (found,) = fills([slot(name, Known())], threads.nodes[::-1])
    return {value.shown.text: value for value in found}


def test_the_newer_value_supersedes_the_older() -> None:
    found = told(
        "city", "USER: A desk in Portmare.", "SYSTEM: In which city?", "USER: No, in Velsun instead."
    )
    assert found["Velsun"].chance > 0.5 > found["Portmare"].chance
    assert found["Portmare"].superseded > found["Velsun"].superseded


def test_forms_of_one_value_are_one() -> None:
    found = told("date", "USER: On the 4th of March.", "CALL f.g(date=2031-03-04) -> {}")
    assert len([v for v in found.values() if v.chance > 0.1]) == 1
    assert found["2031-03-04"].texts == {"2031-03-04", "the 4th of March"}
    assert found["2031-03-04"].superseded < 0.1


def test_chances_are_shares() -> None:
    found = told("date", *(s["text"] for s in run(3, 1)["steps"][:30]))
    assert sum(v.chance for v in found.values()) <= 1 + 1e-9
    assert all(0 <= v.superseded <= 1 for v in found.values())


def test_names_of_paths() -> None:
    assert [last_part(p) for p in ("a.b[0].c", "sums[0]", "sums.[0]", "[0]", "x")] == [
        "c",
        "sums",
        "sums",
        "",
        "x",
    ]


def test_self_made_runs_are_the_same_every_time_and_needs_are_told_before() -> None:
    assert run(5, 4) == run(5, 4)
    assert chains(5, 4) == chains(5, 4)
    heard: dict[str, str] = {}
    for step in run(5, 4)["steps"]:
        before = heard.get(step["branch"], "").lower()
        for need in step["needs"]:
            assert any(v.lower() in before for v in need["values"]), need
        heard[step["branch"]] = before + step["text"].lower() + "\n"
