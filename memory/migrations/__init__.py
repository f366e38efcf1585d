"""The one alembic tree for both dialects; `podium db upgrade` runs it."""
