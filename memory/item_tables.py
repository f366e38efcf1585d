"""The schema of task memory: items, their append-only revisions, links, vectors, terms, forks, erasures.

Beside these tables stands `search`, the full-text index: FTS5 on SQLite (its rowid is the revision's id), a
table with a tsvector on Postgres. See `indexing.py`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .table_base import Base, Sequence64


class Item(Base):
    """Something remembered: a fact, note, artifact or summary. Its content is in its Revisions."""

    __tablename__ = "item"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    #: fact | note | artifact | summary
    kind: Mapped[str]
    #: task | run | workflow | tenant: who sees it
    scope: Mapped[str]
    #: id of the scope: `RUN/TASK`, run id, workflow name, ''
    scope_id: Mapped[str]
    key: Mapped[str]
    #: whom or what it is about; `forget` erases by it
    subject: Mapped[str | None]
    #: seconds, UTC; a sweep erases it after that. None: it stays
    expires_at: Mapped[float | None]
    created_at: Mapped[float]

    __table_args__ = (
        UniqueConstraint("tenant", "scope", "scope_id", "key"),
        Index(None, "tenant", "subject"),
        Index(None, "expires_at"),
    )


class Revision(Base):
    """A version of an Item, append-only: the newest one supersedes the others."""

    __tablename__ = "revision"

    id: Mapped[int] = mapped_column(Sequence64, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    item_id: Mapped[str]
    version: Mapped[int]
    #: SHA-256 of the value's JSON, and the key of its blob
    content_blob: Mapped[str]
    #: text | number | boolean | null | list | object
    value_type: Mapped[str | None]
    #: the value as plain text; None for artifacts, whose text is their value's
    text: Mapped[str | None] = mapped_column(Text)
    #: at most 240 characters of it
    digest: Mapped[str | None] = mapped_column(Text)
    #: estimated, of the text
    tokens: Mapped[int | None]
    #: active | retracted | erased
    status: Mapped[str]
    #: seconds, UTC: when it holds in the world; None: from when it was said, without end
    valid_from: Mapped[float | None]
    valid_to: Mapped[float | None]
    #: who made it: task, attempt and call of a run, model and prompt; all None: a person
    run_id: Mapped[str | None]
    task: Mapped[str | None]
    attempt: Mapped[int | None]
    call_id: Mapped[str | None]
    model: Mapped[str | None]
    #: SHA-256 of the request that it answers
    prompt_hash: Mapped[str | None]
    cost_nano: Mapped[int | None]
    created_at: Mapped[float]

    __table_args__ = (
        ForeignKeyConstraint(["item_id"], ["item.id"], ondelete="CASCADE"),
        UniqueConstraint("item_id", "version"),
        Index(None, "run_id", "task"),
    )


class Link(Base):
    """A typed edge between two Revisions: derived_from, relates, contradicts, supersedes."""

    __tablename__ = "link"

    src: Mapped[int] = mapped_column(primary_key=True)
    dst: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    created_at: Mapped[float]

    __table_args__ = (
        ForeignKeyConstraint(["src"], ["revision.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["dst"], ["revision.id"], ondelete="CASCADE"),
        Index(None, "dst"),
    )


class Embedding(Base):
    """A Revision's vector: little-endian float32."""

    __tablename__ = "embedding"

    revision_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    dimensions: Mapped[int]
    vector: Mapped[bytes]

    __table_args__ = (ForeignKeyConstraint(["revision_id"], ["revision.id"], ondelete="CASCADE"),)


class Term(Base):
    """A Revision's words and how often it says them (`terms.pack`), from which the index is built."""

    __tablename__ = "term"

    revision_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant: Mapped[str]
    words: Mapped[bytes]

    __table_args__ = (ForeignKeyConstraint(["revision_id"], ["revision.id"], ondelete="CASCADE"),)


class Branch(Base):
    """A run that was forked from another one sees that one's items up to a revision."""

    __tablename__ = "branch"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    parent: Mapped[str]
    #: the newest revision of the parent's that it sees
    revision_id: Mapped[int]


class Erasure(Base):
    """What was forgotten: a keyed hash of whom, and how much went. The content is gone."""

    __tablename__ = "erasure"

    id: Mapped[int] = mapped_column(Sequence64, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    #: HMAC-SHA-256 of the subject under the tenant's key
    subject_hash: Mapped[str]
    at: Mapped[float]
    #: how many rows went, by table
    counts: Mapped[dict[str, Any]]

    __table_args__ = (Index(None, "tenant", "at"),)
