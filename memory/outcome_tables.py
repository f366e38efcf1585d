"""The schema of what the router learns from: how good answers were, and what was learned from that."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from .table_base import Base, Sequence64


class Outcome(Base):
    """How good an answer was, by somebody or something. Append-only; of a Call, or of a row given as data.

    An id is never given twice, so that `id > upto` is what came after a state was learned.
    """

    __tablename__ = "outcome"

    id: Mapped[int] = mapped_column(Sequence64, primary_key=True, autoincrement=True)
    tenant: Mapped[str]
    #: None: the columns after `at` say what was asked and answered
    call_id: Mapped[str | None]
    #: feedback | check | judge | failure | import | profile
    source: Mapped[str]
    #: 0 (useless) … 1 (right)
    score: Mapped[float]
    note: Mapped[str | None] = mapped_column(Text)
    #: set aside: by a later import of the same origin, or by a rollback
    void: Mapped[bool] = mapped_column(default=False)
    at: Mapped[float]
    #: where the row came from, e.g. a file's name
    origin: Mapped[str | None]
    task: Mapped[str | None]
    model: Mapped[str | None]
    prompt_blob: Mapped[str | None]
    answer_blob: Mapped[str | None]
    cost_usd: Mapped[float | None]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    #: seconds
    total_s: Mapped[float | None]

    __table_args__ = (
        ForeignKeyConstraint(["call_id"], ["call.id"], ondelete="CASCADE"),
        CheckConstraint("score >= 0 AND score <= 1", name="score"),
        Index(None, "tenant", "id"),
        Index(None, "call_id"),
        {"sqlite_autoincrement": True},
    )


class RouterState(Base):
    """What the router has learned, version by version."""

    __tablename__ = "router_state"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    #: as the router packs it; empty: erased
    state: Mapped[bytes]
    #: the last Outcome that it has read
    upto: Mapped[int]
    #: how many examples it was learned from
    rows: Mapped[int]
    note: Mapped[str]
    #: one of a tenant's is in use
    active: Mapped[bool]
    created_at: Mapped[float]
