"""Model calls, money, agents and typed answers through the engine, on fake and recorded models."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from engine_project import check_books, kinds, lines, replay_spec, statuses, write_steps
from podium import Podium, Price, Run, Workflow
from podium.workers.local import LocalPool
from podium.workers.testing import echo_spec

MakePodium = Callable[..., Podium]
DEAR = Price(input=Decimal(100), output=Decimal(200))
#: covers one worst case of a short prompt on `echo` (256 answer tokens of 200 nano-dollars), not two
ONE_CALL = "0.00009"


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    write_steps(tmp_path)
    return tmp_path


def say(*prompts: str) -> Workflow:
    wf = Workflow("say")
    for number, prompt in enumerate(prompts):
        wf.llm(f"t{number}", prompt=prompt, retry={"attempts": 1})
    return wf


def test_budget_zero_calls_nothing(home: Path, make_podium: MakePodium, database_url: str) -> None:
    podium = make_podium(database_url)
    run = podium.run(say("hello"), budget=0)
    assert (run.status, run.exit_code) == ("stopped", 4)
    assert run.calls == []
    assert run.cost_nano == 0
    assert "call.settled" not in kinds(podium, run)
    assert statuses(run) == {"t0": "pending"}
    check_books(podium, run)
    podium.reopen(run.id, budget="1")
    run = podium.drive(run.id)
    assert run.status == "succeeded"
    check_books(podium, run)


def test_a_stopped_run_keeps_what_it_has(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    wf = Workflow("two")
    first = wf.llm("first", prompt="hello")
    wf.llm("second", prompt=f"{first} " + "word " * 300)
    run = podium.run(wf, budget="0.00007")
    assert run.status == "stopped"
    assert statuses(run) == {"first": "succeeded", "second": "pending"}
    podium.reopen(run.id, budget="1")
    run = podium.drive(run.id)
    assert run.status == "succeeded"
    assert [t.record.attempts for t in run.tasks] == [1, 2]
    check_books(podium, run)


def test_a_refused_price_takes_the_cheaper_model(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None, echo_spec("dear", price=DEAR), echo_spec("cheap"))
    policy = {"kind": "fixed", "model": "dear", "fallback": ["cheap"]}
    run = podium.run(say("hello"), budget="0.001", policy=policy)
    assert run.status == "succeeded"
    assert [(c.model, c.status) for c in run.calls] == [("cheap", "settled")]
    assert "fallback for dear" in run.calls[0].route["reason"]
    check_books(podium, run)


def test_calls_wait_for_what_running_ones_give_back(
    home: Path, make_podium: MakePodium, database_url: str
) -> None:
    podium = make_podium(database_url)
    wf = Workflow("many", inputs={"xs": "list[str]"})
    wf.map("said", over="xs", prompt="{item}")
    wf.output("said", "said")
    words = [f"word {n}" for n in range(12)]
    run = podium.run(wf, xs=words, budget=ONE_CALL)
    assert run.status == "succeeded", run.error
    assert run.output == [f"echo: {word}" for word in words]
    assert len(run.calls) == 12
    check_books(podium, run)


def test_a_failing_model_is_left_for_the_next(home: Path, make_podium: MakePodium, tmp_path: Path) -> None:
    broken = echo_spec("broken", price=Price(input=Decimal(0), output=Decimal("0.001")), context=64)
    podium = make_podium(None, broken, echo_spec("sound"))
    run = podium.run(say("word " * 65), policy={"kind": "fixed", "model": "broken", "fallback": ["sound"]})
    assert run.status == "succeeded", run.error
    assert [c.model for c in run.calls if c.status == "settled"] == ["sound"]


def test_an_error_of_the_provider_goes_to_the_next_model(project: Path, make_podium: MakePodium) -> None:
    empty = replay_spec(project / "a.jsonl", {"prompt": "other", "text": "x"}, name="first")
    full = replay_spec(project / "b.jsonl", {"default": True, "text": "sound"}, name="second")
    podium = make_podium(None, pool=LocalPool([empty, full], project))
    run = podium.run(say("hello"))
    assert run.status == "succeeded", run.error
    assert [(c.model, c.status) for c in run.calls if c.status == "settled"] == [("second", "settled")]
    assert run.calls[0].model == "first"
    assert run.calls[0].status in ("unknown", "refunded")
    assert "after first" in run.calls[1].route["reason"]
    check_books(podium, run)


def test_every_model_fails(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    run = podium.run(say("!refuse politely"))
    assert (run.status, run.exit_code) == ("failed", 5)
    assert [c.status for c in run.calls] == ["refunded"]  # it was certainly not sent
    assert run.cost_nano == 0
    run = podium.run(say("!fail now"))
    assert [c.status for c in run.calls] == ["unknown"]  # nobody knows whether it is billed: the worst case
    assert run.cost_nano == run.calls[0].reserved_nano > 0
    check_books(podium, run)


def test_tokens_are_streamed(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    heard: list[str] = []
    run = podium.ask("one two three", on_token=heard.append)
    assert run.output == "echo: one two three"
    assert "".join(heard) == run.output
    assert len(heard) == 4


def test_a_listener_that_fails_fails_the_task_and_holds_no_money(home: Path, make_podium: MakePodium) -> None:
    def deaf(_text: str) -> None:
        raise ValueError("deaf")

    podium = make_podium(None)
    run = podium.ask("one two", on_token=deaf)
    assert run.status == "failed"
    check_books(podium, run)


@pytest.fixture
def recorded(project: Path, make_podium: MakePodium) -> Callable[..., Podium]:
    def make(*rows: dict[str, object], url: str | None = None) -> Podium:
        return make_podium(url, pool=LocalPool([replay_spec(project / "answers.jsonl", *rows)], project))

    return make


def test_typed_output_is_repaired(recorded: Callable[..., Podium]) -> None:
    podium = recorded(
        {"match": "That answer is wrong", "text": '{"title": "Tides", "points": ["a"]}'},
        {"match": "Name it", "text": '{"title": 3}'},
    )
    wf = Workflow("typed")
    wf.llm("brief", prompt="Name it", output={"title": "str", "points": "list[str]"})
    wf.llm("after", prompt="Name it twice: {brief.title}", output={"title": "str", "points": "list[str]"})
    wf.output("brief", "brief")
    run = podium.run(wf)
    assert run.status == "succeeded", run.error
    assert run.output == {"title": "Tides", "points": ["a"]}
    assert [(c.task, c.step) for c in run.calls] == [("brief", 0), ("brief", 1), ("after", 0), ("after", 1)]
    check_books(podium, run)


def test_an_answer_that_no_repair_mends_fails(recorded: Callable[..., Podium]) -> None:
    podium = recorded({"default": True, "text": "no JSON"})
    wf = Workflow("typed")
    wf.llm("brief", prompt="Name it", output={"title": "str"})
    run = podium.run(wf)
    assert (run.status, run.exit_code) == ("failed", 5)
    assert len(run.calls) == 3
    assert [a.status for a in run.attempts] == ["failed"]


def agent(project: Path, *tools: str, **options: object) -> Workflow:
    wf = Workflow("agent")
    wf.agent("worker", agent="Write it down", tools=list(tools), retry={"attempts": 1}, **options)
    wf.output("answer", "worker")
    return wf


def write_rows(path: Path, tool: str = "write") -> list[dict[str, object]]:
    arguments = f'{{"path": "{path}"' + (', "text": "hi"}' if tool == "write" else "}")
    return [
        {"match": "written", "text": '{"answer": "it is written"}'},
        {"match": "failed", "text": '{"answer": "it was refused"}'},
        {"match": "Write it down", "text": f'{{"tool": "{tool}", "arguments": {arguments}}}'},
    ]


@pytest.mark.parametrize("approved", [True, False])
def test_an_agent_asks_before_it_writes(
    recorded: Callable[..., Podium], project: Path, approved: bool, database_url: str
) -> None:
    podium = recorded(*write_rows(project / "out"), url=database_url)
    run = podium.run(agent(project, "steps:write"))
    assert run.status == "waiting"
    assert "write(" in str(run.waiting[0].record.approval_text)
    assert lines(project / "out") == []
    assert [e.status for e in run.effects] == ["requested"]
    podium.approve(run.id, "worker", approved=approved)
    run = podium.drive(run.id)
    assert run.status == "succeeded", run.error
    assert run.output == ("it is written" if approved else "it was refused")
    assert lines(project / "out") == (["hi"] if approved else [])
    assert [e.status for e in run.effects] == ["done" if approved else "rejected"]
    assert [(c.attempt, c.step) for c in run.calls] == [(1, 0), (2, 1)]  # the first step is not asked again
    check_books(podium, run)


def test_an_agent_that_only_reads_does_not_ask(recorded: Callable[..., Podium], project: Path) -> None:
    (project / "in").write_text("seven")
    podium = recorded(
        {"match": "seven", "text": '{"answer": "7"}'},
        {
            "match": "Write it down",
            "text": f'{{"tool": "look", "arguments": {{"path": "{project / "in"}"}}}}',
        },
    )
    run = podium.run(agent(project, "steps:look"))
    assert (run.status, run.output) == ("succeeded", "7")
    assert kinds(podium, run, "worker")[-4:] == [
        "effect.started",
        "effect.done",
        "call.settled",
        "task.succeeded",
    ]


def test_a_write_that_was_cut_off_is_uncertain(recorded: Callable[..., Podium], project: Path) -> None:
    """A tool that may have written before its attempt timed out is not called again unasked."""
    rows = write_rows(project / "out", "write_slowly")
    podium = recorded(*rows)
    wf = Workflow("agent")
    wf.agent(
        "worker", agent="Write it down", tools=["steps:write_slowly"], timeout=1.2,
        retry={"attempts": 2, "backoff": 0},
    )  # fmt: skip
    run = podium.run(wf, approve=["worker"])
    assert lines(project / "out") == ["written"]
    assert [e.status for e in run.effects] == ["uncertain"]
    assert run.status == "waiting"
    assert "not known whether" in str(run.waiting[0].record.approval_text)


def test_a_tool_task_is_never_tried_twice(project: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    wf = Workflow("tool")
    wf.tool("act", "steps:write_slowly", with_={"path": str(project / "out")}, timeout=0.5)
    run = podium.run(wf)
    assert run.status == "waiting"
    podium.approve(run.id, "act")
    run = podium.drive(run.id)
    assert run.status == "failed"
    assert lines(project / "out") == ["written"]
    assert [a.status for a in run.attempts] == ["waiting", "failed"]
    check_books(podium, run)


def test_runs_of_one_tenant_teach_the_router(home: Path, make_podium: MakePodium) -> None:
    podium = make_podium(None)
    podium.run(say("hello there"))
    run: Run = podium.run(say("hello there"))
    assert run.calls[0].route["est_seconds"] is not None
