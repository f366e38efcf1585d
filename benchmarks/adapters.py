"""Adapters between the neutral referees and the product: `package.module:factory`, one factory a referee.

A referee (routing, context, retrieval, dispatch, schedule, tools) scores public data through such a factory.
An adapter is a few lines that call the product's own classes. It holds no logic, table or constant of its
own: a figure that exists only because of its adapter says nothing about Podium. Each adapter comes with the
part of the product that it measures.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from podium.memory.context.assembly import Step, Workspace
from podium.memory.retrieval.index import MemoryIndex
from podium.memory.retrieval.vectors import default_embedder
from podium.orchestrator.ordering import Job, Scheduler
from podium.router.learned import LearnedRouter


def scheduler(dag: Any) -> Scheduler:
    """`referee/schedule.py`: the engine's scheduler on a graph of tasks with predicted durations."""
    made = Scheduler(dag.capacity)
    made.add((Job(t.id, t.predicted, t.need, position=t.id) for t in dag.tasks), dag.edges)
    return made


def retrieval() -> Any:
    """`referee/retrieval.py`: the index that a search of task memory uses, without its database."""
    made = MemoryIndex()
    return SimpleNamespace(add=made.add, search=lambda query, k: [m.key for m in made.search(query, k)])


def context() -> Any:
    """`referee/context.py`: the workspace that a task's context is made from, without its database."""
    made = Workspace(embed=default_embedder().embed)

    def add(step_id: str, parents: list[str], text: str, writes: list[dict] | None) -> None:
        typed = None if writes is None else tuple((w["key"], w["value"]) for w in writes)
        made.add(Step(step_id, text, tuple(parents), typed))

    return SimpleNamespace(add=add, context=lambda *asked: made.context(*asked).text)


def routing(models: list[str]) -> LearnedRouter:
    """`referee/routing.py`: the router that learns from outcomes, untrained."""
    return LearnedRouter(models)
