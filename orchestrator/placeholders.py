"""Placeholders are the edges of a workflow: `{name}`, `{name.field.sub}`, `{item}`; `{{` and `}}` are braces.

Pure text: a template is never code, and a value that holds braces is inserted as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..memory.errors import UsageError

#: the placeholder that stands for the element inside a mapped task
ITEM = "item"

_PART = r"[A-Za-z_][A-Za-z0-9_]*"
_REF = re.compile(rf"{_PART}(?:\.{_PART})*\Z")
_BRACE = re.compile(rf"\{{\{{|\}}\}}|\{{({_PART}(?:\.{_PART})*)\}}|[{{}}]")


class TemplateError(UsageError):
    """A brace in a template that is neither a placeholder nor doubled, or a value that has no such field."""


@dataclass(frozen=True, slots=True)
class Ref:
    """What a placeholder names: an input or a task (or `item`), and the fields to read from it."""

    name: str
    path: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Ref:
        """The Ref written as "name.field".

        Raises:
            TemplateError: `text` is no such name.
        """
        if not _REF.match(text):
            bare = text.strip("{} ")
            hint = (
                f"write {bare}" if _REF.match(bare) else 'write a name, or a name and a field: "brief.title"'
            )
            raise TemplateError(f"{text!r} is no name of an input, a task or its field", mend=hint)
        name, *path = text.split(".")
        return cls(name, tuple(path))

    def __str__(self) -> str:
        return ".".join((self.name, *self.path))


Lookup = Callable[[Ref], Any]


def refs(template: Any) -> list[Ref]:
    """The placeholders in a string, or in the strings of nested dicts and lists: in order, each once.

    Raises:
        TemplateError: a brace that is no placeholder.
    """
    found: dict[Ref, None] = {}
    for text in _strings(template):
        found.update((part, None) for part in _split(text) if isinstance(part, Ref))
    return list(found)


def render(template: str, lookup: Lookup) -> str:
    """The template with each placeholder replaced by the text of `lookup(ref)`.

    Strings stand verbatim, a list of strings as blocks with a blank line between, all else as compact JSON.

    Raises:
        TemplateError: a brace that is no placeholder; and whatever `lookup` raises.
    """
    return "".join(as_text(lookup(part)) if isinstance(part, Ref) else part for part in _split(template))


def fill(tree: Any, lookup: Lookup) -> Any:
    """`tree` with its placeholders filled: a string that is one placeholder becomes the value itself.

    Raises:
        TemplateError: a brace that is no placeholder; and whatever `lookup` raises.
    """
    if isinstance(tree, str):
        only = sole_ref(tree)
        return lookup(only) if only else render(tree, lookup)
    if isinstance(tree, Mapping):
        return {key: fill(value, lookup) for key, value in tree.items()}
    return [fill(value, lookup) for value in tree] if isinstance(tree, list | tuple) else tree


def sole_ref(template: str) -> Ref | None:
    """The Ref of a string that is exactly one placeholder, else None."""
    parts = _split(template)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Ref) else None


def read_path(value: Any, ref: Ref) -> Any:
    """The value reached from `value` by the fields of `ref.path`. Fields of null are null (a skipped task).

    Raises:
        TemplateError: a field that the value does not have.
    """
    for part in ref.path:
        if value is None:
            return None
        if not isinstance(value, Mapping) or part not in value:
            has = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise TemplateError(f"{{{ref}}}: there is no field {part!r}", mend=f"the value has: {has[:200]}")
        value = value[part]
    return value


def as_text(value: Any) -> str:
    """How a value stands in a prompt."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n\n".join(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _strings(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _strings(value)


@lru_cache(maxsize=2048)
def _split(template: str) -> tuple[str | Ref, ...]:
    parts: list[str | Ref] = []
    text: list[str] = []
    position = 0
    for match in _BRACE.finditer(template):
        text.append(template[position : match.start()])
        position = match.end()
        token = match.group()
        if match.group(1):
            literal = "".join(text)
            parts += [literal, Ref.parse(match.group(1))] if literal else [Ref.parse(match.group(1))]
            text = []
        elif token in ("{{", "}}"):
            text.append(token[0])
        else:
            raise _stray(template, match.start(), token)
    literal = "".join(text) + template[position:]
    return (*parts, literal) if literal else tuple(parts)


def _stray(template: str, at: int, brace: str) -> TemplateError:
    end = template.find("}", at)
    inside = template[at + 1 : end].strip() if end > at else ""
    excerpt = template[at : at + 24].split("\n")[0]
    if brace == "{" and _REF.match(inside):
        return TemplateError(f"{excerpt!r} is no placeholder", mend=f"write {{{inside}}} without blanks")
    return TemplateError(
        f"a single {brace!r} at {excerpt!r} is no placeholder",
        mend="double the braces to mean them literally: {{ and }} instead of { and }",
    )
