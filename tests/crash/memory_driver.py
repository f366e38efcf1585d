"""What the tests of agents' memory kill: `python memory_driver.py HOME DATABASE_URL`, in a project's folder.

Each start goes on with the one run that is there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine_project import replay_spec
from podium import Podium, Settings, Workflow
from podium.orchestrator import engine
from podium.workers.local import LocalPool

SAID = "The harbour closes on 3 May."
#: the last message of each step, and what is said then
SAYS = (
    ("Read the notice", {"tool": "remember", "arguments": {"key": "deadline", "value": SAID}}),
    ("deadline is kept", {"tool": "note", "arguments": {"text": "The harbour master is called Aase."}}),
    ("The note is kept", {"answer": "kept"}),
    ("Tell when it closes", {"tool": "recall", "arguments": {"query": "when does the harbour close"}}),
    (f"deadline: {SAID} (fact, task reads)", {"answer": "It closes on 3 May."}),
)
ROWS = [{"match": match, "text": json.dumps(said)} for match, said in SAYS]


def agents() -> Workflow:
    wf = Workflow("agents")
    wf.agent("reads", agent="Read the notice", memory=True)
    wf.agent("writes", agent="Tell when it closes", memory=True, needs=["reads"])
    wf.output("answer", "writes")
    return wf


def main(home: str, url: str) -> None:
    engine.BEAT = 0.05
    pool = LocalPool([replay_spec(Path("answers.jsonl"), *ROWS)], Path(home))
    with Podium(Settings(home=Path(home), database_url=url), pool=pool) as podium:
        known = podium.runs()
        run = podium.drive((known[0] if known else podium.submit(agents(), detached=False)).id)
        print(run.status, run.output)


if __name__ == "__main__":
    main(*sys.argv[1:])
