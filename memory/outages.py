"""What an error of the database means: whether it passes by itself, and what a person can do about it.

SQLSTATEs: PostgreSQL's documentation, appendix A. SQLite's result codes: sqlite.org/rescode.html.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Literal

from .errors import ConfigError, PodiumError

#: conflict: given up for another transaction · away: not reachable, or the connection was cut ·
#: busy: locked by someone else · full: no space · read_only · damaged: its bytes are wrong
Trouble = Literal["conflict", "away", "busy", "full", "read_only", "damaged"]

#: these may be over soon, and what was tried may be tried again as it is
PASSING: frozenset[Trouble] = frozenset({"conflict", "away", "busy", "full"})
#: seconds of the first pause between two tries, and what pauses grow to
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0

#: bytes without which SQLite cannot even be opened: its index file
SPARE = 32768

_POSTGRES: dict[str, Trouble] = {
    "40001": "conflict",
    "40P01": "conflict",
    "53100": "full",
    "53300": "away",
    "25006": "read_only",
    "25P03": "away",
    "55P03": "busy",
    "57P01": "away",
    "57P02": "away",
    "57P03": "away",
    "57P05": "away",
    "58030": "away",
    "XX001": "damaged",
    "XX002": "damaged",
}
_SQLITE: dict[int, Trouble] = {
    5: "busy",
    6: "busy",
    8: "read_only",
    10: "away",
    11: "damaged",
    13: "full",
    14: "away",
    26: "damaged",
}
_TOLD: dict[Trouble, tuple[str, str]] = {
    "conflict": ("the database gave the transaction up for others", "try again"),
    "away": (
        "cannot reach the database",
        "check PODIUM_DATABASE_URL and that the server runs; `podium doctor` tells more",
    ),
    "busy": (
        "the database is locked by another program",
        "end what holds it (a backup, a shell with an open transaction)",
    ),
    "full": ("the disk of the database is full", "free some space on it"),
    "read_only": (
        "the database is read-only",
        "make its file and folder writable, or use the primary server",
    ),
    "damaged": ("the database is damaged", "restore it from a backup; `podium db check` tells more"),
}


def trouble(error: BaseException) -> Trouble | None:
    """What an error says of the database; None when it speaks of what was asked of it.

    Errors of SQLAlchemy and of the drivers are known. One that was met while another one was handled
    (a savepoint that could not be rolled back, since the disk is full) counts as that other one.
    """
    seen: BaseException | None = error
    while seen is not None:
        found = _trouble(getattr(seen, "orig", None) or seen)
        if found is not None:
            return found
        if getattr(seen, "connection_invalidated", False):
            return "away"
        seen = seen.__cause__ or seen.__context__
    return None


def _trouble(error: BaseException) -> Trouble | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & 0xFF)
    if not hasattr(error, "sqlstate"):  # no error of psycopg
        return None
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:  # not the server but the client met it: there is no connection (any more)
        return "away" if type(error).__name__ == "OperationalError" else None
    return "away" if state.startswith("08") else _POSTGRES.get(state)


def is_passing(error: BaseException) -> bool:
    """Whether the whole transaction may succeed when it is done again as it is."""
    return trouble(error) in PASSING


def ends_transaction(error: BaseException) -> bool:
    """Whether nothing of the transaction can be kept, not even what came before a savepoint."""
    return trouble(error) is not None


def told(error: BaseException, place: str, *, waited: float = 0.0, reading: bool = False) -> PodiumError:
    """The error as a person gets it. `place`: the database, without its password; `waited`: seconds."""
    found = trouble(error)
    if found is None and reading:
        return PodiumError(
            f"the database cannot be read: {reason(error)}",
            mend="check that its server or disk works; `podium doctor` tells more",
        )
    if found is None:
        return PodiumError(
            f"the database refused the transaction: {reason(error)}",
            mend="this is a bug, please report it; nothing was written",
        )
    is_sqlite = place.startswith("sqlite")
    if found == "away" and is_sqlite and _is_full(place):
        found = "full"  # SQLite calls it an I/O error when it cannot make its index file
    what, mend = _TOLD[found]
    if found == "away" and is_sqlite:
        mend = "check PODIUM_DATABASE_URL, and the disk and the folder that it names"
    patience = f" for {waited:.0f} seconds" if waited >= 1 else ""
    failure = ConfigError(
        f"{what} {place}{patience}: {reason(error)}",
        mend=f"{mend}; nothing committed is lost, and `podium resume` goes on with an open run",
    )
    # a run is not to be failed for it: only the storage stands in its way
    failure.retryable = found != "damaged"
    return failure


def _is_full(place: str) -> bool:
    """Whether the disk of a SQLite database has no page left."""
    folder = os.path.dirname(place.partition(":///")[2]) or "."
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < SPARE or (disk.f_files > 0 and disk.f_favail == 0)


def unknown_outcome(place: str) -> PodiumError:
    """Nobody can tell whether a transaction was committed."""
    failure = PodiumError(
        f"the connection to {place} was cut during a commit, and the server cannot say how that ended",
        mend="`podium resume` the run: it goes on from what is stored",
    )
    failure.retryable = True
    return failure


def reason(error: BaseException) -> str:
    """The first line of what the driver said."""
    original = getattr(error, "orig", None) or error
    text = str(original).strip()
    return text.splitlines()[0] if text else type(original).__name__


class Patience:
    """Pauses between tries that grow and are never the same for two engines, until its seconds are over."""

    def __init__(self, seconds: float, hurry: threading.Event | None = None) -> None:
        """`hurry`: set, it ends the patience at once."""
        self._start, self._seconds, self._hurry = time.monotonic(), seconds, hurry or threading.Event()
        self._pauses = _pauses()

    @property
    def waited(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._start

    def wait(self) -> bool:
        """Pause before the next try; False, at once, when there is to be none."""
        left = self._seconds - self.waited
        if left <= 0 or self._hurry.is_set():
            return False
        return not self._hurry.wait(min(next(self._pauses), left))


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(LONGEST_PAUSE, pause * 2)
