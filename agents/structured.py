"""A typed answer of a model: constrained where the engine can, extracted, validated, repaired at most twice.

schema to the decoder → JSON out of the text → the validator → (its own error back to the model, twice)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..memory.chat import Completion, Message
from ..memory.errors import ContextTooLong, StructuredOutputError, UsageError
from .model import Model
from .outputs import OutputType

T = TypeVar("T")

MAX_REPAIRS = 2
#: characters of a wrong answer, and of the validator's error, that a repair shows to the model
QUOTED_ANSWER, QUOTED_ERROR = 1500, 500
#: items a list may have at most when the answer before was cut off, at the first and the second repair
SHORT_LISTS = (4, 2, 2)
#: places in a text where JSON is looked for
_STARTS = 64
_FENCE = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class JsonForm:
    """What a JSON answer must be: for the decoder, for the reader's eye, and for the check."""

    schema: Mapping[str, Any]
    #: the form in words, as a repair quotes it
    text: str
    #: returns the value to use, or raises ValueError with a message for the model
    check: Callable[[Any], Any]

    @classmethod
    def of(cls, output: OutputType) -> JsonForm:
        """The form of an `output`. One that is no object stands in {"value": …}: endpoints want an object."""
        schema = output.json_schema()
        if schema.get("type") == "object":
            return cls(schema, str(output), output.validate)

        def unwrap(value: Any) -> Any:
            wrapped = isinstance(value, Mapping) and set(value) == {"value"}
            return output.validate(value["value"] if wrapped else value)

        return cls(closed_object(value=schema), f"{{value: {output}}}", unwrap)


