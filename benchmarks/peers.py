"""Where the neutral referees are, and the peers' own environments.

    python -m benchmarks.peers      makes .bench/venv-langgraph and .bench/venv-dbos; `make bench-peers`

The referees are no part of the project: PODIUM_REFEREE names their folder, else it is `../shared/referee`.
Peers need environments of their own, since their pins clash. Ray's figures need none: it is a dependency.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".bench"
PINS = Path(__file__).with_name("peers.txt")


class NotThere(Exception):
    """A referee, a peer or a service is missing; says what to do."""


def referee(*parts: str) -> Path:
    """A file of the referees.

    Raises:
        NotThere: there is none.
    """
    folder = Path(os.environ.get("PODIUM_REFEREE") or ROOT.parent / "shared" / "referee")
    path = folder.joinpath(*parts).resolve()
    if not path.exists():
        raise NotThere(f"there is no {path}: set PODIUM_REFEREE to the folder with the referees")
    return path


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment.

    Raises:
        NotThere: it was not made, or with other pins.
    """
    home = ENVIRONMENTS / f"venv-{peer}"
    if not _is_current(home, pins()[peer]):
        raise NotThere(f"{peer} is not installed: make bench-peers")
    return home / "bin" / "python"


def pins() -> dict[str, list[str]]:
    """Peer → its requirements."""
    found: dict[str, list[str]] = {}
    for line in PINS.read_text().splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


def _mark(requirements: list[str]) -> str:
    return hashlib.sha256("\n".join(requirements).encode()).hexdigest()


def _is_current(home: Path, requirements: list[str]) -> bool:
    mark = home / ".pins"
    return mark.is_file() and mark.read_text() == _mark(requirements)


def make_environments() -> None:
    """Make what is missing or out of date.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n")
    for peer, requirements in pins().items():
        home = ENVIRONMENTS / f"venv-{peer}"
        if _is_current(home, requirements):
            continue
        print(f"installing {', '.join(requirements)} into {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-qq", *requirements], check=True)
        (home / ".pins").write_text(_mark(requirements))


if __name__ == "__main__":
    make_environments()
