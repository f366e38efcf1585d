"""Templates through the engine: put into the prompt where that is learned to help, billed, and asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from crash_runs import drive
from engine_project import check_books, replay_spec, write_steps
from podium import Podium, Price, Run, Workflow
from podium.memory import learning, reads
from podium.memory.chat import Message
from podium.memory.learning import NewExample
from podium.memory.tables import Call
from podium.orchestrator import routing
from podium.orchestrator.cli.prompts import show_prompts
from podium.orchestrator.templates import PREFIX, load, wording
from podium.router.tokens import estimate_tokens
from podium.workers.local import LocalPool
from podium.workers.testing import echo_spec
from sqlalchemy import select

MakePodium = Callable[..., Podium]
SMALL = Price(input=Decimal("0.1"), output=Decimal("0.2"))
BIG = Price(input=Decimal(10), output=Decimal(20))
POLICY: dict[str, Any] = {"kind": "learned", "aim": "best", "explore": 0, "templates": True}
APPROACH = "Greet first, then say what the sun is — in one line."


@pytest.fixture
def make(home: Path, tmp_path: Path, make_podium: MakePodium) -> MakePodium:
    def made(url: str | None = None) -> Podium:
        write_steps(tmp_path)
        return make_podium(url, echo_spec("small"), echo_spec("big", price=BIG))

    return made


def teach(podium: Podium, guided: float, small: float = 0.1) -> None:
    scores = {"small": small, "small guided": guided, "big": 0.2}
    rows = [
        NewExample(f"question {i}", model, score, "said", out_tok=4)
        for model, score in scores.items()
        for i in range(12)
    ]
    tenant = podium.settings.tenant
    podium.database.transact(lambda c: learning.put_examples(c, tenant, "test", rows))
    routing.train(podium.database, tenant, ["small", "big"], "test")
    podium.memory.put(f"{PREFIX}said", APPROACH)


def one(prompt: str, **options: Any) -> Workflow:
    wf = Workflow("one")
    wf.llm("said", prompt=prompt, max_tokens=100, retry={"attempts": 1}, **options)
    return wf


def ways(run: Run) -> list[tuple[str, str]]:
    return [(call.model, call.route["mode"]) for call in run.calls]


def hashes(podium: Podium, run: Run) -> Sequence[str]:
    query = select(Call.request_hash).where(Call.run_id == run.id).order_by(Call.created_at)
    with podium.database.read() as connection:
        return connection.execute(query).scalars().all()


def test_a_template_that_helps_is_in_the_prompt(
    make: MakePodium, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    podium = make(database_url)
    teach(podium, 1.0)
    run = podium.run(one("What is the sun?", system="Be brief."), policy=POLICY, budget="1")
    assert run.status == "succeeded", run.error
    assert ways(run) == [("small", "template")]
    sent = f"{wording(APPROACH)}What is the sun?"
    assert run.output == f"echo: {sent}"
    (prompt,) = run.prompts("said")
    assert prompt.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": sent},
    ]
    show_prompts(run, "said", as_json=False)
    assert APPROACH in capsys.readouterr().out
    check_books(podium, run)


def test_its_tokens_are_reserved_and_what_is_learned_is_the_plain_question(make: MakePodium) -> None:
    podium = make()
    teach(podium, 1.0)
    plain = podium.run(one("What is the sun?"), policy=POLICY | {"templates": False}, budget="1")
    run = podium.run(one("What is the sun?"), policy=POLICY, budget="1")
    assert [mode for _, mode in ways(plain)] == ["direct"]
    assert hashes(podium, plain) == hashes(podium, run)
    (prompt,), (call,) = run.prompts("said"), run.calls
    with podium.database.read() as connection:
        reserved = connection.execute(select(Call.reserved_tokens).where(Call.id == call.id)).scalar_one()
        (recorded,) = reads.values(connection, podium.settings.tenant, [call.request_blob]).values()
    assert recorded["messages"] == [{"role": "user", "content": "What is the sun?"}]
    assert recorded["template"] == wording(APPROACH)
    upper = estimate_tokens([Message(**message) for message in prompt.messages])[1]
    assert reserved == upper + 100
    assert call.reserved_nano == SMALL.cost(upper, 100)
    tenant = podium.settings.tenant
    podium.database.transact(lambda c: learning.grade(c, tenant, call.id, "feedback", 0.9))
    (example,) = [e for e in podium.database.query(lambda c: learning.examples(c, tenant)) if e.call_id]
    assert (example.prompt, example.mode) == ("What is the sun?", "template")
    assert routing.outcome_of(example).model == "small guided"


def test_a_template_that_harms_or_is_not_wanted_is_left_out(make: MakePodium) -> None:
    podium = make()
    teach(podium, 0.0, small=0.9)
    run = podium.run(one("What is the sun?"), policy=POLICY, budget="1")
    assert ways(run) == [("small", "direct")]
    assert run.output == "echo: What is the sun?"


def test_a_budget_that_the_longer_prompt_does_not_fit_takes_the_plain_one(make: MakePodium) -> None:
    podium = make()
    teach(podium, 1.0)
    upper = len("What is the sun?") + 16 + 32
    run = podium.run(one("What is the sun?"), policy=POLICY, tokens=upper + 100)
    assert run.status == "succeeded", run.error
    assert [mode for _, mode in ways(run)] == ["direct"]


def test_repairs_of_an_answer_are_not_guided(home: Path, tmp_path: Path, make_podium: MakePodium) -> None:
    specs = [
        replay_spec(tmp_path / f"{name}.jsonl", {"default": True, "text": "no JSON"}, name=name)
        for name in ("small", "big")
    ]
    specs[1] = specs[1].model_copy(update={"price": BIG})
    podium = make_podium(None, pool=LocalPool(specs, tmp_path))
    teach(podium, 1.0)
    run = podium.run(one("What is the sun?", output={"name": "str"}), policy=POLICY, budget="1")
    assert run.status == "failed"
    assert run.calls[0].route["mode"] == "template"
    later = [call for call in run.calls if call.step > 0]
    assert later
    assert all(call.route["mode"] != "template" for call in later)
    repairs = [prompt for prompt in run.prompts("said") if prompt.step > 0]
    assert not any(APPROACH in message["content"] for prompt in repairs for message in prompt.messages)
    check_books(podium, run)


def test_an_edited_template_is_used_from_then_on(make: MakePodium, database_url: str) -> None:
    podium = make(database_url)
    teach(podium, 1.0)
    tenant = podium.settings.tenant
    podium.memory.put(f"{PREFIX}said", "Be kind.")
    podium.memory.put(f"{PREFIX}other", {"no": "text"})
    podium.memory.put("Router/Template/loud", "Not one.")
    assert podium.database.query(lambda c: load(c, tenant)) == {"said": wording("Be kind.")}
    assert "Be kind." in str(podium.run(one("What is the sun?"), policy=POLICY, budget="1").output)
    podium.memory.retract(f"{PREFIX}said")
    run = podium.run(one("What is the sun?"), policy=POLICY, budget="1")
    assert [mode for _, mode in ways(run)] == ["direct"]


def test_an_attempt_that_takes_over_pays_no_guided_answer_twice(
    make: MakePodium, tmp_path: Path, home: Path
) -> None:
    podium = make()
    teach(podium, 1.0)
    run = podium.submit(one("What is the sun?"), detached=False, policy=POLICY, budget="1")
    url = podium.settings.database
    podium.close()
    killed = drive("ways_driver.py", [str(home), url], tmp_path, "call.settle:after:1")
    assert killed.returncode == -9, killed.stderr
    podium = make()
    (paid,) = podium.get(run.id).calls
    assert (paid.status, paid.route["mode"]) == ("settled", "template")
    podium.memory.put(f"{PREFIX}said", "Something else by now.")
    podium.close()
    ended = drive("ways_driver.py", [str(home), url], tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "succeeded\n"), ended.stderr
    podium = make()
    run = podium.get(run.id)
    assert run.calls == [paid]
    assert run.output == f"echo: {wording(APPROACH)}What is the sun?"
    assert run.cost_nano == paid.cost_nano
    check_books(podium, run)
