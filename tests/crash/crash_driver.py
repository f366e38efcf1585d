"""What the crash tests kill: `python crash_driver.py HOME DATABASE_URL WORKFLOW`, in a project's folder.

Each start of this program goes on with the one run that is there. It gives the approvals itself and ends when
the run is over.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine_project import replay_spec
from podium import Podium, Settings, Workflow
from podium.orchestrator import engine
from podium.workers.local import LocalPool


def note(name: str) -> dict[str, str]:
    return {"path": "log", "text": name}


def everything() -> Workflow:
    """Passes every commit that an engine makes."""
    wf = Workflow("everything", inputs={"xs": "list[str]"})
    wf.python("first", "steps:note", with_=note("first"))
    wf.python("flaky", "steps:flaky", with_={"path": "tries", "failures": 1}, retry={"backoff": 0})
    wf.map("each", over="xs", python="steps:note", with_={"path": "log", "text": "{item}"})
    wf.approval("ok", "Is {first} right?")
    agent(wf, needs=["each", "ok"])
    wf.python("end", "steps:note", with_=note("end"), needs=["worker", "flaky"])
    wf.output("answer", "worker")
    return wf


def only_agent() -> Workflow:
    wf = Workflow("only_agent", inputs={"xs": "list[str]"})
    agent(wf)
    wf.output("answer", "worker")
    return wf


def agent(wf: Workflow, **options: object) -> None:
    tools = ["steps:look", "steps:write"]
    wf.agent("worker", agent="Find the number and write it down", tools=tools, **options)


ROWS = (
    {"match": "written", "text": '{"answer": "seven is written"}'},
    {"match": "seven", "text": '{"tool": "write", "arguments": {"path": "log", "text": "seven"}}'},
    {"match": "Find the number", "text": '{"tool": "look", "arguments": {"path": "number"}}'},
)
WORKFLOWS = {"everything": everything, "only_agent": only_agent}


def main(home: str, url: str, name: str) -> None:
    engine.BEAT = 0.05
    pool = LocalPool([replay_spec(Path("answers.jsonl"), *ROWS)], Path(home))
    with Podium(Settings(home=Path(home), database_url=url), pool=pool) as podium:
        known = podium.runs()
        run = known[0] if known else podium.submit(WORKFLOWS[name](), detached=False, xs=["a", "b", "c"])
        while (run := podium.drive(run.id)).status == "waiting":
            for task in run.waiting:
                podium.approve(run.id, task.record.name)
        print(run.status, run.output)


if __name__ == "__main__":
    main(*sys.argv[1:])
