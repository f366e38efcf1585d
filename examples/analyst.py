"""An agent that answers a question about a table with two typed tools, and says it in a typed answer.

    python examples/analyst.py "Which planet has the most moons, and how many?"

Each model call and each tool call is a row of the run: kill it, and `podium resume` goes on after the last.
"""

from __future__ import annotations

import sys

import analyst_tools
from podium import Podium, Run, Workflow
from pydantic import BaseModel

QUESTION = "Which planet has the most moons, and how many?"


class Finding(BaseModel):
    planet: str
    value: float


def build() -> Workflow:
    wf = Workflow("analyst")
    wf.input("question", str)
    finding = wf.agent(
        "finding",
        agent="{question}",
        profile="You answer questions about a table of the planets. Look every figure up with a tool.",
        tools=[analyst_tools.largest, analyst_tools.look_up],
        output=Finding,
        max_steps=4,
        max_tokens=96,
    )
    wf.output("finding", finding)
    return wf


def analyse(podium: Podium, question: str) -> Run:
    return podium.run(build(), question=question, budget="0.02")


def main(question: str = QUESTION) -> None:
    with Podium() as podium:
        run = analyse(podium, question)
        for effect in run.effects:
            print(f"{effect.tool} {effect.status}")
        print(run.output if run.output is not None else run.error)
        print(f"{run.status}: {len(run.calls)} calls, {run.cost} USD, run {run.id}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
