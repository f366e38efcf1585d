"""From the task memory's nouns to the records that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...memory.money import format_usd
from .common import iso
from .memory_records import (
    CitationOut,
    ContextOut,
    DroppedOut,
    HitOut,
    HitsOut,
    LinkOut,
    LinksOut,
    MemoryChangeOut,
    MemoryDiffOut,
    ProducerOut,
    ReceiptOut,
    RevisionOut,
    RevisionsOut,
)

if TYPE_CHECKING:
    from ...memory.branches import Difference
    from ...memory.context.assembly import Context
    from ...memory.items import Producer, RevisionRecord
    from ...memory.lifecycle.erasure import Receipt
    from ...memory.retrieval.search import Hit
    from ...memory.store import LinkRecord


def revision_out(found: RevisionRecord) -> RevisionOut:
    same = (
        "key", "kind", "scope", "scope_id", "version", "status", "value", "text", "tokens", "subject", "hash",
    )  # fmt: skip
    return RevisionOut(
        **{name: getattr(found, name) for name in same},
        revision=found.id,
        valid_from=iso(found.valid_from),
        valid_to=iso(found.valid_to),
        expires_at=iso(found.expires_at),
        created_at=iso(found.created_at) or "",
        producer=_producer_out(found.producer),
    )


def _producer_out(by: Producer) -> ProducerOut:
    same = ("run_id", "task", "attempt", "call_id", "model", "prompt_hash")
    cost = None if by.cost_nano is None else format_usd(by.cost_nano)
    return ProducerOut(**{name: getattr(by, name) for name in same}, cost_usd=cost)


def revisions_out(found: Iterable[RevisionRecord]) -> RevisionsOut:
    return RevisionsOut(revisions=[revision_out(one) for one in found])


def hits_out(query: str, found: Iterable[Hit]) -> HitsOut:
    hits = [HitOut(score=hit.score, why=hit.why, revision=revision_out(hit.revision)) for hit in found]
    return HitsOut(query=query, hits=hits)


def links_out(revision: int, found: Iterable[LinkRecord]) -> LinksOut:
    links = [LinkOut(src=one.src, dst=one.dst, kind=one.kind) for one in found]
    return LinksOut(revision=revision, links=links)


def context_out(run_id: str, task: str, budget: int, tokens: int, found: Context) -> ContextOut:
    return ContextOut(
        run_id=run_id,
        task=task,
        budget=budget,
        tokens=tokens,
        text=found.text,
        citations=[
            CitationOut(mark=c.mark, step=c.step, revision=c.revision) for c in dict.fromkeys(found.citations)
        ],
        dropped=[
            DroppedOut(step=d.step, revision=d.revision, reason=d.reason, text=d.text) for d in found.dropped
        ],
    )


def memory_diff_out(left: str, right: str, found: Difference) -> MemoryDiffOut:
    return MemoryDiffOut(
        same=not found,
        left=left,
        right=right,
        added=[revision_out(one) for one in found.added.values()],
        removed=[revision_out(one) for one in found.removed.values()],
        changed=[
            MemoryChangeOut(key=new.key, left=revision_out(old), right=revision_out(new))
            for old, new in found.changed.values()
        ],
    )


def receipt_out(receipt: Receipt) -> ReceiptOut:
    same = ("tenant", "subject_hash", "salt", "counts", "bytes_cleared", "note")
    return ReceiptOut(
        **{name: getattr(receipt, name) for name in same},
        receipt=receipt.id,
        at=iso(receipt.at) or "",
        runs=list(receipt.runs),
        paused=list(receipt.paused),
    )
