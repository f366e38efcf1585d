"""The records that `memory VERB --json` prints. Times are ISO 8601 in UTC; revisions go by their numbers."""

from __future__ import annotations

from typing import Any, Literal

from .records import Record, Usd

LinkKind = Literal["derived_from", "relates", "contradicts", "supersedes"]


class ProducerOut(Record):
    """Who made a revision; all null: a person."""

    run_id: str | None
    task: str | None
    attempt: int | None
    call_id: str | None
    model: str | None
    #: SHA-256 of the request that it answers
    prompt_hash: str | None
    cost_usd: Usd | None


class RevisionOut(Record):
    """`memory put`, `get`, `rollback`, `retract`: a version of an item."""

    revision: int
    key: str
    kind: Literal["fact", "note", "artifact", "summary"]
    scope: Literal["task", "run", "workflow", "tenant"]
    #: RUN/TASK, run, workflow; empty for the tenant
    scope_id: str
    version: int
    status: Literal["active", "retracted", "erased"]
    value: Any
    #: what it says as plain text
    text: str
    #: estimated, of the text
    tokens: int | None
    subject: str | None
    #: SHA-256 of the value's JSON
    hash: str
    valid_from: str | None
    valid_to: str | None
    expires_at: str | None
    created_at: str
    producer: ProducerOut


class RevisionsOut(Record):
    """`memory history`, all versions, the oldest first; `memory list`, the newest version of each item."""

    revisions: list[RevisionOut]


class HitOut(Record):
    score: float
    #: why it was found
    why: str
    revision: RevisionOut


class HitsOut(Record):
    """`memory search`: the best first."""

    query: str
    hits: list[HitOut]


class LinkOut(Record):
    """`memory link`: `src` is derived from, relates to, contradicts or supersedes `dst`."""

    src: int
    dst: int
    kind: LinkKind


class LinksOut(Record):
    """`memory links`: the edges from and to a revision."""

    revision: int
    links: list[LinkOut]


class CitationOut(Record):
    #: the number in brackets in the text; 0: `step` stands there
    mark: int
    #: the task or item that it comes from
    step: str
    #: null: from something that has no revision
    revision: int | None


class DroppedOut(Record):
    """What was left out, and why."""

    step: str
    revision: int | None
    reason: str
    #: its beginning
    text: str


class ContextOut(Record):
    """`memory context`: what a task would be told of what came before."""

    run_id: str
    task: str
    budget: int
    #: estimated, of the text
    tokens: int
    text: str
    citations: list[CitationOut]
    dropped: list[DroppedOut]


class MemoryForkOut(Record):
    """`memory fork`: the new run sees what the other one sees of its own until then; nothing was copied."""

    run_id: str
    forked_from: str


class MemoryChangeOut(Record):
    """An item that both runs have, with different values."""

    key: str
    left: RevisionOut
    right: RevisionOut


class MemoryDiffOut(Record):
    """`memory diff`: how the items of the right run differ from those of the left one."""

    same: bool
    left: str
    right: str
    added: list[RevisionOut]
    removed: list[RevisionOut]
    changed: list[MemoryChangeOut]


class ForgetPreviewOut(Record):
    """`memory forget --dry-run`: what would go, by kind. Nothing was changed."""

    subject: str
    counts: dict[str, int]


class ReceiptOut(Record):
    """`memory forget`: what an erasure did. It tells nothing of what is gone."""

    receipt: int
    tenant: str
    #: HMAC-SHA-256 of the subject under `salt`
    subject_hash: str
    #: it is kept nowhere else
    salt: str | None
    at: str
    #: rows that went or changed, by table
    counts: dict[str, int]
    #: SQLite: no byte of it is left in the database's files. Null: Postgres, where only rows go
    bytes_cleared: bool | None
    #: what is left to do; empty: nothing
    note: str
    #: runs that lost something, and those of them that were not over and were paused
    runs: list[str]
    paused: list[str]


class CompactedOut(Record):
    run_id: str
    #: the summary
    revision: int
    #: revisions that lost their content
    originals: int


class CompactOut(Record):
    """`memory compact`: the runs that have a summary now."""

    runs: list[CompactedOut]


class CountsOut(Record):
    """`memory sweep`: how much went, by kind."""

    counts: dict[str, int]


class VacuumOut(Record):
    """`memory vacuum`. Null: Postgres, whose own VACUUM FULL does it."""

    bytes_cleared: bool | None


class TransferOut(Record):
    """`memory export`, `memory import`: how many revisions were written, or are new."""

    file: str
    revisions: int
