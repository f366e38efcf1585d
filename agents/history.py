"""What an agent's model is shown of the steps behind it: bounded, fenced, a pure function of those steps."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..memory.chat import Message
from ..memory.errors import ContextTooLong

T = TypeVar("T")

#: UTF-8 bytes of a token, and tokens that a chat template adds to a message: English text has about four
#: bytes a token, tables of digits fewer. A prompt that still does not fit is cut further by `History.ask`.
_BYTES_PER_TOKEN, _TEMPLATE_TOKENS = 3, 8
#: no tool may close the fence around its own result
_FENCE = re.compile(r"<(?=\s*/?\s*result)", re.IGNORECASE)


def estimated_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a prompt has; no tokenizer is asked, since the model may be any."""
    return sum(len(m.content.encode()) // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS for m in messages)


def clip(text: str, limit: int) -> str:
    """`text`, or its beginning and end with a note between them, about `limit` characters together."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]}\n[… {len(text) - head - tail} characters left out …]\n{text[len(text) - tail :]}"


def fenced(text: str) -> str:
    """Untrusted `text` between <result> tags that it cannot close."""
    return f"<result>\n{_FENCE.sub('‹', text)}\n</result>"


@dataclass(frozen=True, slots=True)
class Turn:
    """One step, as the model sees it again."""

    #: the model's own answer
    said: str
    #: what it was told then
    told: str
    #: a line that stands for `told` when there is no room for it
    note: str


@dataclass(slots=True)
class History:
    """The opening messages and the turns since, cut to a number of tokens.

    Results are replaced by their notes from the oldest on; then the oldest turns go altogether; the newest
    result goes last. The same turns and bound always give the same messages.
    """

    #: system text and goal; never cut
    opening: tuple[Message, Message]
    #: tokens a prompt may have by estimate; falls when the model says that a prompt was too long
    bound: int
    turns: list[Turn] = field(default_factory=list)

    def messages(self, ending: str = "", bound: int | None = None) -> list[Message]:
        """The fullest view within the bound, else the smallest there is; `ending` closes the last message."""
        limit = self.bound if bound is None else min(bound, self.bound)
        view: list[Message] = []
        for dropped, noted in self._views():
            view = self._view(dropped, noted, ending)
            if estimated_tokens(view) <= limit:
                break
        return view

    async def ask(
        self,
        call: Callable[[list[Message]], Awaitable[T]],
        *,
        ending: str = "",
        bound: int | None = None,
    ) -> T:
        """What `call` returns for the messages; they are cut further as long as it says they are too long.

        Raises:
            ContextTooLong: nothing is left to cut.
        """
        messages = self.messages(ending, bound)
        while True:
            try:
                return await call(messages)
            except ContextTooLong:
                self.bound = estimated_tokens(messages) * 3 // 4
                shorter = self.messages(ending, bound)
                if estimated_tokens(shorter) >= estimated_tokens(messages):
                    raise
                messages = shorter

    def _views(self) -> Iterator[tuple[int, int]]:
        """(turns dropped, turns of which only the note is told), from the fullest view to the smallest."""
        count = len(self.turns)
        yield from ((0, noted) for noted in range(max(count, 1)))
        yield from ((dropped, count - 1) for dropped in range(1, count))
        if count:
            yield count - 1, count

    def _view(self, dropped: int, noted: int, ending: str) -> list[Message]:
        system, goal = self.opening
        if dropped:
            goal = Message("user", f"{goal.content}\n\n({dropped} earlier steps are left out to save room)")
        view = [system, goal]
        for position, turn in enumerate(self.turns[dropped:], start=dropped):
            view.append(Message("assistant", turn.said))
            view.append(Message("user", turn.note if position < noted else turn.told))
        if ending:
            view[-1] = Message("user", f"{view[-1].content}\n\n{ending}")
        return view
