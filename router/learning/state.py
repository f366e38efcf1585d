"""Learned objects as bytes and back: what SQL keeps between processes. No pickle: nothing read is ever run.

A state is an npz file of arrays, whose entry `tree` is JSON that says where each of them belongs. Only
classes that the reader names are made again, from their attributes. A state holds figures, never a
prompt's text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ...memory.errors import UsageError

#: raised with every change of what a state means
VERSION = 1


def pack(value: Any, classes: Mapping[str, type]) -> bytes:
    """`value` as bytes: plain values, lists, tuples, dicts, arrays, and objects of `classes` by name.

    Attributes whose names are in a class's `LEFT_OUT` are not written.

    Raises:
        UsageError: something else is in it.
    """
    names = {kind: name for name, kind in classes.items()}
    arrays: dict[str, np.ndarray] = {}
    tree = {"version": VERSION, "value": _write(value, names, arrays)}
    text = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    out = BytesIO()
    np.savez_compressed(out, allow_pickle=False, tree=text, **arrays)
    return out.getvalue()


def unpack(state: bytes, classes: Mapping[str, type]) -> Any:
    """What `pack` was given, without what it left out.

    Raises:
        UsageError: no state, a damaged one, one of another version, or one with other classes.
    """
    try:
        with np.load(BytesIO(state), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        tree = json.loads(arrays.pop("tree").tobytes())
        version = tree["version"]
        if version == VERSION:
            return _read(tree["value"], classes, arrays)
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise UsageError(
            f"this is no state of a router: {error}", mend="train again from the outcomes in the database"
        ) from error
    raise UsageError(
        f"the router's state has version {version}, this program reads {VERSION}",
        mend="train again from the outcomes in the database",
    )


def _write(value: Any, names: Mapping[type, str], arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"array": f"a{len(arrays) - 1}"}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_write(each, names, arrays) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[_write(k, names, arrays), _write(v, names, arrays)] for k, v in value.items()]}
    if type(value) in names:
        left_out = getattr(value, "LEFT_OUT", ())
        items = {k: _write(v, names, arrays) for k, v in vars(value).items() if k not in left_out}
        return {"object": names[type(value)], "items": items}
    raise UsageError(f"a router's state cannot hold a {type(value).__name__}", mend="report this as a bug")


def _read(tree: Any, classes: Mapping[str, type], arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    if "list" in tree:
        return [_read(each, classes, arrays) for each in tree["list"]]
    if "tuple" in tree:
        return tuple(_read(each, classes, arrays) for each in tree["tuple"])
    if "dict" in tree:
        return {_read(k, classes, arrays): _read(v, classes, arrays) for k, v in tree["dict"]}
    made = object.__new__(classes[tree["object"]])
    # frozen dataclasses too: their attributes are set once, here
    vars(made).update({k: _read(v, classes, arrays) for k, v in tree["items"].items()})
    return made
