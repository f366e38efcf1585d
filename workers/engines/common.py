"""What several engines share: checked options, and the errors of a prompt that is too long or too late."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from ...memory.errors import ConfigError, ContextTooLong, ProviderError
from ...router.types import ModelSpec

#: seconds that running calls get to end when their model is closed or the process ends
STOP_TIMEOUT_S = 5.0


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
