"""One tiny call to a model, in this process, to see that it answers, how fast, and what it costs."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from ...memory.chat import ChatRequest, Completion, Message
from ...memory.errors import NotFound, PodiumError
from ...memory.money import format_usd
from .output import ModelTest

if TYPE_CHECKING:
    from ...router.types import ModelSpec
    from ...workers.local import LocalPool
    from ..settings import Settings

_PROMPT = "Name the colour of the sky on a clear day, in one short sentence."
_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "maxLength": 20}},
    "required": ["colour"],
    "additionalProperties": False,
}
_TOKENS = 32


def test_models(settings: Settings, name: str | None) -> list[ModelTest]:
    """Test one model of the pool, or all, one after another.

    Raises:
        NotFound: the pool has no such model.
    """
    from difflib import get_close_matches

    from ...workers.poolfile import load_pool

    known = load_pool(settings.pool_file, settings.home).models
    if name is not None and name not in known:
        near = get_close_matches(name, known, n=1)
        mend = f"did you mean {near[0]}?" if near else f"models are: {', '.join(known)}"
        raise NotFound(f"no model {name!r} in the pool", mend=mend)
    chosen = list(known.values()) if name is None else [known[name]]
    return [asyncio.run(_test(spec, settings)) for spec in chosen]


async def _test(spec: ModelSpec, settings: Settings) -> ModelTest:
    from ...workers.local import LocalPool

    single = spec.model_copy(update={"replicas": 1})
    pool = LocalPool([single], settings.home)
    began = time.monotonic()
    try:
        await pool.start()
        load_s = time.monotonic() - began
        plain = await _call(pool, spec, ChatRequest((Message("user", _PROMPT),), max_tokens=_TOKENS))
        as_json, json_ok = await _json(pool, spec)
        status = (await pool.status())[0]
    except PodiumError as error:
        return _failed(spec, str(error))
    finally:
        await pool.close()
    writing = plain.total_s - plain.first_token_s
    rate = plain.usage.output_tokens / writing if writing > 0.001 else None
    return ModelTest(
        name=spec.name,
        ok=True,
        device=status.device,
        load_s=round(load_s, 3),
        first_token_s=round(plain.first_token_s, 3),
        tokens_per_s=None if rate is None else round(rate, 1),
        json_ok=json_ok,
        cost_usd=format_usd(_cost(spec, plain) + (_cost(spec, as_json) if as_json else 0)),
        error=None,
    )


async def _call(pool: LocalPool, spec: ModelSpec, request: ChatRequest) -> Completion:
    """The streamed answer where the model streams, which tells when the first token came."""
    label = f"models test model={spec.name}"
    if "stream" not in spec.capabilities:
        return await pool.generate(spec.name, request, label=label)
    async for chunk in pool.stream(spec.name, request, label=label):
        if chunk.completion is not None:
            return chunk.completion
    raise PodiumError(f"{spec.name} ended its answer without saying so", mend="test it again")


async def _json(pool: LocalPool, spec: ModelSpec) -> tuple[Completion | None, bool | None]:
    """An answer that has to be JSON; None: the model does not claim that it can."""
    if "json" not in spec.capabilities:
        return None, None
    request = ChatRequest((Message("user", f"{_PROMPT} Answer in JSON."),), max_tokens=64, schema=_SCHEMA)
    try:
        answer = await pool.generate(spec.name, request, label=f"models test model={spec.name}")
    except PodiumError:
        return None, False
    try:
        return answer, isinstance(json.loads(answer.text).get("colour"), str)
    except (ValueError, AttributeError):
        return answer, False


def _cost(spec: ModelSpec, answer: Completion) -> int:
    if answer.billed_nano is not None:
        return answer.billed_nano
    return spec.price.cost(answer.usage.input_tokens, answer.usage.output_tokens)


def _failed(spec: ModelSpec, why: str) -> ModelTest:
    return ModelTest(
        name=spec.name,
        ok=False,
        device="",
        load_s=None,
        first_token_s=None,
        tokens_per_s=None,
        json_ok=None,
        cost_usd=None,
        error=why,
    )
