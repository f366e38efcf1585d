"""`pause`, `change`, `approve`, `fork`, `replay`, `diff`, `schedules`, `logs`: what people do to runs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

RUN = ("run", "brief.yaml", "-i", "docs=@papers/")
HELD = """\
name: held
inputs: {started: str, go: str}
tasks:
  held: {python: "slow:hold", with: {started: "{started}", go: "{go}"}}
  after: {prompt: "What pulls the water?", needs: held}
"""
#: it lasts longer than an engine takes to see what people ask for
SLOW = """\
import time
import tools


def hold(started: str, go: str) -> str:
    held = tools.hold(started, go)
    time.sleep(1.5)
    return held
"""
NESTED = """\
name: nested
tasks:
  review:
    workflow:
      name: inner
      tasks:
        draft: {prompt: "What pulls the water?"}
        publish: {approval: "Publish {draft}?"}
"""


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def tasks_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["name"]: task for task in result["tasks"]}


@pytest.fixture
def done(project: Any) -> str:
    """A finished run of the brief."""
    return project.json(*RUN, "--approve", "publish", verb="run")["run_id"]


def test_a_waiting_run_is_paused_at_once_and_resumed(cold: Any, project: Any) -> None:
    run = project.json(*RUN, verb="run", code=7)["run_id"]
    assert cold.json("pause", run[:6], verb="pause") == {"run_id": run, "status": "paused", "tasks": []}
    done = project.podium("watch", "last", code=7)
    assert f"podium resume {run}" in done.stderr
    project.podium("approve", run, "publish")
    shown = project.json("show", "last", verb="show")
    assert (shown["status"], shown["pause_requested"]) == ("paused", True)
    assert [r["run_id"] for r in project.json("runs", "--status", "paused", verb="runs")["runs"]] == [run]
    resumed = project.json("resume", "last", verb="resume")
    assert resumed["status"] == "succeeded"
    assert "succeeded already" in project.podium("pause", run, code=2).stderr


def test_pause_while_it_runs_ends_the_command_with_7(project: Any) -> None:
    project.write("held.yaml", HELD)
    project.write("slow.py", SLOW)
    started, go = project.folder / "started", project.folder / "go"
    command = [*project.program, "run", "held.yaml", "-i", f"started={started}", "-i", f"go={go}"]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(
        command, cwd=project.folder, env=project.env, stdin=subprocess.DEVNULL, text=True, **pipes
    ) as process:
        try:
            wait_for(started.exists)
            done = project.podium("pause", "last")
            assert done.stdout.split()[1] == "running"
            assert "then it is paused" in done.stderr
            go.touch()
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 7, err
    assert out == ""
    assert "podium resume r" in err
    shown = project.json("show", "last", verb="show")
    assert shown["status"] == "paused"
    assert {n: t["status"] for n, t in tasks_of(shown).items()} == {"held": "succeeded", "after": "pending"}
    assert project.json("resume", "last", verb="resume")["outputs"] == {"after": "The moon."}


def test_change_of_budgets_and_priority(cold: Any, project: Any) -> None:
    run = project.json(*RUN, "--tokens", "9000", "--seconds", "600", verb="run", code=7)["run_id"]
    changed = cold.json(
        "change", "last", "--budget", "2.5", "--tokens", "5000", "--priority", "3", "--deadline", "3600",
        verb="change",
    )  # fmt: skip
    assert changed.pop("deadline_at")
    assert changed == {
        "run_id": run, "status": "waiting", "budget_usd": "2.5", "budget_tokens": 5000,
        "budget_seconds": 600.0, "priority": 3,
    }  # fmt: skip
    shown = project.json("show", run, verb="show")
    assert (shown["budget_usd"], shown["budget_tokens"], shown["priority"]) == ("2.5", 5000, 3)
    assert "--budget" in project.podium("change", run, "--budget", "0", code=2).stderr
    assert "nothing" in project.podium("change", run, code=2).stderr
    text = project.podium("change", run, "--priority", "0").stdout
    assert text.startswith(f"{run} waiting: budget 2.5 USD, 5,000 tokens, 600 s of driving, priority 0")


def test_a_run_stopped_by_its_tokens_goes_on_with_more(project: Any) -> None:
    result = project.json(*RUN, "--tokens", "1", verb="run", code=4)
    assert result["status"] == "stopped"
    assert "token" in result["error"]["message"]
    project.podium("run", "brief.yaml", "-i", "docs=@papers/", "--seconds", "0", code=2)
    assert project.json("resume", "last", "--tokens", "100000", verb="resume", code=7)["status"] == "waiting"


def test_approvals_inside_sub_workflows(project: Any) -> None:
    project.write("nested.yaml", NESTED)
    wrong = project.podium("run", "nested.yaml", "--approve", "review/publich", code=2)
    assert "did you mean review/publish?" in wrong.stderr
    assert project.json("runs", verb="runs") == {"runs": []}
    run = project.json("run", "nested.yaml", verb="run", code=7)
    assert run["waiting"][0]["task"] == "review/publish"
    done = project.podium("approve", "last", "--reject", "--comment", "too short", "--resume", code=1)
    assert "too short" in done.stderr
    shown = project.json("show", "last", "--all", verb="show")
    assert tasks_of(shown)["review/publish"]["approval"] == "rejected"


def test_fork_from_a_task(cold: Any, project: Any, done: str) -> None:
    made = project.json("fork", done, "--from", "publish", "--no-run", verb="fork --no-run")
    assert (made["status"], made["forked_from"], made["reused"]) == ("queued", done, ["sums", "brief"])
    run = cold.podium("fork", "last", "--from", "length", "--approve", "publish", "--json")
    result = json.loads(run.stdout)
    project.validate("fork", result)
    assert (result["status"], result["cost_usd"]) == ("succeeded", "0")
    assert f"forked from {made['run_id']}" in run.stderr
    assert "taken over: sums, brief" in run.stderr
    shown = project.json("show", "last", verb="show")
    assert shown["forked_from"] == made["run_id"]
    assert tasks_of(shown)["brief"]["attempts"] == 0
    assert (
        f"forked from {made['run_id']} at event {made['forked_seq'] and 2}"
        in project.podium("show", "last").stdout
    )


def test_fork_with_another_input_says_what_runs_again(project: Any, done: str) -> None:
    project.write("other/a.txt", "Summarise this.")
    forked = project.podium("fork", done, "--from", "publish", "-i", "docs=@other/", code=7)
    assert "run again, for what they rest on has changed: sums (docs), brief (docs)" in forked.stderr
    assert "taken over: nothing" in forked.stderr
    part = project.podium("fork", done, "--from", "sums[0]", code=2)
    assert "--from sums" in part.stderr
    assert "did you mean" in project.podium("fork", done, "--from", "sums", "-i", "dcs=1", code=2).stderr
    assert "its tasks: sums, brief" in project.podium("fork", done, "--from", "nothing", code=2).stderr


def test_replay_under_another_policy(cold: Any, project: Any, done: str) -> None:
    before = project.podium("logs", done, "--json").stdout
    found = cold.json("replay", done, "--policy", "fixed:dear", verb="replay")
    assert [(row["model_then"], row["model_now"]) for row in found["rows"]] == [("cheap", "dear")] * 3
    assert (found["moved"], found["unrouted"]) == (3, 0)
    assert (found["cost_then_usd"], found["cost_now_usd"]) == ("0.0000102", "0.000102")
    same = project.json("replay", done, "--policy", "cheapest", verb="replay")
    assert (same["moved"], same["cost_now_usd"]) == (0, "0.0000102")
    project.write("policy.yaml", "kind: fixed\nmodel: dear\n")
    for policy in ("policy.yaml", '{"kind": "fixed", "model": "dear"}'):
        assert project.json("replay", "last", "--policy", policy, verb="replay")["rows"] == found["rows"]
    assert project.json("replay", "last", "--policy", "pool.yaml", verb="replay")["rows"] == same["rows"]
    text = project.podium("replay", "last", "--policy", "fixed:dear").stdout
    assert "3 calls, 3 to another model: 0.000102 USD (estimated) instead of 0.0000102 USD" in text
    assert "did you mean 'cheap'?" in project.podium("replay", done, "--policy", "fixed:cheep", code=3).stderr
    for wrong in ("dear", "{", '{"kind": 3', "tools.py"):
        assert "→" in project.podium("replay", done, "--policy", wrong, code=None).stderr
    assert project.podium("logs", done, "--json").stdout == before  # nothing was written


def test_diff_of_two_runs(cold: Any, project: Any, done: str) -> None:
    same = cold.json("diff", done, done, "--exit-code", verb="diff")
    assert (same["same"], same["tasks"], same["common"]) == (True, [], 6)
    project.write("other/a.txt", "Another text.")
    project.podium("run", "brief.yaml", "-i", "docs=@other/", "--model", "dear", "--approve", "publish")
    found = project.json("diff", done, "last", verb="diff")
    assert not found["same"]
    assert found["only_left"] == ["sums[1]"]
    assert [(c["path"], c["missing"]) for c in found["inputs"]] == [("$.docs[0]", ""), ("$.docs[1]", "right")]
    brief = next(task for task in found["tasks"] if task["name"] == "brief")
    assert {"models", "cost"} <= set(brief["differs"])
    assert (brief["left"]["models"], brief["right"]["models"]) == (["cheap"], ["dear"])
    text = project.podium("diff", done, "last", "--exit-code", code=1).stdout
    assert "Only in -: sums[1]" in text
    assert "brief: models cheap → dear" in text
    assert '"A short summary."' in text
    project.podium("diff", done, "nothing", code=2)


def test_schedules_are_stored_listed_and_removed(cold: Any, project: Any) -> None:
    once = cold.podium(*RUN, "--at", "2999-01-31T09:00+02:00", "--budget", "0.2", "--json")
    made = json.loads(once.stdout)
    project.validate("run --at", made)
    assert (made["next_at"], made["every_s"], made["budget_usd"]) == ("2999-01-31T07:00:00.000Z", None, "0.2")
    assert "podium up" in once.stderr
    again = project.json(*RUN, "--every", "1h30m", verb="run --every")
    assert again["every_s"] == 5400.0
    assert project.json("runs", verb="runs") == {"runs": []}
    listed = cold.json("schedules", verb="schedules")["schedules"]
    assert [s["schedule_id"] for s in listed] == [again["schedule_id"], made["schedule_id"]]
    assert again["schedule_id"] in project.podium("schedules").stdout
    removed = project.json("schedules", "--remove", made["schedule_id"][:4], verb="schedules --remove")
    assert removed == {"schedule_id": made["schedule_id"]}
    assert len(project.json("schedules", verb="schedules")["schedules"]) == 1
    for wrong in (("--at", "soon"), ("--at", "1999-01-01"), ("--every", "often"), ("--every", "0s")):
        assert "→" in project.podium(*RUN, *wrong, code=2).stderr
    assert "→" in project.podium("schedules", "--remove", "nothing", code=2).stderr


def test_logs_are_the_events_so_far(cold: Any, project: Any, done: str) -> None:
    lines = cold.podium("logs", "last", "--json").stdout.splitlines()
    for line in lines:
        project.validate("logs", json.loads(line))
    assert lines == project.podium("watch", done, "--json").stdout.splitlines()
    assert project.podium("logs", done, "--json", "--after", "4").stdout.splitlines() == lines[4:]
    below = [
        json.loads(x) for x in project.podium("logs", done, "--task", "sums", "--json").stdout.splitlines()
    ]
    assert {event["task"] for event in below} == {"sums", "sums[0]", "sums[1]"}
    assert "brief succeeded" in project.podium("logs", done).stdout
    run = project.json(*RUN, verb="run", code=7)["run_id"]
    assert project.podium("logs", run).stdout.splitlines()[-1].endswith("run waiting")


def test_show_sums_up_what_is_below_a_task(project: Any) -> None:
    project.write(
        "frail.yaml",
        "name: frail\ninputs: {paths: list[str]}\ntasks:\n"
        "  each: {map: paths, python: 'tools:fail_unless', with: {path: '{item}'}, retry: {attempts: 1},"
        " on_failure: skip}\n",
    )
    paths = [str(project.folder / "brief.yaml")] * 3 + ["/nothing/here"]
    result = project.podium("run", "frail.yaml", "-i", f"paths={json.dumps(paths)}", "--json", code=None)
    assert len(json.loads(result.stdout)["tasks"]) == 5
    shown = project.json("show", "last", verb="show")
    (each,) = shown["tasks"]
    below = each["below"]
    assert sum(below["counts"].values()) == 4
    assert below["counts"]["succeeded"] == 3
    assert below["attempts"] == 4
    everything = project.json("show", "last", "--all", verb="show")
    assert len(everything["tasks"]) == 5
    assert everything["tasks"][0]["below"] is None
    text = project.podium("show", "last").stdout
    assert "each: 3 succeeded, 1 " in text
    assert "each[2]" not in text
    assert "each[2]" in project.podium("show", "last", "--all").stdout
