"""The wheel is built and installed once; pyright, import-linter and the import checks look at that."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from source_files import ROOT, project_files


@dataclass(frozen=True)
class InstalledWheel:
    #: names inside the wheel, without those of `*.dist-info/`
    files: frozenset[str]
    #: folder that holds `podium/`; put it on PYTHONPATH to import it instead of the editable install
    target: Path


@pytest.fixture(scope="session")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> InstalledWheel:
    """The project's wheel, built from a copy of its files, so that no stale `build/` gets into it."""
    source = tmp_path_factory.mktemp("source")
    for name in project_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    wheels = tmp_path_factory.mktemp("wheel")
    _run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(source))
    (wheel,) = wheels.glob("*.whl")
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        names = frozenset(name for name in archive.namelist() if not name.endswith("/"))
    _run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return InstalledWheel(frozenset(n for n in names if ".dist-info/" not in n), target)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=170)
    if done.returncode != 0:
        pytest.fail(f"python {' '.join(arguments)}\n{done.stdout}\n{done.stderr}", pytrace=False)
