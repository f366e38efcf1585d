"""How large the base install is: a fresh virtual environment, what pip puts into it, without `.pyc` files.

python -m benchmarks.install_size
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NOT_OURS = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.gguf")


def folder_bytes(folder: Path) -> int:
    """The sum of the sizes of all files below, `.pyc` left out."""
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    )


def base_install_bytes() -> dict[str, int]:
    """Install the base with its pinned versions: bytes by entry of site-packages, pip's own left out."""
    with tempfile.TemporaryDirectory(prefix="podium-size-") as scratch:
        source, home = Path(scratch, "source"), Path(scratch, "venv")
        shutil.copytree(ROOT, source, ignore=_NOT_OURS)
        venv.create(home, with_pip=True)
        (site,) = home.glob("lib/python*/site-packages")
        before = {entry.name for entry in site.iterdir()}
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(source)], check=True)
        return {
            entry.name: folder_bytes(entry) if entry.is_dir() else entry.stat().st_size
            for entry in site.iterdir()
            if entry.name not in before
        }


def main() -> int:
    sizes = base_install_bytes()
    for name, size in sorted(sizes.items(), key=lambda pair: -pair[1])[:12]:
        print(f"{size / 1e6:8.1f} MB  {name}")
    print(f"{sum(sizes.values()) / 1e6:8.1f} MB  in all, {len(sizes)} entries")
    return 0


if __name__ == "__main__":
    sys.exit(main())
