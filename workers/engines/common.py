"""What several engines share: checked options, and the errors of a prompt that is too long or too late."""

from __future__ import annotations

import atexit
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from math import ceil
from typing import Any

from ...memory.chat import Message
from ...memory.errors import ConfigError, ContextTooLong, ProviderError
from ...router.tokens import estimate_tokens
from ...router.types import ModelSpec

#: seconds that running calls get to end when their model is closed or the process ends
STOP_TIMEOUT_S = 5.0

#: ASCII words with the space before them, and punctuation marks
_RUN = re.compile(r" ?[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
#: words have up to so many times the tokens of the router's estimate
_MARGIN = 1.75


class NativeCalls:
    """Counts the calls that are inside a native library, and ends them before the interpreter does.

    A daemon thread that comes back from C++ into an interpreter that is gone aborts the process (exit code
    134 instead of the command's own). So calls look at `stopping` between tokens, and the exit
    waits for them.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._active = 0
        self._changed = threading.Condition()

    def open(self) -> None:
        """Let calls in, and stop them at the end of the process."""
        self.stopping = False
        atexit.register(self.stop)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around the native call."""
        with self._changed:
            self._active += 1
        try:
            yield
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def stop(self) -> bool:
        """Ask the calls to end; whether all of them did within `STOP_TIMEOUT_S`."""
        atexit.unregister(self.stop)
        self.stopping = True
        with self._changed:
            return self._changed.wait_for(lambda: self._active == 0, STOP_TIMEOUT_S)


def options_of(spec: ModelSpec, **defaults: Any) -> dict[str, Any]:
    """`spec.options` over `defaults`, which name every option the engine has and show its type.

    A default of None takes any type.

    Raises:
        ConfigError: an option that the engine does not have, or of another type.
    """
    for name, value in spec.options.items():
        if name not in defaults:
            near = get_close_matches(name, defaults, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(defaults) or 'none'}"
            raise ConfigError(f"model {spec.name}: engine {spec.engine} has no option {name!r}", mend=hint)
        wanted = type(defaults[name])
        if defaults[name] is not None and not _is_a(value, wanted):
            raise ConfigError(
                f"model {spec.name}: option {name} is {value!r}, not of type {wanted.__name__}",
                mend="correct it in the pool file",
            )
    return {**defaults, **spec.options}


def _is_a(value: object, wanted: type) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)


def plain(text: str) -> str:
    """The text as UTF-8 can carry it: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def estimated(texts: Sequence[str]) -> list[int]:
    """For engines without a tokenizer: tokens of each text, estimated on the high side.

    Words with digits and ASCII punctuation, so numbers, codes and most of JSON, have a token a character;
    the rest has the router's estimate (`router.tokens`, without its template) times 1.75; and no text has
    more than its UTF-8 bytes, the router's upper bound. Measured against SmolLM2's own: 1.0 (numbers) to 1.4
    times (JSON, German, Chinese), about 2 times for English prose; too few for random letters only.
    """
    return [_estimated(plain(text)) for text in texts]


def _estimated(text: str) -> int:
    words = _RUN.sub(lambda run: run[0] if run[0].lstrip().isalpha() else "", text)
    template, _ = estimate_tokens([Message("user", "")])
    rest = estimate_tokens([Message("user", words)])[0] - template
    return min(len(text) - len(words) + ceil(rest * _MARGIN), len(text.encode()))


def too_long(spec: ModelSpec, tokens: int) -> ContextTooLong:
    return ContextTooLong(
        f"the prompt has {tokens} tokens, and model {spec.name} has room for {spec.context} with the answer",
        mend="shorten the input, or add a model with a larger context to the pool",
    )


def too_late(spec: ModelSpec) -> ProviderError:
    return ProviderError(
        f"model {spec.name} did not answer within {spec.timeout:g} s",
        mend="ask for fewer tokens, or raise the model's `timeout` in the pool file",
    )


def not_loaded(spec: ModelSpec) -> ProviderError:
    return ProviderError(f"model {spec.name} is not loaded", mend="open the pool again", sent=False)


def stopped(spec: ModelSpec) -> ProviderError:
    return ProviderError(f"model {spec.name} was closed during the call", mend="open the pool and call again")


def bad_schema(spec: ModelSpec, why: str) -> ProviderError:
    return ProviderError(
        f"model {spec.name} cannot constrain its answer to this JSON Schema: {why}",
        mend="use plain types, enums, lists and objects in the output type",
        retryable=False,
        sent=False,
    )
