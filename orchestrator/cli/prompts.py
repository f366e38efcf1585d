"""`show RUN --task T --prompt`: the very words that the models got for a task, and where they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common import emit, note, table
from .memory_records import CitationOut, DroppedOut
from .records import Record

if TYPE_CHECKING:
    from ...memory.prompts import PromptRecord
    from ..views import Run


class MessageOut(Record):
    role: str
    content: str


class PromptOut(Record):
    call_id: str
    attempt: int
    step: int
    model: str
    status: str
    messages: list[MessageOut]
    answer_schema: dict[str, Any] | None
    #: of the part that comes from memory; null: the task asked for none
    context_tokens: int | None
    citations: list[CitationOut]
    dropped: list[DroppedOut]


class PromptsOut(Record):
    """`show --task --prompt`: the requests of a task's calls."""

    run_id: str
    task: str
    #: the tasks whose outputs it reads → the revisions that hold them
    ports: dict[str, int]
    prompts: list[PromptOut]


def prompts_out(run: Run, task: str) -> PromptsOut:
    """The record of a task's prompts.

    Raises:
        NotFound: the run has no such task.
    """
    found = [_prompt_out(record) for record in run.prompts(task)]
    return PromptsOut(run_id=run.id, task=task, ports=run.ports(task), prompts=found)


def show_prompts(run: Run, task: str, *, as_json: bool) -> None:
    """Print them: the words on stdout, what is to be said about them on stderr."""
    found = prompts_out(run, task)
    if as_json:
        emit(found)
        return
    if not found.prompts:
        note(f"task {task} made no model call yet")
    for prompt in found.prompts:
        note(f"attempt {prompt.attempt}, call {prompt.step}: {prompt.model}, {prompt.status}")
        for message in prompt.messages:
            print(f"--- {message.role}\n{message.content}")
        _tell_sources(prompt)
    if found.ports:
        note("Read from: " + ", ".join(f"{name} [{revision}]" for name, revision in found.ports.items()))


def _tell_sources(prompt: PromptOut) -> None:
    if prompt.context_tokens is None:
        return
    note(f"\n{prompt.context_tokens} tokens of it come from memory:")
    cited = [[f"[{c.mark or c.step}]", c.step, str(c.revision or "-")] for c in prompt.citations]
    table(["mark", "from", "revision"], cited, err=True, right="revision")
    if prompt.dropped:
        note("\nLeft out:")
        rows = [[d.step, str(d.revision or "-"), d.reason, d.text] for d in prompt.dropped]
        table(["from", "revision", "reason", "text"], rows, err=True, right="revision")


def _prompt_out(record: PromptRecord) -> PromptOut:
    context = record.context or {}
    return PromptOut(
        call_id=record.call_id,
        attempt=record.attempt,
        step=record.step,
        model=record.model,
        status=record.status,
        messages=[MessageOut(role=m["role"], content=m["content"]) for m in record.messages],
        answer_schema=record.schema,
        context_tokens=context.get("tokens"),
        citations=[CitationOut(**c) for c in context.get("citations", [])],
        dropped=[DroppedOut(**d) for d in context.get("dropped", [])],
    )
