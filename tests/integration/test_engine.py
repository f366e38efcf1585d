"""The engine from end to end: workflows on a fake pool, python tasks in real processes, both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_project import check_books, kinds, lines, one, statuses, until, write_steps
from podium import Podium, Run, UsageError, Workflow

MakePodium = Callable[..., Podium]


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    write_steps(tmp_path)
    return tmp_path


@pytest.fixture
def podium(project: Path, make_podium: MakePodium) -> Podium:
    return make_podium(None)


@pytest.fixture
def anywhere(project: Path, make_podium: MakePodium, database_url: str) -> Podium:
    """A Podium on each of the databases."""
    return make_podium(database_url)


def in_background(work: Callable[[], Run]) -> Callable[[], Run]:
    """Start `work` in a thread; the result waits for it."""
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()

    def wait() -> Run:
        thread.join(30)
        assert found, "it did not end in time"
        return found[0]

    return wait


def chain() -> Workflow:
    wf = Workflow("chain")
    n = wf.input("n", int)
    first = wf.python("first", "steps:double", with_={"x": n})
    second = wf.python("second", "steps:add", with_={"a": first, "b": n})
    wf.llm("said", prompt=f"it is {second}")
    wf.output("sum", second)
    wf.output("said", "said")
    return wf


def test_linear_run(anywhere: Podium) -> None:
    told = []
    run = anywhere.run(chain(), n=4, on_event=told.append)
    assert run.status == "succeeded"
    assert run.exit_code == 0
    assert run.outputs == {"sum": 12, "said": "echo: it is 12"}
    assert [t.record.attempts for t in run.tasks] == [1, 1, 1]
    assert run.cost_nano == run.calls[0].cost_nano > 0
    assert [e.seq for e in told] == [e.seq for e in anywhere.events(run.id)]
    assert kinds(anywhere, run) == [
        "run.created", "run.claimed",
        "task.started", "task.succeeded", "task.started", "task.succeeded",
        "task.started", "call.settled", "task.succeeded", "run.succeeded",
    ]  # fmt: skip
    check_books(anywhere, run)


def test_map_keeps_the_order_of_its_elements(anywhere: Podium) -> None:
    wf = Workflow("mapped")
    xs = wf.input("xs", list[int])
    doubled = wf.map("doubled", over=xs, python="steps:double", with_={"x": "{item}"})
    total = wf.python("total", "steps:total", with_={"xs": doubled})
    wf.output("doubled", doubled)
    wf.output("total", total)
    run = anywhere.run(wf, xs=list(range(20)))
    assert run.outputs == {"doubled": [2 * x for x in range(20)], "total": 380}
    assert statuses(run)["doubled[7]"] == "succeeded"
    check_books(anywhere, run)


def test_an_empty_map_fails_the_run(podium: Podium) -> None:
    wf = Workflow("empty")
    xs = wf.python("xs", "steps:short", with_={"xs": [1, 2]}, output=list[int])
    wf.map("doubled", over=xs, python="steps:double", with_={"x": "{item}"})
    run = podium.run(wf)
    assert run.status == "failed"
    assert run.error is not None
    assert "empty list" in run.error["message"]
    assert statuses(run) == {"xs": "succeeded", "doubled": "failed"}


def sub_workflow() -> Workflow:
    sub = Workflow("sub")
    x = sub.input("x", int)
    doubled = sub.python("doubled", "steps:double", with_={"x": x})
    sub.python("more", "steps:add", with_={"a": doubled, "b": 1})
    sub.output("value", "more")
    return sub


def test_sub_workflows_alone_and_mapped(anywhere: Podium) -> None:
    wf = Workflow("outer")
    xs = wf.input("xs", list[int])
    alone = wf.workflow("alone", sub_workflow(), with_={"x": 5})
    many = wf.map("many", over=xs, workflow=sub_workflow(), with_={"x": "{item}"})
    wf.python("end", "steps:add", with_={"a": "{alone.value}", "b": 1})
    wf.output("alone", alone)
    wf.output("many", many)
    wf.output("end", "end")
    run = anywhere.run(wf, xs=[1, 2, 3])
    assert run.status == "succeeded", run.error
    assert run.outputs == {
        "alone": {"value": 11},
        "many": [{"value": 3}, {"value": 5}, {"value": 7}],
        "end": 12,
    }
    assert statuses(run)["many[1]/more"] == "succeeded"
    check_books(anywhere, run)


def branches(*, wanted: str, join: str = "any") -> Workflow:
    wf = Workflow("branches", inputs={"kind": "str"})
    for name in ("left", "right"):
        wf.python(name, "steps:add", with_={"a": 1, "b": 1}, when=("kind", "==", name))
        wf.python(f"{name}_after", "steps:double", with_={"x": f"{{{name}}}"})
    wf.python(
        "end", "steps:present", with_={"xs": ["{left_after}", "{right_after}"]},
        needs=["left", "right", "left_after", "right_after"], join=join,
    )  # fmt: skip
    wf.output("end", "end")
    return wf


def test_when_skips_a_branch_and_join_any_goes_on(anywhere: Podium) -> None:
    run = anywhere.run(branches(wanted="left"), kind="left")
    assert run.status == "succeeded", run.error
    assert run.output == 1
    assert statuses(run)["right"] == statuses(run)["right_after"] == "skipped"
    assert kinds(anywhere, run).count("task.skipped") == 2
    check_books(anywhere, run)


def test_all_branches_skipped_skip_the_join(podium: Podium) -> None:
    run = podium.run(branches(wanted="none"), kind="none")
    assert run.status == "succeeded"
    assert set(statuses(run).values()) == {"skipped"}
    assert run.output is None


def test_join_all_is_skipped_with_one_branch(podium: Podium) -> None:
    run = podium.run(branches(wanted="left", join="all"), kind="left")
    assert statuses(run)["end"] == "skipped"
    assert statuses(run)["left_after"] == "succeeded"


def test_a_sub_workflow_whose_tasks_are_all_skipped(podium: Podium) -> None:
    sub = Workflow("sub", inputs={"x": "int"})
    sub.when("gate", "x", ">", 10)
    sub.python("big", "steps:double", with_={"x": "{x}"}, needs="gate")
    sub.output("value", "big")
    wf = Workflow("outer", inputs={"xs": "list[int]"})
    wf.map("each", over="xs", workflow=sub, with_={"x": "{item}"})
    wf.output("each", "each")
    run = podium.run(wf, xs=[1, 20])
    assert run.status == "succeeded", run.error
    assert run.output == [{"value": None}, {"value": 40}]


def test_a_condition_about_the_item_skips_elements(podium: Podium) -> None:
    wf = Workflow("some", inputs={"xs": "list[int]"})
    wf.map("each", over="xs", python="steps:double", with_={"x": "{item}"}, when=("item", ">", 1))
    wf.python("count", "steps:present", with_={"xs": "{each}"})
    wf.output("count", "count")
    run = podium.run(wf, xs=[1, 2, 3])
    assert run.output == 2
    assert statuses(run)["each[0]"] == "skipped"


def approval() -> Workflow:
    wf = Workflow("ask")
    first = wf.python("first", "steps:add", with_={"a": 1, "b": 2})
    wf.approval("ok", f"Is {first} right?")
    wf.python("end", "steps:double", with_={"x": first}, needs="ok")
    wf.output("end", "end")
    return wf


def test_approval_waits_and_goes_on(anywhere: Podium) -> None:
    run = anywhere.run(approval())
    assert (run.status, run.exit_code) == ("waiting", 7)
    assert [t.record.approval_text for t in run.waiting] == ["Is 3 right?"]
    assert run.record.engine is None
    anywhere.approve(run.id, "ok", comment="fine")
    with pytest.raises(UsageError, match="waits for no approval"):
        anywhere.approve(run.id, "ok")
    run = anywhere.drive(run.id)
    assert (run.status, run.output) == ("succeeded", 6)
    assert {t.record.name: t.record.attempts for t in run.tasks} == {"first": 1, "ok": 2, "end": 1}
    check_books(anywhere, run)


def test_rejected_approval_fails_and_retry_asks_again(podium: Podium) -> None:
    run = podium.run(approval())
    podium.approve(run.id, "ok", approved=False, comment="no way")
    run = podium.drive(run.id)
    assert run.status == "failed"
    assert run.error is not None
    assert "no way" in run.error["message"]
    assert statuses(run) == {"first": "succeeded", "ok": "failed", "end": "cancelled"}
    assert podium.retry(run.id) == ["end", "ok"]
    assert podium.drive(run.id).status == "waiting"


def test_approval_given_beforehand(podium: Podium) -> None:
    assert podium.run(approval(), approve=["ok"]).output == 6


def test_approval_while_other_tasks_run(podium: Podium, project: Path) -> None:
    wf = approval()
    wf.llm("slow", prompt=f"!stall {project / 'go'}")
    run = podium.submit(wf, detached=False)
    wait = in_background(lambda: podium.drive(run.id))
    until(lambda: podium.get(run.id).waiting)
    podium.approve(run.id, "ok")
    until(lambda: statuses(podium.get(run.id))["end"] == "succeeded")
    (project / "go").touch()
    assert wait().status == "succeeded"


def test_retries_with_backoff(anywhere: Podium, project: Path) -> None:
    wf = one(
        python="steps:flaky", with_={"path": str(project / "n"), "failures": 2},
        retry={"attempts": 3, "backoff": 0.05},
    )  # fmt: skip
    wf.output("n", "work")
    run = anywhere.run(wf)
    assert (run.status, run.output) == ("succeeded", 3)
    assert [a.status for a in run.attempts] == ["failed", "failed", "succeeded"]
    assert run.tasks[0].record.failures == 2
    first, second = (e.data for e in anywhere.events(run.id) if e.kind == "task.retrying")
    assert "try 1 fails" in first["error"]["message"]
    gaps = [b.started_at - (a.finished_at or 0) for a, b in zip(run.attempts, run.attempts[1:], strict=False)]
    assert gaps[0] >= 0.05 * 0.75 - 0.01
    assert gaps[1] >= 0.1 * 0.75 - 0.01
    assert second["not_before"] > first["not_before"]
    check_books(anywhere, run)


def test_retries_used_up_fail_the_run_and_what_comes_after(podium: Podium, project: Path) -> None:
    wf = one(
        python="steps:flaky", with_={"path": str(project / "n"), "failures": 2},
        retry={"attempts": 2, "backoff": 0},
    )  # fmt: skip
    wf.python("after", "steps:double", with_={"x": "{work}"})
    run = podium.run(wf)
    assert (run.status, run.exit_code) == ("failed", 1)
    assert statuses(run) == {"work": "failed", "after": "cancelled"}
    assert podium.retry(run.id) == ["after", "work"]
    run = podium.drive(run.id)
    assert run.status == "succeeded"
    assert [a.number for a in run.attempts if a.task == "work"] == [1, 2, 3]


def test_a_failed_element_alone_is_done_again(podium: Podium, project: Path) -> None:
    wf = Workflow("m", inputs={"paths": "list[str]"})
    step = {"path": "{item}", "failures": 1}
    wf.map("each", over="paths", python="steps:flaky", with_=step, retry={"attempts": 1})
    wf.output("each", "each")
    paths = [str(project / name) for name in ("a", "b", "c")]
    for tried in (paths[0], paths[2]):
        Path(tried).write_text("x\n")
    run = podium.run(wf, paths=paths)
    assert run.status == "failed"
    assert statuses(run)["each[1]"] == "failed"
    podium.retry(run.id)
    run = podium.drive(run.id)
    assert run.status == "succeeded", run.error
    assert run.output[1] == 2
    assert [a.number for a in run.attempts if a.task == "each[1]"] == [1, 2]
    check_books(podium, run)


def test_retry_of_one_of_two_failed_tasks_leaves_the_other_failed(podium: Podium, project: Path) -> None:
    wf = Workflow("two")
    for name in ("a", "b"):
        wf.python(name, "steps:meet", with_={"path": str(project / "n"), "people": 2}, retry={"attempts": 1})
    wf.python("end", "steps:present", with_={"xs": ["{a}", "{b}"]})
    run = podium.run(wf)
    assert statuses(run) == {"a": "failed", "b": "failed", "end": "cancelled"}
    assert podium.retry(run.id, ["a"]) == ["a", "end"]
    run = podium.drive(run.id)
    assert run.status == "failed"
    assert statuses(run) == {"a": "succeeded", "b": "failed", "end": "cancelled"}
    assert run.error is not None
    assert "b failed before" in run.error["message"]
    podium.retry(run.id)
    assert podium.drive(run.id).status == "succeeded"


def test_timeout_kills_a_hanging_task(podium: Podium, project: Path) -> None:
    wf = one(
        python="steps:hang_once", with_={"path": str(project / "n")}, timeout=0.5,
        retry={"attempts": 2, "backoff": 0},
    )  # fmt: skip
    wf.output("end", "work")
    run = podium.run(wf)
    assert (run.status, run.output) == ("succeeded", "ended")
    assert [a.status for a in run.attempts] == ["failed", "succeeded"]
    assert "did not end within 0.5" in str(run.attempts[0].error)


def test_a_crash_of_user_code_costs_an_attempt_only(podium: Podium, project: Path) -> None:
    wf = one(
        python="steps:crash_once", with_={"path": str(project / "n")}, retry={"attempts": 2, "backoff": 0}
    )
    wf.output("end", "work")
    run = podium.run(wf)
    assert (run.status, run.output) == ("succeeded", "alive")
    assert "SIGSEGV" in str(run.attempts[0].error)


def test_errors_with_odd_characters_are_recorded(anywhere: Podium) -> None:
    run = anywhere.run(one(python="steps:odd", with_={"text": "x"}, retry={"attempts": 1}))
    assert run.status == "failed"
    assert "ValueError" in str(run.error)
    check_books(anywhere, run)


def test_cancel_while_a_task_runs(anywhere: Podium, project: Path) -> None:
    wf = one(python="steps:hang", with_={"path": str(project / "begun")})
    wf.python("after", "steps:add", with_={"a": 1, "b": 1}, needs="work")
    run = anywhere.submit(wf, detached=False)
    wait = in_background(lambda: anywhere.drive(run.id))
    until(lambda: lines(project / "begun"))
    assert anywhere.cancel("last") == "running"
    run = wait()
    assert (run.status, run.exit_code) == ("cancelled", 1)
    assert statuses(run) == {"work": "cancelled", "after": "cancelled"}
    assert [a.status for a in run.attempts] == ["cancelled"]
    check_books(anywhere, run)


def test_cancel_of_a_waiting_run_ends_it_at_once(podium: Podium) -> None:
    run = podium.run(approval())
    assert podium.cancel(run.id) == "cancelled"
    assert statuses(run.refresh()) == {"first": "succeeded", "ok": "cancelled", "end": "cancelled"}
    with pytest.raises(UsageError, match="cancelled already"):
        podium.cancel(run.id)
    with pytest.raises(UsageError, match="waits for no approval"):
        podium.approve(run.id, "ok")
    check_books(podium, run)


def test_cancel_gives_back_the_money_of_running_calls(podium: Podium, project: Path) -> None:
    wf = Workflow("slow")
    wf.llm("said", prompt=f"!stall {project / 'go'}")
    run = podium.submit(wf, detached=False)
    wait = in_background(lambda: podium.drive(run.id))
    until(lambda: [c for c in podium.get(run.id).calls if c.status == "sent"])
    podium.cancel(run.id)
    run = wait()
    (project / "go").touch()
    assert [c.status for c in run.calls] == ["unknown"]  # it was sent: nobody knows what it costs
    assert run.cost_nano == run.calls[0].reserved_nano
    check_books(podium, run)


def test_a_timed_out_call_holds_no_money(podium: Podium, project: Path) -> None:
    wf = Workflow("slow")
    wf.llm("said", prompt=f"!stall {project / 'go'}", timeout=0.3, retry={"attempts": 2, "backoff": 0})
    wf.python("touch", "steps:add", with_={"a": 1, "b": 1})
    run = podium.run(wf)
    (project / "go").touch()
    assert run.status == "failed"
    assert [c.status for c in run.calls] == ["unknown", "unknown"]
    assert "cut off" in str(run.calls[0].error)
    check_books(podium, run)


def test_deadline(podium: Podium, project: Path) -> None:
    run = podium.run(one(python="steps:hang", with_={"path": str(project / "begun")}), deadline=0.7)
    assert run.status == "failed"
    assert run.error is not None
    assert "deadline" in run.error["message"]
    assert statuses(run) == {"work": "cancelled"}
    podium.retry(run.id)
    assert run.refresh().record.deadline_at is None


def test_a_deadline_that_has_passed_starts_nothing(podium: Podium, project: Path) -> None:
    run = podium.run(one(python="steps:note", with_={"path": str(project / "n"), "text": "x"}), deadline=0.0)
    assert run.status == "failed"
    assert not (project / "n").exists()


def test_async_api(podium: Podium) -> None:
    import asyncio

    async def both() -> list[Run]:
        return list(await asyncio.gather(podium.arun(chain(), n=1), podium.arun(chain(), n=2)))

    assert [run.outputs["sum"] for run in asyncio.run(both()) if run.outputs] == [3, 6]


def test_cancelling_arun_lets_go_of_the_run(podium: Podium, project: Path) -> None:
    import asyncio

    run = podium.submit(one(python="steps:hang_once", with_={"path": str(project / "n")}), detached=False)

    async def give_up() -> None:
        task = asyncio.create_task(podium.adrive(run.id))
        await asyncio.to_thread(until, lambda: lines(project / "n"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    until(lambda: podium.get(run.id).status == "queued")
    done = podium.drive(run.id)
    assert done.status == "succeeded"
    assert [a.status for a in done.attempts] == ["lost", "succeeded"]
    assert done.tasks[0].record.failures == 0


def test_idempotency_key_gives_the_same_run(anywhere: Podium) -> None:
    first = anywhere.run(chain(), n=1, idempotency_key="k")
    again = anywhere.run(chain(), n=1, idempotency_key="k")
    assert again.id == first.id
    assert len(anywhere.runs()) == 1
    assert anywhere.run(chain(), n=1, idempotency_key="other").id != first.id


def test_the_same_key_at_the_same_time_makes_one_run(anywhere: Podium) -> None:
    wf = Workflow("w")
    wf.llm("said", prompt="hello")
    found: list[str] = []
    submit = lambda: found.append(anywhere.submit(wf, idempotency_key="k").id)  # noqa: E731
    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_policy_that_names_no_model_fails_the_run(podium: Podium) -> None:
    run = podium.run(chain(), n=1, policy={"kind": "nonsense"})
    assert (run.status, run.exit_code) == ("failed", 3)
    check_books(podium, run)


def test_inline_task_that_raises_is_tried_again(podium: Podium) -> None:
    wf = one(python="json:loads", with_={"s": "no json"}, inline=True, retry={"attempts": 2, "backoff": 0})
    run = podium.run(wf)
    assert run.status == "failed"
    assert [a.status for a in run.attempts] == ["failed", "failed"]
    assert "JSONDecodeError" in str(run.error)
