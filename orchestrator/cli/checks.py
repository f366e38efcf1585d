"""What `podium doctor` looks at. Each check says what it found and, if not well, the one thing to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ...memory.errors import PodiumError
from ..settings import Settings
from .output import DoctorCheckOut

#: what a run with the embedded model needs, and what the Ray pool needs, in MB
MEMORY_MB = 400
POOL_MEMORY_MB = 1300
DISK_MB = 500


def all_checks(settings: Settings) -> list[DoctorCheckOut]:
    """Every check, in the order in which things are needed. A check that fails never hides the others."""
    checks: list[Callable[[Settings], Iterator[DoctorCheckOut]]] = [
        _python,
        _packages,
        _home,
        _database,
        _pool,
        _cluster,
        _memory,
        _disk,
    ]
    found: list[DoctorCheckOut] = []
    for check in checks:
        try:
            found += check(settings)
        except PodiumError as error:
            found.append(_fail(check.__name__.strip("_"), error.message, error.mend))
    return found


def _ok(name: str, detail: str) -> DoctorCheckOut:
    return DoctorCheckOut(name=name, state="ok", detail=detail, mend="")


def _warn(name: str, detail: str, mend: str) -> DoctorCheckOut:
    return DoctorCheckOut(name=name, state="warn", detail=detail, mend=mend)


def _fail(name: str, detail: str, mend: str) -> DoctorCheckOut:
    return DoctorCheckOut(name=name, state="fail", detail=detail, mend=mend)


def _python(_: Settings) -> Iterator[DoctorCheckOut]:
    found = ".".join(map(str, sys.version_info[:3]))
    # the package index says >=3.11, but a folder on the path asks nobody
    if sys.version_info >= (3, 11):  # noqa: UP036
        yield _ok("python", f"{found}, {sys.executable}")
    else:
        yield _fail("python", found, "install Python 3.11 or newer")


def _packages(_: Settings) -> Iterator[DoctorCheckOut]:
    base: list[str] = []
    extras: dict[str, list[str]] = {}
    for requirement in requires("podium") or []:
        name = requirement.split(";")[0]
        for mark in "[<>=!~ ":
            name = name.split(mark)[0]
        if "extra ==" in requirement:
            extra = requirement.split("extra ==")[1].strip().strip("'\"")
            extras.setdefault(extra, []).append(name)
        else:
            base.append(name)
    missing = [name for name in base if not _installed(name)]
    if missing:
        yield _fail("packages", f"missing: {', '.join(missing)}", "pip install --upgrade podium")
    else:
        yield _ok("packages", f"podium {version('podium')} and its {len(base)} packages")
    for extra, names in extras.items():
        if extra == "dev":
            continue
        lacking = [name for name in names if not _installed(name)]
        detail = (
            "installed" if not lacking else f"not installed ({', '.join(lacking)}); needed only if you use it"
        )
        yield _ok(f"extra {extra}", detail)


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _home(settings: Settings) -> Iterator[DoctorCheckOut]:
    home = settings.home
    mend = "set PODIUM_HOME to a folder you own"
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".doctor-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        yield _fail("home", f"{home}: {error.strerror}", mend)
    else:
        yield _ok("home", str(home))


def _database(settings: Settings) -> Iterator[DoctorCheckOut]:
    from ...memory.database import HEAD, Database

    if not settings.database_url and not (settings.home / "podium.db").exists():
        yield _ok("database", "none yet; the first run makes it")
        return
    database = Database(settings.database)
    try:
        revision = database.revision()
        wrong = database.differences() if revision == HEAD else []
    finally:
        database.close()
    where = database.url.render_as_string()
    if revision is None or revision < HEAD:
        yield _warn("database", f"{where}: schema {revision or 'none'}, newest {HEAD}", "podium db upgrade")
    elif revision > HEAD:
        yield _fail(
            "database", f"{where}: schema {revision}, this Podium knows {HEAD}", "install the newer Podium"
        )
    elif wrong:
        yield _fail("database", f"{where}: {len(wrong)} differences in the schema", "podium db check")
    else:
        yield _ok("database", f"{where}: schema {revision}")


def _pool(settings: Settings) -> Iterator[DoctorCheckOut]:
    from ...workers.poolfile import load_pool
    from .models import model_out

    file = load_pool(settings.pool_file, settings.home)
    yield _ok("pool", f"{file.path}: {len(file.models)} models, policy {file.policy.kind}")
    for spec in file.models.values():
        record = model_out(spec, settings.home)
        name = f"model {spec.name}"
        if record.state == "ready":
            yield _ok(name, f"{spec.engine}, {spec.source}")
        else:
            what, _, mend = record.detail.partition("; ")
            yield _warn(name, what, mend)


def _cluster(settings: Settings) -> Iterator[DoctorCheckOut]:
    from ...workers.cluster import cluster_info
    from ..service import engine_status

    info, engine = cluster_info(settings.home), engine_status(settings.home)
    if info is None and engine is None:
        yield _ok("cluster", "not up; runs are driven in their own process")
    elif info is None or engine is None:
        what = (
            "the engine runs without its Ray head" if info is None else "the Ray head runs without an engine"
        )
        yield _warn("cluster", what, "podium down, then podium up")
    else:
        yield _ok("cluster", f"{info.address}, engine pid {engine['pid']}")


def _memory(_: Settings) -> Iterator[DoctorCheckOut]:
    free = _free_memory_mb()
    if free is None:
        yield _ok("memory", "not known on this system")
    elif free < MEMORY_MB:
        yield _warn("memory", f"{free} MB are free", f"end some programs: a model needs about {MEMORY_MB} MB")
    elif free < POOL_MEMORY_MB:
        yield _warn(
            "memory",
            f"{free} MB are free",
            f"`podium up` needs about {POOL_MEMORY_MB} MB; runs work without it",
        )
    else:
        yield _ok("memory", f"{free} MB are free")


def _free_memory_mb() -> int | None:
    """What may be used without swapping, within the container's limit if there is one."""
    free: int | None = None
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) // 1024
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        left = (limit - int(Path("/sys/fs/cgroup/memory.current").read_text())) // 2**20
        free = left if free is None else min(free, left)
    return free


def _disk(settings: Settings) -> Iterator[DoctorCheckOut]:
    place = settings.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free // 1_000_000
    if free < DISK_MB:
        yield _warn("disk", f"{free} MB are free at {place}", "free some space, or move PODIUM_HOME")
    else:
        yield _ok("disk", f"{free} MB are free at {place}")
