"""Podium: durable multi-step agent workflows over a pool of models.

    from podium import Podium, Workflow

    with Podium() as podium:
        run = podium.run("brief.yaml", docs=["…"], budget="0.05")
        print(run.output, run.cost)

Importing this costs next to nothing (PEP 562): each name brings its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podium.agents.tools import Tool, tool
    from podium.memory.chat import ChatRequest, Chunk, Completion, Message, Usage
    from podium.memory.context.assembly import Context
    from podium.memory.errors import (
        BudgetStopped,
        ClusterError,
        ConfigError,
        ContextTooLong,
        NotFound,
        PodiumError,
        ProviderError,
        StaleEpoch,
        StructuredOutputError,
        TaskError,
        UsageError,
        WaitingForPerson,
    )
    from podium.memory.events import EventRecord
    from podium.memory.items import NewRevision, Place, Producer, RevisionRecord
    from podium.memory.lifecycle.erasure import Receipt
    from podium.memory.retrieval.search import Hit
    from podium.memory.schedules import ScheduleRecord
    from podium.memory.store import LinkRecord, TaskMemory
    from podium.orchestrator.client import GoalPlan, Podium
    from podium.orchestrator.compare import Difference
    from podium.orchestrator.controls import Fork
    from podium.orchestrator.loader import load_workflow
    from podium.orchestrator.problems import Problem, WorkflowError
    from podium.orchestrator.replay import Replay
    from podium.orchestrator.settings import Settings, load_settings
    from podium.orchestrator.views import Run, TaskView
    from podium.orchestrator.workflow import Workflow
    from podium.router.types import ModelSpec, Price, Resources

    __version__: str

#: name → the module it is in
_HOMES = {
    "Podium": "orchestrator.client",
    "GoalPlan": "orchestrator.client",
    "Fork": "orchestrator.controls",
    "Difference": "orchestrator.compare",
    "Replay": "orchestrator.replay",
    "ScheduleRecord": "memory.schedules",
    "Run": "orchestrator.views",
    "TaskView": "orchestrator.views",
    "Workflow": "orchestrator.workflow",
    "load_workflow": "orchestrator.loader",
    "Problem": "orchestrator.problems",
    "WorkflowError": "orchestrator.problems",
    "Settings": "orchestrator.settings",
    "load_settings": "orchestrator.settings",
    "Tool": "agents.tools",
    "tool": "agents.tools",
    "ModelSpec": "router.types",
    "Price": "router.types",
    "Resources": "router.types",
    "EventRecord": "memory.events",
    "TaskMemory": "memory.store",
    "LinkRecord": "memory.store",
    "Context": "memory.context.assembly",
    "Hit": "memory.retrieval.search",
    "Receipt": "memory.lifecycle.erasure",
    "RevisionRecord": "memory.items",
    "NewRevision": "memory.items",
    "Place": "memory.items",
    "Producer": "memory.items",
    "ChatRequest": "memory.chat",
    "Chunk": "memory.chat",
    "Completion": "memory.chat",
    "Message": "memory.chat",
    "Usage": "memory.chat",
    "BudgetStopped": "memory.errors",
    "ClusterError": "memory.errors",
    "ConfigError": "memory.errors",
    "ContextTooLong": "memory.errors",
    "NotFound": "memory.errors",
    "PodiumError": "memory.errors",
    "ProviderError": "memory.errors",
    "StaleEpoch": "memory.errors",
    "StructuredOutputError": "memory.errors",
    "TaskError": "memory.errors",
    "UsageError": "memory.errors",
    "WaitingForPerson": "memory.errors",
}

__all__ = [
    "BudgetStopped", "ChatRequest", "Chunk", "ClusterError", "Completion", "ConfigError", "Context",
    "ContextTooLong", "Difference", "EventRecord", "Fork", "GoalPlan", "Hit", "LinkRecord", "Message",
    "ModelSpec", "NewRevision", "NotFound", "Place", "Podium", "PodiumError", "Price", "Problem",
    "Producer", "ProviderError", "Receipt", "Replay", "Resources", "RevisionRecord", "Run",
    "ScheduleRecord", "Settings", "StaleEpoch", "StructuredOutputError", "TaskError", "TaskMemory",
    "TaskView", "Tool", "Usage", "UsageError", "WaitingForPerson", "Workflow", "WorkflowError",
    "__version__", "load_settings", "load_workflow", "tool",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("podium")
    elif name in _HOMES:
        value = getattr(import_module(f"podium.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
