"""The one thing an agent knows of models: a `Model` answers messages. Pool, router, ledger are behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..memory.chat import Completion, Message


class Model(Protocol):
    """A callable model. The engine's implementation routes, reserves, calls, settles, records each call."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        """One answer to `messages`; decoding is constrained to the JSON Schema `schema` where possible.

        `problem`: says what is wrong with the form of an answer, '' if nothing: one that is wrong may be
        given up for that of another model, and if none is better it is returned as it is.

        Raises:
            ProviderError: no model answered.
            BudgetStopped: the ledger refused every route.
        """
        ...
