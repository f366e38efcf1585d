"""What a run's tasks make is remembered as they end: their outputs as artifacts, the facts in them as facts.

Written in the transaction that ends the task, so that nothing finished is unknown to the memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from .content import Encoded, get_many
from .context.facts import extract
from .hot import Row, fetch_all, fetch_one, run_many
from .indexing import Indexed, index, unindex
from .items import NewRevision, Place, Producer, indexed_text, put_many
from .sealing import seal_text
from .texts import has_words, shortened, text_of, token_estimate, type_of

#: facts of one output that are kept as rows; the rest stays in the artifact
MOST_FACTS = 64
#: characters of an output that are read for facts
READ_FOR_FACTS = 16_384


@dataclass(frozen=True, slots=True)
class Artifact:
    """An output of one of the run's own tasks."""

    task: str
    attempt: int
    output: Encoded
    #: tasks whose artifacts it was made from
    derived_from: Sequence[str]
    #: revisions that were in its prompt beside them
    cited: Sequence[int]
    #: whether model calls made it
    by_model: bool


_ITEM = """INSERT INTO item (id, tenant, kind, scope, scope_id, key, created_at)
VALUES (?, ?, 'artifact', 'run', ?, ?, ?) ON CONFLICT DO NOTHING"""
_REVISION = """INSERT INTO revision (tenant, item_id, version, content_blob, value_type, digest, tokens,
status, run_id, task, attempt, call_id, model, prompt_hash, cost_nano, created_at)
SELECT item.tenant, item.id, 1 + COALESCE((SELECT MAX(version) FROM revision WHERE item_id = item.id), 0),
CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT), 'active', CAST(? AS TEXT),
CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT),
CAST(? AS FLOAT) FROM item WHERE tenant = ? AND scope = 'run' AND scope_id = ? AND key = ?"""
NEWEST = """SELECT MAX(revision.id) AS id FROM item JOIN revision ON revision.item_id = item.id
WHERE item.tenant = ? AND item.scope = 'run' AND item.scope_id = ? AND item.key = ?{bound}"""
_LINK = f"""INSERT INTO link (src, dst, kind, tenant, created_at)
SELECT src.id, dst.id, 'derived_from', CAST(? AS TEXT), CAST(? AS FLOAT)
FROM ({NEWEST.format(bound="")}) AS src, ({NEWEST.format(bound=" AND revision.id <= ?")}) AS dst
WHERE src.id IS NOT NULL AND dst.id IS NOT NULL ON CONFLICT DO NOTHING"""
#: the call whose answer the output is, and what all calls of the attempt cost
_CALL = """SELECT id, model, request_hash, (SELECT SUM(cost_nano) FROM call AS paid
WHERE paid.run_id = call.run_id AND paid.task = call.task AND paid.attempt = call.attempt) FROM call
WHERE run_id = ? AND task = ? AND attempt = ? AND status = 'settled' ORDER BY step DESC LIMIT 1"""
_BRANCH = "SELECT parent, revision_id FROM branch WHERE run_id = ? AND tenant = ?"
#: a cited revision may have been erased meanwhile
_CITE = f"""INSERT INTO link (src, dst, kind, tenant, created_at)
SELECT src.id, revision.id, 'derived_from', CAST(? AS TEXT), CAST(? AS FLOAT)
FROM ({NEWEST.format(bound="")}) AS src, revision WHERE revision.id = ? AND revision.tenant = ?
AND src.id IS NOT NULL ON CONFLICT DO NOTHING"""
_LAST = 2**62
_OF_RUN = (
    "tenant = ? AND ((scope = 'run' AND scope_id = ?) OR (scope = 'task' AND substr(scope_id, 1, ?) = ?))"
)
_KEPT = f"""SELECT revision.id, item.kind, item.key, revision.text, revision.content_blob FROM revision
JOIN item ON item.id = revision.item_id JOIN term ON term.revision_id = revision.id
WHERE item.id IN (SELECT id FROM item WHERE {_OF_RUN})"""
_DROP_ITEMS = f"DELETE FROM item WHERE {_OF_RUN}"


def chain(connection: Connection, tenant: str, run_id: str) -> list[tuple[str, int]]:
    """The run and those it was forked from, nearest first, each with the newest revision that it sees."""
    found, bound = [(run_id, _LAST)], _LAST
    while (row := fetch_one(connection, _BRANCH, (found[-1][0], tenant))) is not None:
        bound = min(bound, int(row[1]))
        found.append((str(row[0]), bound))
    return found


