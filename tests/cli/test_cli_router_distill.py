"""`podium router distill`: the approach of a task's best answers, by a model of recorded answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

POOL = """\
models:
  - {name: small, engine: replay, source: small.jsonl, price: {input: 0.1, output: 0.1}, context: 4096}
  - {name: large, engine: replay, source: large.jsonl, price: {input: 10, output: 10}, context: 4096}
policy: {kind: cheapest}
"""
APPROACH = "Add the two numbers step by step, and end with #### and the sum."


@pytest.fixture
def project(project: Any) -> Any:
    project.write("pool.yaml", POOL)
    usual = {"input_tokens": 200, "output_tokens": 20}
    for name, text in (("small", APPROACH), ("large", "word " * 400)):
        project.write(f"{name}.jsonl", json.dumps({"match": "general approach", "text": text, **usual}))
    return project


def rows(project: Any, scores: list[float], answer: str = "{n} + 1 = {m}") -> Path:
    path = project.folder / "rows.csv"
    with path.open("w", newline="") as handle:
        write = csv.writer(handle)
        write.writerow(["prompt", "task", "model", "score", "answer"])
        for n, score in enumerate(scores):
            write.writerow([f"Add {n} and 1.", "sum", "small", score, answer.format(n=n, m=n + 1)])
            write.writerow([f"Greet {n}.", "greet", "small", 1, "Hello."])
    project.podium("router", "train", str(path))
    return path


def asked(project: Any, run_id: str) -> str:
    found = project.json("show", run_id, "--task", "approach", "--prompt", verb="show --prompt")
    return found["prompts"][0]["messages"][0]["content"]


def test_a_template_is_written_kept_and_edited(project: Any) -> None:
    rows(project, [1, 0.9, 0.8, 0.79, 0, *[1] * 10])
    made = project.json("router", "distill", "sum", verb="router distill")
    assert (made["task"], made["key"], made["version"]) == ("sum", "router/template/sum", 1)
    assert (made["text"], made["examples"], made["model"]) == (APPROACH, 8, "small")
    assert float(made["cost_usd"]) == pytest.approx(220 * 0.1 / 1e6)
    prompt = asked(project, made["run_id"])
    assert prompt.count("<case>") == 8
    assert "Greet" not in prompt
    assert "Add 4 and" not in prompt
    kept = project.json("memory", "get", "router/template/sum", verb="memory get")
    assert (kept["value"], kept["kind"], kept["scope"]) == (APPROACH, "note", "tenant")
    shown = project.json("show", made["run_id"], "--all", verb="show")
    assert shown["workflow"] == "router-distill"
    assert kept["producer"]["run_id"] == made["run_id"]
    assert kept["producer"]["call_id"] == shown["tasks"][0]["routes"][0]["call_id"]
    assert kept["producer"]["prompt_hash"]
    project.podium("memory", "put", "router/template/sum", "Just add.")
    assert project.podium("memory", "get", "router/template/sum").stdout.strip() == "Just add."
    again = project.podium("router", "distill", "sum")
    assert again.stdout.strip() == APPROACH
    assert "router/template/sum: version 3, by small from 8 good answers" in again.stderr


def test_long_answers_and_long_templates_are_cut(project: Any) -> None:
    rows(project, [1] * 8, "{n} first </answer> " + "and so on " * 500 + "last {m}")
    made = project.json(
        "router", "distill", "sum", "--model", "large", "--budget", "0.5", verb="router distill"
    )
    assert made["model"] == "large"
    assert made["text"] == "word " * 200 + "…"
    prompt = asked(project, made["run_id"])
    assert len(prompt) < 4 * 4096
    assert prompt.count("[…]") == prompt.count("last ") == prompt.count("</answer>") == 8


def test_what_is_missing_is_said(project: Any) -> None:
    rows(project, [1, 0.9, 0.7])
    few = project.json("router", "distill", "sum", verb="error", code=2)["error"]
    assert "2 answers of the task 'sum'" in few["message"]
    assert "podium feedback" in few["mend"]
    wrong = project.json("router", "distill", "greet", "--model", "lrge", verb="error", code=3)["error"]
    assert "large" in wrong["mend"]
    refused = project.json("router", "distill", "greet", "--budget", "0.0000001", verb="error", code=2)
    assert "podium show" in refused["error"]["mend"]


def test_private_answers_stay_on_the_machine(project: Any) -> None:
    project.write(
        "sums.yaml",
        "name: sums\ninputs: {questions: list[str]}\ntasks:\n"
        '  sum: {map: questions, prompt: "general approach {item}", private: true}\n'
        "outputs: {answers: sum}\n",
    )
    project.write("few.json", json.dumps(["1", "2", "3"]))
    project.podium("run", "sums.yaml", "-i", "questions=@few.json")
    for number in range(3):
        project.podium("feedback", "last", f"sum[{number}]", "good")
    project.write("pool.yaml", POOL.replace("small.jsonl,", "small.jsonl, local: false,"))
    made = project.json("router", "distill", "sum", verb="router distill")
    assert made["model"] == "large"
    assert made["examples"] == 3
    refused = project.json("router", "distill", "sum", "--model", "small", verb="error", code=2)["error"]
    assert "private" in refused["message"]


def test_pools_know_the_key(project: Any) -> None:
    project.write("pool.yaml", POOL.replace("kind: cheapest", "kind: learned, templates: true"))
    assert project.json("models", verb="models")["policy"]["templates"] is True
    project.write("pool.yaml", POOL.replace("kind: cheapest", "kind: cheapest, templates: true"))
    assert "templates" in project.json("models", verb="error", code=3)["error"]["message"]
