"""Which ready job of a run starts next. Pure: no clock, no I/O; the same calls give the same answers.

Order: explicit priority, then the longest remaining path (critical path), to which waiting adds (ageing),
then the workflow's position. Where jobs last long enough for thought to pay, the rest of the graph is
scheduled ahead (`lookahead`) with what was learnt about durations (`beliefs`).
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable

from ..memory.errors import ConfigError
from .beliefs import CERTAIN
from .lookahead import Effort
from .outlook import GONE, READY, RUNNING, UNPLACED, WAITING, Entry, Job, Outlook
from .packing import Packing

__all__ = ["Job", "Scheduler"]

#: a second of waiting counts as so many seconds of remaining path
AGEING = 0.02
#: with a deadline, ageing ends when less than this share of the longest remaining path is slack
TIGHT = 0.1
#: a job too big for the free units has them kept for it after waiting so many times the longest predicted job
PATIENCE = 8.0
#: thought pays if the jobs left last on average at least so many seconds
WORTH_SECONDS = 0.05
#: predictions are looked at again when one in so many of the jobs left has ended, up to so many jobs
RENEW, MOST_RENEWED = 12, 4000
#: an order is searched for at each decision up to so many jobs; up to so many, when one in SEARCH has ended
SMALL, MOST_SEARCHED, SEARCH = 130, 700, 24

_Key = tuple[int, int, float, int, int, int, Entry]


class Scheduler:
    """The ready jobs of one run and which of them is next.

    The caller says when a job is ready (`ready`), has ended (`done`), will never run (`drop`) or must run
    once more (`again`), and asks for jobs (`pick`) whenever units are free. A picked job runs until it
    says so.
    """

    def __init__(
        self,
        capacity: tuple[int, ...],
        *,
        lookahead: bool = True,
        deadline: float | None = None,
        effort: Effort | None = None,
    ) -> None:
        """`capacity`: units of each resource. `deadline`: time by which the run should have ended."""
        self.capacity, self.deadline = tuple(capacity), deadline
        #: time at which to ask again although nothing happened: `pick` holds a job back until about then
        self.ask_again: float | None = None
        self._outlook = Outlook(Packing(self.capacity), effort or Effort())
        self._lookahead = lookahead
        self._entries: dict[Hashable, Entry] = {}
        self._running: dict[Hashable, Entry] = {}
        #: a line for each need, so that what does not fit is not in the way
        self._lines: dict[tuple[int, ...], list[_Key]] = {}
        self._ready = self._serial = self._stamp = 0
        self._ageing = AGEING
        #: predicted seconds of all jobs left, and of the longest ever; jobs left by priority
        self._total = self._longest = 0.0
        self._priorities: dict[int, int] = {}
        #: jobs that ended since predictions were looked at, and since a search
        self._since_renewed: int | None = None
        self._since_searched: int | None = None
        #: what the last search wants started now, last first; None: it is out of date
        self._go: list[Entry] | None = None

    def __len__(self) -> int:
        """How many jobs are ready."""
        return self._ready

    # -- the graph

    def add(self, jobs: Iterable[Job], edges: Iterable[tuple[Hashable, Hashable]]) -> None:
        """Add jobs and edges (from, to). A known job is replaced where it stands; ended ones have no edges.

        Cost: linear in what is added and in what waits before it.

        Raises:
            ConfigError: a job needs more than there is.
        """
        new = [self._enter(job) for job in jobs]
        for src, dst in edges:
            before, after = self._entries.get(src), self._entries.get(dst)
            if before is not None and after is not None:
                before.after.append(after)
                after.before.append(before)
                new.append(after)
        self._lengthen(new)
        self._go, self._since_searched = None, None
        if self._since_renewed is not None:
            self._since_renewed += len(new)

    def _enter(self, job: Job) -> Entry:
        if len(job.need) != len(self.capacity) or not _fits(job.need, self.capacity):
            raise ConfigError(
                f"job {job.id} needs {job.need} of {self.capacity}",
                mend="raise the capacity or lower the need",
            )
        entry = self._entries.get(job.id)
        if entry is None:
            self._serial += 1
            entry = self._entries[job.id] = self._outlook.enter(job, self._serial)
        else:
            self._count(entry.job, -1)
            entry.tail = max(job.seconds, entry.tail - entry.seconds + job.seconds)
            entry.job, entry.units, entry.seconds = job, self._outlook.packing.pack(job.need), job.seconds
            entry.belief, entry.drawn = CERTAIN, [job.seconds] * len(entry.draws)
            if entry.state == READY:
                self._line_up(entry)
        self._count(job, 1)
        self._longest = max(self._longest, job.seconds)
        return entry

    def _count(self, job: Job, by: int) -> None:
        self._total += by * job.seconds
        left = self._priorities.get(job.priority, 0) + by
        if left:
            self._priorities[job.priority] = left
        else:
            del self._priorities[job.priority]

    def _lengthen(self, entries: Iterable[Entry]) -> None:
        """Bring the longest paths of what waits before these jobs up to date."""
        left = dict.fromkeys(entries, 0)
        seen = list(left)
        for entry in seen:
            for before in entry.before:
                if before.state in (WAITING, READY):
                    if before not in left:
                        left[before] = 0
                        seen.append(before)
                    left[before] += 1
        last = [entry for entry in seen if not left[entry]]
        for entry in last:
            for before in entry.before:
                if before.state not in (WAITING, READY):
                    continue
                if before.seconds + entry.tail > before.tail:
                    before.tail = before.seconds + entry.tail
                    if before.state == READY:
                        self._line_up(before)
                left[before] -= 1
                if not left[before]:
                    last.append(before)

    # -- what happened

    def ready(self, id: Hashable, now: float) -> None:
        """All that comes before the job has ended. Saying so twice changes nothing."""
        entry = self._entries[id]
        if entry.state == WAITING:
            self._make_ready(entry, now)

    def again(self, id: Hashable, now: float) -> None:
        """The job ended without success and must run once more."""
        if self._running.pop(id, None) is not None:
            self._make_ready(self._entries[id], now)

    def done(self, id: Hashable, now: float) -> None:
        """The job has ended."""
        entry = self._entries[id]
        if entry.state == RUNNING and self._lookahead:
            self._outlook.learn(entry, now)
        self._forget(entry)

    def drop(self, id: Hashable) -> None:
        """The job was skipped or cancelled."""
        self._forget(self._entries[id])

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.job.id]
        self._running.pop(entry.job.id, None)
        if entry.state == READY:
            self._ready -= 1
        self._count(entry.job, -1)
        entry.state, entry.stamp = GONE, 0
        entry.before, entry.after = [], []
        self._go = None
        if self._since_renewed is not None:
            self._since_renewed += 1
        if self._since_searched is not None:
            self._since_searched += 1

    def _make_ready(self, entry: Entry, now: float) -> None:
        entry.state, entry.since = READY, now
        self._ready += 1
        self._line_up(entry)
        self._go = None

    def _line_up(self, entry: Entry) -> None:
        self._stamp += 1
        entry.stamp = self._stamp
        job = entry.job
        age = self._ageing * entry.since - entry.tail
        key = (-job.priority, entry.place, age, job.position, entry.serial, entry.stamp, entry)
        heapq.heappush(self._lines.setdefault(job.need, []), key)

    def _line_up_all(self) -> None:
        self._lines = {}
        for entry in self._entries.values():
            if entry.state == READY:
                self._line_up(entry)

    # -- what is next

    def pick(self, now: float, free: tuple[int, ...], *, ahead: bool = True) -> Hashable | None:
        """The job to start now on the free units; None: start nothing more now.

        As long as others of this run are running, a job may be held back although it fits: until something
        happens, or until `ask_again`. Not so without `ahead`: then the first that fits starts.
        """
        overdue = self.ask_again is not None and now >= self.ask_again
        self.ask_again = None
        if not self._ready or not any(free):
            return None
        thinks = ahead and self._worth()
        entry = self._pick_ahead(now, free, overdue) if thinks else self._pick_first(now, free)
        if entry is None:
            return None
        entry.state, entry.since, entry.stamp = RUNNING, now, 0
        self._ready -= 1
        self._running[entry.job.id] = entry
        return entry.job.id

    def _pick_first(self, now: float, free: tuple[int, ...]) -> Entry | None:
        patience = PATIENCE * self._longest
        best: tuple[int, bool, _Key] | None = None
        held: tuple[int, bool, _Key] | None = None
        for need, line in self._lines.items():
            key = _front(line)
            if key is None:
                continue
            patient = now - key[-1].since <= patience
            first = key[0], patient, key
            if _fits(need, free):
                if best is None or first < best:
                    best = first
            elif not patient and (held is None or first < held):
                held = first
        if best is None or (held is not None and held < best and self._running):
            return None
        entry = best[-1][-1]
        if self.deadline is None or not self._ageing or self.deadline - now > (1 + TIGHT) * entry.tail:
            return heapq.heappop(self._lines[entry.job.need])[-1]
        self._ageing = 0.0  # time is short: the longest path alone counts
        self._line_up_all()
        return self._pick_first(now, free)

    def slack(self, now: float) -> float | None:
        """Seconds to spare before the deadline if the longest path starts now; None: there is no deadline."""
        if self.deadline is None:
            return None
        ready = (e.tail for e in self._entries.values() if e.state == READY)
        running = (e.tail - (now - e.since) for e in self._running.values())
        return self.deadline - now - max((*ready, *running), default=0.0)

    # -- lookahead

    def _worth(self) -> bool:
        """Whether to look ahead: few and long jobs of one priority. Renews the predictions if it is time."""
        left = len(self._entries)
        if not self._lookahead or not 2 <= left <= MOST_RENEWED or self._total < WORTH_SECONDS * left:
            return False
        if self._since_renewed is None or self._since_renewed * RENEW >= left:
            self._outlook.renew(self._entries.values())
            self._since_renewed = 0
            self._line_up_all()
        if left <= MOST_SEARCHED and len(self._priorities) == 1:
            return True
        if self._since_searched is not None:
            self._forget_places()
        return False

    def _forget_places(self) -> None:
        for entry in self._entries.values():
            entry.place = UNPLACED
        self._since_searched = None
        self._line_up_all()

    def _pick_ahead(self, now: float, free: tuple[int, ...], overdue: bool) -> Entry | None:
        if self._go is None:
            left = len(self._entries)
            if left > SMALL and self._since_searched is not None and self._since_searched * SEARCH < left:
                return self._pick_first(now, free)
            self._look(now, free)
            overdue = False
        while self._go:
            entry = self._go.pop()
            if entry.state == READY and _fits(entry.job.need, free):
                return entry
        if overdue or not self._running:
            return self._pick_first(now, free)
        self.ask_again = now + min(sum(e.left(now)) / len(e.draws) for e in self._running.values())
        return None

    def _look(self, now: float, free: tuple[int, ...]) -> None:
        rest = [e for e in self._entries.values() if e.state != RUNNING]
        units = [min(f, c) for f, c in zip(free, self.capacity, strict=True)]
        placed = any(e.place != UNPLACED for e in rest)
        go = self._outlook.choose(rest, list(self._running.values()), now, units, placed)
        self._go, self._since_searched = go[::-1], 0
        self._line_up_all()


def _fits(need: tuple[int, ...], free: tuple[int, ...]) -> bool:
    return all(n <= f for n, f in zip(need, free, strict=True))


def _front(line: list[_Key]) -> _Key | None:
    """The first valid key; void ones before it are thrown away."""
    while line:
        if line[0][-2] == line[0][-1].stamp:
            return line[0]
        heapq.heappop(line)
    return None
