"""alembic's entry: runs on the connection that `Database.upgrade` hands over, in its transaction."""

from alembic import context
from podium.memory.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7263541)")
    context.run_migrations()
