"""What the budget tests kill: `python budget_driver.py DATABASE_URL RUN EPOCH SEED`.

Threads of one engine reserve, send and close calls through its journal, as fast as they can, until it is
killed or the budget is used up. Each line it prints is a round that is over.
"""

from __future__ import annotations

import random
import sys
import threading
import uuid

from books import TREE, call_of, closing
from podium.memory import ledger
from podium.memory.database import Database
from podium.memory.errors import BudgetStopped
from podium.memory.journal import Journal

THREADS = 8


def work(journal: Journal, run_id: str, epoch: int, chance: random.Random) -> None:
    while True:
        call_id, task = uuid.uuid4().hex, chance.choice(list(TREE))
        call = call_of(task, call_id, chance.randrange(1, 900), chance.randrange(1, 90))
        try:
            reserving = journal.submit(
                "call.reserve", lambda c, call=call: ledger.reserve(c, run_id, epoch, call)
            )
            reserving.result()
        except BudgetStopped as error:
            print("refused", getattr(error, "scope", None), flush=True)
            continue
        verb = chance.choice(["settle", "refund", "unknown"])
        for step in ("sent", verb) if verb != "refund" else (verb,):
            name = "call.sent" if step == "sent" else "call.settle"
            took = chance.randrange(0, 900), chance.randrange(0, 90)
            journal.submit(name, closing(step, call_id, *took, run_id=run_id, epoch=epoch)).result()
        print(verb, flush=True)


def main(url: str, run_id: str, epoch: str, seed: str) -> None:
    journal = Journal(Database(url))
    chances = [random.Random(f"{seed}/{n}") for n in range(THREADS)]
    threads = [threading.Thread(target=work, args=(journal, run_id, int(epoch), c)) for c in chances]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
