"""YAML to plain data with the line of every value: safe, iterative, bounded, duplicate keys found.

The scalars are YAML 1.2's (`yes` and `2024-01-01` are text), and `list[str]` needs no quotes inside braces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.tokens import ScalarToken

from .problems import Lines, Path, Problem, problem_at

#: values in one file, aliases counted with all that they hold
MAX_VALUES = 2_000_000
MAX_DEPTH = 60

_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_END = "\0 \t\r\n\x85\u2028\u2029"


class _TypeLoader(yaml.SafeLoader):
    """PyYAML's own scanner, taught that `list[str]` and `str?` are plain words inside { } and [ ]."""

    def scan_plain(self) -> ScalarToken:
        chunks: list[str] = []
        start = end = self.get_mark()
        indent = self.indent + 1
        spaces: Any = []
        while self.peek() != "#":
            length = self._word_length()
            if length == 0:
                break
            self.allow_simple_key = False
            chunks += [*spaces, self.prefix(length)]
            self.forward(length)
            end = self.get_mark()
            spaces = self.scan_plain_spaces(indent, start)
            if not spaces or (not self.flow_level and self.column < indent):
                break
        return ScalarToken("".join(chunks), True, start, end)

    def _word_length(self) -> int:
        length = 0
        while True:
            ch = self.peek(length)
            stop = _END + (",[]{}" if self.flow_level else "")
            if ch in _END or (ch == ":" and self.peek(length + 1) in stop):
                return length
            if self.flow_level and ch in ",[]{}":
                generic = ch == "[" and self.prefix(length).endswith(("list", "dict"))
                closed = self._bracket_end(length) if generic else 0
                if not closed:
                    return length
                length = closed
            elif self.flow_level and ch == "?" and length == 0:
                return length
            else:
                length += 1

    def _bracket_end(self, length: int) -> int:
        """Where the bracket that opens at `length` is closed on the same line; 0: nowhere."""
        depth = 0
        while (ch := self.peek(length)) not in "\0\r\n":
            depth += (ch in "[{") - (ch in "]}")
            length += 1
            if depth == 0:
                return length
        return 0


class _Stop(Exception):
    """Reading cannot go on; carries the Problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read."""

    value: Any
    path: Path
    anchor: str | None
    #: of a mapping: the key that waits for its value
    key: str | None = None
    size: int = 1
    keys: dict[str, int] = field(default_factory=dict)


def parse_yaml(text: str) -> tuple[Any, Lines, list[Problem]]:
    """The data of one YAML document, the lines of its values, and what is wrong with it.

    With a syntax error the data is None; with duplicate keys the first value is kept.
    """
    try:
        return _Reader().read(text, _FAST)
    except yaml.YAMLError:
        pass  # the fast scanner does not know list[str] inside braces: the other one decides
    except _Stop as stop:
        return None, Lines(), [stop.problem]
    try:
        return _Reader().read(text, _TypeLoader)
    except yaml.YAMLError as error:
        return None, Lines(), [_syntax(error, text)]
    except _Stop as stop:
        return None, Lines(), [stop.problem]


