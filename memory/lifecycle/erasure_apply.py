"""Puts tombstones in the place of what is to go, and gives free what nothing refers to any more.

Rows stay: a run that lost its outputs can still be shown, and says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from ..content import Encoded, get, get_many, put_encoded
from ..indexing import Indexed, index, unindex
from ..items import indexed_text, records, revisions
from ..tables import (
    Blob,
    Cache,
    Call,
    Effect,
    Embedding,
    Item,
    Outcome,
    Revision,
    Run,
    Schedule,
    Task,
    Term,
)
from .erasure_scan import pages
from .erasure_trace import MANY, Trace
from .erasure_words import LEAST_EXCERPT, Words, fields_erased, is_prose, is_tombstone, redacted

#: columns whose content goes as a whole, and what its tombstone has besides, for those who read it
WHOLE: Mapping[Any, Mapping[str, Any]] = {
    Task.output_blob: {},
    Call.request_blob: {
        "messages": [],
        "schema": None,
        "max_tokens": None,
        "temperature": 0.0,
        "model": None,
    },
    Call.response_blob: {"text": ""},
    Effect.arguments_blob: {},
    Effect.result_blob: {},
    Outcome.prompt_blob: {"text": ""},
    Outcome.answer_blob: {"text": ""},
}
#: columns with an object of named values, of which those go that are hit
FIELDS = (Run.inputs_blob, Run.outputs_blob, Task.inputs_blob, Schedule.inputs_blob)
#: columns with a workflow, which must stay one: only its texts go
SPECS = (Run.spec_blob, Task.plan_blob, Schedule.spec_blob)
#: every column that refers to content (`control` has the same list; a test compares them)
COLUMNS = (*WHOLE, *FIELDS, *SPECS, Revision.content_blob, Cache.output_blob)
#: what stands for the hash of a request that is gone: a hash of it would confirm a guess
NO_HASH = "erased"


class Apply:
    """One erasure's writes, in the transaction of `connection`, whose other writers of contents wait."""

    def __init__(self, connection: Connection, tenant: str, stone: Mapping[str, Any]) -> None:
        """`stone`: the tombstone (`erasure_words.tombstone`)."""
        self._connection, self._tenant, self._stone = connection, tenant, dict(stone)
        #: rows that went or changed, by table
        self.counts: Counter[str] = Counter()
        #: hashes of contents that lost a reference
        self.freed: set[str] = set()
        self._stones: set[str] = set()

    def put(self, extra: Mapping[str, Any] | None = None) -> str:
        """The hash of a tombstone with further fields. `free` deletes one that nothing came to need."""
        digest = self._store({**self._stone, **(extra or {})})
        self._stones.add(digest)
        return digest

    def _store(self, value: Any) -> str:
        encoded = Encoded.of(value)
        put_encoded(self._connection, self._tenant, [encoded])
        return encoded.hash

    # -- revisions

    def revisions(self, numbers: Collection[int]) -> None:
        """Take revisions out of every index, and their content, text and digest away."""
        self.hide(numbers)
        self.bury(numbers)

    def hide(self, numbers: Collection[int]) -> None:
        """Take revisions out of view and out of every index. Their content stays until they are buried."""
        for some in pages(sorted(numbers)):
            self.unindex(some)
            values = {
                "status": "erased", "text": None, "digest": None, "tokens": None, "valid_from": None,
                "valid_to": None, "prompt_hash": None, "value_type": func.coalesce(Revision.value_type, ""),
            }  # fmt: skip
            mine = (Revision.tenant == self._tenant, Revision.id.in_(some), Revision.status != "erased")
            self.counts["revision"] += self._connection.execute(
                update(Revision).where(*mine).values(values)
            ).rowcount

    def bury(self, numbers: Collection[int]) -> None:
        """Take the content of hidden revisions away. Without a type of value a revision is buried."""
        stone = self.put()
        for some in pages(sorted(numbers)):
            mine = (Revision.tenant == self._tenant, Revision.id.in_(some), Revision.content_blob != stone)
            query = select(Revision.content_blob).where(*mine)
            self.freed |= set(self._connection.execute(query).scalars())
            values = {"content_blob": stone, "value_type": None}
            self._connection.execute(update(Revision).where(*mine).values(values))

    def unindex(self, numbers: Collection[int]) -> None:
        """Take revisions out of `search`, `term` and `embedding`."""
        vectors = delete(Embedding).where(
            Embedding.tenant == self._tenant, Embedding.revision_id.in_(numbers)
        )
        self.counts["embedding"] += self._connection.execute(vectors).rowcount
        indexed = self._ids(Term.revision_id, numbers)
        found = records(self._connection, self._tenant, revisions().where(Revision.id.in_(indexed)))
        unindex(self._connection, [Indexed(r.id, indexed_text(r.kind, r.key, r.text)) for r in found])
        self.counts["term"] += len(found)

    def _ids(self, column: Any, numbers: Collection[int]) -> list[int]:
        return list(self._connection.execute(select(column).where(column.in_(numbers))).scalars())

    def items(self, numbers: Collection[int], hit: Callable[[str], bool]) -> None:
        """Items of erased revisions lose a key that is hit; artifacts keep theirs, their task's name."""
        query = select(Item.id, Item.key).distinct().join(Revision, Revision.item_id == Item.id)
        for some in pages(sorted(numbers)):
            mine = query.where(Item.tenant == self._tenant, Revision.id.in_(some), Item.kind != "artifact")
            for item, key in self._connection.execute(mine).all():
                if hit(key):
                    self._rename(item, f"erased/{item}")

    def _rename(self, item: str, key: str) -> None:
        """The key is part of what is indexed, so that versions that stay are indexed anew."""
        of_item = self._connection.execute(select(Revision.id).where(Revision.item_id == item)).scalars()
        indexed = self._ids(Term.revision_id, of_item.all())
        found = records(self._connection, self._tenant, revisions().where(Revision.id.in_(indexed)))
        unindex(self._connection, [Indexed(r.id, indexed_text(r.kind, r.key, r.text)) for r in found])
        self._connection.execute(update(Item).where(Item.id == item).values(key=key))
        rows = [Indexed(r.id, indexed_text(r.kind, key, r.text)) for r in found]
        index(self._connection, self._tenant, rows)

    def forget_subject(self, items: Collection[str]) -> None:
        """Items no longer say whom they are about."""
        for some in pages(sorted(items)):
            values = {"subject": None, "expires_at": None}
            self._connection.execute(update(Item).where(Item.id.in_(some)).values(values))
            self.counts["item"] += len(some)

    # -- runs

    def contents(self, trace: Trace) -> None:
        """Everything that refers to contents that show it, in whatever table."""
        hits = trace.scan.blobs | trace.copies
        for column in WHOLE:
            for some in pages(sorted(hits)):
                self._replace(column, column.in_(some))
        for column in (*FIELDS, *SPECS):
            for digest in self._referred(column, trace.scan.blobs):
                self._reshape(column, digest, trace.scan.shows)
        for some in pages(sorted(hits)):
            self._drop_cache(Cache.output_blob.in_(some))
        self.freed |= trace.scan.blobs

    def _referred(self, column: Any, digests: Collection[str]) -> list[str]:
        found: set[str] = set()
        for some in pages(sorted(digests)):
            query = select(column).where(column.class_.tenant == self._tenant, column.in_(some)).distinct()
            found |= set(self._connection.execute(query).scalars())
        return sorted(found)

    def _replace(self, column: Any, *where: Any) -> None:
        """A tombstone for the content of some rows."""
        table, stone = column.class_, self.put(WHOLE[column])
        mine = (table.tenant == self._tenant, column.is_not(None), column != stone, *where)
        self.freed |= set(self._connection.execute(select(column).where(*mine).distinct()).scalars())
        values = {column.key: stone} | ({"request_hash": NO_HASH} if column is Call.request_blob else {})
        self.counts[table.__tablename__] += self._connection.execute(
            update(table).where(*mine).values(values)
        ).rowcount

    def _reshape(self, column: Any, digest: str, hit: Callable[[str], bool], *where: Any) -> None:
        """The content of some rows without what is hit."""
        value = get(self._connection, self._tenant, digest)
        if column in SPECS:
            value = redacted(value, hit, keys=False)
        else:
            value = fields_erased(value, lambda name, inner: hit(json.dumps({name: inner})), self._stone)
        table, new = column.class_, self._store(value)
        if new == digest:
            return
        self.freed.add(digest)
        mine = update(table).where(table.tenant == self._tenant, column == digest, *where)
        self.counts[table.__tablename__] += self._connection.execute(mine.values({column.key: new})).rowcount

    def _drop_cache(self, *where: Any) -> None:
        mine = (Cache.tenant == self._tenant, *where)
        self.freed |= set(self._connection.execute(select(Cache.output_blob).where(*mine)).scalars())
        self.counts["cache"] += self._connection.execute(delete(Cache).where(*mine)).rowcount

    def tasks(self, run: str, tasks: Mapping[str, bool]) -> Words:
        """What derived tasks of a run got, said and made; returns the words of it, as a run repeats them."""
        made = self._outputs(run, tasks)
        for some in pages(sorted(tasks)):
            self._replace(Task.output_blob, Task.run_id == run, Task.name.in_(some))
            self._drop_cache(Cache.run_id == run, Cache.task.in_(some))
        for some in pages(sorted(name for name, whole in tasks.items() if whole)):
            for column in (Call.request_blob, Call.response_blob):
                self._replace(column, Call.run_id == run, Call.task.in_(some))
            for column in (Effect.arguments_blob, Effect.result_blob):
                self._replace(column, Effect.run_id == run, Effect.task.in_(some))
            mine = (Task.run_id == run, Task.name.in_(some))
            for column, hit in ((Task.inputs_blob, lambda _: True), (Task.plan_blob, is_prose)):
                found = set(self._connection.execute(select(column).where(*mine)).scalars())
                for digest in sorted(digest for digest in found if digest is not None):
                    self._reshape(column, digest, hit, *mine)
        return made

    def _outputs(self, run: str, tasks: Mapping[str, bool]) -> Words:
        found: set[str] = set()
        for some in pages(sorted(tasks)):
            query = select(Task.output_blob).where(Task.run_id == run, Task.name.in_(some))
            found |= {digest for digest in self._connection.execute(query).scalars() if digest is not None}
        values = get_many(self._connection, self._tenant, found).values()
        return Words.of_values((v for v in values if not is_tombstone(v)), least=LEAST_EXCERPT)

    def outputs(self, run: str, derived: Collection[str], words: Words) -> None:
        """The run's own outputs, where they come from a derived task or show what it made."""
        query = select(Run.outputs_blob, Run.spec_blob).where(Run.id == run, Run.outputs_blob.is_not(None))
        row = self._connection.execute(query).first()
        if row is None:
            return
        spec = get(self._connection, self._tenant, row.spec_blob)
        refs = spec.get("outputs") or {} if isinstance(spec, dict) else {}

        def hit(name: str, value: Any) -> bool:
            # without declared outputs they have the names of their tasks
            task = str(refs.get(name, name)).split(".")[0].split("[")[0]
            return task in derived or words.are_in(json.dumps(value))

        value = get(self._connection, self._tenant, row.outputs_blob)
        new = self._store(fields_erased(value, hit, self._stone))
        if new != row.outputs_blob:
            self.freed.add(row.outputs_blob)
            self._connection.execute(update(Run).where(Run.id == run).values(outputs_blob=new))
            self.counts["run"] += 1

    def examples(self, numbers: Collection[int]) -> None:
        """Prompts and answers of outcomes that were given as data."""
        for some in pages(sorted(numbers)):
            for column in (Outcome.prompt_blob, Outcome.answer_blob):
                self._replace(column, Outcome.id.in_(some))

    # -- blobs

    def free(self) -> int:
        """Delete the contents that lost a reference and have none left; returns how many."""
        gone = self._delete_unused(self.freed - self._stones)
        self._delete_unused(self._stones)
        self.counts["blob"] += gone
        return gone

    def _delete_unused(self, digests: set[str]) -> int:
        gone = 0
        for some in pages(sorted(digests - self._used(digests))):
            mine = delete(Blob).where(Blob.tenant == self._tenant, Blob.hash.in_(some))
            gone += self._connection.execute(mine).rowcount
        return gone

    def _used(self, digests: Collection[str]) -> set[str]:
        """Which of the contents something refers to."""
        used: set[str] = set()
        for column in COLUMNS:
            mine = select(column).where(column.class_.tenant == self._tenant, column.is_not(None))
            if len(digests) > MANY:  # the columns have no index: one look at all rows
                every = self._connection.execute(mine).scalars()
                used |= {digest for digest in every if digest is not None and digest in digests}
            elif digests:
                found = self._connection.execute(mine.where(column.in_(digests))).scalars()
                used |= {digest for digest in found if digest is not None}
        return used
