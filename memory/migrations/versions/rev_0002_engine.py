"""The durable engine: budgets in tokens and inside a run, rates, cache, engines, schedules, forks.

On SQLite the hot tables become clustered (WITHOUT ROWID): one tree to write instead of two.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

CLUSTERED = ("task", "attempt", "edge", "event")
RUN_TOKENS = (
    "reserved_tokens >= 0 AND settled_tokens >= 0"
    " AND (budget_tokens IS NULL OR reserved_tokens + settled_tokens <= budget_tokens)"
)
BUDGET_TOKENS = RUN_TOKENS.replace("budget_tokens", "limit_tokens")
BUDGET_MONEY = (
    "reserved_nano >= 0 AND settled_nano >= 0"
    " AND (limit_nano IS NULL OR reserved_nano + settled_nano <= limit_nano)"
)


def _count(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def upgrade() -> None:
    # an open attempt is the task's own row from now on
    op.execute("DELETE FROM attempt WHERE status = 'running'")
    _alter_run()
    sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("task", recreate="never") as task:
        task.add_column(_count("deaths"))
        task.add_column(sa.Column("plan_blob", sa.String(), nullable=True))
    with op.batch_alter_table("call", recreate="never") as call:
        call.add_column(_count("reserved_tokens"))
    op.create_index(op.f("ix_call_status_model"), "call", ["status", "model"])
    if sqlite:
        for table in CLUSTERED:
            # nothing refers to these tables, so that dropping the old one deletes nothing else
            with op.batch_alter_table(
                table, recreate="always", table_kwargs={"sqlite_with_rowid": False}
            ) as batch:
                del batch
    _create_tables()


def _alter_run() -> None:
    columns = [
        sa.Column("budget_tokens", sa.BigInteger(), nullable=True),
        _count("reserved_tokens"),
        sa.Column("budget_seconds", sa.Float(), nullable=True),
        sa.Column("used_seconds", sa.Float(), nullable=False, server_default="0"),
        sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("forked_from", sa.String(), nullable=True),
        sa.Column("forked_seq", sa.BigInteger(), nullable=True),
        sa.Column("schedule_id", sa.String(), nullable=True),
    ]
    for column in columns:
        op.add_column("run", column)
    if op.get_bind().dialect.name == "sqlite":
        # SQLite takes a constraint only with a new column; a rebuilt table would cascade to all runs
        op.execute(
            "ALTER TABLE run ADD COLUMN settled_tokens BIGINT NOT NULL DEFAULT 0"
            f" CONSTRAINT ck_run_tokens CHECK ({RUN_TOKENS})"
        )
    else:
        op.add_column("run", _count("settled_tokens"))
        op.create_check_constraint(op.f("ck_run_tokens"), "run", RUN_TOKENS)


def _create_tables() -> None:
    op.create_table(
        "budget",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=True),
        sa.Column("reserved_nano", sa.BigInteger(), nullable=False),
        sa.Column("settled_nano", sa.BigInteger(), nullable=False),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reserved_tokens", sa.BigInteger(), nullable=False),
        sa.Column("settled_tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(BUDGET_MONEY, name=op.f("ck_budget_money")),
        sa.CheckConstraint(BUDGET_TOKENS, name=op.f("ck_budget_tokens")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_budget_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "scope", name=op.f("pk_budget")),
    )
    op.create_table(
        "rate",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate")),
    )
    op.create_table(
        "cache",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("output_blob", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("pk_cache")),
    )
    op.create_table(
        "engine",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_engine")),
    )
    op.create_table(
        "schedule",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("spec_blob", sa.String(), nullable=False),
        sa.Column("inputs_blob", sa.String(), nullable=False),
        sa.Column("project_root", sa.String(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.Column("every_s", sa.Float(), nullable=True),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("fired", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
    )
    op.create_index(op.f("ix_schedule_next_at"), "schedule", ["next_at"])
