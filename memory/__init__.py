"""The only truth: schema, database, journal, ledger, event chain, runs and task memory.

Main path: `database.Database` opens SQLite or Postgres → `journal.Journal` groups writes into transactions →
`run_writes` / `task_writes` / `call_writes` are what an engine commits → `run_reads` is what people see.
SQLAlchemy and alembic are used in this room only.
"""
