"""Plan tasks: a model's workflow runs below them, is replaced when it fails, and survives a takeover."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_project import check_books, kinds, lines, replay_spec, statuses, write_steps
from inline_steps import break_off
from podium import Podium, Workflow

GOAL = "Summarise the annual reports of our departments into one page"
REPORTS = ["Sales rose.", "Nobody left."]
PAGE = {"name": "page", "prompt": "Write a one-page summary of the departments from these notes:\n{notes}"}
NOTES = {"name": "notes", "map": "reports", "prompt": "Note the main results of this annual report:\n{item}"}
GOOD: dict[str, Any] = {
    "name": "annual",
    "inputs": [{"name": "reports", "type": "list[str]"}],
    "tasks": [NOTES, PAGE],
    "outputs": ["page"],
}
LOOKED = {"name": "looked", "tool": "steps:look", "with": [{"name": "path", "value": "missing"}]}
BAD = {
    **GOOD,
    "tasks": [
        LOOKED,
        NOTES,
        {**PAGE, "prompt": PAGE["prompt"] + "\n{looked}"},
        {"name": "slow", "approval": "May the summary of the departments be sent?"},
    ],
}
ASKING = {
    **GOOD,
    "tasks": [NOTES, {"name": "ok", "approval": "Is this right? {notes}"}, {**PAGE, "needs": ["ok"]}],
}
WORK = (
    {"match": "Note the main results", "text": "noted"},
    {"match": "Write a one-page summary", "text": "the page"},
)


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    write_steps(tmp_path)
    return tmp_path


MakePlanner = Callable[..., Podium]


@pytest.fixture
def planner(project: Path) -> Iterator[MakePlanner]:
    """Makes Podiums whose model plans `first`, and after so many seconds `then` when told of a failure."""
    made: list[Podium] = []

    def make(url: str | None, first: Any, then: Any = None, *, seconds: float = 0.0) -> Podium:
        again = {"match": "was tried and failed", "text": json.dumps(then), "latency_s": seconds}
        plans = [again, {"match": GOAL, "text": json.dumps(first)}]
        spec = replay_spec(project / f"answers{len(made)}.jsonl", *plans, *WORK)
        model = {"name": spec.name, "engine": spec.engine, "source": spec.source, "context": spec.context}
        model |= {"price": {"input": 0.1, "output": 0.2}, "options": {"latency": True}}
        pool = project / f"pool{len(made)}.yaml"
        pool.write_text(json.dumps({"models": [model]}))
        made.append(Podium(home=project / "home", database_url=url or "", pool=pool))
        return made[-1]

    yield make
    for podium in made:
        podium.close()


def planning(**options: Any) -> Workflow:
    wf = Workflow("w", inputs={"reports": "list[str]"})
    options = {"tools": ["steps:look"], "with_": {"reports": "{reports}"}} | options
    wf.plan("made", GOAL, **options)
    wf.output("made", "made")
    return wf


def test_a_planned_workflow_runs_below_its_task(
    project: Path, database_url: str, planner: MakePlanner
) -> None:
    podium = planner(database_url, GOOD)
    run = podium.run(planning(), reports=REPORTS)
    assert run.status == "succeeded", run.error
    assert run.output == "the page"
    names = [t.record.name for t in run.tasks]
    assert names == ["made", "made/notes", "made/page", "made/notes[0]", "made/notes[1]"]
    assert set(statuses(run).values()) == {"succeeded"}
    assert [c.task for c in run.calls if c.task == "made"] == ["made"]
    assert run.tasks[0].record.plan_blob is not None
    check_books(podium, run)


def test_a_plan_that_fails_is_replaced(project: Path, database_url: str, planner: MakePlanner) -> None:
    podium = planner(database_url, BAD, GOOD)
    run = podium.run(planning(), reports=REPORTS)
    assert run.status == "succeeded", run.error
    assert run.output == "the page"
    found = statuses(run)
    assert found["made/looked"] == "failed"
    assert {found["made/page"], found["made/slow"]} == {"cancelled"}
    assert (found["made@2/page"], found["made@2/notes[1]"]) == ("succeeded", "succeeded")
    assert "made@2/looked" not in found
    assert [a.status for a in run.attempts if a.task == "made"] == ["failed", "succeeded"]
    assert kinds(podium, run, "made").count("task.expanded") == 2
    check_books(podium, run)


def test_when_all_plans_failed_the_policy_decides(project: Path, planner: MakePlanner) -> None:
    podium = planner(None, BAD, BAD)
    run = podium.run(planning(replans=0), reports=REPORTS)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["task"] == "made/looked"
    run = podium.run(planning(replans=1, on_failure="collect"), reports=REPORTS)
    assert run.status == "succeeded", run.error
    assert run.output["error"]["task"] == "made@2/looked"
    assert not run.waiting
    check_books(podium, run)


def test_a_person_has_a_failed_plan_tried_again(project: Path, planner: MakePlanner) -> None:
    """Its second plan goes on; the first one stays given up."""
    podium = planner(None, BAD, BAD)
    run = podium.run(planning(), approve=["made/slow"], reports=REPORTS)
    assert run.status == "failed"
    (project / "missing").write_text("found")
    podium.retry(run.id)
    run = podium.drive(run.id)
    assert run.status == "succeeded", run.error
    found = statuses(run)
    assert found["made@2/looked"] == "succeeded"
    assert found["made/looked"] == "cancelled"
    check_books(podium, run)


def test_a_plan_is_only_made(project: Path, planner: MakePlanner) -> None:
    podium = planner(None, GOOD)
    run = podium.run(planning(run=False), reports=REPORTS)
    assert run.status == "succeeded", run.error
    assert [t.record.name for t in run.tasks] == ["made"]
    assert run.output["source"] == "model"
    assert list(Workflow.from_data(run.output["workflow"]).tasks) == ["notes", "page"]


def test_a_takeover_goes_on_with_the_planned_workflow(
    project: Path, database_url: str, planner: MakePlanner
) -> None:
    podium = planner(database_url, ASKING)
    run = podium.run(planning(), reports=REPORTS)
    assert [t.record.name for t in run.waiting] == ["made/ok"]
    podium.approve(run.id, "made/ok")
    second = planner(database_url, GOOD)
    run = second.drive(run.id)
    assert (run.status, run.output) == ("succeeded", "the page")
    assert [t.record.attempts for t in run.tasks if t.record.name == "made"] == [1]
    check_books(second, run)


def test_a_takeover_while_it_plans_again_knows_what_failed(
    project: Path, database_url: str, planner: MakePlanner
) -> None:
    podium = planner(database_url, BAD, GOOD, seconds=60)
    run = podium.submit(planning(), detached=False, reports=REPORTS)

    def plans_again() -> bool:
        calls = [(c.task, c.attempt, c.status) for c in run.refresh().calls]
        return ("made", 2, "sent") in calls

    break_off(podium, run, plans_again)
    second = planner(database_url, BAD, GOOD)
    run = second.drive(run.id)
    assert run.status == "succeeded", run.error
    assert run.output == "the page"
    assert statuses(run)["made@2/page"] == "succeeded"
    assert [a.status for a in run.attempts if a.task == "made"] == ["failed", "lost", "succeeded"]
    check_books(second, run)


def test_an_approval_of_a_planned_task_is_given_beforehand(project: Path, planner: MakePlanner) -> None:
    podium = planner(None, ASKING)
    run = podium.run(planning(), approve=["made/ok"], reports=REPORTS)
    assert (run.status, run.output) == ("succeeded", "the page")


def test_what_a_tool_of_a_plan_did_is_not_done_again(project: Path, planner: MakePlanner) -> None:
    log = str(project / "log")
    given = [{"name": "path", "value": log}, {"name": "text", "value": "written"}]
    wrote = {"name": "wrote", "tool": "steps:write", "with": given}
    plan = {**GOOD, "tasks": [wrote, NOTES, {**PAGE, "prompt": PAGE["prompt"] + "\n{wrote}"}]}
    podium = planner(None, plan)
    run = podium.run(planning(tools=["steps:write"]), reports=REPORTS)
    assert [t.record.name for t in run.waiting] == ["made/wrote"]
    podium.approve(run.id, "made/wrote")
    assert podium.drive(run.id).status == "succeeded"
    assert lines(project / "log") == ["written"]
