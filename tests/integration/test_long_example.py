"""examples/loans.yaml: sixty entries read by sixty tasks; the letters are told what the early ones said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from podium import Podium, Run
from podium.memory.prompts import PromptRecord
from podium.memory.texts import token_estimate
from podium.orchestrator.cli.main import execute
from podium.workers.testing import echo_spec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONTEXT = 2048
LETTERS = {"sextant", "insurer", "chart", "keys"}
MakePodium = Callable[..., Podium]


@dataclass(frozen=True)
class Done:
    podium: Podium
    run: Run

    def asked(self, task: str) -> PromptRecord:
        """The task's one request, as it was sent."""
        (prompt,) = self.run.prompts(task)
        return prompt

    def context(self, task: str) -> dict[str, Any]:
        """What memory added to it."""
        found = self.asked(task).context
        assert found is not None
        return found

    def prompt(self, task: str) -> str:
        return "\n".join(message["content"] for message in self.asked(task).messages)

    def sources(self, task: str, fact: str) -> set[str]:
        """The tasks whose revisions are cited by the lines that hold `fact`."""
        lines = [line for line in self.prompt(task).splitlines() if fact in line]
        found = set()
        for citation in self.context(task)["citations"]:
            if any(f"[{citation['mark']}]" in line for line in lines):
                record = self.podium.memory.revision(citation["revision"])
                assert record is not None, citation
                found.add(str(record.producer.task))
        return found


@pytest.fixture
def done(home: Path, make_podium: MakePodium) -> Done:
    podium = make_podium(None, echo_spec(context=CONTEXT, max_output=256))
    run = podium.run(EXAMPLES / "loans.yaml", budget="0.05")
    assert run.status == "succeeded", run.error
    return Done(podium, run)


def test_the_letters_get_what_early_entries_said(done: Done) -> None:
    names = [task.record.name for task in done.run.tasks]
    assert len(names) == 64
    assert {call.task for call in done.run.calls} == LETTERS
    sextant = done.prompt("sextant")
    for fact, entry in {
        "NW-4471-25": "jan_07",
        "Tønsberg Harbour Museum": "jan_09",
        "C-04": "feb_13",
        "21,500 EUR": "jun_03",
        "16 January 2026": "oct_16",
    }.items():
        assert fact in sextant
        assert entry in done.sources("sextant", fact), fact
    assert "C-15" in done.prompt("insurer")
    assert "Henrik Dahl" in done.prompt("insurer")
    assert "50 lux" in done.prompt("chart")
    assert "Miriam Aalto" in done.prompt("keys")
    assert "555 0199" in done.prompt("keys")


def test_what_a_later_entry_changed_is_not_shown(done: Done) -> None:
    for task in LETTERS:
        prompt = done.prompt(task)
        for old in ("18,000 EUR", "Grace Okafor", "C-11", "555 0142"):
            assert old not in prompt, f"{task} is told {old}"


def test_prompts_fit_and_say_what_was_left_out(done: Done) -> None:
    for task in LETTERS:
        # tokens of the echo model are words; the estimate by bytes is nearer to what real tokenizers count
        assert token_estimate(done.prompt(task)) <= CONTEXT
        context = done.context(task)
        assert context["citations"]
        assert context["dropped"]
        assert all(dropped["reason"] for dropped in context["dropped"])
    assert done.context("chart")["tokens"] <= 400
    # sixty entries do not fit where a letter asked for 400 tokens
    assert len(done.context("chart")["dropped"]) > 10
    left_out = {d["reason"]: d["text"] for d in done.context("sextant")["dropped"]}
    assert "superseded" in left_out


def test_show_prints_the_prompt_as_it_was_sent(
    done: Done, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert execute(["show", done.run.id, "--task", "sextant", "--prompt"]) == 0
    plain = capfd.readouterr()
    assert done.prompt("sextant") in plain.out
    assert "Left out:" in plain.err
    assert "superseded" in plain.err
    assert execute(["show", done.run.id, "--task", "sextant", "--prompt", "--json"]) == 0
    (shown,) = json.loads(capfd.readouterr().out)["prompts"]
    assert shown["messages"][-1]["content"] == done.prompt("sextant")
    assert shown["citations"] == done.context("sextant")["citations"]
    assert shown["dropped"] == done.context("sextant")["dropped"]


def test_the_letters_are_made_from_what_they_were_shown(done: Done) -> None:
    memory = done.podium.memory
    letter = memory.get("sextant", scope="run", scope_id=done.run.id)
    assert letter is not None
    sources = {link.dst for link in memory.links(letter.id) if link.kind == "derived_from"}
    cited = {citation["revision"] for citation in done.context("sextant")["citations"]}
    assert cited <= sources
