"""What is said to a model and what comes back: the nouns that agents, router and workers share.

They live in the lowest room because every one of them ends up in a Call row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


def asked_text(messages: Iterable[Message | Mapping[str, Any]]) -> str:
    """What a user asked, as the router reads it: the contents of the user's messages, system left out.

    `messages`: as they are sent, or as a call's request records them ({role, content}).
    """
    said = ((m.role, m.content) if isinstance(m, Message) else (m["role"], m["content"]) for m in messages)
    return "\n\n".join(content for role, content in said if role == "user")


def guided(messages: Sequence[Message], template: str) -> tuple[Message, ...]:
    """The messages with a template directly before the last one of the user; an empty one changes nothing."""
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    if not template or last is None:
        return tuple(messages)
    asked = replace(messages[last], content=template + messages[last].content)
    return (*messages[:last], asked, *messages[last + 1 :])


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One model call, before it has a model."""

    messages: tuple[Message, ...]
    #: tokens the answer may have at most
    max_tokens: int = 256
    #: JSON Schema the answer must satisfy; decoding is constrained to it where the engine can
    schema: Mapping[str, Any] | None = None
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def text_bytes(self) -> int:
        """UTF-8 bytes of all messages: an upper bound of their tokens for byte-level tokenizers."""
        return sum(len(m.content.encode()) for m in self.messages)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the engine counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole answer."""

    text: str
    model: str
    usage: Usage
    finish_reason: Literal["stop", "length"] = "stop"
    #: name of the replica that answered
    worker: str = ""
    #: seconds from dispatch to the first token, and to the end
    first_token_s: float = 0.0
    total_s: float = 0.0
    #: nano-dollars the provider or the recording says it cost; None: tokens × price
    billed_nano: int | None = None
    #: how many requests ran in the same batch
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer. The last one carries the whole Completion."""

    text: str = ""
    completion: Completion | None = field(default=None)
