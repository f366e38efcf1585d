"""The text of a context: lines, citation marks, and fences between instructions and untrusted content."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: names of the two fenced sections
INSTRUCTIONS, CONTENT = "instructions", "content"
_TAG = re.compile(rf"<(?=\s*/?\s*(?:{INSTRUCTIONS}|{CONTENT})\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece to be rendered: words, or one value of a named argument."""

    #: argument ("": words)
    slot: str
    text: str
    mark: int | str
    trusted: bool = False
    #: values of one argument stand in one line, with this between them
    between: str = "|"


def unfenced(text: str) -> str:
    """Text that cannot open or close a fence: the `<` of such a tag becomes `&lt;`."""
    return _TAG.sub("&lt;", text)


def lines(parts: Sequence[Part], marks: bool) -> list[str]:
    """One line an argument, in the order of its first value; the words after them."""
    slots: dict[str, list[Part]] = {}
    words: list[str] = []
    for part in parts:
        if part.slot:
            slots.setdefault(part.slot, []).append(part)
        else:
            words.append(_marked(part.text, [part.mark]) if marks else part.text)
    found = []
    for name, values in slots.items():
        line = f"{name}: {values[0].between.join(' '.join(v.text.split()) for v in values)}"
        found.append(_marked(line, [v.mark for v in values]) if marks else line)
    return found + words


def _marked(text: str, marks: Sequence[int | str]) -> str:
    """A text with the marks at the end of each of its lines."""
    end = "".join(f"[{m}]" for m in dict.fromkeys(marks))
    return "\n".join(f"{line} {end}" if line.strip() else line for line in text.split("\n"))


def render(parts: Sequence[Part], marks: bool, fenced: bool) -> str:
    """The text of a context. With fences, trusted parts and the others stand in two sections apart."""
    if not fenced:
        return "\n".join(lines(parts, marks))
    found = []
    for name, wanted in ((INSTRUCTIONS, True), (CONTENT, False)):
        section = [p for p in parts if p.trusted is wanted]
        if section:
            found += [f"<{name}>", unfenced("\n".join(lines(section, marks))), f"</{name}>"]
    return "\n".join(found)
