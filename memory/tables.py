"""The schema: execution (run … event) and content (blob) here; task memory (item …) in item_tables.py;
what the router learns from (outcome …) in outcome_tables.py.

Migrations in `migrations/` are what production uses; a test compares them with these files.
Times are seconds since the epoch, UTC. Money is nano-dollars. JSON columns are never queried.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .item_tables import Branch as Branch
from .item_tables import Embedding as Embedding
from .item_tables import Erasure as Erasure
from .item_tables import Item as Item
from .item_tables import Link as Link
from .item_tables import Revision as Revision
from .item_tables import Term as Term
from .outcome_tables import Outcome as Outcome
from .outcome_tables import RouterState as RouterState
from .table_base import CLUSTERED, Base, Sequence64


class Run(Base):
    """One execution of a Workflow."""

    __tablename__ = "run"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    workflow: Mapped[str]
    #: blob of the workflow's canonical data, and of the inputs
    spec_blob: Mapped[str]
    inputs_blob: Mapped[str]
    #: queued | running | waiting | paused | succeeded | failed | cancelled | stopped
    status: Mapped[str]
    #: folder from which `module:name` references are imported
    project_root: Mapped[str]
    priority: Mapped[int] = mapped_column(default=0)
    deadline_at: Mapped[float | None]
    idempotency_key: Mapped[str | None]
    #: approvals given beforehand
    preapproved: Mapped[list[str]]
    #: a policy given for this run only, e.g. {"kind": "fixed", "model": "m"}
    policy: Mapped[dict[str, Any] | None]

    budget_nano: Mapped[int]
    reserved_nano: Mapped[int] = mapped_column(default=0)
    settled_nano: Mapped[int] = mapped_column(default=0)
    #: tokens of all calls together, and seconds of driving; None: not limited
    budget_tokens: Mapped[int | None]
    reserved_tokens: Mapped[int] = mapped_column(default=0)
    settled_tokens: Mapped[int] = mapped_column(default=0)
    budget_seconds: Mapped[float | None]
    used_seconds: Mapped[float] = mapped_column(default=0.0)

    #: lease: who drives the run, its epoch (rises with each claim) and a counter that shows it is alive
    engine: Mapped[str | None]
    epoch: Mapped[int] = mapped_column(default=0)
    beat: Mapped[int] = mapped_column(default=0)
    #: only a detached engine may take it by itself
    detached: Mapped[bool] = mapped_column(default=False)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False)
    #: rises with each change from outside (approval, cancel, retry), so that the engine looks again
    control_version: Mapped[int] = mapped_column(default=0)
    #: compare-and-swap for graph patches
    graph_version: Mapped[int] = mapped_column(default=0)

    event_seq: Mapped[int] = mapped_column(default=0)
    event_head: Mapped[str] = mapped_column(default="")

    #: the run that this one was forked from, and how far that one's events had come then
    forked_from: Mapped[str | None]
    forked_seq: Mapped[int | None]
    #: the schedule that started it
    schedule_id: Mapped[str | None]

    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    outputs_blob: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]

    __table_args__ = (
        CheckConstraint(
            "reserved_nano >= 0 AND settled_nano >= 0 AND reserved_nano + settled_nano <= budget_nano",
            name="budget",
        ),
        CheckConstraint(
            "reserved_tokens >= 0 AND settled_tokens >= 0"
            " AND (budget_tokens IS NULL OR reserved_tokens + settled_tokens <= budget_tokens)",
            name="tokens",
        ),
        UniqueConstraint("tenant", "idempotency_key"),
        Index(None, "tenant", "created_at"),
        Index(None, "status"),
    )


class Task(Base):
    """A node of a run's graph. Map elements and tasks of sub-workflows have a `parent`."""

    __tablename__ = "task"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    kind: Mapped[str]
    #: position in the workflow's order, for people
    position: Mapped[int]
    parent: Mapped[str | None]
    #: element number in a map
    element: Mapped[int | None]
    #: pending | running | expanded | waiting | succeeded | failed | skipped | cancelled
    status: Mapped[str]
    #: attempts started; the number of the last one
    attempts: Mapped[int] = mapped_column(default=0)
    #: attempts that used up the retry allowance (an engine's death does not)
    failures: Mapped[int] = mapped_column(default=0)
    #: attempts in which the process that ran it died
    deaths: Mapped[int] = mapped_column(default=0)
    #: not before this time (backoff)
    not_before: Mapped[float | None]
    #: requested | approved | rejected
    approval: Mapped[str | None]
    #: what is asked of the person, and what was answered
    approval_text: Mapped[str | None] = mapped_column(Text)
    approval_comment: Mapped[str | None] = mapped_column(Text)
    #: the workflow that a `plan` task adds to the graph
    plan_blob: Mapped[str | None]
    #: inputs of a sub-workflow
    inputs_blob: Mapped[str | None]
    output_blob: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    __table_args__ = (
        ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"),
        Index(None, "run_id", "parent"),
        CLUSTERED,
    )


