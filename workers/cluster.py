"""The local Ray head of one PODIUM_HOME: start, find, connect to, stop.

Each home has at most one head, and several homes can have theirs side by side. A head listens on loopback
only, asks everyone for the token in `<home>/ray-token` (mode 0600), and runs in a POSIX session of its own,
which is how `stop_head` knows its processes (`ray stop` would end every Ray cluster of the user).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import logging
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..memory.errors import ClusterError, ConfigError
from .processes import Process, end, in_session

#: Ray's namespace of all of Podium's actors
NAMESPACE = "podium"
DEFAULT_DASHBOARD_PORT = 8265
#: seconds `ray start` may take, and a head's processes to end after SIGTERM
START_TIMEOUT_S = 120.0
STOP_GRACE_S = 2.0
#: bytes of Ray's object store; prompts and answers are small
OBJECT_STORE_BYTES = 100_000_000
#: a unix socket's path has at most 107 bytes, and Ray adds about 66 to its temp dir
_TEMP_DIR_LIMIT = 36
#: what only a driver gets. Ray ends one 60 s after its head died; ours lives on, to report it or to connect
#: to another one. And it would tell a dead head what it did for 5 s before it let go.
_DRIVER = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
    "RAY_task_events_shutdown_flush_timeout_ms": "1000",
    # a call that comes while this process is between two heads must not start a third
    "RAY_ENABLE_AUTO_CONNECT": "0",
}


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A running head. Persisted as `<home>/cluster.json`."""

    #: host:port for `ray.init`
    address: str
    #: http://host:port, None without dashboard
    dashboard_url: str | None
    #: holds the token that the dashboard asks for
    token_path: Path
    session_dir: Path
    #: holds Ray's files, closed to others and removed with the head
    temp_dir: Path
    #: POSIX session of all its processes
    session: int
    #: gcs_server and raylet, without which there is no head
    processes: tuple[Process, ...]
    #: what `start_head` was given, so that `revive_head` can do it again
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(p.pid for p in self.processes)

    def alive(self) -> bool:
        """Whether the head's core processes all run."""
        return bool(self.processes) and all(p.alive() for p in self.processes)

    def members(self) -> list[Process]:
        """Everything that runs in this head now, dashboard and workers included."""
        # While one of ours lives, the session's id cannot have passed to anyone else.
        return in_session(self.session) if any(p.alive() for p in self.processes) else []


def start_head(
    home: Path,
    *,
    dashboard: bool = True,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    dashboard_port: int | None = None,
) -> ClusterInfo:
    """Start the home's head, or give the one that runs already. Returns when it can be connected to.

    Its workers see this process's environment, as it is now. `num_cpus` and `num_gpus` default to the host's.

    Raises:
        ClusterError: Ray does not start.
        ConfigError: the home or the temp dir cannot be used.
    """
    options = {
        "dashboard": dashboard,
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "dashboard_port": dashboard_port,
    }
    home = home.expanduser().resolve()
    with _lock(home):
        return _start(home, _read(home / "cluster.json"), options)


def revive_head(home: Path) -> ClusterInfo:
    """Start the home's head anew, as it was started before, if it died; give the one that runs otherwise.

    Raises:
        ClusterError: Ray does not start, or the head was stopped on purpose (`stop_head`).
    """
    home = home.expanduser().resolve()
    with _lock(home):
        found = _read(home / "cluster.json")
        if found is None:
            raise ClusterError("no Ray head runs for this home", mend="start it with `podium up`")
        return _start(home, found, found.options)


def _start(home: Path, found: ClusterInfo | None, options: Mapping[str, Any]) -> ClusterInfo:
    """A new head, unless the one that was found lives. The caller holds the home's lock."""
    if found is not None and found.alive():
        return found
    if found is not None:
        end(found.members(), STOP_GRACE_S)  # half a head
    temp_dir = _temp_dir(home)
    token_path = _token_file(home)
    wanted = options["dashboard_port"] or DEFAULT_DASHBOARD_PORT
    port = _free_port(wanted) if options["dashboard"] else None
    command = _command(temp_dir, port, options["num_cpus"], options["num_gpus"])
    try:
        session = _launch(command, _environment(token_path), home)
        info = replace(_describe(session, temp_dir, token_path, port), options=dict(options))
    except ClusterError:
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise
    _write(home / "cluster.json", json.dumps(asdict(info), default=str, indent=2))
    return info


