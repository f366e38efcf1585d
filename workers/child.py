"""One child process in which user code runs: requests go down a pipe, answers come up another.

A line down is `<seq> <verb> <json>`, a line up `<seq> <microseconds> <kind> <json>`. The child answers each
request as it ends, so that what it has done is in the pipe when it dies. Two words of shared memory stand
beside the pipes: the child writes which request it begins, before it begins it; this side writes up to which
one it takes back what has not begun. So it is always known which request a death, or a hang, is due to, and
nothing that may have begun is sent a second time.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import sys
import tempfile
from typing import Any, Protocol, cast

from .task_host import UNKNOWN, ChildOptions, Costs, Kind, Lane, OnEnd, Ticket

#: seconds until a new child must be ready
START_S = 60.0
#: seconds that a request may have others behind it before those are taken back
PATIENCE_S = 0.005
#: seconds after which this side's word in shared memory is surely visible to the child
VISIBLE_S = 0.002
#: seconds that the end of a dead child's pipe is waited for: a process that it left may hold it open
DRAIN_S = 0.25
#: words of shared memory: the last request begun, and the last one taken back
BEGUN, BACK = 0, 1

_KINDS: dict[bytes, Kind] = {b"v": "value", b"e": "error"}


class Owner(Protocol):
    """Who is told of a child's doings."""

    costs: Costs

    ended: OnEnd

    def returned(self, tickets: list[Ticket]) -> None: ...
    def changed(self) -> None: ...
    def gone(self, child: Child) -> None: ...


