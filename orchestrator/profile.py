"""A first look at a new model: it answers prompts whose good answers are known, in a run like any other.

Its grade is agreement with those answers, and says less than what people or checks say: the same result where
the known answer comes to a number, the same words where it is a few words, the share of equal fields where it
is a JSON object; else how near the two are in meaning. Times the score of the known answer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..agents import similarity
from ..memory import learning, reads
from ..memory.database import Connection
from ..memory.errors import BudgetStopped, ConfigError, UsageError
from ..memory.learning import Example, NewExample
from ..memory.money import NANO
from ..router.estimates import did_you_mean
from ..router.types import ModelSpec
from ..router.verifiers.agreement import normal_form
from ..router.verifiers.expressions import plain
from ..router.verifiers.quantities import numbers_in, result_of
from .distillation import asked_of, best
from .routing import MOST
from .workflow import Workflow

if TYPE_CHECKING:
    from ..memory.reads import CallRecord
    from .client import Podium

#: the workflow of its runs
WORKFLOW = "router-profile"
#: score of an answer that others are held against
LEAST = 0.8
#: words of a known answer that is compared word by word
_SHORT = 5
#: tokens that an answer may have at least
_ROOM = 256
_AFTER_EQUALS = re.compile(r"=\s*[^\d\s=-]{0,3}\s*(-?[\d.,/]*\d)")


@dataclass(frozen=True, slots=True)
class Profiled:
    """What a profile came to."""

    run_id: str
    #: prompts that got an answer, and those that got none
    prompts: int
    failed: int
    #: mean grade, and the mean score of the known answers there
    score: float
    reference: float
    cost_nano: int
    #: way of comparing → answers
    compared: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Asked:
    example: Example
    prompt: str
    system: str | None


def profile(podium: Podium, model: str, most: int, budget: Any = None) -> Profiled:
    """Ask `model` up to `most` prompts, spread over tasks, and keep its grades in the task memory in place of
    those of its last profile. Prompts of private tasks go to models that run here only.

    Raises:
        ConfigError: the pool has no such model.
        UsageError: no good answer is known of another model's; or none of the calls was answered.
        BudgetStopped: the budget did not allow one call.
    """
    specs, tenant = podium.pool_file().models, podium.settings.tenant
    if model not in specs:
        raise ConfigError(f"the pool has no model {model!r}", mend=did_you_mean(model, list(specs)))
    asked = podium.database.query(lambda c: _prompts(c, tenant, specs[model], most))
    flow, inputs = _workflow(specs[model], asked)
    run = podium.run(flow, inputs=inputs, budget=budget)
    calls = {call.task: call for call in run.calls if call.status == "settled"}
    texts = podium.database.query(lambda c: _texts(c, tenant, list(calls.values())))
    rows, ways = [], Counter[str]()
    for place, one in _places(asked):
        if (call := calls.get(place)) is None or (answer := texts.get(call.id)) is None:
            continue
        agreed, way = agreement(one.example.answer or "", answer)
        ways[way] += 1
        rows.append((one.example, _row(one.example, call, answer, agreed)))
    if not rows:
        kind = BudgetStopped if run.status == "stopped" else UsageError
        raise kind(f"{model} answered none of {len(asked)} prompts", mend=f"podium show {run.id}")
    made, count = [row for _, row in rows], len(rows)
    podium.database.transact(
        lambda c: learning.put_examples(c, tenant, f"profile of {model}", made, source="profile")
    )
    score, known = sum(r.score for r in made) / count, sum(e.score for e, _ in rows) / count
    return Profiled(run.id, count, len(asked) - count, score, known, run.cost_nano, dict(ways))


# -- what is asked


def _prompts(connection: Connection, tenant: str, spec: ModelSpec, most: int) -> list[_Asked]:
    """Prompts with a good answer of another model's, each once: as many of each task as can be."""
    found = [e for e in learning.examples(connection, tenant, most=MOST) if e.model != spec.name]
    good = best(found, LEAST)
    if not spec.is_local:
        hidden = _private(connection, tenant, {e.run_id for e in good if e.run_id is not None})
        good = [one for one in good if one.run_id not in hidden]
    asked = asked_of(connection, tenant, good)
    usable = [one for example in good if (one := _plain(example, asked.get(example.call_id or "")))]
    if not usable:
        raise UsageError(
            f"no prompt of the task memory has an answer of another model with a score of {LEAST:g} or more",
            mend="grade answers (podium feedback CALL good), or take rows over that have the column `answer` "
            "(podium router train FILE.csv)",
        )
    tasks: dict[str | None, list[_Asked]] = {}
    for one in usable:
        tasks.setdefault(one.example.task, []).append(one)
    spread = [_spread(some, most) for some in tasks.values()]
    turns = [some[i] for i in range(most) for some in spread if i < len(some)]
    return turns[:most]


