"""Tool calls as durable effects: asked for, approved, started, done. The key is stable across attempts.

An effect that a crash interrupted after its start is `uncertain` (unless it only reads): nobody can know
whether the outside world saw it, so a person decides.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from .content import get, plain_text, put
from .events import NewEvent, append, fence
from .tables import Effect


@dataclass(frozen=True, slots=True)
class NewEffect:
    key: str
    task: str
    attempt: int
    step: int
    tool: str
    effect: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class EffectState:
    #: requested | approved | rejected | started | done | failed | uncertain
    status: str
    result: Any
    error: str | None


def load(connection: Connection, run_id: str, key: str) -> EffectState | None:
    """An effect as it stands, None if it was never asked for."""
    row = (
        connection.execute(select(Effect).where(Effect.run_id == run_id, Effect.key == key))
        .mappings()
        .first()
    )
    if row is None:
        return None
    result = get(connection, row["tenant"], row["result_blob"]) if row["result_blob"] else None
    return EffectState(row["status"], result, row["error"])


def request(connection: Connection, run_id: str, epoch: int, new: NewEffect, *, status: str) -> None:
    """Record that a tool is to be called: `requested` (needs a person), `approved` or `started`."""
    tenant = fence(connection, run_id, epoch)
    connection.execute(
        insert(Effect).values(
            run_id=run_id,
            key=new.key,
            tenant=tenant,
            task=new.task,
            attempt=new.attempt,
            step=new.step,
            tool=new.tool,
            effect=new.effect,
            status=status,
            arguments_blob=put(connection, tenant, new.arguments),
            created_at=time.time(),
        )
    )
    data = {"key": new.key, "tool": new.tool, "effect": new.effect, "step": new.step}
    append(connection, run_id, [NewEvent(f"effect.{status}", new.task, data)], epoch=epoch)


def start(connection: Connection, run_id: str, epoch: int, key: str, attempt: int) -> None:
    """The tool is about to be called."""
    _move(connection, run_id, epoch, key, "started", {"attempt": attempt})


def finish(
    connection: Connection, run_id: str, epoch: int, key: str, *, result: Any = None, error: str | None = None
) -> None:
    """Record what the tool answered."""
    tenant = fence(connection, run_id, epoch)
    values: dict[str, Any] = {"finished_at": time.time()}
    if error is None:
        values |= {"result_blob": put(connection, tenant, result), "error": None}
    else:
        values["error"] = plain_text(error)
    _move(connection, run_id, epoch, key, "done" if error is None else "failed", values)


def recover(connection: Connection, run_id: str, task: str | None = None) -> None:
    """After a crash (or, with `task`, after an attempt that was cut off): started reads may be done again,
    any other started effect is uncertain.
    """
    started = [Effect.run_id == run_id, Effect.status == "started"]
    if task is not None:
        started.append(Effect.task == task)
    connection.execute(update(Effect).where(*started, Effect.effect == "read").values(status="approved"))
    connection.execute(update(Effect).where(*started).values(status="uncertain"))


def answer(connection: Connection, run_id: str, task: str, *, approved: bool) -> None:
    """A person's answer for the effects of a task that wait for one. Approving an uncertain effect has it
    done again; rejecting it gives the tool's caller an error instead.
    """
    connection.execute(
        update(Effect)
        .where(Effect.run_id == run_id, Effect.task == task, Effect.status.in_(("requested", "uncertain")))
        .values(status="approved" if approved else "rejected")
    )


def _move(
    connection: Connection, run_id: str, epoch: int, key: str, status: str, values: dict[str, Any]
) -> None:
    fence(connection, run_id, epoch)
    row = connection.execute(
        update(Effect)
        .where(Effect.run_id == run_id, Effect.key == key)
        .values(status=status, **values)
        .returning(Effect.task, Effect.tool, Effect.step)
    ).one()
    data = {"key": key, "tool": row.tool, "step": row.step}
    append(connection, run_id, [NewEvent(f"effect.{status}", row.task, data)], epoch=epoch)
