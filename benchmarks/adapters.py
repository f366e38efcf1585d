"""Adapters between the neutral referees and the product: `package.module:factory`, one factory a referee.

A referee (routing, context, retrieval, dispatch, schedule, tools) scores public data through such a factory.
An adapter is a few lines that call the product's own classes. It holds no logic, table or constant of its
own: a figure that exists only because of its adapter says nothing about Podium. Each adapter comes with the
part of the product that it measures.
"""

from __future__ import annotations

from typing import Any

from podium.orchestrator.ordering import Job, Scheduler


def scheduler(dag: Any) -> Scheduler:
    """`referee/schedule.py`: the engine's scheduler on a graph of tasks with predicted durations."""
    made = Scheduler(dag.capacity)
    made.add((Job(t.id, t.predicted, t.need, position=t.id) for t in dag.tasks), dag.edges)
    return made
