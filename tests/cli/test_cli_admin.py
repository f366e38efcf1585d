"""`init`, `db`, `config`, `doctor`, `models`, `status`, `down`, `ask`, `plan`: the verbs around runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any


def test_init_makes_a_project_that_is_valid_and_keeps_what_is_there(cold: Any, project: Any) -> None:
    made = cold.json("init", "new", verb="init")
    assert made["files"] == ["podium.toml", "pool.yaml", "tools.py", "workflow.yaml"]
    new = replace(project, folder=project.folder / "new")
    plan = new.json("run", "workflow.yaml", "-i", "topic=tides", "--dry-run", verb="run --dry-run")
    assert plan["budget_usd"] == "0.05"
    assert {row["task"]: row["model"] for row in plan["rows"]} == {
        "draft": "smollm2-135m",
        "title": "smollm2-135m",
        "count": None,
    }
    new.write("tools.py", "mine = 1\n")
    again = project.json("init", "new", verb="init")
    assert (again["files"], again["kept"]) == ([], made["files"])
    assert (new.folder / "tools.py").read_text() == "mine = 1\n"
    assert "mine" not in (project.podium("init", "new", "--force") and (new.folder / "tools.py").read_text())


def test_db_check_before_and_after_upgrade(cold: Any) -> None:
    before = cold.json("db", "check", verb="db", code=3)
    assert before["revision"] is None
    assert "podium db upgrade" in cold.podium("db", "check", code=3).stderr
    assert cold.json("db", "upgrade", verb="db")["ok"]
    assert cold.json("db", "check", verb="db")["ok"]


def test_a_database_that_cannot_be_is_a_config_error(project: Any) -> None:
    assert "→" in project.podium("runs", code=3, PODIUM_DATABASE_URL="mysql://x/y").stderr
    assert "→" in project.podium("runs", code=3, PODIUM_DATABASE_URL="sqlite://").stderr


def test_doctor_is_well_here_and_names_each_mend_elsewhere(cold: Any, project: Any) -> None:
    report = cold.json("doctor", verb="doctor")
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"]
    assert checks["python"]["state"] == checks["packages"]["state"] == checks["pool"]["state"] == "ok"
    assert checks["model cheap"]["state"] == "ok"
    (project.folder / "answers.jsonl").unlink()
    checks = {c["name"]: c for c in project.json("doctor", verb="doctor")["checks"]}
    assert checks["model cheap"]["state"] == "warn"
    assert checks["model cheap"]["mend"]
    project.write("pool.yaml", "models: 3\n")
    report = project.json("doctor", verb="doctor", code=3)
    assert not report["ok"]
    assert next(c for c in report["checks"] if c["name"] == "pool")["mend"]


def test_doctor_finds_a_home_that_cannot_be_written(project: Any) -> None:
    report = project.json("--home", "/proc/podium", "doctor", verb="doctor", code=3)
    assert next(c for c in report["checks"] if c["name"] == "home")["state"] == "fail"


def test_status_and_down_where_nothing_is_up(cold: Any) -> None:
    status = cold.json("status", verb="status")
    assert (status["running"], status["ready"], status["open_runs"]) == (False, False, 0)
    assert cold.json("down", verb="down") == {"engine_stopped": False, "head_stopped": False}


def test_up_says_what_is_missing_before_it_starts_anything(project: Any) -> None:
    (project.folder / "answers.jsonl").unlink()
    done = project.podium("up", code=3)
    assert "answers.jsonl" in done.stderr
    assert "starting" not in done.stderr
    assert not (project.folder / "home" / "cluster.json").exists()


def test_models_lists_the_pool_with_its_state(cold: Any, project: Any) -> None:
    listed = cold.json("models", verb="models")
    assert [(m["name"], m["state"], m["input_usd_per_mtok"]) for m in listed["models"]] == [
        ("cheap", "ready", "0.1"),
        ("dear", "ready", "1"),
    ]
    assert listed["policy"]["kind"] == "cheapest"
    assert "cheap" in project.podium("models", "list").stdout


def test_models_test_calls_a_model(project: Any) -> None:
    tests = project.json("models", "test", "cheap", verb="models test")["tests"]
    assert (tests[0]["name"], tests[0]["ok"]) == ("cheap", True)
    assert "did you mean cheap?" in project.podium("models", "test", "cheep", code=2).stderr


def test_models_pull_of_an_unknown_name_exits_3(project: Any) -> None:
    assert "smollm2-135m" in project.podium("models", "pull", "smollm3-135m", code=3).stderr


def test_models_add_takes_prices_from_flags_or_the_table(project: Any) -> None:
    added = project.json(
        "models", "add", "gpt", "--url", "https://api.openai.com/v1", "--model", "gpt-4o-mini",
        "--api-key-env", "SOME_KEY", verb="models add",
    )  # fmt: skip
    assert float(added["input_usd_per_mtok"]) > 0
    text = (project.folder / "pool.yaml").read_text()
    assert "SOME_KEY" in text
    assert text.startswith("models:\n  - name: cheap")
    listed = {m["name"]: m for m in project.json("models", verb="models")["models"]}
    assert listed["gpt"]["state"] == "missing"
    assert "SOME_KEY" in listed["gpt"]["detail"]
    unknown = ("models", "add", "mine", "--url", "http://localhost:1/v1")
    assert "--price-in" in project.podium(*unknown, code=2).stderr
    project.podium(*unknown, "--price-in", "0.1", code=2)
    own = project.json(
        *unknown, "--price-in", "0.1", "--price-out", "0.3", "--context", "9000", verb="models add"
    )
    assert (own["output_usd_per_mtok"], own["context"]) == ("0.3", 9000)


class _Endpoint(BaseHTTPRequestHandler):
    """The least of an OpenAI-compatible server: one answer, in one piece or as a stream of two."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = '{"colour": "blue"}' if "response_format" in body else "The sky is blue."
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        frame = {"id": "1", "created": 1, "model": body["model"]}
        if body.get("stream"):
            pieces: list[Any] = [
                {"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]}
                for part in (text[:4], text[4:])
            ]
            pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            pieces.append({"choices": [], "usage": usage})
            chunks = [{**frame, "object": "chat.completion.chunk", **piece} for piece in pieces]
            data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
            self._send(data, "text/event-stream")
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        whole = {**frame, "object": "chat.completion", "choices": [choice], "usage": usage}
        self._send(json.dumps(whole), "application/json")

    def _send(self, data: str, kind: str) -> None:
        raw = data.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_models_add_then_test_then_ask_an_endpoint(project: Any) -> None:
    with endpoint() as url:
        project.podium("models", "add", "local", "--url", url, "--price-in", "0.1", "--price-out", "0.2")
        test = project.json("models", "test", "local", verb="models test")["tests"][0]
        assert (test["ok"], test["json_ok"], test["cost_usd"]) == (True, True, "0.000004")
        done = project.podium("ask", "What colour is the sky?", "--model", "local")
    assert done.stdout == "The sky is blue.\n"
    assert "local, 0.000002 USD" in done.stderr


def test_a_dead_endpoint_fails_the_test_with_exit_5(project: Any) -> None:
    prices = ("--price-in", "0.1", "--price-out", "0.2")
    project.podium("models", "add", "dead", "--url", "http://127.0.0.1:9/v1", *prices)
    test = project.json("models", "test", "dead", verb="models test", code=5)["tests"][0]
    assert not test["ok"]
    assert test["error"]


def test_ask_prints_the_answer_and_records_the_run(cold: Any, project: Any) -> None:
    done = cold.podium("ask", "What pulls the water?")
    assert done.stdout == "The moon.\n"
    record = project.json("ask", "What pulls the water?", "--max-tokens", "9", verb="ask")
    assert record["outputs"] == {"answer": "The moon."}
    assert project.json("ask", "x", "--budget", "0", verb="ask", code=4)["status"] == "stopped"


def test_plan_falls_back_to_a_template_and_says_so(cold: Any, project: Any) -> None:
    plan = cold.json("plan", "Summarise these documents", "-i", "docs=@papers/", verb="plan")
    assert plan["source"] == "template"
    assert plan["notes"]
    assert "docs" in plan["workflow"]["inputs"]
    done = project.podium("plan", "Summarise these documents", "-i", "docs=@papers/", "-o", "planned.yaml")
    assert done.stdout == ""
    assert "template" in done.stderr
    project.podium("run", "planned.yaml", "-i", "docs=@papers/", "--dry-run")


def test_run_of_a_goal_needs_a_yes_where_nobody_can_be_asked(project: Any) -> None:
    goal = ("run", "--goal", "Name the force that pulls the water")
    assert "--yes" in project.podium(*goal, code=2).stderr
    done = project.podium(*goal, "--yes", code=None)
    assert "accepted" in done.stderr
    project.podium("run", "brief.yaml", "--goal", "x", code=2)
    project.podium("run", code=2)


def test_the_files_of_init_are_in_the_package() -> None:
    from importlib import resources

    folder = resources.files("podium.orchestrator.cli") / "project"
    assert isinstance(folder, Path)
    assert {f.name for f in folder.iterdir() if f.is_file()} == {
        "podium.toml",
        "pool.yaml",
        "tools.py",
        "workflow.yaml",
    }
