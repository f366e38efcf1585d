"""Log lines → typed entries → a message to the engineer on duty, if one of them is critical.

python examples/triage.py            # the log that comes with the examples
python examples/triage.py my.log
"""

from __future__ import annotations

import sys
from pathlib import Path

import triage_steps
from podium import Podium, Run, Workflow

LOG = Path(__file__).parent / "data" / "postgresql.log"

CLASSIFY = """\
{item}

Is this line of a database's log info (nothing is wrong), a warning (one request failed) or critical (the \
server is in danger)? Which component is it about, and what is the problem, in a few words?"""


def build() -> Workflow:
    wf = Workflow("triage")
    lines = wf.input("lines", list[str])
    entries = wf.map("entries", over=lines, prompt=CLASSIFY, output=triage_steps.Entry, max_tokens=80)
    worst = wf.python(
        "worst",
        triage_steps.worst,
        with_={"entries": entries},
        output=triage_steps.Worst,
    )
    wf.llm(
        "page",
        when=(worst["severity"], "==", "critical"),
        prompt="Tell the engineer on duty in one sentence what happened:\n\n{worst.problems}",
        max_tokens=50,
    )
    # the branch may have been skipped; the report is made in either case
    report = wf.python(
        "report", triage_steps.report, with_={"entries": entries, "message": "{page}"}, join="any"
    )
    wf.output("entries", entries)
    wf.output("report", report)
    return wf


def triage(podium: Podium, lines: list[str]) -> Run:
    return podium.run(build(), lines=lines, budget="0.02")


def main(log: str = str(LOG)) -> None:
    lines = [line for line in Path(log).read_text(encoding="utf-8").splitlines() if line.strip()]
    with Podium() as podium:
        run = triage(podium, lines)
        print(run.outputs["report"] if run.outputs else run.error)
        print(f"\n{run.status}: {len(run.calls)} calls, {run.cost} USD, run {run.id}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
