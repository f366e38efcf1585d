"""Which files belong to the project: tracked by git, or not yet tracked and not ignored."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: top-level folder -> where it stands in the wheel; the longest match wins
ROOMS = {
    "orchestrator/sdk": "podium",
    "orchestrator": "podium/orchestrator",
    "agents": "podium/agents",
    "router": "podium/router",
    "workers": "podium/workers",
    "memory": "podium/memory",
}
_LEFT_OUT = {"__pycache__", "build", "dist", "node_modules"}


@cache
def project_files() -> tuple[str, ...]:
    """Paths relative to the root, `/` between their parts, sorted. Needs no git where there is none."""
    listing = _git_files()
    if listing is None:
        listing = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if _ours(path)]
    return tuple(sorted(name for name in set(listing) if (ROOT / name).is_file()))


def wheel_files() -> set[str]:
    """What a wheel has to contain, beside its metadata: every file of the five folders."""
    found = set()
    for name in project_files():
        for folder in sorted(ROOMS, key=len, reverse=True):
            if name.startswith(folder + "/"):
                found.add(ROOMS[folder] + name[len(folder) :])
                break
    return found


def _git_files() -> list[str] | None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return None
    return done.stdout.split("\0")[:-1] if done.returncode == 0 else None


def _ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    hidden = any(part.startswith(".") and part not in (".ci", ".gitignore") for part in parts)
    made = any(part in _LEFT_OUT or part.endswith(".egg-info") for part in parts)
    return path.is_file() and not hidden and not made
