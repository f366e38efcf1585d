"""What the router learns from a person's grades and rows, told and used on the command line."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from podium.orchestrator.profile import agreement

POOL = """\
models:
  - {name: small, engine: replay, source: small.jsonl, price: {input: 0.1, output: 0.1}}
  - {name: large, engine: replay, source: large.jsonl, price: {input: 10, output: 10}}
  - {name: newcomer, engine: replay, source: newcomer.jsonl, price: {input: 1, output: 1}}
policy: {kind: learned, deny: [newcomer]}
"""
FLOW = """\
name: sums
inputs: {questions: list[str]}
tasks:
  sum: {map: questions, prompt: "{item}", system: "Be exact.", max_tokens: 64}
outputs: {answers: sum}
"""
ROWS = 60


def question(number: int) -> str:
    return f"Add {number} and {2 * number + 7}."


def answer(number: int, right: bool) -> str:
    result = 3 * number + 7 + (0 if right else 1)
    return f"{number} + {2 * number + 7} = {result}\n#### {result}"


def small_is_right(number: int) -> bool:
    return number % 5 != 0


@pytest.fixture
def project(project: Any) -> Any:
    """Three models of recorded answers: `small` errs at every fifth sum, `newcomer` at every second."""
    project.write("pool.yaml", POOL)
    project.write("sums.yaml", FLOW)
    rights = {"small": small_is_right, "large": lambda n: True, "newcomer": lambda n: n % 2 == 0}
    for name, right in rights.items():
        lines = [
            json.dumps(
                {"match": question(n), "text": answer(n, right(n)), "input_tokens": 20, "output_tokens": 20}
            )
            for n in range(100)
        ]
        project.write(f"{name}.jsonl", "\n".join(lines))
    project.write("few.json", json.dumps([question(n) for n in (70, 71, 72)]))
    return project


@pytest.fixture
def rows(project: Any) -> Path:
    path = project.folder / "rows.csv"
    dice = random.Random(1)
    with path.open("w", newline="") as handle:
        write = csv.writer(handle)
        write.writerow(["prompt", "task", "model", "score", "cost_usd", "in_tok", "out_tok", "answer"])
        for number in dice.sample(range(ROWS), ROWS):
            for model, price, right in (("small", 4e-6, small_is_right(number)), ("large", 4e-4, True)):
                write.writerow(
                    [question(number), "sum", model, int(right), price, 20, 20, answer(number, right)]
                )
    return path


def run(project: Any, *options: str) -> Any:
    found = project.json("run", "sums.yaml", "-i", "questions=@few.json", *options, verb="run")
    assert found["status"] == "succeeded"
    return project.json("show", found["run_id"], "--all", verb="show")


def routes_of(shown: Any) -> list[Any]:
    return [route | {"task": task["name"]} for task in shown["tasks"] for route in task["routes"]]


def test_feedback_grades_a_call_or_a_tasks_answer(project: Any) -> None:
    shown = run(project, "--policy", "cheapest")
    first, second, third = routes_of(shown)
    by_prefix = project.json(
        "feedback", first["call_id"][:10], "bad", "--note", "off by one", verb="feedback"
    )
    assert (by_prefix["call_id"], by_prefix["score"], by_prefix["note"]) == (
        first["call_id"],
        0,
        "off by one",
    )
    by_task = project.json("feedback", "last", second["task"], "good", verb="feedback")
    assert (by_task["call_id"], by_task["score"]) == (second["call_id"], 1)
    assert project.podium("feedback", third["call_id"], "0.7").stdout.strip() == third["call_id"]
    project.podium("feedback", third["call_id"], "0.2")  # the last word counts
    exported = project.json("router", "export", "all.jsonl", "--least", "0", verb="router export")
    assert exported["rows"] == 3
    chats = [json.loads(line) for line in (project.folder / "all.jsonl").read_text().splitlines()]
    assert sorted(chat["score"] for chat in chats) == [0, 0.2, 1]
    assert [m["role"] for m in chats[0]["messages"]] == ["system", "user", "assistant"]
    assert chats[0]["messages"][0]["content"] == "Be exact."
    for wrong in (
        [first["call_id"], "fine"],
        [first["call_id"], "1.2"],
        ["0000000", "good"],
        ["last", "sum", "good"],
        ["last", "sun", "good"],
        [first["call_id"]],
    ):
        said = project.json("feedback", *wrong, verb="error", code=2)
        assert said["error"]["mend"], wrong
    assert "sum[0]" in project.podium("feedback", "last", "sum", "good", code=2).stderr


def test_train_versions_and_rollback(project: Any, rows: Path) -> None:
    nothing = project.json("router", "train", verb="error", code=2)
    assert "podium feedback" in nothing["error"]["mend"]
    assert "train" in project.podium("router", "versions").stderr
    first = project.json("router", "train", str(rows), verb="router train")
    assert (first["version"], first["rows"], first["imported"]) == (1, 2 * ROWS, 2 * ROWS)
    assert set(first["models"]) == {"small", "large", "newcomer"}
    assert {doubt["weak"] for doubt in first["doubts"]} == {"small"}
    again = project.json("router", "train", str(rows), verb="router train")
    assert (again["version"], again["rows"]) == (2, 2 * ROWS)  # replaced, not doubled
    assert project.podium("router", "train").stdout.startswith(f"version 3: {2 * ROWS} graded answers")
    assert project.json("router", "rollback", "1", verb="router rollback") == {"version": 4, "restored": 1}
    versions = project.json("router", "versions", verb="router versions")["versions"]
    assert [(v["version"], v["active"]) for v in versions] == [(4, True), (3, False), (2, False), (1, False)]
    assert "99" in project.json("router", "rollback", "99", verb="error", code=2)["error"]["message"]


def test_own_outcomes_are_judged_and_exported(project: Any, rows: Path) -> None:
    assert "podium feedback" in project.json("router", "eval", verb="error", code=2)["error"]["mend"]
    project.podium("router", "train", str(rows))
    found = project.json("router", "eval", verb="router eval")
    assert (found["file"], found["prompts"]) == (None, ROWS)
    of_file = project.json("router", "eval", str(rows), verb="router eval")
    same = {row["name"]: row["figures"] for row in of_file["rows"]}
    assert {row["name"]: row["figures"] for row in found["rows"]}["large"] == same["large"]
    ranked = project.json("router", "rank", "--weights", "1,0,0", verb="router rank")
    assert [one["model"] for one in ranked["models"]] == ["large", "small"]
    assert project.json("router", "frontier", verb="router frontier")["prompts"] == ROWS
    best = project.json("router", "export", "best.jsonl", verb="router export")
    assert best["tasks"] == {"sum": ROWS}
    chats = [json.loads(line) for line in (project.folder / "best.jsonl").read_text().splitlines()]
    for chat in chats:
        number = int(chat["messages"][0]["content"].split()[1])
        assert chat["messages"][-1] == {"role": "assistant", "content": answer(number, right=True)}
        assert chat["model"] == ("small" if small_is_right(number) else "large")  # of equals the cheaper


def test_aims_are_for_the_learned_policy(project: Any, rows: Path) -> None:
    project.podium("router", "train", str(rows))
    best = project.json(
        "run", "sums.yaml", "-i", "questions=@few.json", "--dry-run", "--aim", "best", verb="run --dry-run"
    )
    cheap = project.json(
        "run", "sums.yaml", "-i", "questions=@few.json", "--dry-run", "--quality", "0.1", verb="run --dry-run"
    )
    assert "point of score" in best["rows"][0]["reason"]
    assert cheap["rows"][0]["model"] == "small"
    for wrong in (
        ["--policy", "cheapest", "--aim", "best"],
        ["--model", "small", "--quality", "0.9"],
        ["--aim", "best", "--quality", "0.9"],
        ["--aim", "bets"],
        ["--quality", "1.2"],
        ["--policy", "learnd"],
    ):
        said = project.json("run", "sums.yaml", "-i", "questions=@few.json", *wrong, verb="error", code=2)
        assert said["error"]["mend"], wrong
    replayed = run(project, "--aim", "best")
    moved = project.json("replay", replayed["run_id"], "--policy", "learned:0.1", verb="replay")
    assert moved["policy"] == {"kind": "learned", "quality": 0.1}
    assert {row["model_now"] for row in moved["rows"]} == {"small"}


def test_explain_says_why_in_words(project: Any, rows: Path) -> None:
    project.podium("router", "train", str(rows))
    route = routes_of(run(project))[0]
    found = project.json("router", "explain", route["call_id"][:12], verb="router explain")
    assert (found["call_id"], found["model"], found["state"]) == (route["call_id"], route["model"], 1)
    text = project.podium("router", "explain", route["call_id"]).stdout
    assert text.splitlines() == found["words"]
    for said in ("expected score", "a point of score", "next best model alone", "deny list", "it cost"):
        assert said in text, said
    now = project.json("router", "explain", "--prompt", question(80), "--task", "sum", verb="router explain")
    assert (now["call_id"], now["policy"]) == (None, "learned")
    by = {model["model"]: model for model in now["models"]}
    assert by["large"]["quality"] > by["small"]["quality"]
    assert by["small"]["doubt"] is not None
    assert not by["newcomer"]["fits"]
    fixed = project.podium("router", "explain", "--prompt", "Add 1 and 9.", "--aim", "cheap").stdout
    assert "MODEL" in fixed
    for wrong in (["--prompt", "x", route["call_id"]], [], [route["call_id"], "--task", "sum"], ["0000000"]):
        assert project.json("router", "explain", *wrong, verb="error", code=2)["error"]["mend"], wrong


def test_replay_weighs_what_was_logged(project: Any, rows: Path) -> None:
    assert project.json("router", "replay", "cheapest", verb="error", code=2)["error"]["mend"]
    project.podium("router", "train", str(rows))
    shown = run(project, "--policy", "cheapest")
    for route, score in zip(routes_of(shown), ("bad", "good", "good"), strict=True):
        project.podium("feedback", route["call_id"], score)
    same = project.json("router", "replay", "cheapest", "--run", "last", verb="router replay")
    assert (same["decisions"], same["matched"], same["effective"]) == (3, 3, 3)
    assert same["weighted"]["score"]["value"] == pytest.approx(2 / 3)
    assert same["logged"] == same["weighted"]
    other = project.json("router", "replay", "fixed:large", verb="router replay")
    assert (other["matched"], other["weighted"]) == (0, None)
    assert other["doubly_robust"]["score"]["value"] > 0.8
    assert other["doubly_robust"]["dollars"]["value"] > 10 * same["logged"]["dollars"]["value"]
    assert any("too little" in text for text in other["notes"])
    assert any("propensity 1" in text for text in other["notes"])
    assert "predicted only" in project.podium("router", "replay", "fixed:large").stdout


def test_profile_grades_a_new_model_by_known_answers(project: Any, rows: Path) -> None:
    nothing = project.json("router", "profile", "newcomer", verb="error", code=2)
    assert "podium feedback" in nothing["error"]["mend"]
    project.podium("router", "train", str(rows))
    found = project.json("router", "profile", "newcomer", "--calls", "20", verb="router profile")
    assert (found["prompts"], found["failed"], found["compared"]) == (20, 0, {"number": 20})
    assert 0.2 < found["score"] < 0.8
    assert found["reference"] == 1
    assert found["version"] == 2
    assert project.json("show", found["run_id"], verb="show")["workflow"] == "router-profile"
    ranked = project.json("router", "rank", "--weights", "1,0,0", verb="router rank")
    assert [one["model"] for one in ranked["models"]][-1] == "newcomer"
    poor = project.json("router", "profile", "newcomer", "--budget", "0.000001", verb="error", code=4)
    assert "none of 24" in poor["error"]["message"]
    missing = project.json("router", "profile", "newcomr", verb="error", code=3)
    assert "newcomer" in missing["error"]["mend"]


def test_private_prompts_make_no_profile_of_a_model_elsewhere(project: Any) -> None:
    project.write("sums.yaml", FLOW.replace("max_tokens: 64", "max_tokens: 64, private: true"))
    run(project, "--policy", "cheapest")
    for number in range(3):
        project.podium("feedback", "last", f"sum[{number}]", "good")
    project.write("pool.yaml", POOL.replace("newcomer.jsonl,", "newcomer.jsonl, local: false,"))
    assert project.json("router", "profile", "newcomer", verb="error", code=2)["error"]["mend"]
    project.write("pool.yaml", POOL)
    found = project.json("router", "profile", "newcomer", verb="router profile")
    assert found["prompts"] == 3
    prompts = project.json("show", found["run_id"], "--task", "told[0]", "--prompt", verb="show --prompt")
    assert "Be exact." in json.dumps(prompts)


@pytest.mark.parametrize(
    ("known", "answer", "agreed", "way"),
    [
        ("3 + 4 = 7\n#### 7", "I say 8, no: the answer is 7.", 1, "number"),
        ("3 + 4 = 7 apples, so she has 7.", "7 + 1 = 8", 0, "number"),
        ("Positive", "positive.", 1, "words"),
        ("Positive", "negative", 0, "words"),
        ('{"city": "Rome", "year": 1960}', '{"city": "rome", "year": 1961}', 0.5, "fields"),
        ('{"city": "Rome"}', "Rome", 0, "fields"),
    ],
)
def test_grades_of_a_profile_are_agreement(known: str, answer: str, agreed: float, way: str) -> None:
    assert agreement(known, answer) == (agreed, way)


def test_longer_texts_agree_by_meaning() -> None:
    known = "The moon pulls the water of the sea, and so the tides rise twice a day."
    near, way = agreement(known, "Tides come from the pull of the moon on the sea, two times a day.")
    far, _ = agreement(known, "The committee approved a budget for new office furniture in spring.")
    assert way == "meaning"
    assert 0 <= far < near <= 1
