"""The child process in which user code runs: lines in, lines out.

    <seq> call ["module:name", {arguments}]   →   <seq> <microseconds> v <value>   or   … e {"error": …}
    <seq> describe ["module:name", …]         →   <seq> <microseconds> v [tool, …]

The other side is `workers/child.py`, which says what the shared memory is for. Before the first answer comes
`0 0 r`: ready. `s` is a request that was taken back and is skipped; a capital letter says that this process
has grown too large and wants to be replaced. Microseconds are the function's own, -1 for its first call.

Whatever user code prints goes to stderr, and it reads from /dev/null: stdin and stdout belong to the
protocol. The child dies with its parent. It imports little, since every resumed run waits for it: asyncio
and pydantic come in only with a function that needs them.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import json
import mmap
import os
import signal
import sys
import time
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..agents.tools import call_tool, describe_refs, load_function
from ..memory.errors import PodiumError, TaskError

#: words of shared memory, as in workers/child.py
BEGUN, BACK = 0, 1
#: seconds between looks at the memory that this process holds
LOOK_S = 0.05
#: characters of an exception's text that are told
MAX_TEXT = 20_000

Check = Callable[[Any], bool]


def exact(annotation: Any) -> Check | None:
    """Whether a JSON value is of the annotated type as it is, so that pydantic would hand it on unchanged.

    None: only pydantic can tell, or converts. (Importing it takes longer than starting this process.)
    """
    if annotation in (inspect.Parameter.empty, Any, object):
        return lambda value: True
    if annotation is None:
        annotation = type(None)
    if annotation in (str, int, float, bool, list, dict, type(None)):
        return lambda value: type(value) is annotation
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [exact(part) for part in inner]
        if None in parts:
            return None
        return lambda value: any(check(value) for check in typing.cast("list[Check]", parts))
    if origin is list and (item := exact(inner[0])):
        return lambda value: type(value) is list and all(map(item, value))
    if origin is dict and inner[0] is str and (item := exact(inner[1])):
        return lambda value: type(value) is dict and all(map(item, value.values()))
    return None


def exact_arguments(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], bool] | None:
    """Whether arguments can be handed to `function` as they are; None: `call_tool` must look at them."""
    if not inspect.isfunction(function):
        return None
    try:
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
    except (NameError, TypeError, ValueError, AttributeError):
        return None
    checks: dict[str, Check] = {}
    for one in parameters:
        check = exact(hints.get(one.name, one.empty))
        if check is None or one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            return None
        checks[one.name] = check
    required = {one.name for one in parameters if one.default is one.empty}

    def fits(arguments: Mapping[str, Any]) -> bool:
        names = arguments.keys()
        return (
            names <= checks.keys()
            and required <= names
            and all(checks[name](value) for name, value in arguments.items())
        )

    return fits


def plain(value: Any) -> bool:
    """Whether a result is JSON as it is: nothing to convert."""
    kind = type(value)
    if kind in (str, int, bool, type(None), float):
        return True
    if kind is list:
        return all(map(plain, value))
    return kind is dict and all(type(key) is str for key in value) and all(map(plain, value.values()))


class Caller:
    """One function, looked at once."""

    def __init__(self, ref: str) -> None:
        self._function = load_function(ref)
        self._fits = exact_arguments(self._function)
        self._async = inspect.iscoroutinefunction(self._function)

    def __call__(self, arguments: dict[str, Any]) -> str:
        """The result as JSON. Raises as `call_tool`, and whatever the function raises."""
        if self._fits is None or self._async or not self._fits(arguments):
            return self._convert(self._function, arguments)
        result = self._function(**arguments)
        with contextlib.suppress(ValueError, RecursionError):  # NaN, a circle: the long way words it
            if plain(result):
                return json.dumps(result, allow_nan=False)

        def known() -> Any:
            return result

        known.__name__ = self._function.__name__
        return self._convert(known, {})

    @staticmethod
    def _convert(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
        import asyncio

        return json.dumps(asyncio.run(call_tool(function, arguments)))


class Worker:
    """Answers requests."""

    def __init__(self, max_answer: int, grown_bytes: int) -> None:
        self._max_answer, self._grown_bytes = max_answer, grown_bytes
        self._callers: dict[str, Caller] = {}
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if os.path.exists("/proc/self/statm") else -1
        self._base = self._resident()
        self._look_at = 0.0

    def answer(self, number: int, verb: bytes, body: bytes) -> bytes:
        """The line that answers a request."""
        micros, kind = -1, b"v"
        try:
            if verb == b"describe":
                text = json.dumps(describe_refs(json.loads(body)))
            else:
                text, micros = self._call(*json.loads(body))
            if len(text) > self._max_answer:
                raise TaskError(
                    f"the answer is larger than {self._max_answer} bytes",
                    retryable=False,
                    mend="write large results to a file and return its path",
                )
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, also SystemExit
            kind, text = b"e", json.dumps(_told(error))
        if self._grown():
            kind = kind.upper()
        return b"%d %d %b %b\n" % (number, micros, kind, text.encode())

    def _call(self, ref: str, arguments: dict[str, Any]) -> tuple[str, int]:
        caller = self._callers.get(ref)
        if caller is None:
            caller = self._callers[ref] = Caller(ref)
            try:
                return caller(arguments), -1
            finally:
                # what a function loads once, a model say, is not growth
                self._base = max(self._base, self._resident())
        begun = time.perf_counter_ns()
        text = caller(arguments)
        return text, (time.perf_counter_ns() - begun) // 1000

    def _grown(self) -> bool:
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        return self._resident() - self._base > self._grown_bytes

    def _resident(self) -> int:
        """Bytes of memory that this process holds; 0 where that cannot be seen."""
        if self._statm < 0:
            return 0
        return int(os.pread(self._statm, 200, 0).split()[1]) * mmap.PAGESIZE


def _told(error: BaseException) -> dict[str, Any]:
    if isinstance(error, PodiumError):
        return {
            "error": error.message,
            "mend": error.mend,
            "kind": type(error).__name__,
            "retryable": error.retryable,
        }
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    traceback.print_exception(error, file=sys.stderr)
    said = f"{type(error).__name__}: {error}"[:MAX_TEXT]
    return {"error": said, "where": where, "kind": "user", "retryable": True}


def lines(source: int) -> Iterator[bytes]:
    """Lines of a descriptor, as they come."""
    parts: list[bytes] = []
    while chunk := os.read(source, 1 << 18):
        *whole, rest = chunk.split(b"\n")
        if whole:
            yield b"".join([*parts, whole[0]])
            parts.clear()
            yield from whole[1:]
        parts.append(rest)


def serve(source: int, sink: int, words: Any, worker: Worker) -> None:
    """Answer requests until `source` ends."""
    _write(sink, b"0 0 r \n")
    for line in lines(source):
        seq, verb, body = line.split(b" ", 2)
        number = int(seq)
        # in this order: the other side takes back, waits, and looks what has begun
        words[BEGUN] = number
        if number <= words[BACK]:
            _write(sink, b"%d -1 s \n" % number)
        else:
            _write(sink, worker.answer(number, verb, body))


def _write(sink: int, data: bytes) -> None:
    written = os.write(sink, data)
    while written < len(data):
        written += os.write(sink, memoryview(data)[written:])


def _prepare(memory_bytes: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; Linux only
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # if memory runs out, this process goes, not the engine
    if memory_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def main() -> None:
    root = sys.argv[1]
    shared, max_answer, memory_bytes, grown_bytes = map(int, sys.argv[2:6])
    _prepare(memory_bytes)
    words = memoryview(mmap.mmap(shared, mmap.PAGESIZE)).cast("Q")
    os.close(shared)
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.path.insert(0, root)
    serve(source, sink, words, Worker(max_answer, grown_bytes))


if __name__ == "__main__":
    main()
