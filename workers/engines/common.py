"""What several engines share: checked options, and the errors of a prompt that is too long or too late."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from ...memory.errors import ConfigError, ContextTooLong, ProviderError
from ...router.types import ModelSpec


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


def bad_schema(spec: ModelSpec, why: str) -> ProviderError:
    return ProviderError(
        f"model {spec.name} cannot constrain its answer to this JSON Schema: {why}",
        mend="use plain types, enums, lists and objects in the output type",
        retryable=False,
        sent=False,
    )