def closed_object(optional: Sequence[str] = (), /, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of an object with exactly these properties, written in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


async def complete_structured(
    model: Model,
    messages: Sequence[Message],
    output: OutputType,
    *,
    max_tokens: int | None = None,
    temperature: float = 0.0,
    repairs: int = MAX_REPAIRS,
) -> tuple[Any, Completion]:
    """An answer of type `output`, and the Completion that held it.

    Decoding is constrained to the type's schema where the model's engine can, and the type is also said in
    the prompt. An answer that does not validate goes back to the model with the validator's own error, at
    most `repairs` (0 to 2) times. The type `str` is the plain text of the answer: it needs no JSON.

    Raises:
        StructuredOutputError: no answer validated; not retryable, the message says what was wrong.
        UsageError: `repairs` is out of bounds.
        ProviderError, BudgetStopped: as the model raises them.
    """
    if output.kind == "str":
        completion = await model.complete(messages, max_tokens=max_tokens, temperature=temperature)
        return completion.text.strip(), completion
    form = JsonForm.of(output)
    asked = _append(messages, f"Answer only with JSON of this form: {form.text}")
    return await complete_json(
        model, asked, form, max_tokens=max_tokens, temperature=temperature, repairs=repairs
    )


async def complete_json(
    model: Model,
    messages: Sequence[Message],
    form: JsonForm,
    *,
    max_tokens: int | None = None,
    temperature: float = 0.0,
    repairs: int = MAX_REPAIRS,
) -> tuple[Any, Completion]:
    """`complete_structured` for any form; the prompt is sent as it is.

    Each repair shows only the latest wrong answer, so the prompt grows by a bounded amount. After an answer
    that was cut off, the schema also bounds lists and texts: weak models do not stop by being told to.
    """
    if not 0 <= repairs <= MAX_REPAIRS:
        raise UsageError(f"{repairs} repairs", mend=f"allow 0 to {MAX_REPAIRS}")
    asked, schema, problem, cut = list(messages), form.schema, "", False
    for repair in range(repairs + 1):
        try:
            completion = await model.complete(
                asked,
                schema=schema,
                max_tokens=max_tokens,
                temperature=temperature,
                problem=lambda text: read_json(text, form.check)[1],
            )
        except ContextTooLong as error:
            if not problem:
                raise
            raise _given_up(f"{problem} (and no room to repair it)", form, cut=cut) from error
        value, problem = read_json(completion.text, form.check)
        if not problem:
            return value, completion
        cut = completion.finish_reason == "length"
        if cut:
            problem = f"it was cut off after {completion.usage.output_tokens} tokens, before its end"
            schema = shortened(form.schema, completion.usage.output_tokens, SHORT_LISTS[repair])
        asked = [*messages, *_repair(completion.text, problem, form, cut=cut)]
    raise _given_up(problem, form, cut=cut)


def shortened(schema: Mapping[str, Any], tokens: int, items: int) -> dict[str, Any]:
    """`schema` with at most `items` in each list, and texts that together fit into about `tokens`."""
    chars = max(16, 2 * tokens // max(1, _texts(schema, items)))

    def bound(part: Any) -> Any:
        if isinstance(part, list):
            return [bound(one) for one in part]
        if not isinstance(part, Mapping):
            return part
        made = {key: bound(value) for key, value in part.items()}
        if part.get("type") == "array":
            made["maxItems"] = max(part.get("minItems", 0), min(items, part.get("maxItems", items)))
        elif part.get("type") == "string" and not {"enum", "const", "format"} & set(part):
            made["maxLength"] = max(part.get("minLength", 0), min(chars, part.get("maxLength", chars)))
        return made

    return bound(schema)


def _texts(part: Any, items: int) -> int:
    """How many texts a value of this schema may hold, when each list in it has `items`."""
    if isinstance(part, list):
        return sum(_texts(one, items) for one in part)
    if not isinstance(part, Mapping):
        return 0
    inner = sum(_texts(value, items) for value in part.values())
    return inner * items if part.get("type") == "array" else inner + (part.get("type") == "string")


def read_json(text: str, check: Callable[[Any], T]) -> tuple[T | None, str]:
    """The first JSON value in `text` that passes `check`, and ""; or None and what is wrong with the text."""
    problem = ""
    for candidate in json_candidates(text):
        try:
            return check(candidate), ""
        except ValueError as error:
            problem = problem or str(error) or "it is not valid"
    return None, problem or ("it is empty" if not text.strip() else "it holds no complete JSON value")


def json_candidates(text: str) -> Iterator[Any]:
    """JSON values in a model's text, likeliest first: all of it, ``` fences, then objects and lists in prose.

    What comes before a reasoning model's </think> is not looked at.
    """
    text = text.rsplit("</think>", 1)[-1].strip()
    for part in (text, *_FENCE.findall(text)):
        value = _decode(part.strip())
        if value is not _NOTHING:
            yield value
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    position = 0
    for _ in range(_STARTS):
        start = re.compile(r"[{\[]").search(text, position)
        if start is None:
            return
        try:
            value, position = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            position = start.end()
        else:
            yield value


def _decode(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _NOTHING


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _append(messages: Sequence[Message], text: str) -> list[Message]:
    """`messages` with `text` at the end of the last one, if that is the user's: roles must alternate."""
    if messages and messages[-1].role == "user":
        return [*messages[:-1], Message("user", f"{messages[-1].content}\n\n{text}")]
    return [*messages, Message("user", text)]


def _repair(answer: str, problem: str, form: JsonForm, *, cut: bool) -> tuple[Message, Message]:
    shorter = " Give a much shorter answer." if cut else ""
    return (
        Message("assistant", answer[:QUOTED_ANSWER] or "(nothing)"),
        Message(
            "user",
            f"That answer is wrong: {problem[:QUOTED_ERROR]}.{shorter}\n"
            f"Answer again, only with JSON of this form: {form.text}",
        ),
    )


def _given_up(problem: str, form: JsonForm, *, cut: bool) -> StructuredOutputError:
    return StructuredOutputError(
        f"the answer is not of the form {form.text}: {problem[:QUOTED_ERROR]}",
        retryable=False,
        mend="raise max_tokens, or ask for less"
        if cut
        else "give this task a stronger model, or a simpler output type",
    )