class Edge(Base):
    """`dst` needs `src`: for its data, or only for the order."""

    __tablename__ = "edge"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    src: Mapped[str] = mapped_column(primary_key=True)
    dst: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    #: data | order
    kind: Mapped[str]

    __table_args__ = (ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"), CLUSTERED)


class Attempt(Base):
    """One try of a Task, written when it ended: while it runs, the task's own row stands for it."""

    __tablename__ = "attempt"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    epoch: Mapped[int]
    #: succeeded | failed | lost | waiting | cancelled | skipped
    status: Mapped[str]
    started_at: Mapped[float]
    finished_at: Mapped[float | None]
    error: Mapped[dict[str, Any] | None]

    __table_args__ = (ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"), CLUSTERED)


class Call(Base):
    """One model call inside an Attempt."""

    __tablename__ = "call"

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str]
    task: Mapped[str]
    attempt: Mapped[int]
    #: number of the call within the task's attempt, from 0
    step: Mapped[int]
    tenant: Mapped[str]
    model: Mapped[str]
    worker: Mapped[str | None]
    #: reserved | sent | settled | refunded | unknown
    status: Mapped[str]
    #: the Route: reason, alternatives, estimates
    route: Mapped[dict[str, Any]]
    #: hash of the request, by which a later attempt finds the answer again
    request_hash: Mapped[str]
    request_blob: Mapped[str]
    response_blob: Mapped[str | None]
    finish_reason: Mapped[str | None]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    reserved_nano: Mapped[int]
    #: worst case of input and output together
    reserved_tokens: Mapped[int] = mapped_column(default=0)
    cost_nano: Mapped[int | None]
    first_token_s: Mapped[float | None]
    total_s: Mapped[float | None]
    #: accepted | escalated | sampled | drafted
    verdict: Mapped[str | None]
    #: what was found of the answer: checks, the chance that it is wrong, what was done and why
    review: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]

    __table_args__ = (
        ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"),
        Index(None, "run_id", "task", "step"),
        Index(None, "tenant", "model", "created_at"),
        Index(None, "status", "model"),
    )


class Ledger(Base):
    """Every movement of money: reserve, settle, refund."""

    __tablename__ = "ledger"

    id: Mapped[int] = mapped_column(Sequence64, primary_key=True, autoincrement=True)
    run_id: Mapped[str]
    call_id: Mapped[str]
    tenant: Mapped[str]
    #: reserve | settle | refund
    kind: Mapped[str]
    amount_nano: Mapped[int]
    at: Mapped[float]

    __table_args__ = (
        ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"),
        UniqueConstraint("call_id", "kind"),
        Index(None, "run_id"),
    )


class Effect(Base):
    """A tool call. Its key is stable across attempts, so that it is done once if that can be known."""

    __tablename__ = "effect"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    task: Mapped[str]
    attempt: Mapped[int]
    step: Mapped[int]
    tool: Mapped[str]
    #: read | write | send | exec
    effect: Mapped[str]
    #: requested | approved | rejected | started | done | failed | uncertain
    status: Mapped[str]
    arguments_blob: Mapped[str]
    result_blob: Mapped[str | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]

    __table_args__ = (
        ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"),
        Index(None, "run_id", "task"),
    )


class Event(Base):
    """What happened, append-only; each event's hash covers the one before it."""

    __tablename__ = "event"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    kind: Mapped[str]
    task: Mapped[str | None]
    data: Mapped[dict[str, Any]]
    at: Mapped[float]
    hash: Mapped[str]

    __table_args__ = (ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"), CLUSTERED)


class Blob(Base):
    """Content by its SHA-256, stored once a tenant. Not clustered: large rows would get their own pages."""

    __tablename__ = "blob"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(primary_key=True)
    #: JSON; compressed with zlib where that is shorter, which its first byte tells
    data: Mapped[bytes]


class Budget(Base):
    """A budget inside a run: of a task with all that is below it. The run's own is in its row."""

    __tablename__ = "budget"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    #: the task
    scope: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    limit_nano: Mapped[int | None]
    reserved_nano: Mapped[int] = mapped_column(default=0)
    settled_nano: Mapped[int] = mapped_column(default=0)
    limit_tokens: Mapped[int | None]
    reserved_tokens: Mapped[int] = mapped_column(default=0)
    settled_tokens: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        ForeignKeyConstraint(["run_id"], ["run.id"], ondelete="CASCADE"),
        CheckConstraint(
            "reserved_nano >= 0 AND settled_nano >= 0"
            " AND (limit_nano IS NULL OR reserved_nano + settled_nano <= limit_nano)",
            name="money",
        ),
        CheckConstraint(
            "reserved_tokens >= 0 AND settled_tokens >= 0"
            " AND (limit_tokens IS NULL OR reserved_tokens + settled_tokens <= limit_tokens)",
            name="tokens",
        ),
    )


class Rate(Base):
    """How far the calls of a model or tenant have used up their rate (generic cell rate algorithm)."""

    __tablename__ = "rate"

    #: "model:<name>" or "tenant:<name>"
    key: Mapped[str] = mapped_column(primary_key=True)
    #: seconds, UTC: theoretical arrival time of the next call
    next_at: Mapped[float]


class Cache(Base):
    """The output of a task by the hash of what it is and what it got."""

    __tablename__ = "cache"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    output_blob: Mapped[str]
    #: who made it
    run_id: Mapped[str]
    task: Mapped[str]
    created_at: Mapped[float]
    #: None: it stays good
    expires_at: Mapped[float | None]


class EngineRow(Base):
    """An engine that takes detached runs; so that several share them."""

    __tablename__ = "engine"

    #: `host.home.number`
    id: Mapped[str] = mapped_column(primary_key=True)
    beat: Mapped[int] = mapped_column(default=0)
    #: runs that it takes at most
    capacity: Mapped[int]
    started_at: Mapped[float]


class Schedule(Base):
    """Runs to come: one at a time (`every_s` None), or again and again."""

    __tablename__ = "schedule"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    workflow: Mapped[str]
    spec_blob: Mapped[str]
    inputs_blob: Mapped[str]
    project_root: Mapped[str]
    #: budget, priority, … of its runs
    terms: Mapped[dict[str, Any]]
    every_s: Mapped[float | None]
    #: seconds, UTC; None: over
    next_at: Mapped[float | None]
    #: how many runs it has started; part of their idempotency keys
    fired: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]

    __table_args__ = (Index(None, "next_at"),)
