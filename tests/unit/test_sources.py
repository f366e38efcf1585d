"""Sources: the thread that a step goes on is found where its edge was not declared."""

from __future__ import annotations

from podium.memory.context.acts import acts
from podium.memory.context.nodes import node
from podium.memory.context.threads import Threads

TALK = [
    ("a1", [], "USER: I want a hotel in Oslo."),
    ("b1", [], "USER: Please find me trains to Bergen."),
    ("a2", ["a1"], "SYSTEM: For what day do you want the hotel?"),
    ("b2", ["b1"], "SYSTEM: From which city will you take the train?"),
    ("a3", ["a2"], "USER: On March 7th."),
    ("b3", ["b2"], "USER: I leave from Stavanger."),
    ("a4", ["a3"], 'CALL Hotels.Find(city=Oslo, date=2019-03-07) -> [{"hotel_name": "Grand Plaza"}]'),
    ("b4", ["b3"], 'CALL Trains.Find(origin=Stavanger, to=Bergen) -> [{"leaves": "07:40"}]'),
    ("a5", ["a4"], "SYSTEM: How about the Grand Plaza?"),
]


def threads(declared: bool, told: int = len(TALK)) -> Threads:
    made = Threads()
    for at, (step, parents, text) in enumerate(TALK[:told]):
        made.add(node(at, step, text, None), parents if declared else [])
    return made


def test_declared_edges_are_followed_and_nothing_is_guessed() -> None:
    made = threads(True)
    assert made.missing == 0
    assert not made.guesses
    assert made.line(made.place["a5"], 9) == [made.place[s] for s in ("a5", "a4", "a3", "a2", "a1")]


def test_replies_and_calls_without_parents_show_that_edges_are_missing() -> None:
    assert threads(False).missing == 1


def test_calls_and_replies_find_their_thread_by_values() -> None:
    made = threads(False)
    found = {made.nodes[at].id: made.nodes[told[0][0]].id for at, told in made.guesses.items() if told}
    assert found["b3"] == "b2"
    assert found["b4"] == "b3"
    assert found["a5"] == "a4"
    assert "a3" in {made.nodes[at].id for at, _ in made.guesses[made.place["a4"]]}


def test_beliefs_are_shares() -> None:
    made = threads(False, 5)
    chances, begins = made.chances(node(5, "x", "USER: I leave from Stavanger.", None))
    assert abs(sum(c for _, c in chances) + begins - 1) < 1e-9
    assert [c for _, c in chances] == sorted((c for _, c in chances), reverse=True)


def test_what_a_turn_does() -> None:
    assert {"wh", "asks_date"} <= set(acts(node(0, "x", TALK[2][2], None)))
    assert acts(node(0, "x", "CALL f(a=1) -> []", None)) == ("call", "empty")
    assert {"yes", "short"} <= set(acts(node(0, "x", "USER: Yes, please do.", None)))
    assert acts(node(0, "x", "no speaker", None)) == ()
