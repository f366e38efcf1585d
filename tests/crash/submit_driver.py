"""Submits the same run as others do: `python submit_driver.py HOME DATABASE_URL KEY`; prints the run's id.

It waits for a line on its standard input, so that all can be let go at the same time.
"""

from __future__ import annotations

import sys

from podium import Podium, Settings, Workflow


def main(home: str, url: str, key: str) -> None:
    workflow = Workflow("hello")
    workflow.llm("said", prompt="hello")
    with Podium(Settings.model_validate({"home": home, "database_url": url})) as podium:
        print("ready", flush=True)
        sys.stdin.readline()
        print(podium.submit(workflow, idempotency_key=key).id)


if __name__ == "__main__":
    main(*sys.argv[1:])