def remember(connection: Connection, tenant: str, run: str, made: Sequence[Artifact], now: float) -> None:
    """Keep the outputs as revisions, linked to what they were made from, findable by their words."""
    if not made:
        return
    run_many(connection, _ITEM, [(f"{run}/{a.task}", tenant, run, a.task, now) for a in made])
    wordy = {a.task: json.loads(a.output.data) for a in made if has_words(a.output.data)}
    texts = {task: text_of(value) for task, value in wordy.items()}
    rows = [_row(connection, tenant, run, a, texts.get(a.task, ""), now) for a in made]
    run_many(connection, _REVISION, rows)
    _link(connection, tenant, run, made, now)
    cited = [(tenant, now, tenant, run, a.task, c, tenant) for a in made for c in a.cited]
    run_many(connection, _CITE, cited)
    for artifact in made:
        if artifact.task in wordy:
            _index(connection, tenant, run, artifact, wordy[artifact.task], texts[artifact.task])


def _row(connection: Connection, tenant: str, run: str, made: Artifact, said: str, now: float) -> Row:
    call: Any = (None, None, None, None)
    if made.by_model:
        call = fetch_one(connection, _CALL, (run, made.task, made.attempt)) or call
    kind, tokens = type_of(made.output.data), token_estimate(said) if said else None
    about = (made.output.hash, kind, seal_text(connection, shortened(said)), tokens)
    cost = None if call[3] is None else int(call[3])
    return (*about, run, made.task, made.attempt, *call[:3], cost, now, tenant, run, made.task)


def _link(connection: Connection, tenant: str, run: str, made: Sequence[Artifact], now: float) -> None:
    if not any(a.derived_from for a in made):
        return
    seen = chain(connection, tenant, run)
    pairs = [(a.task, source) for a in made for source in a.derived_from]
    if len(seen) > 1:
        links = [nearest(connection, tenant, seen, source) for _, source in pairs]
    else:
        links = [seen[0]] * len(pairs)
    rows = [
        (tenant, now, tenant, run, task, tenant, where, source, bound)
        for (task, source), (where, bound) in zip(pairs, links, strict=True)
    ]
    run_many(connection, _LINK, rows)


def nearest(
    connection: Connection, tenant: str, seen: Sequence[tuple[str, int]], source: str
) -> tuple[str, int]:
    """Which run of a fork's chain holds a task's artifact."""
    for where, bound in seen:
        row = fetch_one(
            connection, NEWEST.format(bound=" AND revision.id <= ?"), (tenant, where, source, bound)
        )
        if row is not None and row[0] is not None:
            return where, bound
    return seen[0]


def _index(connection: Connection, tenant: str, run: str, made: Artifact, value: Any, said: str) -> None:
    """Make an artifact findable, and keep its facts as rows of their own."""
    row = fetch_one(connection, NEWEST.format(bound=""), (tenant, run, made.task))
    assert row is not None  # it was written just before
    revision_id = int(row[0])
    index(connection, tenant, [Indexed(revision_id, said)])
    by = Producer(run, made.task, made.attempt)
    facts = [f for f in extract(value, said[:READ_FOR_FACTS]) if f.durable][:MOST_FACTS]
    put_many(
        connection,
        [
            NewRevision(
                Place(tenant, "run", run, f"{made.task}.{f.key}"),
                "fact",
                f.value,
                by,
                derived_from=[revision_id],
            )
            for f in facts
        ],
    )


def drop_memory(connection: Connection, tenant: str, run_id: str) -> None:
    """Let go of what a run that is gone remembered; what a fork of it still sees stays until that is gone."""
    for one in [run for run, _ in chain(connection, tenant, run_id)]:
        kept = fetch_one(
            connection,
            "SELECT 1 FROM run WHERE id = ? UNION ALL SELECT 1 FROM branch WHERE parent = ?",
            (one, one),
        )
        if kept is not None:
            return
        where = (tenant, one, len(one) + 1, f"{one}/")
        rows = fetch_all(connection, _KEPT, where)
        blobs = get_many(connection, tenant, [blob for *_, blob in rows])
        unindex(
            connection,
            [
                Indexed(i, indexed_text(kind, key, text_of(blobs[blob]) if said is None else said))
                for i, kind, key, said, blob in rows
            ],
        )
        run_many(connection, _DROP_ITEMS, [where])
        run_many(connection, "DELETE FROM branch WHERE run_id = ?", [(one,)])
