"""Task memory: what a revision is and who made it, full text, terms, forks by reference, erasures.

Every new column may be NULL, so that the code of schema 0002 goes on writing on this one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

REVISION = {
    "value_type": sa.String(),
    "text": sa.Text(),
    "digest": sa.Text(),
    "tokens": sa.BigInteger(),
    "valid_from": sa.Float(),
    "valid_to": sa.Float(),
    "call_id": sa.String(),
    "model": sa.String(),
    "prompt_hash": sa.String(),
    "cost_nano": sa.BigInteger(),
}


def upgrade() -> None:
    for name, kind in REVISION.items():
        op.add_column("revision", sa.Column(name, kind, nullable=True))
    op.add_column("item", sa.Column("subject", sa.String(), nullable=True))
    op.add_column("item", sa.Column("expires_at", sa.Float(), nullable=True))
    op.create_index(op.f("ix_item_tenant_subject"), "item", ["tenant", "subject"])
    op.create_index(op.f("ix_item_expires_at"), "item", ["expires_at"])
    sqlite = op.get_bind().dialect.name == "sqlite"
    _create_tables(sqlite)
    if sqlite:
        op.execute("CREATE VIRTUAL TABLE search USING fts5(text, content='', tokenize='porter unicode61')")
    else:
        op.execute(
            "CREATE TABLE search (revision_id BIGINT CONSTRAINT pk_search PRIMARY KEY"
            " CONSTRAINT fk_search_revision_id_revision REFERENCES revision (id) ON DELETE CASCADE,"
            " tenant VARCHAR NOT NULL, words TSVECTOR NOT NULL)"
        )
        op.execute("CREATE INDEX ix_search_words ON search USING gin (words)")


def _create_tables(sqlite: bool) -> None:
    op.create_table(
        "term",
        sa.Column("revision_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("words", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_term_revision_id_revision"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("revision_id", name=op.f("pk_term")),
    )
    op.create_table(
        "branch",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("revision_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_branch")),
    )
    op.create_table(
        "erasure",
        sa.Column("id", sa.Integer() if sqlite else sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("subject_hash", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure")),
    )
    op.create_index(op.f("ix_erasure_tenant_at"), "erasure", ["tenant", "at"])
