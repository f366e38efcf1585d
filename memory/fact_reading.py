"""Outputs in plain words that a model is to read for facts, and the facts that it found in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, String, and_, cast, exists, literal, not_, or_, select
from sqlalchemy.orm import aliased

from .items import NewRevision, Place, link, put_many, records, revisions
from .runs import ENDED
from .tables import Item, Link, Revision, Run

#: the workflow whose runs read, and the key of what they answer
READER, ANSWER = "memory-facts", "facts"
#: tokens of a text that is worth a model's call
LEAST_TOKENS = 12
#: characters of a text that are read
LONGEST = 12_000
#: facts of one text, characters of a fact's name
MOST, LONGEST_NAME = 64, 60


@dataclass(frozen=True, slots=True)
class Unread:
    """The text output of a task of a run that is over."""

    revision: int
    run_id: str
    task: str
    text: str

    @property
    def key(self) -> str:
        """The idempotency key of the run that reads it: each text is paid for once."""
        return f"{READER}:{self.revision}"


def unread(connection: Connection, tenant: str, most: int) -> list[Unread]:
    """Text outputs that no model has read, the oldest first; not those whose reading failed."""
    ran, reader, answer = aliased(Run), aliased(Run), aliased(Revision)
    failed = exists().where(
        reader.tenant == tenant,
        reader.idempotency_key == literal(f"{READER}:") + cast(Revision.id, String),
        reader.status.in_([status for status in ENDED if status != "succeeded"]),
    )
    done = exists().where(
        Link.dst == Revision.id,
        Link.src == answer.id,
        Link.kind == "derived_from",
        answer.run_id == reader.id,
        reader.workflow == READER,
    )
    newer = aliased(Revision)
    query = (
        revisions()
        .join(ran, and_(ran.id == Item.scope_id, ran.tenant == tenant))
        .where(
            Revision.tenant == tenant,
            Item.kind == "artifact",
            Item.scope == "run",
            Revision.status == "active",
            Revision.value_type == "text",
            Revision.tokens >= LEAST_TOKENS,
            ran.status.in_(ENDED),
            not_(or_(ran.workflow == READER, ran.workflow == "memory-digest")),
            not_(failed),
            not_(done),
            not_(exists().where(newer.item_id == Revision.item_id, newer.version > Revision.version)),
        )
        .order_by(Revision.id)
        .limit(most)
    )
    return [
        Unread(one.id, one.scope_id, one.key, str(one.value)[:LONGEST])
        for one in records(connection, tenant, query)
    ]


def keep(connection: Connection, tenant: str, source: Unread, reader: str, said: Mapping[str, str]) -> int:
    """Store what a run of `READER` said of a text, derived from both; returns how many facts that were.

    Only what the text says in these words is kept, and no fact that is there already is said anew.
    """
    answers = revisions().where(
        Revision.tenant == tenant, Item.scope == "run", Item.scope_id == reader, Item.key == ANSWER
    )
    answer = max(records(connection, tenant, answers), key=lambda one: one.id)
    text = " ".join(source.text.lower().split())
    named = {_name(name): value.strip() for name, value in said.items()}
    found = {f"{source.task}.{name}": value for name, value in named.items() if name and value}
    there = select(Item.key).where(
        Item.tenant == tenant,
        Item.scope == "run",
        Item.scope_id == source.run_id,
        Item.key.in_(list(found)),
    )
    known = set(connection.execute(there).scalars())
    new = [
        NewRevision(
            Place(tenant, "run", source.run_id, key),
            "fact",
            value,
            answer.producer,
            derived_from=(source.revision, answer.id),
        )
        for key, value in found.items()
        if key not in known and " ".join(value.lower().split()) in text
    ][:MOST]
    put_many(connection, new)
    link(connection, tenant, answer.id, source.revision, "derived_from")
    return len(new)


def _name(name: str) -> str:
    """`Name of the owner` → `name_of_the_owner`."""
    return re.sub(r"[^\w]+", "_", name.strip().lower()).strip("_")[:LONGEST_NAME]
