"""Ways to an accepted answer, through the engine: own checks, cascades, samples, refinement, a judge."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from crash_runs import drive
from engine_project import check_books, statuses, write_steps
from podium import Podium, Price, Run, Workflow
from podium.memory import learning
from podium.memory.database import Connection
from podium.memory.learning import NewExample
from podium.orchestrator import routing
from podium.workers.testing import echo_spec

MakePodium = Callable[..., Podium]
BIG = Price(input=Decimal(10), output=Decimal(20))
LEARNED: dict[str, Any] = {"kind": "learned", "aim": "best", "explore": 0}


@pytest.fixture
def podium(home: Path, tmp_path: Path, make_podium: MakePodium) -> Podium:
    write_steps(tmp_path)
    return make_podium(None, echo_spec("small"), echo_spec("big", price=BIG))


def one(prompt: str, **options: Any) -> Workflow:
    wf = Workflow("one")
    wf.llm("said", prompt=prompt, max_tokens=40, retry={"attempts": 1}, **options)
    return wf


def teach(podium: Podium, rows: list[NewExample]) -> None:
    tenant = podium.settings.tenant
    podium.database.transact(lambda c: learning.put_examples(c, tenant, "test", rows))
    routing.train(podium.database, tenant, ["small", "big"], "test")


def graded(model: str, score: float, count: int = 12) -> list[NewExample]:
    return [NewExample(f"question {i}", model, score, "said", out_tok=4) for i in range(count)]


def scores(podium: Podium) -> list[tuple[str, str, float]]:
    found = podium.database.query(lambda c: learning.examples(c, podium.settings.tenant))
    return [(e.model, e.source, e.score) for e in found if e.call_id is not None]


def told(run: Run) -> list[tuple[str, str | None]]:
    return [(call.model, call.verdict) for call in run.calls]


def test_an_answer_that_fails_the_tasks_check_goes_to_the_dearer_model(podium: Podium) -> None:
    policy = LEARNED | {"aim": "cheap"}
    run = podium.run(one("!model", check="steps:is_big"), policy=policy, budget="1")
    assert run.status == "succeeded", run.error
    assert run.output == "big"
    assert told(run) == [("small", "escalated"), ("big", "accepted")]
    first, second = run.calls
    assert first.route["mode"] == "cascade"
    assert first.review is not None
    assert first.review["checks"][0]["evidence"] == "small said it"
    assert "check: small said it" in second.route["reason"]
    assert scores(podium) == [("small", "check", 0.0), ("big", "check", 1.0)]
    assert run.cost_nano == sum(call.cost_nano or 0 for call in run.calls)
    check_books(podium, run)


def test_an_answer_that_nobody_gets_right_fails_the_task(podium: Podium) -> None:
    run = podium.run(one("hello", check="steps:is_big"), policy=LEARNED, budget="1")
    assert run.status == "failed"
    assert "does not pass its check: echo: hello said it" in str(run.error)
    check_books(podium, run)


def test_a_check_that_says_nonsense_is_a_failure_that_says_so(podium: Podium) -> None:
    run = podium.run(one("hello", check="steps:odd_check"), budget="1")
    assert run.status == "failed"
    assert "the check steps:odd_check returned 'maybe'" in str(run.error)
    assert [call.status for call in run.calls] == ["settled"]  # the answer was given and is paid for
    check_books(podium, run)


def test_any_policy_has_the_tasks_check(podium: Podium) -> None:
    policy = {"kind": "fixed", "model": "big"}
    run = podium.run(one("!model", check="steps:is_big"), policy=policy, budget="1")
    assert (run.status, run.output) == ("succeeded", "big")
    assert scores(podium) == [("big", "check", 1.0)]


@pytest.mark.parametrize("private", [True, False])
def test_a_private_task_never_leaves_the_machine(home: Path, make_podium: MakePodium, private: bool) -> None:
    far = make_podium(None, echo_spec("far", local=False))
    run = far.run(one("hello", private=private), budget="1")
    assert run.status == ("failed" if private else "succeeded")
    assert bool(run.calls) is not private
    if private:
        assert "it is not local, and the call is private" in str(run.error)


def test_most_of_several_answers_win(podium: Podium) -> None:
    teach(podium, [*graded("small", 0.0), *graded("small ×3", 1.0), *graded("big", 0.2)])
    run = podium.run(one("!choose 7|blue|blue"), policy=LEARNED | {"samples": 3}, budget="1")
    assert run.status == "succeeded", run.error
    assert run.output == "blue"
    assert sorted(told(run), key=str) == [("small", "accepted"), ("small", "sampled"), ("small", "sampled")]
    agreed = next(call for call in run.calls if call.verdict == "accepted")
    assert agreed.review is not None
    assert "1 of 2 others agree" in str(agreed.review["checks"])
    check_books(podium, run)


def test_answers_that_do_not_agree_go_to_the_dearer_model(podium: Podium) -> None:
    teach(podium, [*graded("small", 0.0), *graded("small ×3", 0.6), *graded("big", 0.95)])
    policy = {"kind": "learned", "quality": 0.85, "explore": 0, "samples": 3}
    run = podium.run(one("!choose red|green|blue"), policy=policy, budget="1")
    assert run.status == "succeeded", run.error
    assert run.calls[-1].model == "big"
    assert [call.verdict for call in run.calls].count("escalated") == 1
    check_books(podium, run)


def test_a_model_looks_over_its_draft_where_that_pays(podium: Podium) -> None:
    teach(podium, [*graded("small", 0.1), *graded("small refined", 1.0), *graded("big", 0.2)])
    run = podium.run(one("hello"), policy=LEARNED | {"refine": True}, budget="1")
    assert run.status == "succeeded", run.error
    assert str(run.output).startswith("echo: Look over your answer")
    assert [call.model for call in run.calls] == ["small", "small"]
    assert run.calls[0].verdict == "drafted"
    check_books(podium, run)


def test_a_judge_is_asked_about_answers_in_doubt(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None, echo_spec("small"), echo_spec("big", price=BIG), echo_spec("judge"))
    rows = []
    for i in range(100):
        unsure = i * 7919 % 13 % 2  # nine in ten of these answers are wrong, and three in ten of the others
        right = float(i % 10 == 0 if unsure else i % 10 > 2)
        text = f"I am not sure, maybe {i}" if unsure else f"echo: question {i}"
        rows.append(NewExample(f"question {i}", "small", right, "said", text, out_tok=3))
        rows.append(NewExample(f"question {i}", "big", 1.0, "said", f"{i}", out_tok=3))
    teach(podium, rows)
    policy = LEARNED | {"judge": "judge", "quality": 0.85, "deny": ["judge"]}
    del policy["aim"]
    run = podium.run(one("question 77"), policy=policy, budget="1")
    assert run.status == "succeeded", run.error
    asked = [call.model for call in run.calls]
    assert asked[:2] == ["small", "judge"]
    checks = (run.calls[0].review or {})["checks"]
    assert next(c for c in checks if c["name"] == "judge")["evidence"] == "judge says no"
    assert run.calls[0].verdict == "escalated"
    assert asked[2] == "big"
    check_books(podium, run)


def test_a_failure_later_on_is_held_against_the_answer(podium: Podium) -> None:
    wf = Workflow("two")
    said = wf.llm("said", prompt="hello", max_tokens=20)
    wf.python("read", "steps:odd", with_={"text": f"{said}"}, retry={"attempts": 1})
    run = podium.run(wf, budget="1")
    assert statuses(run) == {"said": "succeeded", "read": "failed"}
    assert scores(podium) == [("small", "failure", 0.0)]


def test_feedback_on_a_dear_answer_grades_the_cheap_one_that_was_in_doubt(podium: Podium) -> None:
    run = podium.run(one("!model", check="steps:is_big"), policy=LEARNED | {"aim": "cheap"}, budget="1")
    small, big = run.calls
    tenant = podium.settings.tenant

    def say(connection: Connection) -> None:
        routing.feedback(connection, tenant, learning.find_call(connection, tenant, big.id), 0.9)

    podium.database.transact(say)
    assert scores(podium) == [("big", "feedback", 0.9), ("small", "judge", pytest.approx(0.1))]
    assert small.verdict == "escalated"


@pytest.mark.parametrize("fault", ["call.settle:after:2", "call.judge:before:1", "call.judge:after:1"])
def test_samples_that_were_given_before_a_kill_are_not_asked_for_again(
    home: Path, tmp_path: Path, podium: Podium, make_podium: MakePodium, fault: str
) -> None:
    teach(podium, [*graded("small", 0.0), *graded("small ×3", 1.0), *graded("big", 0.2)])
    policy = LEARNED | {"samples": 3}
    run = podium.submit(one("!choose 7|blue|blue"), detached=False, policy=policy, budget="1")
    url = podium.settings.database
    podium.close()
    killed = drive("ways_driver.py", [str(home), url], tmp_path, fault)
    assert killed.returncode == -9, killed.stderr
    ended = drive("ways_driver.py", [str(home), url], tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "succeeded\n"), ended.stderr
    podium = make_podium(None, echo_spec("small"), echo_spec("big", price=BIG))
    run = podium.get(run.id)
    settled = [call for call in run.calls if call.status == "settled"]
    assert [call.model for call in settled] == ["small"] * 3
    assert run.output == "blue"
    assert [call.verdict for call in settled].count("accepted") == 1
    check_books(podium, run)
