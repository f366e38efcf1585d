"""A real Ray head: started, found, protected, side by side with another, and gone without a trace."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from podium.memory.errors import ClusterError, ConfigError
from podium.workers import cluster
from podium.workers.cluster import ClusterInfo, cluster_info, connect, disconnect, start_head, stop_head
from podium.workers.processes import in_session, pss_bytes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long, and with spaces: a unix socket could not live there."""
    return tmp_path_factory.mktemp("a home") / ("with a long name " * 6).strip()


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[ClusterInfo]:
    yield start_head(home, num_cpus=2)
    disconnect()
    stop_head(home)


def _get(url: str, token: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_the_head_is_recorded_and_found(head: ClusterInfo, home: Path):
    assert cluster_info(home) == head
    assert start_head(home) == head
    assert head.address.startswith("127.0.0.1:")
    assert set(head.pids) <= {p.pid for p in head.members()}


def test_nobody_else_can_read_its_token_and_record(head: ClusterInfo, home: Path):
    assert head.token_path == home.resolve() / "ray-token"
    for path in (head.token_path, home / "cluster.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(head.temp_dir.stat().st_mode) == 0o700
    token = head.token_path.read_text()
    for process in head.members():
        assert token not in Path(f"/proc/{process.pid}/cmdline").read_text()


def test_the_dashboard_asks_for_the_token(head: ClusterInfo):
    assert head.dashboard_url is not None
    tasks = head.dashboard_url + "/api/v0/tasks"
    assert _get(tasks)[0] == 401
    assert _get(tasks, "0" * 64)[0] == 403
    status, body = _get(tasks, head.token_path.read_text())
    assert status == 200
    assert json.loads(body)["result"] is True


def test_it_listens_on_loopback_only(head: ClusterInfo):
    members = {p.pid for p in head.members()}
    inodes = {
        os.readlink(f"/proc/{pid}/fd/{fd}")[8:-1]
        for pid in members
        for fd in os.listdir(f"/proc/{pid}/fd")
        if _is_socket(f"/proc/{pid}/fd/{fd}")
    }
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].split(":")[0])
    assert len(listening) >= 4
    assert set(listening) <= loopback


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except OSError:
        return False


def test_its_memory_stays_within_the_promise(head: ClusterInfo):
    assert 100e6 < pss_bytes(head.members()) < 800e6


def test_a_second_home_has_a_head_of_its_own_and_stopping_it_leaves_the_first(head: ClusterInfo, home: Path):
    other = home.parent / "other"
    try:
        second = start_head(other, num_cpus=1)
        assert second.session != head.session
        assert second.address != head.address
        assert second.dashboard_url != head.dashboard_url
        assert second.token_path.read_text() != head.token_path.read_text()
        status, _ = _get(f"{second.dashboard_url}/api/v0/tasks", head.token_path.read_text())
        assert status == 403
    finally:
        assert stop_head(other)
    assert in_session(second.session) == []
    assert not second.temp_dir.exists()
    assert cluster_info(other) is None
    assert not stop_head(other)
    assert cluster_info(home) == head


def test_a_driver_connects_once_and_to_one_cluster(head: ClusterInfo, home: Path):
    import ray

    connect(head)
    connect(head)
    assert ray.cluster_resources()["CPU"] == 2
    stranger = ClusterInfo("127.0.0.1:1", None, head.token_path, home, home, 0, ())
    with pytest.raises(ClusterError, match="another Ray cluster"):
        connect(stranger)
    disconnect()
    assert not ray.is_initialized()


def test_a_process_without_the_token_is_refused(head: ClusterInfo, tmp_path: Path):
    (tmp_path / "token").write_text("0" * 64)
    code = (
        "import sys; from pathlib import Path; from podium.workers import cluster as c\n"
        "from podium.memory.errors import ClusterError\n"
        f"token = Path({str(tmp_path / 'token')!r})\n"
        f"info = c.ClusterInfo({head.address!r}, None, token, token, token, 0, ())\n"
        "try: c.connect(info)\n"
        "except ClusterError as error: sys.exit(6 if 'does not answer' in str(error) else 1)\n"
    )
    few_tries = os.environ | {"RAY_NUM_REDIS_GET_RETRIES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, text=True, env=few_tries
    )
    assert done.returncode == 6, done.stderr


def test_the_last_test_of_the_head_stopping_leaves_nothing(head: ClusterInfo, home: Path):
    assert stop_head(home)
    assert in_session(head.session) == []
    assert cluster_info(home) is None
    assert not (home / "cluster.json").exists()
    assert not head.temp_dir.exists()


def test_a_head_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cluster, "OBJECT_STORE_BYTES", 1)
    with pytest.raises(ClusterError, match="ray start failed"):
        start_head(tmp_path, dashboard=False)
    assert cluster_info(tmp_path) is None
    assert not (tmp_path / "cluster.json").exists()
    assert not [e for e in os.listdir("/proc") if e.isdigit() and _names(int(e), str(tmp_path))]


def _names(pid: int, text: str) -> bool:
    try:
        return text in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_a_temp_dir_of_someone_else_is_not_used(tmp_path: Path, monkeypatch):
    elsewhere = tmp_path / "link"
    elsewhere.symlink_to(tmp_path)
    monkeypatch.setattr(cluster, "_temp_path", lambda home: elsewhere)
    with pytest.raises(ConfigError, match="belongs to someone else"):
        start_head(tmp_path)


def test_a_record_that_is_not_ours_is_no_head(tmp_path: Path):
    (tmp_path / "cluster.json").write_text('{"address": 1}')
    assert cluster_info(tmp_path) is None
    assert not stop_head(tmp_path)
