"""Reads the lines of an exported memory, and refuses what is not exactly as `exchange.export` wrote it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from ..content import Encoded
from ..errors import UsageError
from ..items import ItemKind, LinkKind, Scope, Status
from .exchange import BRANCH, ERASURE, FORMAT, ITEM, LINK, REVISION, dump

#: a line: what it is, and its columns
Line = tuple[str, dict[str, Any]]

_COLUMNS = {
    "item": set(ITEM),
    "revision": {*REVISION, "hash", "value"},
    "link": set(LINK),
    "embedding": {"revision_id", "model", "dimensions", "vector"},
    "branch": set(BRANCH),
    "erasure": set(ERASURE),
}
_NUMBERS = {
    "version", "dimensions", "src", "dst", "revision_id", "created_at", "at", "tokens", "valid_from",
    "valid_to", "attempt", "cost_nano", "expires_at",
}  # fmt: skip
_MAY_LACK = {
    "subject", "expires_at", "value_type", "text", "digest", "tokens", "valid_from", "valid_to", "run_id",
    "task", "attempt", "call_id", "model", "prompt_hash", "cost_nano",
}  # fmt: skip
_CHOICES = {
    ("item", "kind"): get_args(ItemKind),
    ("item", "scope"): get_args(Scope),
    ("link", "kind"): get_args(LinkKind),
    ("revision", "status"): get_args(Status),
}


def read(path: Path) -> Iterator[Line]:
    """The lines between header and end, each checked by itself and against those before it.

    That the file is whole is known when the last one was read.

    Raises:
        UsageError: it is not.
    """
    try:
        with open(path, "rb") as file:
            yield from _read(path, file)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", mend="name a file of `export`") from error


def _read(path: Path, file: Iterator[bytes]) -> Iterator[Line]:
    first = next(file, b"")
    header = _parsed(path, 1, first) if first[:1] == b"{" else {}
    if header.get("podium") != "memory" or not isinstance(header.get("counts"), dict):
        raise UsageError(
            f"{path} is no exported memory", mend="name a file that `podium memory export` wrote"
        )
    if header.get("format") != FORMAT:
        raise UsageError(
            f"{path} has the format {header.get('format')}, this Podium knows {FORMAT}",
            mend="install the Podium that wrote it, or a newer one",
        )
    header.pop("exported_at", None)
    digest, check = hashlib.sha256(dump(header).encode() + b"\n"), _Check(path)
    number, counts, end = 1, Counter[str](), None
    for line in file:
        if end is not None:
            raise _damaged(path, number + 2, "there is more after its end")
        parsed = _parsed(path, number + 1, line)
        if "end" in parsed:
            end = parsed["end"]
            continue
        number += 1
        digest.update(line)
        found = check.line(number, parsed)
        counts[found[0]] += 1
        yield found
    if end is None:
        raise _damaged(path, number + 1, "its end is missing: it was cut short")
    if end != {"lines": number, "sha256": digest.hexdigest()}:
        raise _damaged(path, number + 1, "its lines are not those that were written")
    if {name: count for name, count in header["counts"].items() if count} != counts:
        raise _damaged(path, 1, "it does not hold what its first line says")


class _Check:
    """What the lines so far have named."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._items: set[str] = set()
        self._revisions: set[int] = set()
        self._newest = 0

    def line(self, number: int, parsed: dict[str, Any]) -> Line:
        ((kind, data),) = parsed.items() if len(parsed) == 1 else (("", None),)
        if not isinstance(data, dict) or _COLUMNS.get(kind) != data.keys():
            raise _damaged(self._path, number, "no line of an export")
        for name, value in data.items():
            if name != "value" and not _fits(kind, name, value):
                raise _damaged(self._path, number, f"no {name} of {kind}: {str(value)[:40]!r}")
        if (problem := self._problem(kind, data)) is not None:
            raise _damaged(self._path, number, problem)
        return kind, data

    def _problem(self, kind: str, data: dict[str, Any]) -> str | None:
        """What does not fit the lines before, or itself."""
        if kind == "item":
            known = data["id"] in self._items
            self._items.add(data["id"])
            return "the item is there twice" if known else None
        if kind == "revision":
            if data["id"] <= self._newest or data["item_id"] not in self._items:
                return "the revision comes out of turn"
            self._newest = data["id"]
            self._revisions.add(data["id"])
            try:
                same = Encoded.of(data["value"]).hash == data["hash"]
            except (TypeError, ValueError, RecursionError):
                same = False
            return None if same else "the value does not have the hash that is given"
        named = {data[name] for name in ("src", "dst") if name in data}
        if kind == "embedding":
            named = {data["revision_id"]}
            if len(_bytes(data["vector"])) != 4 * data["dimensions"]:
                return "the vector does not have the dimensions that are given"
        return None if named <= self._revisions else "it names a revision that is not in the file"


def _fits(kind: str, name: str, value: Any) -> bool:
    if value is None:
        return name in _MAY_LACK
    if (kind, name) in _CHOICES:
        return value in _CHOICES[kind, name]
    if name == "counts":
        return isinstance(value, dict)
    if name in _NUMBERS or (name == "id" and kind in ("revision", "erasure")):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or line[-1:] != b"\n":
        raise _damaged(path, number, "no whole line of JSON")
    return found


def _damaged(path: Path, number: int, problem: str) -> UsageError:
    return UsageError(
        f"{path}, line {number}: {problem}", mend="export it again, or take another copy; nothing was written"
    )