def _spread(some: Sequence[_Asked], most: int) -> list[_Asked]:
    """Evenly from the oldest to the newest."""
    count = min(most, len(some))
    return [some[i * len(some) // count] for i in range(count)]


def _plain(example: Example, messages: Sequence[Mapping[str, str]] | None) -> _Asked | None:
    """None: it was more than one question, such as an agent's talk with its tools."""
    if messages is None:
        return _Asked(example, example.prompt, None)
    roles = [message["role"] for message in messages]
    if roles == ["user"]:
        return _Asked(example, messages[0]["content"], None)
    if roles == ["system", "user"]:
        return _Asked(example, messages[1]["content"], messages[0]["content"] or None)
    return None


def _private(connection: Connection, tenant: str, run_ids: set[str]) -> set[str]:
    """Runs whose workflow has a private task: which of their prompts are is not recorded."""
    specs = {run_id: reads.run(connection, run_id).spec_blob for run_id in run_ids}
    found = reads.values(connection, tenant, list(specs.values()))
    return {run_id for run_id, blob in specs.items() if _says_private(found.get(blob))}


def _says_private(data: Any) -> bool:
    if isinstance(data, Mapping):
        return data.get("private") is True or any(map(_says_private, data.values()))
    return isinstance(data, list) and any(map(_says_private, data))


def _workflow(spec: ModelSpec, asked: Sequence[_Asked]) -> tuple[Workflow, dict[str, Any]]:
    """One task for prompts with a system text, one for those without."""
    room = max([_ROOM, *(2 * (one.example.out_tok or 0) for one in asked)])
    flow, inputs = Workflow(WORKFLOW), {}
    for name, system in (("plain", None), ("told", "{item.system}")):
        some = [one for one in asked if (one.system is None) == (system is None)]
        if not some:
            continue
        inputs[f"{name}_prompts"] = [{"prompt": one.prompt, "system": one.system or ""} for one in some]
        over = flow.input(f"{name}_prompts", list[dict[str, str]])
        flow.map(
            name, over=over, prompt="{item.prompt}", system=system, model=spec.name,
            max_tokens=min(spec.max_output, room), on_failure="collect",
        )  # fmt: skip
    return flow, inputs


def _places(asked: Sequence[_Asked]) -> list[tuple[str, _Asked]]:
    """Each with the name of its task in the run."""
    plainly = [one for one in asked if one.system is None]
    told = [one for one in asked if one.system is not None]
    return [
        (f"{name}[{i}]", one)
        for name, some in (("plain", plainly), ("told", told))
        for i, one in enumerate(some)
    ]


def _texts(connection: Connection, tenant: str, calls: Sequence[CallRecord]) -> dict[str, str]:
    blobs = {call.id: call.response_blob for call in calls if call.response_blob is not None}
    found = reads.values(connection, tenant, list(blobs.values()))
    return {call: found[blob]["text"] for call, blob in blobs.items() if blob in found}


def _row(example: Example, call: CallRecord, answer: str, agreed: float) -> NewExample:
    return NewExample(
        example.prompt, call.model, agreed * example.score, example.task, answer,
        None if call.cost_nano is None else call.cost_nano / NANO,
        call.input_tokens, call.output_tokens, call.total_s,
    )  # fmt: skip


# -- the grade


def agreement(known: str, answer: str) -> tuple[float, str]:
    """`(0…1, way)`: how far an answer agrees with a known one, and by what they were compared."""
    if (fields := _object(known)) is not None:
        other = _object(answer) or {}
        same = sum(_same(value, other.get(name)) for name, value in fields.items())
        return same / max(len(fields), 1), "fields"
    if (result := _comes_to(known)) is not None:
        return float(result_of(answer)[0] == result), "number"
    if len(known.split()) <= _SHORT:
        return float(normal_form(known) == normal_form(answer)), "words"
    return max(0.0, min(1.0, similarity.rank(known, [answer])[0][1])), "meaning"


def _comes_to(known: str) -> Any:
    """The number that a known answer comes to: marked, its only one, or the result of a calculation in it;
    None: it is about something else."""
    result, marked = result_of(known)
    only = numbers_in(known) == [result] and len(known.split()) <= _SHORT
    if result is None or marked or only:
        return result
    computed = [number for found in _AFTER_EQUALS.findall(plain(known)) for number in numbers_in(found)]
    return result if result in computed else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, str) and isinstance(other, str):
        return normal_form(value) == normal_form(other)
    return value == other
