"""What a task is shown of the memory: facts of earlier tasks by revision, the same in each attempt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from engine_project import write_steps
from podium import Podium, Run, UsageError, Workflow
from podium.memory.chat import ChatRequest, Completion
from podium.memory.errors import NotFound, ProviderError
from podium.memory.tables import Link, Revision
from podium.workers.local import LocalPool
from podium.workers.testing import ECHO, echo_spec
from sqlalchemy import select

MakePodium = Callable[..., Podium]

VISITS = """
def visit(day: int) -> dict:
    return {"day": day, "guest": f"guest number {day}", "code": f"door{day * 7919}"}

def revise() -> dict:
    return {"day": 2, "guest": "Ada Lovelace", "code": "door2222"}
"""


@pytest.fixture
def podium(home: Path, tmp_path: Path, make_podium: MakePodium, database_url: str) -> Podium:
    write_steps(tmp_path)
    (tmp_path / "visits.py").write_text(VISITS)
    return make_podium(database_url)


def visits(prompt: str, *, days: int = 3, **options: Any) -> Workflow:
    """Some visits one after the other, then a question with no edge to any of them but the last."""
    wf = Workflow("visits")
    for day in range(days):
        needs = [f"visit{day - 1}"] if day else []
        wf.python(f"visit{day}", "visits:visit", with_={"day": day}, needs=needs)
    wf.llm("answer", prompt=prompt, needs=[f"visit{days - 1}"], **options)
    wf.output("answer", "answer")
    return wf


def context_of(run: Run, task: str = "answer") -> Mapping[str, Any]:
    (prompt,) = [p for p in run.prompts(task) if p.status == "settled"]
    assert prompt.context is not None
    assert prompt.messages[-1]["content"].startswith(prompt.context["text"])
    return prompt.context


def test_a_prompt_shows_facts_with_their_revisions(podium: Podium) -> None:
    run = podium.run(visits("What is the door code of guest number 1?", context=120))
    context = context_of(run)
    assert "door7919" in context["text"]
    assert 0 < context["tokens"] <= 120
    cited = {c["revision"] for c in context["citations"]}
    with podium.database.read() as connection:
        rows = connection.execute(select(Revision.id, Revision.task, Revision.run_id)).all()
        links = connection.execute(select(Link.src, Link.dst)).all()
    assert cited <= {row.id for row in rows if row.run_id == run.id}
    answer = max(row.id for row in rows if row.task == "answer")
    artifacts = {row.id for row in rows if row.task == "answer"}
    assert cited <= {dst for src, dst in links if src in artifacts}, answer


def test_what_does_not_fit_is_named_with_the_reason(podium: Podium) -> None:
    run = podium.run(visits("What is the door code of guest number 9?", days=12, context=40))
    context = context_of(run)
    assert context["tokens"] <= 40
    assert "budget" in {d["reason"] for d in context["dropped"]}


def test_the_workflow_says_how_much_and_a_task_says_what_for(podium: Podium) -> None:
    wf = visits("Open up.", days=12, context={"tokens": 60, "ask": "door code of guest number 2"})
    wf.context = 500
    wf.llm("other", prompt="Say something of guest number 2.", needs=["visit11"])
    wf.output("other", "other")
    run = podium.run(wf)
    assert context_of(run)["tokens"] <= 60
    assert "door15838" in context_of(run)["text"]
    assert "guest number 2 " in context_of(run, "other")["text"]


def test_without_context_the_prompt_is_the_prompt(podium: Podium) -> None:
    run = podium.run(visits("Code {visit1.code}?"))
    (prompt,) = run.prompts("answer")
    assert (prompt.context, prompt.messages) == (None, [{"role": "user", "content": "Code door7919?"}])
    assert set(run.ports("answer")) == {"visit1"}
    with pytest.raises(NotFound, match="answr") as caught:
        run.prompts("answr")
    assert "answer" in caught.value.mend


class Failing(LocalPool):
    """Does not answer the first times."""

    failures = 2

    async def generate(self, model: str, request: ChatRequest, **options: Any) -> Completion:
        if self.failures:
            self.failures -= 1
            raise ProviderError("nobody there", mend="try again")
        return await super().generate(model, request, **options)


def test_a_later_attempt_asks_the_very_same(
    home: Path, tmp_path: Path, make_podium: MakePodium, database_url: str
) -> None:
    """What is remembered between two attempts must not change the question, or it would be paid for twice."""
    (tmp_path / "visits.py").write_text(VISITS)
    podium = make_podium(database_url, pool=Failing((echo_spec(),), tmp_path, create=ECHO))
    wf = visits("door code of guest number 1", context=120, retry={"attempts": 2, "backoff": 0.0})
    run = podium.run(wf)
    assert run.status == "failed"
    first, second = run.prompts("answer")
    podium.memory.put("code", "door code of guest number 1 is new", scope="run", scope_id=run.id)
    podium.retry(run.id)
    third = podium.drive(run.id).prompts("answer")[-1]
    assert (first.attempt, second.attempt, third.attempt) == (1, 2, 3)
    assert first.context is not None
    assert first.context == second.context == third.context


def test_the_terminal_shows_the_prompt(podium: Podium, capsys: pytest.CaptureFixture[str]) -> None:
    from podium.orchestrator.cli.prompts import show_prompts

    run = podium.run(visits("What is the door code of guest number 1?", days=12, context=60))
    show_prompts(run, "answer", as_json=False)
    shown = capsys.readouterr()
    assert "What is the door code of guest number 1?" in shown.out
    assert context_of(run)["text"] in shown.out
    assert "Left out:" in shown.err
    show_prompts(run, "answer", as_json=True)
    (prompt,) = json.loads(capsys.readouterr().out)["prompts"]
    assert prompt["citations"]
    assert prompt["context_tokens"] <= 60


def test_task_and_prompt_go_together() -> None:
    from podium.orchestrator.cli.show import show

    with pytest.raises(UsageError, match="go together"):
        show("r", task="a")
