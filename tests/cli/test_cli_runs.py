"""`run` and what follows it: results, exit codes, approvals, budget, resume, show, watch, prune."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = ("run", "brief.yaml", "-i", "docs=@papers/")


def tasks_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["name"]: task for task in result["tasks"]}


def test_run_with_approval_beforehand(cold: Any) -> None:
    done = cold.podium(*RUN, "--approve", "publish", "--json")
    result = json.loads(done.stdout)
    cold.validate("run", result)
    assert result["status"] == "succeeded"
    assert result["outputs"] == {"brief": {"title": "Tides"}, "length": 5}
    # two summaries and one title at 0.1 and 0.2 USD per million tokens
    assert result["cost_usd"] == "0.0000102"
    assert {"run_id", "status", "outputs", "cost_usd", "tasks"} <= result.keys()
    assert {name for name, task in tasks_of(result).items() if task["models"]} == {
        "sums[0]",
        "sums[1]",
        "brief",
    }
    assert f"run {result['run_id']} accepted" in done.stderr
    assert "sums[0] succeeded cheap" in done.stderr


def test_run_prints_only_the_outputs_on_stdout(project: Any) -> None:
    done = project.podium(*RUN, "--approve", "publish")
    assert json.loads(done.stdout) == {"brief": {"title": "Tides"}, "length": 5}
    assert "TASK" in done.stderr
    assert "0.0000102 of 1 USD" in done.stderr


def test_output_file(project: Any) -> None:
    project.write("one.yaml", "name: one\ntasks: {answer: {prompt: 'What pulls the water?'}}\n")
    assert project.podium("run", "one.yaml").stdout == "The moon.\n"
    assert project.podium("run", "one.yaml", "-o", "answer.txt").stdout == ""
    assert (project.folder / "answer.txt").read_text() == "The moon.\n"
    assert [path.name for path in project.folder.glob(".answer*")] == []
    done = project.podium("run", "one.yaml", "-o", "no/such/folder.txt", code=3)
    assert "→" in done.stderr


def test_waiting_then_approve_then_resume(cold: Any, project: Any) -> None:
    result = cold.json(*RUN, verb="run", code=7)
    run = result["run_id"]
    assert result["status"] == "waiting"
    assert result["waiting"] == [
        {"task": "publish", "question": "Publish Tides?", "command": f"podium approve {run} publish"}
    ]
    before = tasks_of(result)
    done = cold.podium("approve", run, "publish", "--comment", "good", "--json")
    project.validate("approve", json.loads(done.stdout))
    assert f"podium resume {run}" in done.stderr
    resumed = cold.json("resume", run, verb="resume")
    assert resumed["status"] == "succeeded"
    after = tasks_of(resumed)
    for name in ("sums[0]", "sums[1]", "brief"):
        assert after[name]["attempts"] == before[name]["attempts"] == 1
    assert resumed["cost_usd"] == result["cost_usd"]


def test_approve_and_go_on_at_once(project: Any) -> None:
    project.podium(*RUN, code=7)
    result = project.json("approve", "last", "--resume", verb="approve --resume")
    assert result["status"] == "succeeded"


def test_reject_fails_the_run(project: Any) -> None:
    run = project.json(*RUN, verb="run", code=7)["run_id"]
    result = project.json("approve", run[:6], "--reject", "--resume", verb="approve --resume", code=1)
    assert result["status"] in ("failed", "succeeded", "cancelled")
    assert tasks_of(result)["length"]["status"] != "succeeded"


def test_yes_does_not_answer_an_approval(project: Any) -> None:
    assert project.json(*RUN, "--yes", verb="run", code=7)["status"] == "waiting"


def test_approving_what_does_not_wait_exits_2(project: Any) -> None:
    project.podium(*RUN, "--approve", "publish")
    assert "→" in project.podium("approve", "last", code=2).stderr
    assert "there is no such task" in project.podium(*RUN, "--approve", "publich", code=2).stderr


def test_budget_zero_calls_nothing_and_exits_4(project: Any) -> None:
    result = project.json(*RUN, "--budget", "0", verb="run", code=4)
    assert (result["status"], result["cost_usd"]) == ("stopped", "0")
    assert result["error"]["mend"]
    shown = project.json("show", "last", verb="show")
    assert all(task["routes"] == [] for task in shown["tasks"])
    more = project.json("resume", "last", "--budget", "0.1", verb="resume", code=7)
    assert (more["status"], more["budget_usd"]) == ("waiting", "0.1")


@pytest.mark.parametrize("amount", ["-1", "much", "nan"])
def test_a_budget_that_is_no_money_exits_2_and_stores_nothing(project: Any, amount: str) -> None:
    project.podium(*RUN, f"--budget={amount}", code=2)
    assert project.json("runs", verb="runs") == {"runs": []}


def test_failed_run_exits_1_and_retry_mends_it(cold: Any, project: Any) -> None:
    project.write(
        "frail.yaml",
        "name: frail\ninputs: {path: str}\ntasks:\n"
        "  good: {prompt: 'What pulls the water?'}\n"
        "  bad: {python: 'tools:fail_unless', with: {path: '{path}'}, needs: good, retry: {attempts: 1}}\n",
    )
    flag = project.folder / "flag"
    done = project.podium("run", "frail.yaml", "-i", f"path={flag}", "--json", code=1)
    result = json.loads(done.stdout)
    project.validate("run", result)
    assert result["status"] == "failed"
    assert result["error"]["task"] == "bad"
    assert "the file is not there" in result["error"]["message"]
    assert f"podium retry {result['run_id']}" in done.stderr
    flag.touch()
    again = cold.json("retry", "last", verb="run")
    assert again["status"] == "succeeded"
    assert tasks_of(again)["good"]["attempts"] == 1


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "data" / "malformed").glob("*.yaml"))[::6])
def test_malformed_workflows_exit_2_or_3_and_store_nothing(project: Any, path: Path) -> None:
    done = project.podium("run", str(path), code=None)
    assert done.returncode in (2, 3), done.stderr
    assert "→" in done.stderr
    assert done.stdout == ""
    assert project.json("runs", verb="runs") == {"runs": []}


def test_unknown_model_is_found_before_anything_is_stored(project: Any) -> None:
    done = project.podium(*RUN, "--model", "cheep", code=3)
    assert "cheap" in done.stderr
    assert project.json("runs", verb="runs") == {"runs": []}


def test_dry_run_prints_the_plan_and_stores_nothing(project: Any) -> None:
    plan = project.json(*RUN, "--dry-run", "--budget", "0.5", verb="run --dry-run")
    rows = {row["task"]: row for row in plan["rows"]}
    assert plan["budget_usd"] == "0.5"
    assert (rows["sums"]["count"], rows["sums"]["model"], rows["publish"]["model"]) == (2, "cheap", None)
    assert rows["sums"]["reason"]
    text = project.podium(*RUN, "--dry-run").stdout
    assert "sums" in text
    assert "estimated" in text
    assert project.json("runs", verb="runs") == {"runs": []}
    assert "did you mean" in project.podium("run", "brief.yaml", "-i", "dcs=x", "--dry-run", code=2).stderr


def test_show_has_every_route_with_reason_and_alternatives(cold: Any, project: Any) -> None:
    project.podium(*RUN, "--approve", "publish")
    shown = cold.json("show", "last", "--verify", "--all", verb="show")
    assert shown["inputs"]["docs"] == ["The sea rises twice a day.", "The moon pulls the water."]
    routes = [route for task in shown["tasks"] for route in task["routes"]]
    assert len(routes) == 3
    for route in routes:
        assert route["reason"]
        assert [other["model"] for other in route["alternatives"]] == ["dear"]
        assert route["status"] == "settled"
    assert shown["chain"]["ok"]
    text = project.podium("show", "last", "-v", "--verify").stdout
    assert "not dear" in text
    assert "holds" in text


def test_model_flag_fixes_the_route(project: Any) -> None:
    project.podium(*RUN, "--approve", "publish", "--model", "dear")
    shown = project.json("show", "last", verb="show")
    assert {route["model"] for task in shown["tasks"] for route in task["routes"]} == {"dear"}


def test_verify_finds_a_changed_event(project: Any) -> None:
    import sqlite3

    project.podium(*RUN, "--approve", "publish")
    connection = sqlite3.connect(project.folder / "home" / "podium.db")
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')
    connection.execute("UPDATE event SET kind = 'task.failed' WHERE seq = 3")
    connection.commit()
    connection.close()
    shown = project.json("show", "last", "--verify", verb="show", code=1)
    assert shown["chain"] == {"ok": False, "events": shown["chain"]["events"], "first_bad": 3}


def test_watch_resumes_after_a_number(cold: Any, project: Any) -> None:
    project.podium(*RUN, "--approve", "publish")
    lines = cold.podium("watch", "last", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    for event in events:
        project.validate("watch", event)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["kind"] == "run.created"
    assert events[-1]["kind"] == "run.succeeded"
    assert project.podium("watch", "last", "--json", "--after", "5").stdout.splitlines() == lines[5:]
    assert "brief succeeded" in project.podium("watch", "last").stdout


def test_runs_lists_the_newest_first_and_prunes(cold: Any, project: Any) -> None:
    assert project.podium("runs").stdout == ""
    first = project.json(*RUN, "--approve", "publish", verb="run")["run_id"]
    second = project.json(*RUN, verb="run", code=7)["run_id"]
    listed = cold.json("runs", verb="runs")["runs"]
    assert [run["run_id"] for run in listed] == [second, first]
    waiting = project.json("runs", "--status", "waiting", verb="runs")["runs"]
    assert [run["run_id"] for run in waiting] == [second]
    assert "did you mean waiting?" in project.podium("runs", "--status", "waitin", code=2).stderr
    project.podium("runs", "prune", "--older-than", "soon", code=2)
    kept = project.json("runs", "prune", "--older-than", "1d", verb="runs prune")
    assert kept == {"runs": [], "dry_run": False}
    assert project.json("runs", "prune", "--older-than", "0s", "--dry-run", verb="runs prune")["runs"] == [
        first
    ]
    assert project.json("runs", "prune", "--older-than", "0s", verb="runs prune")["runs"] == [first]
    assert [run["run_id"] for run in project.json("runs", verb="runs")["runs"]] == [second]


def test_cancel(cold: Any, project: Any) -> None:
    run = project.json(*RUN, verb="run", code=7)["run_id"]
    assert cold.json("cancel", run, verb="cancel") == {"run_id": run, "status": "cancelled", "tasks": []}
    project.podium("cancel", run, code=2)


def test_detach_without_an_engine_exits_6_and_stores_nothing(project: Any) -> None:
    done = project.podium(*RUN, "--detach", code=6)
    assert "podium up" in done.stderr
    assert project.json("runs", verb="runs") == {"runs": []}


def test_interrupted_run_says_how_to_go_on(project: Any) -> None:
    project.write(
        "slow.yaml",
        "name: slow\ninputs: {started: str, go: str}\ntasks:\n"
        "  first: {prompt: 'What pulls the water?'}\n"
        "  held: {python: 'tools:hold', with: {started: '{started}', go: '{go}'}, needs: first}\n"
        "outputs: {held: held}\n",
    )
    started, go = project.folder / "started", project.folder / "go"
    process = subprocess.Popen(
        [*project.program, "run", "slow.yaml", "-i", f"started={started}", "-i", f"go={go}"],
        cwd=project.folder,
        env=project.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a suite in a shell's background has it ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(started.exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert out == ""
    assert "podium resume r" in err
    go.touch()
    result = project.json("resume", "last", verb="resume")
    assert result["outputs"] == {"held": "held"}
    assert tasks_of(result)["first"]["attempts"] == 1


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_rows_of_a_csv_file_become_typed_objects(project: Any) -> None:
    with (project.folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "metres"], ["spring", "4.5"], ["neap", "2"]])
    project.write(
        "rows.yaml",
        "name: rows\ninputs: {tides: [{name: str, metres: float}]}\n"
        "tasks: {answer: {prompt: 'What pulls {tides}?'}}\n",
    )
    project.podium("run", "rows.yaml", "-i", "tides=@rows.csv")
    shown = project.json("show", "last", verb="show")
    assert shown["inputs"]["tides"] == [{"name": "spring", "metres": 4.5}, {"name": "neap", "metres": 2.0}]
