"""Bytes of history of LangGraph: a node that appends 1 KB to a list in its state, 400 times.

    .bench/venv-langgraph/bin/python -m benchmarks.langgraph_history [--appends 400]

Runs in LangGraph's own environment, with its SQLite checkpointer and durability="sync", and prints one JSON
line like that of history.py.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import importlib.metadata
import json
import operator
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from benchmarks.noop import entry


class State(TypedDict):
    entries: Annotated[list, operator.add]


def measure(count: int, path: Path) -> dict[str, Any]:
    """Run `count` appends on a fresh database at `path`; sizes in bytes."""
    database = sqlite3.connect(path, check_same_thread=False)
    saver = SqliteSaver(database)
    saver.setup()
    empty = _stored(database, path)
    graph = StateGraph(State)
    graph.add_node("append", lambda state: {"entries": [entry(len(state["entries"]))]})
    graph.add_edge(START, "append")
    graph.add_conditional_edges("append", lambda state: END if len(state["entries"]) == count else "append")
    app = graph.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}, "recursion_limit": 10 * count}
    final = app.invoke({"entries": []}, config, durability="sync")
    assert final["entries"] == [entry(i) for i in range(count)], "an entry is missing"
    total = _stored(database, path)
    database.close()
    return {"history_bytes": total - empty, "total_bytes": total, "empty_bytes": empty, "appends": count}


def _stored(database: sqlite3.Connection, path: Path) -> int:
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(os.path.getsize(file) for file in path.parent.glob(path.name + "*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--appends", type=int, default=400)
    count = parser.parse_args().appends
    with tempfile.TemporaryDirectory(prefix="langgraph-history-") as folder:
        found = measure(count, Path(folder, "graph.db"))
    names = ("langgraph", "langgraph-checkpoint-sqlite")
    print(json.dumps(found | {"versions": {name: importlib.metadata.version(name) for name in names}}))


if __name__ == "__main__":
    main()