def cluster_info(home: Path) -> ClusterInfo | None:
    """The home's head if it is alive, as far as its processes tell."""
    info = _read(home.expanduser() / "cluster.json")
    return info if info is not None and info.alive() else None


def connect(info: ClusterInfo) -> None:
    """Make this process a driver of the head. Harmless when it already is.

    Raises:
        ClusterError: the head does not answer, or this process is connected to another cluster.
    """
    os.environ.update(_client_environment(info.token_path) | _DRIVER)
    os.environ.pop("RAY_AUTH_TOKEN", None)
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        if ray.get_runtime_context().gcs_address == info.address:
            return
        raise ClusterError(
            "this process is connected to another Ray cluster",
            mend="call ray.shutdown() before, or use a new process",
        )
    _reread_environment()
    try:
        ray.init(
            address=info.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(
            f"the Ray head at {info.address} does not answer: {error}", mend="podium down, then podium up"
        ) from error


def _reread_environment() -> None:
    """Ray reads its environment when it is imported, which may have been long ago, for another home."""
    raylet: Any = importlib.import_module("ray._raylet")
    constants: Any = importlib.import_module("ray._private.ray_constants")
    hook: Any = importlib.import_module("ray._private.auto_init_hook")
    constants.ENABLE_RAY_CLUSTER = False
    hook.enable_auto_connect = False
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def disconnect() -> None:
    """Stop being a driver; workers that are not detached end with it."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


def stop_head(home: Path) -> bool:
    """End the home's head with all its workers, and nothing else. False when none was recorded.

    Raises:
        ClusterError: a process survives SIGKILL.
    """
    home = home.expanduser().resolve()
    with _lock(home):
        record = home / "cluster.json"
        if not record.exists():
            return False
        info = _read(record)
        if info is not None:
            _end_session(info)
            if info.temp_dir == _temp_path(home):
                shutil.rmtree(info.temp_dir, ignore_errors=True)
        record.unlink(missing_ok=True)
        return info is not None


def _end_session(info: ClusterInfo) -> None:
    members = info.members()
    left = end(members, STOP_GRACE_S)
    if members:
        left += end(in_session(info.session), STOP_GRACE_S)  # started while the others ended
    if left:
        raise ClusterError(
            f"processes {[p.pid for p in left]} of the Ray head do not end",
            mend="kill them by hand, then podium down",
        )


def _read(record: Path) -> ClusterInfo | None:
    try:
        data = json.loads(record.read_text())
        return ClusterInfo(
            address=str(data["address"]),
            dashboard_url=data["dashboard_url"],
            token_path=Path(data["token_path"]),
            session_dir=Path(data["session_dir"]),
            temp_dir=Path(data["temp_dir"]),
            session=int(data["session"]),
            processes=tuple(Process(int(p["pid"]), int(p["started"])) for p in data["processes"]),
            options=dict(data["options"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None  # not written by this version: whatever it names is not ours to use


def _command(
    temp_dir: Path, dashboard_port: int | None, num_cpus: int | None, num_gpus: int | None
) -> list[str]:
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head"]
    command += ["--node-ip-address", "127.0.0.1", "--port", "0", "--temp-dir", str(temp_dir / "r")]
    command += ["--disable-usage-stats", "--no-monitor", "--include-log-monitor", "false"]
    command += ["--object-store-memory", str(OBJECT_STORE_BYTES)]
    command += ["--dashboard-agent-listen-port", str(_free_port())]
    command += ["--include-dashboard", "true" if dashboard_port else "false"]
    if dashboard_port:
        command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard_port)]
    if num_cpus is not None:
        command += ["--num-cpus", str(num_cpus)]
    if num_gpus is not None:
        command += ["--num-gpus", str(num_gpus)]
    return command


def _client_environment(token_path: Path) -> dict[str, str]:
    """What a process needs to speak to the head. The third makes Ray stay on loopback on Linux too."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _environment(token_path: Path) -> dict[str, str]:
    others = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", *_DRIVER)
    inherited = {k: v for k, v in os.environ.items() if k not in others}
    return (
        inherited
        | _client_environment(token_path)
        | {
            "RAY_START_HOOK": f"{__package__}.head_hook.trim",
            "RAY_prestart_worker_first_driver": "0",
            "DASHBOARD_METRIC_PORT": str(_free_port()),
        }
    )


def _launch(command: list[str], environment: dict[str, str], home: Path) -> int:
    """Run `ray start` in a new session; gives the session's id."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=START_TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            end(in_session(process.pid), STOP_GRACE_S)
            process.wait()
            code = None
        if code == 0:
            return process.pid
        end(in_session(process.pid), STOP_GRACE_S)
        output.seek(0)
        said = "\n".join(output.read().strip().splitlines()[-12:])
    why = f"no answer in {START_TIMEOUT_S:.0f} s" if code is None else f"exit code {code}"
    raise ClusterError(f"ray start failed ({why}):\n{said}", mend="podium doctor checks what Ray needs")


def _describe(session: int, temp_dir: Path, token_path: Path, dashboard_port: int | None) -> ClusterInfo:
    core = [p for p in in_session(session) if _name(p) in ("gcs_server", "raylet")]
    try:
        address = (temp_dir / "r" / "ray_current_cluster").read_text().strip()
        session_dir = (temp_dir / "r" / "session_latest").resolve(strict=True)
        if len(core) != 2:
            raise OSError(f"{len(core)} of its 2 core processes run")
    except OSError as error:
        end(in_session(session), STOP_GRACE_S)
        raise ClusterError(f"the Ray head ended at once: {error}", mend="podium doctor") from error
    url = f"http://127.0.0.1:{dashboard_port}" if dashboard_port else None
    return ClusterInfo(address, url, token_path, session_dir, temp_dir, session, tuple(core))


def _name(process: Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One process at a time starts or stops the head of a home."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = os.open(home / "cluster.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be used: {error}", mend="set PODIUM_HOME to a writable folder"
        ) from error
    try:
        deadline = time.monotonic() + START_TIMEOUT_S + 30
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"another process has been starting or stopping the head of {home} for too long",
                        mend="look for a hanging `podium up` or `podium down`",
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _token_file(home: Path) -> Path:
    """The home's token, made at the first start and kept, so that a browser stays logged in."""
    path = home / "ray-token"
    if path.exists():
        path.chmod(0o600)
    else:
        _write(path, secrets.token_hex(32))
    return path


def _write(path: Path, text: str) -> None:
    """Replace the file at once, readable by its owner only."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def _temp_path(home: Path) -> Path:
    """Ray's files, sockets among them: short whatever the home's path is, and the same at every start."""
    name = f"podium-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:8]}"
    path = Path(tempfile.gettempdir()).resolve() / name
    return path if len(os.fsencode(path)) <= _TEMP_DIR_LIMIT else Path("/tmp") / name


def _temp_dir(home: Path) -> Path:
    """Made and closed to others; Ray opens its own temp dir to everyone, so that one lies inside."""
    path = _temp_path(home)
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error}", mend=f"remove {path}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigError(f"{path} belongs to someone else", mend=f"have {path} removed by its owner")
    path.chmod(0o700)
    return path


def _free_port(preferred: int = 0) -> int:
    """A free loopback port: the preferred one, else one of the next 50, else any."""
    candidates = [*range(preferred, preferred + 50), 0] if preferred else [0]
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise ClusterError("no free port on 127.0.0.1", mend="end programs that hold many ports")
