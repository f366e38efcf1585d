"""A TCP proxy before Postgres that can be away, stall, and cut a connection at its COMMIT."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import make_url

#: the messages by which psycopg begins and ends a transaction (PostgreSQL's documentation, chapter 55)
BEGIN, COMMIT = b"BEGIN", b"Q\x00\x00\x00\x0bCOMMIT\x00"
#: what to do with the COMMIT that is cut: it is never sent; it is sent, and its answer is thrown away; it is
#: held back until `release`, though the client is cut off at once
Cut = Literal["unsent", "unanswered", "held"]


@dataclass(eq=False)
class _Link:
    """One connection of a client, and the one that was made to the server for it."""

    client: socket.socket
    server: socket.socket
    #: what the client has sent since its transaction began
    said: bytearray = field(default_factory=bytearray)
    #: nothing of what the server says is passed on any more
    deaf: bool = False
    #: the server has said that it committed, after the link became deaf
    committed: threading.Event = field(default_factory=threading.Event)

    def cut(self) -> None:
        for end in (self.client, self.server):
            # a reset and no farewell: like a host that is gone
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Listens on a port of its own and passes everything on to the server at `url`. A context manager."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._port = 0
        self._armed: tuple[bytes, Cut] | None = None
        self._released = threading.Event()
        #: connections that were cut at their COMMIT
        self.cuts = 0
        self._listener: socket.socket | None = None
        self.come()

    @property
    def url(self) -> str:
        """The database's address through the proxy."""
        there = self._target.set(host="127.0.0.1", port=self._port)
        return there.render_as_string(hide_password=False)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        self._released.set()
        self.go()
        for thread in self._threads:
            thread.join(10)

    def go(self) -> None:
        """Be away: open connections are cut, new ones refused."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def come(self) -> None:
        """Be there (again), on the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(64)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._spawn(self._accept, listener)

    def cut(self) -> None:
        """Cut every open connection."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.cut()

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Connections stay open, and nothing passes."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def cut_at_commit(self, of: bytes, how: Cut) -> None:
        """Cut the next connection that commits a transaction in which the client said `of`. Once."""
        self._released.clear()
        self._armed = (of, how)

    def release(self) -> None:
        """Let the COMMIT go to the server that is held back."""
        self._released.set()

    def _spawn(self, work: object, *args: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._target.host or "127.0.0.1", self._target.port or 5432))
            link = _Link(client, server)
            with self._lock:
                self._links.append(link)
            self._spawn(self._up, link)
            self._spawn(self._down, link)

    def _up(self, link: _Link) -> None:
        """From the client to the server."""
        with link.client, contextlib.suppress(OSError):
            while data := link.client.recv(65536):
                self._flows.wait()
                if BEGIN in data:
                    link.said.clear()
                link.said += data
                how = self._turn(link) if data.endswith(COMMIT) else None
                if how is not None:
                    self._commit(link, data, how)
                    return
                link.server.sendall(data)
            link.cut()

    def _turn(self, link: _Link) -> Cut | None:
        with self._lock:
            if self._armed is None or self._armed[0] not in link.said:
                return None
            how, self._armed = self._armed[1], None
            return how

    def _commit(self, link: _Link, data: bytes, how: Cut) -> None:
        link.deaf = True
        if how == "held":
            link.client.shutdown(socket.SHUT_RDWR)
            self.cuts += 1
            self._released.wait(30)
        if how != "unsent":
            link.server.sendall(data)
            assert link.committed.wait(10), "the server did not answer to COMMIT"
        if how != "held":
            self.cuts += 1
        link.cut()

    def _down(self, link: _Link) -> None:
        """From the server to the client."""
        with link.server, contextlib.suppress(OSError):
            while data := link.server.recv(65536):
                self._flows.wait()
                if not link.deaf:
                    link.client.sendall(data)
                elif b"COMMIT\x00" in data:
                    link.committed.set()
            link.cut()
