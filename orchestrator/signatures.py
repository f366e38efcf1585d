"""What a project's functions take and return, found out by a process of its own, never by importing here.

`read_signatures` starts `python -m podium.orchestrator.signatures`, hands it all references at once and reads
JSON back. A module that crashes, hangs or prints harms that process only.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import signal
import subprocess
import sys
import sysconfig
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.outputs import OutputType, nearest
from ..memory.errors import ConfigError, UsageError

#: seconds that all imports together may take
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    #: None: not annotated, or with a type that cannot be written as JSON
    type: OutputType | None
    required: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """How a function is called. With an `error` it cannot be."""

    parameters: tuple[Parameter, ...] = ()
    returns: OutputType | None = None
    #: it has **kwargs
    takes_any: bool = False
    error: str = ""
    mend: str = ""


def folder_of(names: Iterable[str]) -> Path | None:
    """The folder that the first of these "module:name" is imported from in this process.

    None: none of the modules is imported here, or all of them are installed and need no folder.
    """
    installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    for name in names:
        module = name.partition(":")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None:
            continue
        above = Path(file).resolve().parents
        # a package's own file is __init__.py, one folder deeper
        depth = module.count(".") + (Path(file).stem == "__init__")
        if depth < len(above) and not installed.intersection(above):
            return above[depth]
    return None


def read_signatures(names: Iterable[str], root: Path, *, timeout: float = TIMEOUT) -> dict[str, Signature]:
    """The Signature of each "module:name", imported with `root` first on the path, in another process.

    A name that cannot be imported has an `error`. When the whole process fails, every name has one.

    Raises:
        ConfigError: no process could be started.
    """
    wanted = tuple(sorted(set(names)))
    if not wanted:
        return {}
    known = _known.get((root, wanted))
    if known is not None and _stamps(known[0]) == known[0]:
        return dict(known[1])
    command = [sys.executable, "-m", __name__, str(root.resolve())]
    try:
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        raise ConfigError(
            f"Python cannot be started: {error}", mend="check the Python installation"
        ) from None
    try:
        out, err = child.communicate(json.dumps(wanted).encode(), timeout=timeout)
    except subprocess.TimeoutExpired:
        out, err = b"", f"took longer than {timeout:g} s".encode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    try:
        answers = json.loads(out.decode())
        found = {name: _from_json(answers["found"][name]) for name in wanted}
    except (ValueError, KeyError, TypeError):
        last = err.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        broken = Signature(
            error=f"importing the project's functions failed: {last[0][:200]}", mend="import them by hand"
        )
        return dict.fromkeys(wanted, broken)
    if not any(signature.error for signature in found.values()):
        _known[root, wanted] = (_stamps(answers["files"]), found)
    return dict(found)


Stamps = dict[str, tuple[int, int]]

#: what was found in this process, with the stamps of the project's files that it rests on
_known: dict[tuple[Path, tuple[str, ...]], tuple[Stamps, dict[str, Signature]]] = {}


def _stamps(files: Iterable[str]) -> Stamps:
    """Time of change (nanoseconds) and size (bytes) of each file; (0, 0): it is not there."""
    found = {}
    for file in files:
        try:
            status = os.stat(file)
            found[file] = (status.st_mtime_ns, status.st_size)
        except OSError:
            found[file] = (0, 0)
    return found


def _from_json(answer: Mapping[str, Any]) -> Signature:
    parameters = tuple(
        Parameter(name, None if spec is None else OutputType.parse(spec), required)
        for name, spec, required in answer.get("parameters", [])
    )
    returns = answer.get("returns")
    return Signature(
        parameters,
        None if returns is None else OutputType.parse(returns),
        bool(answer.get("takes_any")),
        answer.get("error", ""),
        answer.get("mend", ""),
    )


def _describe(name: str, root: str) -> dict[str, Any]:
    """In the child: import `name` and describe it, as JSON."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if not (module_name == missing or module_name.startswith(f"{missing}.")):
            return {
                "error": f"{module_name} imports {missing}, which is not there",
                "mend": f"install {missing}",
            }
        beside = [found.name for found in pkgutil.iter_modules([root])]
        near = nearest(module_name, beside)
        mend = (
            f"did you mean {near}:{attribute}?"
            if near
            else f"write {module_name.replace('.', '/')}.py in {root}"
        )
        return {"error": f"there is no module {module_name}", "mend": mend}
    except BaseException as error:  # noqa: BLE001  # user code may raise anything, SystemExit too
        said = f"{type(error).__name__}: {error}"[:200]
        return {"error": f"importing {module_name} failed: {said}", "mend": f"mend {module_name}"}
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = (
                [key for key in vars(found) if not key.startswith("_")] if hasattr(found, "__dict__") else []
            )
            near = nearest(part, public)
            mend = f"did you mean {module_name}:{near}?" if near else f"define {part} in {module_name}"
            return {"error": f"{module_name} has no {attribute}", "mend": mend}
        found = getattr(found, part)
    return _signature(name, found)


def _signature(name: str, found: Any) -> dict[str, Any]:
    function = _function(found)
    if function is None:
        return {
            "error": f"{name} is a {type(found).__name__} and cannot be called",
            "mend": "name a function",
        }
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {"takes_any": True}
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001  # annotations are user code: what cannot be read is unknown
        hints = {}
    kinds = signature.parameters.values()
    named = [p for p in kinds if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    positional = next((p.name for p in kinds if p.kind is p.POSITIONAL_ONLY and p.default is p.empty), None)
    if positional:
        mend = "remove the / from its parameters"
        return {"error": f"{name} takes {positional} by position only", "mend": mend}
    return {
        "parameters": [[p.name, _spec(hints.get(p.name)), p.default is p.empty] for p in named],
        "returns": _spec(hints.get("return")) if hints.get("return") is not type(None) else None,
        "takes_any": any(p.kind is p.VAR_KEYWORD for p in kinds),
    }


def _function(found: Any) -> Any:
    """The function of a tool object, or what is callable itself."""
    for attribute in ("function", "fn", "func"):
        inner = getattr(found, attribute, None)
        if callable(inner) and not inspect.isfunction(found):
            return inner
    return inspect.unwrap(found) if callable(found) else None


def _spec(annotation: Any) -> Any:
    try:
        return None if annotation is None else OutputType.of(annotation).spec
    except UsageError:
        return None


def _child() -> None:
    root = sys.argv[1]
    sys.path.insert(0, root)
    names = json.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    os.dup2(2, 1)  # what user modules print must not stand in the answer
    found = {name: _describe(name, root) for name in names}
    loaded = [str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())]
    with os.fdopen(answer, "w") as out:
        json.dump({"found": found, "files": [file for file in loaded if file.startswith(root)]}, out)
    sys.stdout.flush()
    os._exit(0)  # no exit handlers, no waiting for threads of user modules


if __name__ == "__main__":
    _child()