class Child(Lane, asyncio.SubprocessProtocol):
    """Tells its owner of every ticket's end, and of those that it did not begin (`returned`)."""

    def __init__(self, owner: Owner, root: str, options: ChildOptions) -> None:
        super().__init__()
        self._owner, self._root, self._options = owner, root, options
        self._loop = asyncio.get_running_loop()
        self._words, self._shared = _shared_words()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._seq = 0
        self._lines: list[bytes] = []
        self._partial: list[bytes] = []
        #: when the request at the head began, or the child was started
        self._since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._taking_back = False
        #: the request for which the process is to be killed, and how it ends then
        self._condemned = 0
        self._verdict: Kind = "died"
        self._exited = False
        self.ready = False
        #: takes no more requests
        self.retiring = False
        #: set when it is gone, with its tickets
        self.closed: asyncio.Future[None] = self._loop.create_future()

    async def start(self) -> None:
        """Raises OSError when no process can be started."""
        command = [sys.executable, "-P", "-m", self._options.module, self._root, str(self._shared)]
        command += [
            str(self._options.max_answer),
            str(self._options.memory_bytes or 0),
            str(self._options.grown_bytes),
        ]
        try:
            await self._loop.subprocess_exec(
                lambda: self, *command, stderr=None, cwd=self._root, pass_fds=(self._shared,)
            )
        except BaseException:
            self._release()
            raise
        self._arm(START_S)

    @property
    def pid(self) -> int | None:
        return self._transport.get_pid() if self._transport is not None else None

    def take(self, ticket: Ticket, cost: float) -> None:
        """Have it run; `flush` sends it."""
        self._seq += 1
        ticket.place, ticket.seq = self, self._seq
        self.put(self._seq, ticket, cost)
        self._lines.append(b"%d %b %b\n" % (self._seq, ticket.verb, ticket.body))
        if len(self.outstanding) == 1:
            self._begin()

    def flush(self) -> None:
        if self._lines and self._stdin is not None:
            self._stdin.write(b"".join(self._lines))
            self._lines.clear()

    def open(self, now: float) -> bool:
        """Whether it takes requests: none stands behind one that has been running for a while."""
        if not self.ready or self.retiring or self._taking_back or self._exited:
            return False
        return not self.outstanding or now - self._since <= PATIENCE_S

    def overdue(self, now: float) -> bool:
        """Whether requests stand here behind one that is slower than it was thought to be."""
        return len(self.outstanding) > 1 and now - self._since > PATIENCE_S

    def take_back(self) -> None:
        """Return what has not begun."""
        if not self._taking_back and not self._exited:
            self._taking_back = True
            self._words[BACK] = self._seq
            self._loop.call_later(VISIBLE_S, self._took_back)

    def drop(self, ticket: Ticket) -> None:
        """Kill the process if it runs this ticket; else see that it does not."""
        self.take_back()  # which looks what is dropped

    def kill(self) -> None:
        self.retiring = True
        if self._transport is not None and not self._exited:
            pid = self._transport.get_pid()
            # not transport.kill(): its poll() would take the exit status away from asyncio's watcher
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                self._exited = True

    def retire(self) -> None:
        """End it when it has answered what it has."""
        self.retiring = True
        if not self.outstanding and self._stdin is not None:
            self._stdin.close()

    # -- asyncio.SubprocessProtocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self._partial:
            if b"\n" not in data:
                self._partial.append(data)
                return
            data = b"".join([*self._partial, data])
            self._partial.clear()
        *lines, rest = data.split(b"\n")
        if rest:
            self._partial.append(rest)
        if lines:
            for line in lines:
                self._answered(line)
            self._progressed()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1 and not self._exited:
            self.kill()  # it closed its end: nothing it does can be heard of

    def process_exited(self) -> None:
        self._exited = True
        self._loop.call_later(DRAIN_S, self._conclude)

    def connection_lost(self, exc: Exception | None) -> None:
        self._conclude()

    # -- what the child said ----------------------------------------------------------------------------

    def _answered(self, line: bytes) -> None:
        number, micros, kind, payload = line.split(b" ", 3)
        if kind == b"r":
            self.ready = True
            return
        ticket = self.pop(int(number))
        if kind.isupper():
            self.retiring, kind = True, kind.lower()
        if ticket is None:
            return
        ticket.place = None
        if kind == b"s":
            self._return([ticket])
            return
        taken = int(micros)
        self._owner.costs.learn(ticket.key, taken)
        if not ticket.dropped:
            self._owner.ended(ticket, _KINDS[kind], payload, taken)

    def _progressed(self) -> None:
        if self.outstanding:
            self._begin()
        elif self.retiring:
            self.retire()
        self._owner.changed()

    def _begin(self) -> None:
        """The request at the head begins now, as far as can be known here."""
        self._since = self._loop.time()
        if self.ready:
            self._arm(next(iter(self.outstanding.values())).seconds)

    def _arm(self, seconds: float) -> None:
        """See to it that `_check` runs in time. A timer that is early enough stays: most calls are quick."""
        when = self._since + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._exited:
            return
        if not self.ready:
            if self._loop.time() < self._since + START_S:
                self._arm(START_S)
            else:
                self.kill()
        elif self.outstanding:
            limit = next(iter(self.outstanding.values())).seconds
            if self._loop.time() < self._since + limit:
                self._arm(limit)
            else:
                self._condemned = next(iter(self.outstanding))
                self.take_back()

    def _took_back(self) -> None:
        """Only what had begun is left. A process to be killed is killed now: nothing else runs in it."""
        self._taking_back = False
        begun = self._words[BEGUN]
        back = [t for seq in list(self.outstanding) if seq > begun and (t := self.pop(seq)) is not None]
        running = self.outstanding.get(begun)
        if running is not None and self._condemned == begun:
            self._verdict = "late"
            self.kill()
        elif running is not None and running.dropped:
            self.kill()
        self._return(back)
        self._owner.changed()

    def _return(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            ticket.place = None
        self._owner.returned([ticket for ticket in tickets if not ticket.dropped])

    # -- its end ----------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """The process is gone and what it wrote is read: tell what became of its tickets."""
        if self.closed.done():
            return
        self._exited = self.retiring = True
        self.closed.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        begun = self._words[BEGUN]
        assert self._transport is not None
        how = _death(self._transport.get_returncode())
        self._transport.close()
        self._release()
        left = self.clear()
        for ticket in [t for t in left if t.seq == begun]:
            left.remove(ticket)
            self._blame(ticket, self._verdict, how)
        for ticket in left:
            ticket.resent += 1
            if ticket.resent > 2:
                self._blame(ticket, "died", how)
        self._return([ticket for ticket in left if ticket.resent <= 2])
        self._owner.gone(self)

    def _blame(self, ticket: Ticket, kind: Kind, how: str) -> None:
        ticket.place = None
        if not ticket.dropped:
            self._owner.ended(ticket, kind, how.encode() if kind == "died" else b"", UNKNOWN)

    def _release(self) -> None:
        """Give the shared memory back; the words stay readable as a copy."""
        if self._shared >= 0:
            os.close(self._shared)
            self._shared = -1
            view, self._words = self._words, cast(Any, list(self._words))
            view.release()


def _shared_words() -> tuple[memoryview, int]:
    """Two words of memory that a child can share, and the descriptor that it maps."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("podium-child")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("Q"), descriptor


def _death(code: int | None) -> str:
    if code is None:
        return "ended its process"
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}"
    return f"ended its process with status {code}"