class _Reader:
    """Builds data from YAML events on a stack of its own: depth is bounded by a number, not by a crash."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.problems: list[Problem] = []
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.root: Any = None
        self.documents = 0
        self.values = 0

    def read(self, text: str, loader: Any) -> tuple[Any, Lines, list[Problem]]:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    self.stop(event, "a second document begins (---)", "write one workflow in one file")
            elif isinstance(event, ScalarEvent):
                self.scalar(event)
            elif isinstance(event, MappingStartEvent | SequenceStartEvent):
                self.open(event)
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                self.close(event)
            elif isinstance(event, AliasEvent):
                if event.anchor not in self.anchors:
                    self.stop(
                        event, f"*{event.anchor} names nothing before it", f"define &{event.anchor} first"
                    )
                self.put(event, *self.anchors[event.anchor])
        return self.root, self.lines, self.problems

    def scalar(self, event: Any) -> None:
        if event.tag not in (None, "!"):
            word = event.tag if event.tag.startswith("!") else f"!!{event.tag.rsplit(':', 1)[-1]}"
            mend = f'put it in quotes: "{word}"' if word == "!=" else "remove it: types are written as text"
            self.stop(event, f"{word} is read as a YAML tag", mend)
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self.set_key(event, top, event.value)
            return
        value = _resolve(event.value) if event.implicit[0] else event.value
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        self.put(event, value, 1)

    def open(self, event: Any) -> None:
        if event.tag not in (None, "!"):
            self.stop(event, f"{event.tag} is read as a YAML tag", "remove it")
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self.stop(event, "a key is a list or a mapping", "put the key in quotes")
        if len(self.stack) >= MAX_DEPTH:
            self.stop(event, f"nested deeper than {MAX_DEPTH} levels", "make it flatter")
        path = self.path()
        self.lines.numbers.setdefault(path, event.start_mark.line + 1)
        value: Any = {} if isinstance(event, MappingStartEvent) else []
        self.stack.append(_Open(value, path, event.anchor))

    def close(self, event: Any) -> None:
        done = self.stack.pop()
        if done.anchor:
            self.anchors[done.anchor] = (done.value, done.size)
        self.put(event, done.value, done.size)

    def set_key(self, event: Any, top: _Open, key: str) -> None:
        line = event.start_mark.line + 1
        if key in top.keys:
            task = top.path[-1:] == ("tasks",)
            what = "duplicate task" if task else "duplicate key"
            message = f"{what} {key!r}, first on line {top.keys[key]}"
            mend = "give the second one another name" if task else "keep one of the two"
            found = problem_at((*top.path, key), None, message, mend)
            self.problems.append(Problem(found.task, line, message, mend))
        else:
            top.keys[key] = line
            self.lines.numbers.setdefault((*top.path, key), line)
        top.key = key

    def put(self, event: Any, value: Any, size: int) -> None:
        self.values += size
        if self.values > MAX_VALUES:
            self.stop(event, f"more than {MAX_VALUES} values", "split the workflow")
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        top.size += size
        if isinstance(top.value, list):
            self.lines.numbers.setdefault((*top.path, len(top.value)), event.start_mark.line + 1)
            top.value.append(value)
        elif top.key is None:
            self.stop(event, "a key is an alias", "write the key itself")
        else:
            top.value.setdefault(top.key, value)
            top.key = None

    def path(self) -> Path:
        if not self.stack:
            return ()
        top = self.stack[-1]
        return (*top.path, len(top.value) if isinstance(top.value, list) else str(top.key))

    def stop(self, event: Any, message: str, mend: str) -> None:
        found = problem_at(self.path(), None, message, mend)
        raise _Stop(Problem(found.task, event.start_mark.line + 1, message, mend))


def _resolve(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text) and len(text) < 100:
        return int(text)
    return float(text) if _FLOAT.match(text) else text


def _syntax(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        position = min(error.position, len(text))
        line = text.count("\n", 0, position) + 1
        return Problem(
            None, line, "YAML: a character that no text may hold", "remove the character or escape it"
        )
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context_mark", None)
    if "stream end" in said or "unexpected end of stream" in said:
        mark, said = context or mark, "what is opened here is never closed"
    elif "flow" in (getattr(error, "context", None) or "") and mark and context and context.line < mark.line:
        said = (
            f"what is opened here is not closed on this line, and line {mark.line + 1} does not go on with it"
        )
        mark = context
    if "'\\t'" in said:
        mend = "indent with spaces, not with tabs"
    elif "closed" in said:
        mend = "close the bracket or the quote"
    elif "mapping values" in said or "cannot start any token" in said or "but got" in said:
        mend = "put text that holds any of : { } [ ] , > # in quotes"
    else:
        mend = "check the indentation and the quotes here"
    return Problem(None, mark.line + 1 if mark else None, f"YAML: {said}", mend)
