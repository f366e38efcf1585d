"""The index rows of revisions, written in the transaction that writes them: `search` for people's SQL, `term`
for the index in memory (`index.py`). Vectors follow when the revision is first looked for (`search.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from .content import plain_text
from .hot import run_many
from .retrieval.terms import LONGEST_TEXT, pack
from .sealing import is_sealed


@dataclass(frozen=True, slots=True)
class Indexed:
    """A revision and what is to be found of it."""

    revision_id: int
    text: str


#: the text goes by its tokens alone: FTS5 keeps no copy (`content=''`)
_SEARCH = {
    "sqlite": "INSERT INTO search (rowid, text) VALUES (?, ?)",
    "postgresql": "INSERT INTO search (revision_id, words, tenant) VALUES (?, to_tsvector('english', ?), ?)",
}
#: what Postgres's parser takes for one word, a host or a file: `boiler.maker`
_JOINED = re.compile(r"(?<=[^\W\d])[._/](?=[^\W\d])")
_TERM = "INSERT INTO term (revision_id, tenant, words) VALUES (?, ?, ?)"


def index(connection: Connection, tenant: str, rows: Sequence[Indexed]) -> None:
    """Add revisions to the full-text index; without words, or sealed, one is left out."""
    if is_sealed(connection):
        return
    packed = [(row, pack(row.text)) for row in rows]
    found = [(row.revision_id, plain_text(row.text[:LONGEST_TEXT]), words) for row, words in packed if words]
    sqlite = connection.dialect.name == "sqlite"
    run_many(
        connection,
        _SEARCH[connection.dialect.name],
        [(i, t) if sqlite else (i, _JOINED.sub(" ", t), tenant) for i, t, _ in found],
    )
    run_many(connection, _TERM, [(i, tenant, words) for i, _, words in found])


def unindex(connection: Connection, rows: Sequence[Indexed]) -> None:
    """Take revisions out of the index. `text` must be what was indexed: FTS5 finds its terms by it."""
    ids = [(row.revision_id,) for row in rows]
    if connection.dialect.name == "sqlite":
        indexed = [(r.revision_id, plain_text(r.text[:LONGEST_TEXT])) for r in rows if pack(r.text)]
        run_many(connection, "INSERT INTO search (search, rowid, text) VALUES ('delete', ?, ?)", indexed)
    else:
        run_many(connection, "DELETE FROM search WHERE revision_id = ?", ids)
    run_many(connection, "DELETE FROM term WHERE revision_id = ?", ids)
    run_many(connection, "DELETE FROM embedding WHERE revision_id = ?", ids)
