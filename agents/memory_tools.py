"""Task memory as an agent's tools: `remember(key, value)`, `recall(query, k)`, `note(text)`.

What may be said and shown is bounded here. Where it is kept, who sees it, and that it is written once however
often an attempt is replayed, is the matter of the `Memory` behind the tools. What is recalled may have been
written by anyone: each hit is one line that opens with its revision's number, and the loop fences all of them
as a result, which is data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..memory.errors import TaskError
from .loop import ToolResult, Tools
from .tools import Effect, Tool, check_names, validate_arguments

#: opens the refs of these tools: no module has such a name
REFS = "podium.memory:"
#: characters of a key
KEY = 120
#: hits that a model gets unless it says how many
K = 5
#: UTF-8 bytes of a token: English text has about four, tables of digits fewer
_BYTES_PER_TOKEN = 3
#: what would end a line for some reader, beside what `str.split` splits at
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much an agent may write and read at once."""

    #: bytes of a value's JSON, or of a note
    value: int = 4096
    #: bytes of a question
    query: int = 1024
    #: hits of one question
    k: int = 20
    #: values and notes of one attempt together
    writes: int = 32
    #: tokens of one result, by estimate
    tokens: int = 1000
    #: characters that one hit shows
    hit: int = 600


@dataclass(frozen=True, slots=True)
class Recalled:
    """A revision that was found."""

    #: its number, by which it is cited
    revision: int
    key: str
    text: str
    #: fact, note, artifact or summary
    kind: str = "fact"
    #: the task that said it; None: a person
    task: str | None = None


class Memory(Protocol):
    """What one attempt of an agent may keep and find. The same call in the same step, in whichever attempt of
    the task, has one effect and one answer.
    """

    async def remember(self, step: int, key: str, value: Any) -> int:
        """Keep a value, which supersedes the one that the key had; the revision's number."""
        ...

    async def note(self, step: int, text: str) -> int:
        """Keep a note; the revision's number."""
        ...

    async def recall(self, step: int, query: str, k: int) -> Sequence[Recalled]:
        """The `k` best hits among what the task may see, the best first."""
        ...


def _tool(name: str, effect: Effect, description: str, required: Sequence[str], **properties: Any) -> Tool:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return Tool(name, REFS + name, description, effect, parameters)


_TEXT = {"type": "string", "minLength": 1}
#: values are plain: a grammar for any JSON has no end that a small model would find
_VALUE = {
    "anyOf": [
        {"type": "string"},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "array", "items": {"type": "string"}},
    ]
}
REMEMBER = _tool(
    "remember",
    "write",
    "Keep a value under a short key, for you and for later tasks. A new value replaces the old one.",
    ("key", "value"),
    key={**_TEXT, "maxLength": KEY},
    value=_VALUE,
)
RECALL = _tool(
    "recall",
    "read",
    "Look for what this and other tasks have kept or made, by words. Each line opens with its [number].",
    ("query",),
    query=_TEXT,
    k={"type": "integer", "minimum": 1, "maximum": Bounds().k},
)
NOTE = _tool("note", "write", "Keep a note for later tasks, to be found by its words.", ("text",), text=_TEXT)
SPECS: tuple[Tool, ...] = (REMEMBER, RECALL, NOTE)


class MemoryTools:
    """An agent's own tools and those of its memory: `agents.loop.Tools`.

    Writing to the memory needs no approval: it is bounded, versioned and stays inside Podium.

    Raises:
        UsageError: one of the agent's own tools has a name of the memory's.
    """

    def __init__(self, own: Tools, memory: Memory, bounds: Bounds | None = None) -> None:
        self._own, self._memory, self._bounds = own, memory, bounds or Bounds()
        self._writes = 0
        self._specs = (*own.specs, *SPECS)
        check_names(self._specs)
        self._calls: Mapping[str, Callable[[int, dict[str, Any]], Awaitable[str]]] = {
            REMEMBER.ref: self._remember,
            RECALL.ref: self._recall,
            NOTE.ref: self._note,
        }

    @property
    def specs(self) -> Sequence[Tool]:
        return self._specs

    async def call(self, step: int, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        """See `agents.loop.Tools.call`. What the bounds refuse is a result with the reason in `error`."""
        perform = self._calls.get(tool.ref)
        if perform is None:
            return await self._own.call(step, tool, arguments)
        try:
            return ToolResult(await perform(step, validate_arguments(tool, arguments)))
        except TaskError as error:
            return ToolResult(error=error.message)

    async def _remember(self, step: int, arguments: dict[str, Any]) -> str:
        key, value = one_line(arguments["key"]), arguments["value"]
        if not key:
            raise _refused("the key is empty")
        size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        self._count(size, "the value")
        revision = await self._memory.remember(step, key, value)
        return f"[{revision}] {key} is kept."

    async def _note(self, step: int, arguments: dict[str, Any]) -> str:
        text = str(arguments["text"]).strip()
        if not text:
            raise _refused("the note is empty")
        self._count(len(text.encode("utf-8", "surrogatepass")), "the note")
        return f"[{await self._memory.note(step, text)}] The note is kept."

    async def _recall(self, step: int, arguments: dict[str, Any]) -> str:
        query = one_line(arguments["query"])
        if not query:
            raise _refused("the query is empty")
        if len(query.encode("utf-8", "surrogatepass")) > self._bounds.query:
            raise _refused(f"the query is longer than {self._bounds.query} bytes; ask with a few words")
        k = min(int(arguments.get("k", K)), self._bounds.k)
        found = await self._memory.recall(step, query, k)
        return told(found[:k], self._bounds) if found else "Nothing was found."

    def _count(self, size: int, what: str) -> None:
        """Raises TaskError: too large, or one too many."""
        if size > self._bounds.value:
            raise _refused(f"{what} has {size} bytes, at most {self._bounds.value} are kept; shorten it")
        if self._writes >= self._bounds.writes:
            raise _refused(f"{self._writes} things were kept already, no more are; go on without")
        self._writes += 1


def told(found: Sequence[Recalled], bounds: Bounds) -> str:
    """Hits as a model reads them, one a line, as many as the tokens hold; the first is shown in any case."""
    room = bounds.tokens * _BYTES_PER_TOKEN
    lines: list[str] = []
    for hit in found:
        line = f"[{hit.revision}] {one_line(hit.key)}: {_clipped(one_line(hit.text), bounds.hit)}"
        line += f" ({hit.kind}, {'task ' + one_line(hit.task) if hit.task else 'a person'})"
        size = len(line.encode("utf-8", "surrogatepass")) + 1
        if lines and size > room:
            lines.append(f"({len(found) - len(lines)} more are left out to save room: ask more narrowly)")
            break
        lines.append(line)
        room -= size
    return "\n".join(lines)


def passage(text: str, query: str, limit: int) -> str:
    """The part of a text, `limit` characters at most, that has most of a query's words; the first of them."""
    if len(text) <= limit:
        return text
    words = {word for word in re.findall(r"\w+", query.lower()) if len(word) > 2}
    starts = range(0, len(text) - limit // 2, max(1, limit // 2))
    lower = text.lower()
    start = max(starts, key=lambda at: (sum(word in lower[at : at + limit] for word in words), -at))
    return f"{'…' if start else ''}{text[start : start + limit]}"


def one_line(text: str) -> str:
    """Text that cannot pass for the next line."""
    return " ".join(_CONTROL.sub(" ", text).split())


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def _refused(why: str) -> TaskError:
    return TaskError(why, retryable=False, mend="call it with less")
