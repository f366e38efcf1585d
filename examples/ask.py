"""One question to one model; the answer is printed as it is written.

python examples/ask.py "What is a faction?"
"""

from __future__ import annotations

import sys

from podium import Podium

QUESTION = "In one sentence: what is a constitution?"


def main(question: str = QUESTION) -> None:
    with Podium() as podium:
        run = podium.ask(question, max_tokens=60, on_token=lambda text: print(text, end="", flush=True))
    print(f"\n\n{run.status}: {run.calls[0].model}, {run.cost} USD, run {run.id}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
