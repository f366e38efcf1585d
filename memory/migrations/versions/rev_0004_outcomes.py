"""The router: what was found of an answer, how good answers were, what was learned from them.

The new column may be NULL, so that the code of schema 0003 goes on writing on this one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("call", sa.Column("review", sa.JSON(), nullable=True))
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "outcome",
        sa.Column("id", sa.Integer() if sqlite else sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("void", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("origin", sa.String(), nullable=True),
        sa.Column("task", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("prompt_blob", sa.String(), nullable=True),
        sa.Column("answer_blob", sa.String(), nullable=True),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("total_s", sa.Float(), nullable=True),
        sa.CheckConstraint("score >= 0 AND score <= 1", name=op.f("ck_outcome_score")),
        sa.ForeignKeyConstraint(
            ["call_id"], ["call.id"], name=op.f("fk_outcome_call_id_call"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcome")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outcome_tenant_id"), "outcome", ["tenant", "id"])
    op.create_index(op.f("ix_outcome_call_id"), "outcome", ["call_id"])
    op.create_table(
        "router_state",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("upto", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "version", name=op.f("pk_router_state")),
    )
