"""The SQL of docs/memory.md, run on both databases against a real run of the workflow that the page shows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_project import replay_spec
from podium import Podium, Run
from podium.workers.local import LocalPool
from sqlalchemy import text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "memory.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SQL = {
    found[1]: body
    for language, body in FENCE.findall(PAGE.read_text(encoding="utf-8"))
    if language == "sql" and (found := re.match(r"-- (.+)\n", body))
}
MakePodium = Callable[..., Podium]
ANSWER = "Dear owner, your new boiler will be one of the best that there are, and it will be there in a week."


@dataclass(frozen=True)
class Told:
    """A finished run of repair.yaml, and what people added to its memory."""

    podium: Podium
    run: Run

    def ask(self, question: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a query of the page."""
        statement = text(SQL[question])
        names = {"tenant": "default", "run": self.run.id} | parameters
        bound = {name: value for name, value in names.items() if f":{name}" in SQL[question]}
        with self.podium.database.read() as connection:
            return [dict(row) for row in connection.execute(statement, bound).mappings()]

    def revision(self, key: str) -> int:
        """Id of the newest revision of one of the run's items."""
        found = self.podium.memory.get(key, scope="run", scope_id=self.run.id)
        assert found is not None, key
        return found.id


@pytest.fixture
def told(home: Path, tmp_path: Path, database_url: str, make_podium: MakePodium) -> Told:
    for _, body in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if named := re.match(r"# ([\w-]+\.\w+)\n", body):
            (tmp_path / named[1]).write_text(body, encoding="utf-8")
    answer = {"default": True, "text": ANSWER, "input_tokens": 90, "output_tokens": 30}
    pool = LocalPool([replay_spec(tmp_path / "answers.jsonl", answer, name="recorded")], tmp_path)
    podium = make_podium(database_url, pool=pool)
    run = podium.run(tmp_path / "repair.yaml", budget="0.01")
    assert run.status == "succeeded", run.error
    return Told(podium, run)


def test_every_query_of_the_page_is_asked_here() -> None:
    assert set(SQL) == {
        "latest facts", "history of a key", "origins", "cost", "contradictions", "full text on sqlite",
        "full text on postgresql", "forgotten", "size",
    }  # fmt: skip


def test_latest_facts(told: Told) -> None:
    rows = told.ask("latest facts")
    said = {row["field"]: (row["text"], row["task"]) for row in rows}
    assert said["boiler.maker"] == ("Halvorsen & Sons", "visit")
    assert said["boiler.price"] == ("3,950 EUR", "offer")
    assert said["engineer"] == ("Ines Moreau", "visit")
    assert "4,200 EUR" not in {row["text"] for row in rows}
    assert told.ask("latest facts", run="another") == []
    assert told.ask("latest facts", tenant="another") == []


def test_history_of_a_key(told: Told) -> None:
    memory = told.podium.memory
    memory.put("owner", "Ada Berg")
    memory.put("owner", "Ada Lind")
    memory.rollback("owner", 1)
    rows = told.ask("history of a key", key="owner")
    assert [(r["version"], r["text"], r["said_by"]) for r in rows] == [
        (1, "Ada Berg", "a person"), (2, "Ada Lind", "a person"), (3, "Ada Berg", "a person"),
    ]  # fmt: skip
    assert sorted(r["created_at"] for r in rows) == [r["created_at"] for r in rows]
    (fact,) = told.ask("history of a key", key="offer.boiler.price")
    assert (fact["said_by"], fact["text"]) == (f"{told.run.id}/offer", "3,950 EUR")
    (answer,) = told.ask("history of a key", key="letter")
    assert (answer["model"], answer["text"]) == ("recorded", None)


def test_origins(told: Told) -> None:
    rows = told.ask("origins", revision=told.revision("filed"))
    steps = {row["key"]: row["steps"] for row in rows}
    assert (steps["filed"], steps["letter"]) == (0, 1)
    # what the prompt of `letter` showed, although the workflow declares no edge for it
    assert steps["visit"] == 2
    assert steps["offer"] == 2
    assert (rows[0]["key"], rows[-1]["steps"]) == ("filed", 2)


def test_the_letter_is_told_what_the_page_says(told: Told) -> None:
    (prompt,) = told.run.prompts("letter")
    text = prompt.messages[-1]["content"]
    assert "Halvorsen & Sons" in text
    assert "3,950 EUR" in text
    assert "4,200 EUR" not in text
    assert text.endswith("Write to the owner: the maker of the boiler, and its price.")
    assert "superseded" in {dropped["reason"] for dropped in (prompt.context or {})["dropped"]}


def test_cost(told: Told) -> None:
    (row,) = told.ask("cost", revision=told.revision("filed"))
    assert row["nano_usd"] == told.run.cost_nano > 0
    assert row["paid_for"] == 1
    (free,) = told.ask("cost", revision=told.revision("visit.engineer"))
    assert free["nano_usd"] is None


def test_contradictions(told: Told) -> None:
    memory = told.podium.memory
    one = memory.put("inspector says", "the flue is sound")
    other = memory.put("neighbour says", "the flue smokes")
    memory.link(one.id, other.id, "contradicts")
    (row,) = told.ask("contradictions")
    assert (row["this"], row["says"]) == ("inspector says", "the flue is sound")
    assert (row["that"], row["says_otherwise"]) == ("neighbour says", "the flue smokes")
    memory.put("neighbour says", "it was the bakery")
    assert told.ask("contradictions") == []


def test_full_text(told: Told) -> None:
    dialect = told.podium.database.engine.dialect.name
    question = f"full text on {dialect}"
    told.podium.memory.put("other boilers", "the school has two boilers")
    rows = told.ask(question, words="boiler maker")
    assert "visit.boiler.maker" in {row["key"] for row in rows}
    stemmed = told.ask(question, words="school boiler")
    assert [row["key"] for row in stemmed] == ["other boilers"]
    assert told.ask(question, words="boiler", tenant="another") == []


def test_forgotten(told: Told) -> None:
    memory = told.podium.memory
    memory.put("owner", "Ada Berg", subject="ada")
    assert told.ask("forgotten") == []
    memory.forget("ada")
    (row,) = told.ask("forgotten")
    assert len(row["subject_hash"]) == 64
    assert row["subject_hash"] != hashlib.sha256(b"ada").hexdigest()  # keyed: nobody can try names on it
    assert row["at"] > told.run.record.created_at
    assert memory.get("owner") is None


def test_size(told: Told) -> None:
    memory = told.podium.memory
    memory.put("owner", "Ada Berg")
    memory.put("owner", "Ada Lind")
    rows = {(row["scope"], row["kind"]): row for row in told.ask("size")}
    assert (rows["tenant", "note"]["items"], rows["tenant", "note"]["superseded"]) == (1, 1)
    assert rows["run", "artifact"]["items"] == 4
    assert rows["run", "fact"]["tokens"] > 0
