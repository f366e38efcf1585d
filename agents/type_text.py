"""Types as people write them, in strings and in YAML: what `OutputType.parse` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from .outputs import (
    MAX_DEPTH,
    NAME,
    SCALARS,
    OutputType,
    enum_of,
    list_of,
    nearest,
    no_type,
    optional,
    record,
)

_SYNONYMS = {
    "string": "str", "text": "str", "integer": "int", "number": "float", "double": "float", "boolean": "bool",
    "dict": "object", "array": "list[any]", "list": "list[any]", "json": "any",
}  # fmt: skip
_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([^\W\d][\w-]*)|([\[\]{}:,|?]))')


def parse_type(spec: Any) -> OutputType:
    """See OutputType.parse."""
    return _parse(spec, 0)


def _parse(spec: Any, depth: int) -> OutputType:
    if depth > MAX_DEPTH:
        raise no_type(f"a type nested deeper than {MAX_DEPTH} levels", "make it flatter")
    if isinstance(spec, OutputType):
        return spec
    if isinstance(spec, str):
        return _TextParser(spec).parse(depth)
    if isinstance(spec, Mapping):
        return record((str(name), _parse(kind, depth + 1)) for name, kind in spec.items())
    if not isinstance(spec, list | tuple):
        raise no_type(f"{str(spec)[:80]!r}", 'write a type: str, list[str], {title: str}; "str?" allows null')
    of_one = len(spec) == 1 and isinstance(spec[0], Mapping | list)
    return list_of(_parse(spec[0], depth + 1)) if of_one else enum_of(spec)


class _TextParser:
    """Recursive descent over the string form. Each method reads one production and returns its type."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                self.wrong()
            self.tokens.append(match.group().strip())
            position = match.end()
        self.tokens.reverse()

    def parse(self, depth: int) -> OutputType:
        kind = self.type(depth)
        if self.tokens:
            self.wrong()
        return kind

    def type(self, depth: int) -> OutputType:
        if depth > MAX_DEPTH:
            raise no_type(f"a type nested deeper than {MAX_DEPTH} levels", "make it flatter")
        kind = self.atom(depth)
        while self.peek() in ("?", "|"):
            if self.take() == "|" and self.take() not in ("null", "None", "none"):
                raise no_type(f"{self.text!r}", "only null can stand beside a type; choices are a list")
            kind = optional(kind)
        return kind

    def atom(self, depth: int) -> OutputType:
        word = self.take()
        if word == "{":
            return record(self.fields(depth))
        if word == "[":
            return enum_of(self.choices())
        if word in ("list", "dict") and self.peek() == "[":
            return self.container(word, depth)
        if word in SCALARS:
            return OutputType(word)  # type: ignore[arg-type]
        generic = {"list": "list[...]", "dict": "dict[str, ...]"}
        meant = _SYNONYMS.get(word.lower()) or nearest(word, [*SCALARS, *generic])
        if not NAME.match(word):
            self.wrong()
        otherwise = f"use one of {', '.join(SCALARS)}, list[...], dict[str, ...]"
        raise no_type(f"{word!r}", f"did you mean {generic.get(meant, meant)}?" if meant else otherwise)

    def container(self, word: str, depth: int) -> OutputType:
        self.expect("[")
        if word == "list":
            made = list_of(self.type(depth + 1))
        else:
            if self.take() != "str":
                raise no_type(f"{self.text!r}", "the keys of a dict are str: dict[str, int]")
            self.expect(",")
            made = OutputType("dict", self.type(depth + 1))
        self.expect("]")
        return made

    def fields(self, depth: int) -> list[tuple[str, OutputType]]:
        found: list[tuple[str, OutputType]] = []
        while self.peek() != "}":
            name = self.take()
            self.expect(":")
            found.append((name, self.type(depth + 1)))
            if self.peek() == ",":
                self.take()
        self.expect("}")
        if len({name for name, _ in found}) != len(found):
            raise no_type(f"{self.text!r}", "name each field once")
        return found

    def choices(self) -> list[str]:
        found: list[str] = []
        while self.peek() != "]":
            word = self.take()
            found.append(json.loads(word) if word.startswith('"') else word)
            if self.peek() == ",":
                self.take()
        self.expect("]")
        return found

    def peek(self) -> str:
        return self.tokens[-1] if self.tokens else ""

    def take(self) -> str:
        if not self.tokens:
            self.wrong()
        return self.tokens.pop()

    def expect(self, token: str) -> None:
        if self.take() != token:
            self.wrong()

    def wrong(self) -> NoReturn:
        raise no_type(
            f"{self.text[:80]!r}", "write a type such as str, list[str], dict[str, int], str? or {title: str}"
        )
